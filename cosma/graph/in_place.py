"""Which operators may write a result over an operand.

An operator works in place where every element of the result depends only on the elements at the same position of
the operand that is overwritten, and the result is no larger than that operand. So does a step of a sum over the partial
sum that it adds to, and one that replaces elements of its first operand: written over it, it writes no others. A part
may go over the part at the same place of another root. The tables of operators are in :mod:`cosma.graph.semantics`.
"""

from __future__ import annotations

from cosma.graph.semantics import Overwrite, is_elementwise, is_update, overwrite_rules
from cosma.graph.tensor import Operator, Tensor


def may_overwrite(operator: Operator, result: Tensor, operand: Tensor) -> bool:
    """Whether ``operator`` may write ``result`` over ``operand`` by its type, shapes and sizes.

    Liveness is not looked at: the operand must also die with the operator. Where shapes are unknown (a graph
    built by hand, a plan file read alone), sizes stand in for them.
    """
    if operator.accumulation is not None:
        return _is_running_sum(operator, result, operand)
    if is_update(operator):
        return _updates(operator, result, operand)
    if not is_elementwise(operator) or result.name not in operator.outputs:
        return False
    if not _at_same_place(result, operand):
        return False
    if operator.joined and operand.region is not None:
        return False  # it may be a piece of what is read, and then lies elsewhere in that than in its own root
    if operand.name not in operator.operands or result.size_bytes > operand.size_bytes:
        return False
    if operand.shape is not None and result.shape is not None and operand.shape != result.shape:
        return False
    rules = overwrite_rules(operator)
    if operand.name != operator.operands[0] and rules == {Overwrite.FIRST}:
        return False
    return Overwrite.SAME_WIDTH not in rules or result.size_bytes == operand.size_bytes


def _is_running_sum(operator: Operator, result: Tensor, operand: Tensor) -> bool:
    """Whether a step of a sum adds to this operand to give this result."""
    assert operator.accumulation is not None
    sums, outputs = operator.accumulation.sums, operator.outputs
    at = outputs.index(result.name) if result.name in outputs else len(sums)
    return at < len(sums) and sums[at] == operand.name and result.size_bytes <= operand.size_bytes


def _updates(operator: Operator, result: Tensor, operand: Tensor) -> bool:
    """Whether a result is an operand with elements replaced: the first operand, whole and of the same type."""
    if operand.name not in operator.inputs[:1] or result.name not in operator.outputs:
        return False
    if result.region is not None or operand.region is not None or result.size_bytes != operand.size_bytes:
        return False
    known = None not in (operand.shape, result.shape, operand.dtype, result.dtype)
    return not known or (operand.shape, operand.dtype) == (result.shape, result.dtype)


def _at_same_place(result: Tensor, operand: Tensor) -> bool:
    """Whether parts lie at the same place of their roots; tensors that are no parts always do."""
    if result.region is None and operand.region is None:
        return True
    if result.region is None or operand.region is None:
        return False
    return (result.region.start, result.region.stop) == (operand.region.start, operand.region.stop)


def in_place_operands(operator: Operator, result: Tensor, operands: list[Tensor]) -> list[Tensor]:
    """Operands that ``result`` may take the place of, in operand order. Zero-byte tensors never qualify."""
    works = operator.accumulation is not None or is_elementwise(operator) or is_update(operator)
    if result.size_bytes == 0 or not works:
        return []
    return [operand for operand in operands if may_overwrite(operator, result, operand)]
