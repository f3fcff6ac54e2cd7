"""What tensors and operators must keep to in order to form a graph, cycles aside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cosma.errors import GraphError
from cosma.graph.tensor import Operator, Tensor, TensorKind


def check_roots(roots: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Refuse roots that are tensors too or have no shape, and parts of what is no root."""
    for root in roots.values():
        if root.name in tensors:
            raise GraphError(f"root {root.name!r} is a tensor as well; a tensor that was cut is its parts")
        if root.shape is None:
            raise GraphError(f"root {root.name!r} has no shape, so its parts lie nowhere in it")
    for tensor in tensors.values():
        if tensor.region is not None and tensor.region.root not in roots:
            raise GraphError(f"tensor {tensor.name!r} is a part of {tensor.region.root!r}, not a root of the graph")


def find_producers(operators: Iterable[Operator], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Find which operator produces each tensor; refuse names used twice and missing or second producers."""
    producer: dict[str, str] = {}
    names: set[str] = set()
    for operator in operators:
        if not operator.name or operator.name in names:
            raise GraphError(f"operator name {operator.name!r} is empty or used twice; names must be unique")
        names.add(operator.name)
        if not operator.outputs:
            raise GraphError(f"operator {operator.name!r} ({operator.type}) produces nothing")
        for result in operator.outputs:
            tensor = tensors.get(result)
            if tensor is None:
                raise GraphError(f"operator {operator.name!r} produces {result!r}, not a tensor of the graph")
            if tensor.starts_off_chip:
                raise GraphError(f"operator {operator.name!r} produces {result!r}, which is a graph {tensor.kind}")
            if result in producer:
                raise GraphError(
                    f"tensor {result!r} has two producers, {producer[result]!r} and {operator.name!r}"
                )
            producer[result] = operator.name
    for tensor in tensors.values():
        if not tensor.starts_off_chip and tensor.name not in producer:
            raise GraphError(f"nothing produces the {tensor.kind} tensor {tensor.name!r}")
    return producer


def check_operands(operators: Iterable[Operator], tensors: Mapping[str, Tensor]) -> None:
    """Refuse operands that are listed twice, no tensors, or weights among activations and the reverse."""
    for operator in operators:
        if len(set(operator.operands)) != len(operator.operands):
            raise GraphError(f"operator {operator.name!r} lists an operand twice; list each tensor once")
        for operand in operator.operands:
            tensor = tensors.get(operand)
            if tensor is None:
                raise GraphError(f"operator {operator.name!r} reads {operand!r}, not a tensor of the graph")
            if (tensor.kind is TensorKind.WEIGHT) != (operand in operator.weights):
                listed = "weights" if operand in operator.weights else "inputs"
                raise GraphError(
                    f"operator {operator.name!r} lists {operand!r} under {listed}, but its kind is {tensor.kind}"
                )
