"""What slices of an operator's result read of each operand, as tables of intervals for every position of an axis."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cosma.access.operator import OperatorAccess, SumStep
from cosma.tiling.axes import Axes, slab

#: Slices that are looked at one by one; not measured.
FEW_SLICES = 8
#: Where an operand's interval along an axis comes from: all of it, the tile's rows, channels or columns, or its
#: interval of the axis summed over.
ALL, BY_ROWS, BY_CHANNELS, BY_COLUMNS, BY_SUM = 0, 1, 2, 3, 4
#: Which steps of a chain of partial sums read an operand.
EVERY_STEP, FIRST_STEP, LAST_STEP = 0, 1, 2

#: Where intervals start and stop, by position.
Intervals = tuple[tuple[int, ...], tuple[int, ...]]


class Touch(NamedTuple):
    """What an operator reads of one operand.

    Attributes
    ----------
    axes
        For rows, channels and columns: what they follow, and the interval for each position of that; none for all.
    read_by
        Which steps of a chain of partial sums read it.
    """

    axes: tuple[tuple[int, Intervals | None], ...]
    read_by: int


#: What operators read, by what decides it: that of like operators is found out once.
Touches = dict[Hashable, tuple[Touch, ...]]


def touches_of(
    one: OperatorAccess, axes: Mapping[str, Axes], extents: Sequence[int], known: Touches
) -> tuple[Touch, ...]:
    """What an operator reads of each of its operands.

    Parameters
    ----------
    axes
        Rows, channels and columns of every tensor.
    extents
        Into how many rows, channels, columns and partial sums the operator can be cut at the most.
    known
        Operators looked at before, to which this one is added.
    """
    operands = tuple(dict.fromkeys(one.operator.operands))
    key = one.likeness(), tuple(axes[name] for name in (*operands, one.result)), tuple(extents)
    if key not in known:
        probes = {
            source: _Probe(one, axis, extent)
            for source, axis, extent in zip(
                (BY_ROWS, BY_CHANNELS, BY_COLUMNS, BY_SUM), (*axes[one.result], -1), extents, strict=True
            )
            if extent > 1
        }
        read_by = _read_by(one, extents[3])
        known[key] = tuple(
            Touch(_followed(name, axes[name], probes), read_by.get(name, EVERY_STEP)) for name in operands
        )
    return known[key]


def _read_by(one: OperatorAccess, depth: int) -> dict[str, int]:
    """Which steps of a chain of partial sums read each operand; those that every step reads are left out."""
    if depth < 2:
        return {}
    box = slab(one.shapes[one.result], {})
    first, inner, last = (
        one.reads(box, SumStep((0, depth), *ends)).keys() for ends in ((True, False), (False, False), (False, True))
    )
    found = dict.fromkeys(first - inner - last, FIRST_STEP)
    return found | dict.fromkeys(last - inner - first, LAST_STEP)


def _followed(name: str, axes: Axes, probes: Mapping[int, _Probe]) -> tuple[tuple[int, Intervals | None], ...]:
    """What an operand's rows, channels and columns follow."""
    found = []
    for own, axis in zip((BY_ROWS, BY_CHANNELS, BY_COLUMNS), axes, strict=True):
        source, table, least = ALL, None, -1
        # Where some slices read nothing of an operand (Concat), its axis of the same kind says so, or any axis
        # where steps of a sum do: they add up one piece of what is joined after another.
        for candidate, probe in probes.items():
            may_miss = candidate in (own, BY_SUM)
            if axis < 0 or not (probe.follows(name, axis) or (may_miss and probe.misses(name, axis))):
                continue
            low, high = probe.intervals(name, axis)
            read = (sum(high) - sum(low)) // len(low)
            # Ends of a range say what it reads only where they go one way. What narrows an axis most cuts it.
            if _monotone(low) and _monotone(high) and (least < 0 or read < least):
                source, table, least = candidate, (low, high), read
        found.append((source, table))
    return tuple(found)


def _monotone(values: Sequence[int]) -> bool:
    """Whether values never fall, or never rise."""
    steps = np.diff(values)
    return bool((steps >= 0).all() or (steps <= 0).all())


