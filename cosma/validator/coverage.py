"""Whether a plan's operators stand for a model's nodes: each node once, groups of nodes only where that is legal.

A group is a path: each operator after the first is elementwise over the only result of the one before, which nothing
else reads. Before the first may stand the nodes that dequantise its operands; dequantising is part of every operator
that reads the result, so several operators may read the quantised tensor, and one of them covers the node.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from cosma.graph import Graph, TensorKind
from cosma.graph.semantics import CARRYING, is_elementwise, is_random, is_training
from cosma.graph.tensor import joined_type

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.graph import Operator, Part, Tensor


@dataclass(frozen=True, slots=True)
class Coverage:
    """How a plan's graph compares with a model's."""

    #: What is wrong, one sentence each; none where the plan covers the model.
    differences: tuple[str, ...]
    #: How many of the model's operators are in the plan as they should be, alone or in a group.
    matching: int
    #: The plan's graph, with what the model says of its tensors and operators: shapes, element types, attributes.
    graph: Graph

    def informed(self, planned: Graph) -> Graph:
        """A plan's graph, cut or not, with what the model says of its tensors and operators."""
        known = self.graph.tensors
        tensors = [
            replace(t, dtype=known[t.name].dtype, shape=known[t.name].shape) if t.name in known else t
            for t in planned.tensors.values()
        ]
        operators = []
        for operator in planned.operators:
            means = self.graph.operator(operator.name if operator.tile is None else operator.tile.root)
            operators.append(replace(
                operator, type=means.type, domain=means.domain, attributes=means.attributes, fused=means.fused
            ))  # fmt: skip
        return planned.replace(tensors=tensors, operators=operators)


def compare(planned: Graph, model: Graph) -> Coverage:
    """Compare a plan's graph with a model's, by the nodes its operators cover, or by results where none are listed.

    The model's has an operator for each node or for groups of nodes; a plan may group further.
    """
    comparison = _Comparison(planned, model)
    operators = [comparison.check(operator) for operator in planned.operators]
    for operator in model.operators:
        if operator.name not in comparison.claimed:
            comparison.wrong.append(f"operator {operator.name!r} ({operator.type}) of the model is missing")
    tensors = [comparison.tensor(tensor) for tensor in planned.tensors.values()]
    known = planned.replace(tensors=tensors, operators=operators)
    return Coverage(tuple(comparison.wrong), comparison.matching, known)


