"""Elementwise operators: each element of the result needs the elements at its position, broadcast as numpy does."""

from __future__ import annotations

from cosma.access.boxes import Box
from cosma.access.site import Access, Shape, Site

#: Operators whose operands from the second on have one value per channel (axis 1).
_PER_CHANNEL = frozenset({"BatchNormalization"})
#: Operators whose operands from the second on lie along the attribute ``axis``.
_PER_AXIS = frozenset({"QuantizeLinear", "DequantizeLinear"})


class Elementwise(Access):
    """Rule of the elementwise table."""

    def cuts(self, site: Site) -> tuple[bool, ...]:
        """Every axis, unless a scale covers a block of elements."""
        if self._is_blocked(site):
            return (False,) * len(site.result)
        return (True,) * len(site.result)

    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """Operands at the same positions; a vector along the axis that it scales."""
        if self._is_blocked(site):
            return tuple(site.all_of(i) for i in range(len(site.operands)))
        found: list[Box | None] = []
        for i, shape in enumerate(site.operands):
            if shape is None:
                found.append(None)
            elif i > 0 and site.part.type in _PER_CHANNEL:
                found.append((box[1],) if len(box) > 1 and shape == (site.result[1],) else site.all_of(i))
            elif i > 0 and site.part.type in _PER_AXIS:
                axis = site.integer("axis", 1) % max(1, len(box))
                found.append((box[axis],) if len(shape) == 1 and box and shape[0] == site.result[axis]
                             and shape[0] != 1 else site.all_of(i))  # fmt: skip
            else:
                found.append(broadcast(box, shape, site.result))
        return tuple(found)

    def _is_blocked(self, site: Site) -> bool:
        scale = site.shape(1)
        if site.part.type not in _PER_AXIS or scale is None:
            return False
        return site.integer("block_size", 0) != 0 or len(scale) > 1


def broadcast(box: Box, shape: Shape, result: Shape) -> Box:
    """Region of an operand that is broadcast to the result; all of one that does not broadcast by numpy's rule."""
    offset = len(result) - len(shape)
    if offset < 0 or any(size not in (1, result[offset + i]) for i, size in enumerate(shape)):
        return tuple((0, size) for size in shape)
    return tuple(
        box[offset + i] if size == result[offset + i] else (0, size) for i, size in enumerate(shape)
    )
