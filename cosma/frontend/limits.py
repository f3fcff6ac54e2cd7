"""The most that a result can hold whose size is known only when the model runs.

Memory must be planned for the most there can be, so an operator that limits its own result is planned for that limit,
and a note says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cosma.frontend.evaluate import Evaluator
from cosma.frontend.nodes import Node
from cosma.frontend.values import Operands


@dataclass(frozen=True, slots=True)
class Limit:
    """Largest shape of a result."""

    #: Most elements along each axis; None where there is no limit.
    shape: tuple[int | None, ...]
    #: What limits it.
    why: str
    #: Axes along which a run may hold less; None for all. Along the others the size is the limit, whatever is given.
    varies: frozenset[int] | None = None

    def is_exact(self, axis: int) -> bool:
        """Whether a result has this size along an axis in every run."""
        return self.varies is not None and axis not in self.varies


Rule = Callable[[Node, Operands, int, Evaluator], Limit | None]


def limit_of(node: Node, operands: Operands, index: int, evaluator: Evaluator) -> Limit | None:
    """Largest shape of a node's result; None where nothing is known."""
    rule = _LIMITS.get((node.domain, node.type))
    return None if rule is None else rule(node, operands, index, evaluator)


def _shape(operands: Operands, position: int) -> tuple[int, ...] | None:
    operand = operands[position] if position < len(operands) else None
    return None if operand is None else operand.shape


def _number(operands: Operands, position: int, evaluator: Evaluator) -> int | None:
    """A scalar operand's value; None where it is not known in advance."""
    operand = operands[position] if position < len(operands) else None
    array = evaluator.array(operand) if operand is not None and operand.constant else None
    return int(array.reshape(())) if array is not None and array.size == 1 else None


def _non_max_suppression(node: Node, operands: Operands, index: int, evaluator: Evaluator) -> Limit | None:
    """Each image and class keeps at most so many boxes; none where the operand is left out."""
    boxes, scores = _shape(operands, 0), _shape(operands, 1)
    if boxes is None or scores is None or len(boxes) != 3 or len(scores) != 3:
        return None
    each = boxes[1]
    absent = len(operands) < 3 or operands[2] is None
    most = 0 if absent else _number(operands, 2, evaluator)
    if most is not None:
        each = min(each, max(most, 0))
    return Limit((scores[0] * scores[1] * each, 3), f"{scores[0]} images, {scores[1]} classes, {each} boxes of each")


def _non_zero(node: Node, operands: Operands, index: int, evaluator: Evaluator) -> Limit | None:
    shape = _shape(operands, 0)
    return None if shape is None or operands[0] is None else Limit((len(shape), operands[0].count), "every element")


def _compress(node: Node, operands: Operands, index: int, evaluator: Evaluator) -> Limit | None:
    """As many as the condition has elements, or the operand along the axis."""
    shape, condition = _shape(operands, 0), _shape(operands, 1)
    if shape is None or condition is None or operands[0] is None or len(condition) != 1:
        return None
    axis = node.integer("axis")
    if axis is None:
        return Limit((min(operands[0].count, condition[0]),), "every element")
    if not -len(shape) <= axis < len(shape):
        return None
    axis %= len(shape)
    most = min(shape[axis], condition[0])
    return Limit((*shape[:axis], most, *shape[axis + 1 :]), "every slice along the axis", frozenset((axis,)))


def _unique(node: Node, operands: Operands, index: int, evaluator: Evaluator) -> Limit | None:
    shape = _shape(operands, 0)
    if shape is None or operands[0] is None:
        return None
    axis = node.integer("axis")
    if axis is None:
        return Limit((operands[0].count,), "all elements differ")
    if not -len(shape) <= axis < len(shape):
        return None
    axis %= len(shape)
    why = "all slices along the axis differ"
    return Limit(shape, why, frozenset((axis,))) if index == 0 else Limit((shape[axis],), why)


def _top_k(node: Node, operands: Operands, index: int, evaluator: Evaluator) -> Limit | None:
    shape = _shape(operands, 0)
    axis = node.integer("axis", -1)
    if shape is None or axis is None or not -len(shape) <= axis < len(shape):
        return None
    return Limit(shape, "no more than there are along the axis", frozenset((axis % len(shape),)))


def _slice(node: Node, operands: Operands, index: int, evaluator: Evaluator) -> Limit | None:
    shape, starts = _shape(operands, 0), _shape(operands, 1)
    if shape is None:
        return None
    return Limit(shape, "a slice is no longer than what it is taken from", _sliced(operands, shape, starts, evaluator))


def _sliced(
    operands: Operands, shape: tuple[int, ...], starts: tuple[int, ...] | None, evaluator: Evaluator
) -> frozenset[int] | None:
    """Axes that a Slice cuts; None where they are not known in advance."""
    axes = operands[3] if len(operands) > 3 else None
    if axes is None:
        return None if starts is None or len(starts) != 1 else frozenset(range(min(starts[0], len(shape))))
    array = evaluator.array(axes) if axes.constant else None
    return None if array is None else frozenset(int(axis) % len(shape) for axis in array.ravel())


def _remove_padding(node: Node, operands: Operands, index: int, evaluator: Evaluator) -> Limit | None:
    shape = _shape(operands, 0)
    if shape is None or len(shape) != 3 or index:
        return None
    return Limit((shape[0] * shape[1], shape[2]), "no token is padding")


def _grouped_attention(node: Node, operands: Operands, index: int, evaluator: Evaluator) -> Limit | None:
    """A cache whose length behind is not known is the buffer that it lies in before, updated in place."""
    before = _shape(operands, 3)
    if before is None or len(before) != 4 or index not in (1, 2):
        return None
    return Limit((None, None, before[2], None), "the cache is a buffer that is updated in place")


_LIMITS: dict[tuple[str, str], Rule] = {
    ("", "Compress"): _compress,
    ("", "NonMaxSuppression"): _non_max_suppression,
    ("", "NonZero"): _non_zero,
    ("", "Slice"): _slice,
    ("", "TopK"): _top_k,
    ("", "Unique"): _unique,
    ("com.microsoft", "GroupQueryAttention"): _grouped_attention,
    ("com.microsoft", "RemovePadding"): _remove_padding,
    ("com.microsoft", "Unique"): _unique,
}
