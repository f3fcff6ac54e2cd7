"""Operators that select with constant indices: which boxes of their first operand they read.

One function per operator type, in one table. What no function covers, and what is no box, counts as reading all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from cosma.graph.region import Region, box_of_range

if TYPE_CHECKING:
    from cosma.frontend.evaluate import Evaluator
    from cosma.frontend.nodes import Node
    from cosma.frontend.values import Operands, Value

#: Most boxes of one operand: an operator that reads more counts as reading all of it.
MOST_BOXES = 64

#: Half-open interval along every axis.
Box = tuple[tuple[int, int], ...]


def selected_boxes(node: Node, operands: Operands, evaluator: Evaluator) -> tuple[Box, ...]:
    """Boxes of a node's first operand outside of which its results depend on nothing; none where that may be all."""
    rule = None if node.domain else _RULES.get(node.type)
    first = operands[0] if operands else None
    if rule is None or first is None or first.constant or first.elements is not None or not first.count:
        return ()
    if sum(operand is not None and operand.root == first.root for operand in operands) > 1:
        return ()
    boxes = tuple(dict.fromkeys(rule(node, operands, first.shape, evaluator) or ()))
    whole = tuple((0, size) for size in first.shape)
    return boxes if 0 < len(boxes) <= MOST_BOXES and whole not in boxes else ()


def boxes_in_root(
    root: str, shape: tuple[int, ...], boxes: Sequence[Box], seen_as: tuple[int, ...]
) -> tuple[Region, ...]:
    """Boxes of a view of this shape, as boxes of the tensor that holds its bytes; none where one is no box there."""
    regions = []
    for box in boxes:
        region: Region | None = Region.of_box(root, box)
        if seen_as != shape:
            assert region is not None
            start = region.offset(seen_as)
            region = None if start is None else box_of_range(root, shape, start, start + region.count)
        if region is None:
            return ()
        regions.append(region)
    return tuple(regions)


def _content(operand: Value | None, evaluator: Evaluator) -> list[int] | None:
    """Elements of a constant, flat."""
    array = evaluator.array(operand) if operand is not None and operand.constant else None
    return None if array is None else [int(x) for x in array.reshape(-1).tolist()]


def _along(shape: tuple[int, ...], axis: int, indices: Iterable[int]) -> list[Box] | None:
    """Whole slices at some positions of one axis, neighbours joined."""
    size = shape[axis]
    found = sorted({i + size if i < 0 else i for i in indices})
    if not found or found[0] < 0 or found[-1] >= size:
        return None
    starts = [found[0], *(b for a, b in pairwise(found) if b > a + 1)]
    stops = [*(a + 1 for a, b in pairwise(found) if b > a + 1), found[-1] + 1]
    whole = tuple((0, d) for d in shape)
    return [(*whole[:axis], span, *whole[axis + 1 :]) for span in zip(starts, stops, strict=True)]


def _gather(node: Node, operands: Operands, shape: tuple[int, ...], evaluator: Evaluator) -> list[Box] | None:
    indices = _content(operands[1], evaluator)
    axis = node.integer("axis", 0) or 0
    if indices is None or not -len(shape) <= axis < len(shape):
        return None
    return _along(shape, axis % len(shape), indices)


def _gather_elements(
    node: Node, operands: Operands, shape: tuple[int, ...], evaluator: Evaluator
) -> list[Box] | None:
    """The box around all that is read."""
    indices, axis = _content(operands[1], evaluator), node.integer("axis", 0) or 0
    index = operands[1]
    if indices is None or index is None or not -len(shape) <= axis < len(shape):
        return None
    axis %= len(shape)
    rows = _along(shape, axis, indices)
    if not rows:
        return None
    box = [(0, size) for size in index.shape]
    box[axis] = (rows[0][axis][0], rows[-1][axis][1])
    return [tuple(box)]


def _gather_nd(node: Node, operands: Operands, shape: tuple[int, ...], evaluator: Evaluator) -> list[Box] | None:
    indices, index = _content(operands[1], evaluator), operands[1]
    if indices is None or index is None or not index.shape or node.integer("batch_dims", 0):
        return None
    depth = index.shape[-1]
    if depth == 1:
        return _along(shape, 0, indices)
    boxes = []
    for at in range(0, len(indices), depth):
        tuple_ = [i + size if i < 0 else i for i, size in zip(indices[at : at + depth], shape, strict=False)]
        if not all(0 <= i < size for i, size in zip(tuple_, shape, strict=False)):
            return None
        boxes.append((*((i, i + 1) for i in tuple_), *((0, size) for size in shape[depth:])))
    return boxes


def _slice(node: Node, operands: Operands, shape: tuple[int, ...], evaluator: Evaluator) -> list[Box] | None:
    """One box where steps are 1; where they are longer, the box around what is read."""
    if len(operands) > 1:
        given = [_content(operand, evaluator) for operand in operands[1:]]
        if any(operand is not None and content is None for operand, content in zip(operands[1:], given, strict=True)):
            return None
        starts, ends, axes, steps = (*given, None, None)[:4]
    else:
        starts, ends = list(node.integers("starts") or ()), list(node.integers("ends") or ())
        axes, steps = (None if node.integers("axes") is None else list(node.integers("axes") or ())), None
    if starts is None or ends is None:
        return None
    box = [(0, size) for size in shape]
    order = list(range(len(starts))) if axes is None else axes
    for i, axis in enumerate(order):
        if not -len(shape) <= axis < len(shape):
            return None
        positions = range(shape[axis])[slice(starts[i], ends[i], steps[i] if steps is not None else 1)]
        if not positions:
            return None
        box[axis % len(shape)] = (min(positions), max(positions) + 1)
    return [tuple(box)]


_RULES: dict[str, Callable[[Node, Operands, tuple[int, ...], Evaluator], list[Box] | None]] = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Slice": _slice,
}
