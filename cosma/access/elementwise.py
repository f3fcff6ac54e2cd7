"""Elementwise operators: each element of the result needs the elements at its position, broadcast as numpy does."""

from __future__ import annotations

from math import prod

from cosma.access.boxes import Box, whole
from cosma.access.site import Access, Shape, Site, TileNode

#: Operators whose operands from the second on have one value per channel (axis 1).
_PER_CHANNEL = frozenset({"BatchNormalization"})
#: Operators whose operands from the second on lie along the attribute ``axis``.
_PER_AXIS = frozenset({"QuantizeLinear", "DequantizeLinear"})
#: First opset whose operators broadcast as numpy does.
NUMPY_OPSET = 7


class Elementwise(Access):
    """Rule of the elementwise table."""

    def cuts(self, site: Site) -> tuple[bool, ...]:
        """Every axis, unless a scale covers a block of elements or an operand does not broadcast."""
        if self._is_whole(site):
            return (False,) * len(site.result)
        return (True,) * len(site.result)

    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """Operands at the same positions; a vector along the axis that it scales."""
        if self._is_whole(site):
            return tuple(site.all_of(i) for i in range(len(site.operands)))
        found: list[Box | None] = []
        for i, shape in enumerate(site.operands):
            if shape is None:
                found.append(None)
            elif i > 0 and site.part.type in _PER_CHANNEL:
                found.append((box[1],))
            elif i > 0 and site.part.type in _PER_AXIS:
                axis = site.integer("axis", 1) % max(1, len(box))
                found.append((box[axis],) if len(shape) == 1 and box and shape[0] == site.result[axis]
                             and shape[0] != 1 else site.all_of(i))  # fmt: skip
            elif _is_legacy(site) and prod(shape) != 1:
                start = legacy_axis(site.part.type, site.part.attribute("axis"), site.result, shape)
                assert start is not None
                found.append(box[start : start + len(shape)])
            else:
                found.append(broadcast(box, shape, site.result))
        return tuple(found)

    def tile(self, site: Site, box: Box) -> TileNode | None:
        """The operator itself on the slices, or all of it."""
        return None if self._is_whole(site) and box != whole(site.result) else TileNode()

    def _is_whole(self, site: Site) -> bool:
        kind = site.part.type
        if kind in _PER_AXIS:
            scale = site.shape(1)
            return scale is not None and (site.integer("block_size", 0) != 0 or len(scale) > 1)
        others = [(i, shape) for i, shape in enumerate(site.operands) if i > 0 and shape is not None]
        if kind in _PER_CHANNEL:  # before opset 9 it may have one value per element
            return any(shape != site.result[1:2] for _, shape in others)
        return _is_legacy(site) and any(
            prod(shape) != 1 and legacy_axis(kind, site.part.attribute("axis"), site.result, shape) is None
            for _, shape in others
        )


def _is_legacy(site: Site) -> bool:
    return site.opset < NUMPY_OPSET and not site.part.domain


def legacy_axis(kind: str, axis: object, first: Shape, shape: Shape) -> int | None:
    """Axis of the first operand from which another's lie, before opset 7; None where its shape does not fit there."""
    start = len(first) - len(shape)
    if start > 0 and kind == "PRelu" and len(shape) == 1:
        start = 1
    elif start > 0 and isinstance(axis, int):
        start = axis % len(first)
    return start if start >= 0 and first[start : start + len(shape)] == shape else None


def broadcast(box: Box, shape: Shape, result: Shape) -> Box:
    """Region of an operand that is broadcast to the result; all of one that does not broadcast by numpy's rule."""
    offset = len(result) - len(shape)
    if offset < 0 or any(size not in (1, result[offset + i]) for i, size in enumerate(shape)):
        return whole(shape)
    return tuple(
        box[offset + i] if size == result[offset + i] else (0, size) for i, size in enumerate(shape)
    )