class _Comparison:
    def __init__(self, planned: Graph, model: Graph) -> None:
        self.model = model
        self.wrong: list[str] = []
        self.matching = 0
        self.claimed: dict[str, str] = {}
        self._own = {o.covers[0]: o for o in model.operators if o.covers}
        self._touched = {name for o in planned.operators for name in (*o.operands, *o.outputs)}

    # -- tensors ------------------------------------------------------------------------------------------

    def tensor(self, planned: Tensor) -> Tensor:
        """Check a tensor; it comes back with the model's shape and element type."""
        name = planned.name
        if name not in self.model.tensors:
            if name in self._touched:
                self.wrong.append(f"tensor {name!r} is not in the model")
            return planned
        known = self.model.tensors[name]
        if (planned.size_bytes, planned.kind) != (known.size_bytes, known.kind):
            self.wrong.append(
                f"tensor {name!r} is of kind {known.kind} and has {known.size_bytes} bytes in the model, of kind "
                f"{planned.kind} with {planned.size_bytes} in the plan"
            )
            return planned
        if planned.rows != known.rows:
            table = "no row set" if known.rows is None else f"rows of {known.rows.table!r} by {known.rows.indices}"
            self.wrong.append(f"tensor {name!r} is {table} in the model; the plan says otherwise")
        return replace(planned, dtype=known.dtype, shape=known.shape)

    def _through(self, name: str) -> Operator | None:
        """The node that dequantises a tensor, or gives back what was dequantised: readers may read its operand."""
        producer = self.model.producer(name)
        maker = None if producer is None else self.model.operator(producer)
        return maker if maker is not None and (_is(maker, "DequantizeLinear") or self._gives_back(maker)) else None

    def _gives_back(self, operator: Operator) -> bool:
        """Whether a node quantises with the one scale that its operand was dequantised with."""
        if not _is(operator, "QuantizeLinear") or len(operator.inputs) != 1:
            return False
        producer = self.model.producer(operator.inputs[0])
        before = None if producer is None else self.model.operator(producer)
        if before is None or not _is(before, "DequantizeLinear") or len(before.inputs) != 1:
            return False
        same_type = self.model.tensors[before.inputs[0]].dtype == self.model.tensors[operator.outputs[0]].dtype
        scalar = all(_count(self.model.tensors[name]) == 1 for name in operator.weights)
        return same_type and scalar and bool(operator.weights) and before.weights == operator.weights

    def _stand_ins(self, name: str, given: set[str]) -> tuple[set[str], set[str]] | None:
        """Operands and weights by which an operator reads a tensor; None where it does not."""
        if name in given:
            return {name}, set()
        maker = self._through(name)
        if maker is None:
            return None
        operands: set[str] = set()
        weights = set() if self._gives_back(maker) else set(maker.weights)
        for operand in maker.inputs:
            found = self._stand_ins(operand, given)
            if found is None:
                return None
            operands |= found[0]
            if not self._gives_back(maker):
                weights |= found[1]
        return operands, weights

    # -- operators ----------------------------------------------------------------------------------------

    def check(self, operator: Operator) -> Operator:
        """Check an operator of the plan; it comes back with what the model says it is."""
        nodes = self._nodes(operator)
        before = len(self.wrong)
        if not nodes:
            self.wrong.append(f"operator {operator.name!r} is not in the model")
            return operator
        stray = set(operator.covers).difference(*(node.covers for node in nodes))
        if stray:
            self.wrong.append(f"operator {operator.name!r} lists {min(stray)!r}, which is none of its nodes")
        for node in nodes:
            other = self.claimed.setdefault(node.name, operator.name)
            if other != operator.name:
                self.wrong.append(f"node {node.name!r} is covered twice, by {other!r} and {operator.name!r}")
        body = self._body(operator, nodes)
        self._check_path(operator, body)
        parts = self._check_operands(operator, nodes, body)
        single = body[0] if len(body) == 1 and len(parts) == len(body[0].parts) else None
        kind = single.type if single is not None else joined_type(parts)
        if kind != operator.type:
            self.wrong.append(f"operator {operator.name!r} is a {kind} in the model, a {operator.type} in the plan")
        if len(self.wrong) > before:
            return operator
        self.matching += len(nodes)
        if single is not None:
            return replace(operator, domain=single.domain, attributes=single.attributes, fused=single.fused)
        return replace(operator, fused=tuple(parts))

    def _nodes(self, operator: Operator) -> list[Operator]:
        """The model's operators that one of the plan stands for, in the model's order."""
        found = [self._own[name] for name in dict.fromkeys(operator.covers) if name in self._own]
        if not found and all(name in self.model.tensors for name in operator.outputs):
            found = self._behind(operator)
        return sorted(found, key=lambda node: self.model.operator_index(node.name))

    def _behind(self, operator: Operator) -> list[Operator]:
        """Operators between an operator's results and its operands, where it lists no nodes."""
        found: dict[str, Operator] = {}
        waiting, given = list(operator.outputs), set(operator.operands)
        while waiting:
            producer = self.model.producer(waiting.pop())
            if producer is None or producer in found:
                continue
            node = found[producer] = self.model.operator(producer)
            waiting += [name for name in node.operands if name not in given]
        return list(found.values())

    def _body(self, operator: Operator, nodes: Sequence[Operator]) -> list[Operator]:
        """The nodes of a path: without those that only dequantise operands or give back what was dequantised."""
        passing = [node for node in nodes if not set(node.outputs) & set(operator.outputs) and self._passes(node)]
        return [node for node in nodes if node not in passing] or list(nodes)

    def _passes(self, node: Operator) -> bool:
        return _is(node, "DequantizeLinear") or self._gives_back(node)

    def _check_path(self, operator: Operator, body: Sequence[Operator]) -> None:
        made = {name for node in body for name in node.outputs}
        drawn = any(is_random(part) or is_training(part) for part in body[0].parts)
        for node in body[1:]:
            links = [name for name in node.inputs if self._inside(name, made)]
            size = _size(self.model.tensors[node.outputs[0]])
            if len(links) != 1 or not self._read_once(links[0], made):
                why = "it does not follow the others on a path of single readers"
            elif drawn:
                why = f"{body[0].name!r} runs in training mode or draws random numbers"
            elif not is_elementwise(node) or _size(self.model.tensors[links[0]]) != size:
                why = f"{node.type} is not elementwise over what it follows"
            else:
                continue
            self.wrong.append(f"operator {operator.name!r} cannot stand for {node.name!r} as well: {why}")

    def _inside(self, name: str, made: set[str]) -> bool:
        """Whether a tensor is made within a group, or dequantised from one that is."""
        if name in made:
            return True
        maker = self._through(name)
        return maker is not None and any(self._inside(operand, made) for operand in maker.inputs)

    def _read_once(self, name: str, made: set[str]) -> bool:
        """Whether a tensor, and where it is dequantised what is made within, has one reader and is no output."""
        if self.model.tensors[name].kind is TensorKind.OUTPUT or len(self.model.consumers(name)) != 1:
            return False
        maker = self._through(name) if name not in made else None
        return maker is None or all(self._read_once(n, made) for n in maker.inputs if self._inside(n, made))

    def _check_operands(self, operator: Operator, nodes: Sequence[Operator], body: Sequence[Operator]) -> list[Part]:
        """Check what an operator reads and writes; the parts it consists of by the model."""
        made = {name for node in body for name in node.outputs}
        given = set(operator.operands)
        wanted: set[str] = set()
        scales: set[str] = set()
        parts: list[Part] = []
        readable = True
        for node in body:
            dequantised: list[Part] = []
            for name in node.inputs:
                if name in made:
                    continue
                found = self._stand_ins(name, given | made)
                maker = self._through(name)
                readable = readable and found is not None
                if found is not None:
                    wanted |= found[0] - made
                    scales |= found[1]
                if name not in given and maker is not None and _is(maker, "DequantizeLinear"):
                    dequantised = [maker.parts[0]]
            parts += [*dequantised, *node.parts]
        weights = {name for node in body for name in node.weights}
        own = set(body[0].weights)
        quantising = [node for node in body if _is(node, "QuantizeLinear")]
        carried = body[0].type in CARRYING and quantising and len(body) == 1 + len(quantising)
        # With one scale before and behind, an operator that carries elements over reads none.
        one_scale = carried and all(set(node.weights) == scales for node in quantising)
        plain = one_scale and wanted | own == given and set(operator.weights) == own
        exact = wanted | weights | scales == given and set(operator.inputs) <= wanted
        if not readable or not (plain or exact):
            self.wrong.append(f"operator {operator.name!r} reads other tensors in the model than in the plan")
        self._check_results(operator, nodes)
        return parts

    def _check_results(self, operator: Operator, nodes: Sequence[Operator]) -> None:
        inside = {node.name for node in nodes}
        made = {name for node in nodes for name in node.outputs}
        for name in sorted(made - set(operator.outputs)):
            readers = self.model.consumers(name)
            used = self.model.tensors[name].kind is TensorKind.OUTPUT or set(readers) - inside
            if (used or not readers) and not self._replaced(name):
                self.wrong.append(f"operator {operator.name!r} does not yield {name!r}, which it does in the model")
        for name in operator.outputs:
            if name not in made:
                self.wrong.append(f"operator {operator.name!r} yields {name!r}, not so in the model")

    def _replaced(self, name: str) -> bool:
        """Whether every reader of a tensor may read something else instead."""
        return self.model.tensors[name].kind is not TensorKind.OUTPUT and self._through(name) is not None


def _is(operator: Operator, kind: str) -> bool:
    return not operator.fused and operator.type == kind and operator.domain in ("", "com.microsoft")


def _count(tensor: Tensor) -> int | None:
    return None if tensor.shape is None else prod(tensor.shape)


def _size(tensor: Tensor) -> tuple[str, int]:
    """Number of elements, or of bytes where the shape is unknown."""
    count = _count(tensor)
    return ("bytes", tensor.size_bytes) if count is None else ("elements", count)
