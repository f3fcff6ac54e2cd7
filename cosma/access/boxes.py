"""Boxes: regions of a tensor, one half-open interval for each axis."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

#: ``((start, stop), ...)``, half-open, one interval for each axis; ``()`` is the one element of a scalar.
Box = tuple[tuple[int, int], ...]


def whole(shape: Sequence[int]) -> Box:
    """Box that covers a tensor."""
    return tuple((0, size) for size in shape)


def box_shape(box: Box) -> tuple[int, ...]:
    """Extent of a box along each axis."""
    return tuple(stop - start for start, stop in box)


def element_count(box: Box) -> int:
    """Number of elements of a box."""
    return prod(box_shape(box))


def region_of_result(box: Box, first: Sequence[int], shape: Sequence[int]) -> Box:
    """Region of one of several results that belongs to a region of the first: along axes of another extent all of it.

    All of it where the two have different ranks.
    """
    if len(shape) != len(first):
        return whole(shape)
    return tuple(span if size == own else (0, size) for span, size, own in zip(box, shape, first, strict=True))


def intersection(one: Box, other: Box) -> Box | None:
    """Box of the elements that two boxes of one tensor share; None where there are none."""
    both = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))
    return both if all(start < stop for start, stop in both) else None


def hull(boxes: Sequence[Box]) -> Box:
    """Smallest box that contains all of at least one box."""
    return tuple((min(i[0] for i in axis), max(i[1] for i in axis)) for axis in zip(*boxes, strict=True))


def slices(box: Box) -> tuple[slice, ...]:
    """Box as an index of an array."""
    return tuple(slice(start, stop) for start, stop in box)


def moved(box: Box, origin: Sequence[int]) -> Box:
    """Box in the coordinates of a box that starts at ``origin``."""
    return tuple((start - o, stop - o) for (start, stop), o in zip(box, origin, strict=True))


def through_reshape(box: Box, shape: Sequence[int], target: Sequence[int]) -> Box:
    """Smallest box of a tensor of shape ``target`` that contains the elements of a box in ``shape``, which has as many.

    Elements keep their row-major order, as in Reshape.
    """
    if tuple(shape) == tuple(target):
        return box
    if prod(shape) == 0:
        return whole(target)
    found: list[tuple[int, int]] = []
    for axes, target_axes in grouped_axes(shape, target):
        found.extend(_linear_hull([box[a] for a in axes], [shape[a] for a in axes], [target[a] for a in target_axes]))
    return tuple(found)


def grouped_axes(shape: Sequence[int], target: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Split the axes of two shapes of as many elements into the smallest runs that hold the same elements."""
    groups = []
    i = j = 0
    while i < len(shape) or j < len(target):
        left, right = [], []
        a = b = 1
        if i < len(shape):
            left.append(i)
            a = shape[i]
            i += 1
        if j < len(target):
            right.append(j)
            b = target[j]
            j += 1
        while a != b:
            if a < b:
                left.append(i)
                a *= shape[i]
                i += 1
            else:
                right.append(j)
                b *= target[j]
                j += 1
        groups.append((left, right))
    return groups


def _linear_hull(
    box: Sequence[tuple[int, int]], shape: Sequence[int], target: Sequence[int]
) -> list[tuple[int, int]]:
    """Hull, in the target's axes, of the elements of a box, both in row-major order."""
    if len(target) == 1 and len(shape) == 1:
        return list(box)
    # Axes of the box that are whole from some axis on make runs of consecutive elements.
    run = len(shape)
    while run > 0 and box[run - 1] == (0, shape[run - 1]):
        run -= 1
    stride = prod(shape[run:])
    first = last = 0
    for (start, stop), size in zip(box[:run], shape[:run], strict=True):
        first = first * size + start
        last = last * size + stop - 1
    first, last = first * stride, last * stride + stride - 1
    # Outer axes longer than one leave gaps between runs; the hull covers them too.
    return _interval_hull(first, last, target)


def _interval_hull(first: int, last: int, target: Sequence[int]) -> list[tuple[int, int]]:
    """Smallest box that contains the elements ``first`` to ``last``, inclusive, in row-major order."""
    found: list[tuple[int, int]] = []
    same = True
    for axis in range(len(target)):
        inner = prod(target[axis + 1 :])
        if same:
            a, b = first // inner % target[axis], last // inner % target[axis]
            found.append((a, b + 1))
            same = a == b
        else:
            found.append((0, target[axis]))
    return found
