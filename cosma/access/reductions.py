"""Operators that reduce or normalise along some axes: those are needed whole, the others can be cut."""

from __future__ import annotations

from collections.abc import Callable

from cosma.access.boxes import Box
from cosma.access.elementwise import broadcast
from cosma.access.site import Access, Site, TileNode

AxesOf = Callable[[Site], frozenset[int] | None]


class Normalisation(Access):
    """A result of the first operand's shape, computed from all of some axes; others are one element along these.

    Parameters
    ----------
    axes
        The axes that are needed whole; None where they are not known.
    """

    def __init__(self, axes: AxesOf) -> None:
        self._axes = axes

    def cuts(self, site: Site) -> tuple[bool, ...]:
        """Return the axes that are not needed whole."""
        whole = self._axes(site)
        if whole is None:
            return (False,) * len(site.result)
        return tuple(i not in whole for i in range(len(site.result)))

    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """Return the region, whole along these axes; scales and offsets broadcast."""
        whole = self._axes(site)
        if whole is None:
            return tuple(site.all_of(i) for i in range(len(site.operands)))
        wide = tuple((0, size) if i in whole else box[i] for i, size in enumerate(site.result))
        by_channel = site.part.type == "InstanceNormalization"
        return tuple(
            None if shape is None else (wide[1],) if by_channel and i > 0 else broadcast(wide, shape, site.result)
            for i, shape in enumerate(site.operands)
        )

    def tile(self, site: Site, box: Box) -> TileNode | None:
        """Return the operator itself on the slices, of regions that are whole along these axes."""
        whole = self._axes(site)
        if whole is None or any(box[i] != (0, site.result[i]) for i in whole):
            return None
        return TileNode()


class Reduction(Access):
    """Reduce...: the axes reduced are needed whole, the others keep their order.

    Parameters
    ----------
    axes
        The axes reduced; None where they are not known.
    """

    def __init__(self, axes: AxesOf) -> None:
        self._axes = axes

    def _kept(self, site: Site) -> list[int | None] | None:
        """Axis of the operand behind each axis of the result; None for one that was reduced."""
        operand, axes = site.operands[0], self._axes(site)
        if operand is None or axes is None:
            return None
        kept = [None if i in axes else i for i in range(len(operand))]
        if site.integer("keepdims", 1):
            return kept
        return [i for i in kept if i is not None]

    def cuts(self, site: Site) -> tuple[bool, ...]:
        """Return the axes that are not reduced."""
        kept = self._kept(site)
        if kept is None:
            return (False,) * len(site.result)
        return tuple(i is not None for i in kept)

    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """Return the region, whole along the axes reduced."""
        kept, operand = self._kept(site), site.operands[0]
        found: list[Box | None] = [site.all_of(i) for i in range(len(site.operands))]
        if kept is None or operand is None:
            return tuple(found)
        wide = [(0, size) for size in operand]
        for i, axis in enumerate(kept):
            if axis is not None:
                wide[axis] = box[i]
        found[0] = tuple(wide)
        return tuple(found)


def softmax_axes(site: Site) -> frozenset[int]:
    """Axes over which Softmax and its like normalise: one from opset 13 on, all behind ``axis`` before."""
    rank = len(site.result)
    # QLinearSoftmax names the opset that it follows.
    if (site.integer("opset", 13) if site.part.domain else site.opset) >= 13:
        return frozenset({site.integer("axis", -1) % rank})
    return frozenset(range(site.integer("axis", 1) % rank, rank))


def trailing_axes(site: Site) -> frozenset[int]:
    """Axes from ``axis`` on, by default the last: LayerNormalization and its like."""
    rank = len(site.result)
    return frozenset(range(site.integer("axis", -1) % rank, rank))


def single_axis(site: Site) -> frozenset[int]:
    """Return the axis of the attribute ``axis``, by default the last."""
    return frozenset({site.integer("axis", -1) % len(site.result)})


def first_axis(site: Site) -> frozenset[int] | None:
    """Return the axis of the attribute ``axis`` of the operand, by default the first: ArgMax and its like."""
    operand = site.operands[0]
    return None if operand is None else frozenset({site.integer("axis", 0) % len(operand)})


def channel_axis(site: Site) -> frozenset[int]:
    """The second axis: LocalResponseNormalization, whose window of channels is the same whatever else is cut."""
    return frozenset({1}) if len(site.result) > 1 else frozenset()


def spatial_axes(site: Site) -> frozenset[int]:
    """All axes behind batch and channels: InstanceNormalization."""
    return frozenset(range(2, len(site.result)))


def all_but_batch(site: Site) -> frozenset[int]:
    """All axes but the first: normalisations over groups of channels."""
    return frozenset(range(1, len(site.result)))


def reduced_axes(site: Site) -> frozenset[int] | None:
    """Axes that a Reduce... operator reduces, given as an attribute or as an operand."""
    operand = site.operands[0]
    if operand is None:
        return None
    given = site.part.attribute("axes")
    if given is None:
        if site.shape(1) is not None and 1 not in site.contents:
            return None
        given = tuple(int(v) for v in site.contents.get(1, ()))
    axes = given if isinstance(given, tuple) else (given,)
    if not axes:
        return frozenset() if site.integer("noop_with_empty_axes", 0) else frozenset(range(len(operand)))
    return frozenset(int(a) % len(operand) for a in axes)