class _Probe:
    """Reads of single slices of a result along one axis, or along the axis summed over, -1."""

    __slots__ = ("axis", "every", "extent", "one", "seen", "shape")

    def __init__(self, one: OperatorAccess, axis: int, extent: int) -> None:
        self.one, self.axis, self.extent = one, axis, extent
        self.shape = one.shapes.get(one.result, ())
        self.every = one.reads(slab(self.shape, {}))
        self.seen: dict[int, Mapping[str, tuple[tuple[int, int], ...]]] = {}

    def at(self, position: int, name: str, axis: int) -> tuple[int, int] | None:
        """Interval of an operand's axis that one slice reads; None where the slice reads nothing of it."""
        if position not in self.seen:
            self.seen[position] = self.over((position, position + 1))
        box = self.seen[position].get(name)
        return None if box is None else box[axis]

    def over(self, span: tuple[int, int]) -> Mapping[str, tuple[tuple[int, int], ...]]:
        """What some slices, half-open, read of each operand."""
        if self.axis >= 0:
            return self.one.touches(slab(self.shape, {self.axis: span}), None, self.every)
        return self.one.touches(slab(self.shape, {}), SumStep(span, True, True), self.every)

    def samples(self, begin: int = 0, end: int | None = None) -> list[int]:
        """Slices that are looked at before all of them are: both ends, and pairs within."""
        n = (self.extent if end is None else end) - begin
        few = {0, 1, 2, n // 4, n // 2, n // 2 + 1, 3 * n // 4, n - 2, n - 1}
        return sorted({begin + i for i in few if 0 <= i < n})

    def follows(self, name: str, axis: int) -> bool:
        """Whether some slice reads a part of the operand's axis."""
        whole = (0, self.one.shapes[name][axis])
        return any(self.at(i, name, axis) not in (None, whole) for i in self.samples())

    def misses(self, name: str, axis: int) -> bool:
        """Whether some slice reads nothing of the operand."""
        return any(self.at(i, name, axis) is None for i in self.samples())

    def intervals(self, name: str, axis: int) -> Intervals:
        """Interval for every slice; an empty one where the interval of the slice before ends for what reads nothing."""
        every, reached = [], 0
        for span in self._spans(name, axis, 0, self.extent):
            every.append(span or (reached, reached))
            reached = every[-1][1]
        return tuple(low for low, _ in every), tuple(high for _, high in every)

    def _spans(self, name: str, axis: int, begin: int, end: int) -> list[tuple[int, int] | None]:
        """Interval of each slice of some, from a rule that samples confirm, or else of each half by itself."""
        if end - begin <= FEW_SLICES:
            return [self.at(i, name, axis) for i in range(begin, end)]
        together = self.over((begin, end)).get(name)
        if together is None:
            return [None] * (end - begin)
        seen = {i: self.at(i, name, axis) for i in self.samples(begin, end)}
        first, last = (begin + part * (end - begin) // 4 for part in (1, 3))
        a, b = seen[first], seen[last]
        if a is not None and b is not None:
            rule = _Rule(b[0] - a[0], last - first, first, a, self.one.shapes[name][axis])
            ends = rule.at(begin), rule.at(end - 1)
            hull = min(low for low, _ in ends), max(high for _, high in ends)
            if hull == together[axis] and all(rule.at(i) == span for i, span in seen.items()):
                return [rule.at(i) for i in range(begin, end)]
        middle = (begin + end) // 2
        return [*self._spans(name, axis, begin, middle), *self._spans(name, axis, middle, end)]


class _Rule(NamedTuple):
    """Intervals of one length at steps of one size, clipped."""

    rise: int
    run: int
    origin: int
    there: tuple[int, int]
    size: int

    def at(self, position: int) -> tuple[int, int]:
        """Interval at a position."""
        if self.rise % self.run:
            return -1, -1
        shift = (position - self.origin) * (self.rise // self.run)
        return max(0, self.there[0] + shift), min(self.size, self.there[1] + shift)
