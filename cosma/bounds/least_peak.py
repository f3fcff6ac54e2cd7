"""Least peak over all orders, and what it costs to come down from it: segment by segment, added up.

Between two operators that are comparable to all others lies a *segment*. If no order of a segment keeps the tensors
that cost ``price`` or more within the capacity and so many bytes, then in every plan more than these bytes are absent
at some moment, and each absent tensor pays for a gap of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.bounds.peak_search import PeakSearch
from cosma.bounds.segments import segments_of
from cosma.parameters.bounds import PeakParameters

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from cosma.arrays import Ints
    from cosma.bounds.lifetimes import Lifetime
    from cosma.bounds.segments import Segment
    from cosma.problem import Problem
    from cosma.problem.precedence import Reach

    Slices = Generator[float, None, None]

DEFAULTS = PeakParameters()


class LeastPeak:
    """A lower bound from least peaks, and orders of low peak, better with more work.

    Parameters
    ----------
    known_bytes
        A bound on what decisions cost that need not be proven again.

    Attributes
    ----------
    value_bytes
        No plan's decisions cost less.
    order
        An order of low peak, once every segment has one.
    """

    def __init__(
        self,
        problem: Problem,
        reach: Reach,
        lifetimes: dict[int, Lifetime],
        known_bytes: int = 0,
        parameters: PeakParameters = DEFAULTS,
    ) -> None:
        self.problem = problem
        self.parameters = parameters
        segments = [w for w in segments_of(problem, reach, lifetimes) if w.end - w.first <= parameters.most_operators]
        self._climbs = [_Climb(problem, reach, segment, parameters) for segment in segments]
        if len(segments) == 1:
            # Of several segments, each may be worth less than what is known, and all of them more.
            self._climbs[0].value_bytes = known_bytes

    @property
    def value_bytes(self) -> int:
        """No plan's decisions cost less: gaps in different segments are different gaps."""
        return sum(climb.value_bytes for climb in self._climbs)

    @property
    def order(self) -> tuple[int, ...] | None:
        """An order of low peak, once every segment has one."""
        if any(climb.order is None for climb in self._climbs):
            return None
        order = list(range(self.problem.operator_count))
        for climb in self._climbs:
            order[climb.segment.first : climb.segment.end] = climb.order or ()
        return tuple(order)

    def run(self) -> Slices:
        """Work on all segments in turn until every question has an answer, yielding the work done."""
        share = self.parameters.first_turn
        open_ = [(climb, climb.run()) for climb in self._climbs]
        while open_:
            for climb, slices in list(open_):
                left = share
                while left > 0:
                    work = next(slices, None)
                    if work is None:
                        open_.remove((climb, slices))
                        break
                    left -= work
                    yield work
            share *= self.parameters.turn_growth


def _thinned(levels: Sequence[int], most: int) -> list[int]:
    """At most so many of the levels, the first and, with two or more, the last among them."""
    if len(levels) <= most:
        return list(levels)
    return [levels[i * (len(levels) - 1) // max(1, most - 1)] for i in range(most)]


class _Climb:
    """Ever higher bounds on one segment: more tensors absent at once, then only dearer ones counted."""

    def __init__(self, problem: Problem, reach: Reach, segment: Segment, parameters: PeakParameters) -> None:
        self.problem = problem
        self.parameters = parameters
        self.reach = reach
        self.segment = segment
        self.value_bytes = 0
        self.order: tuple[int, ...] | None = None

    def run(self) -> Slices:
        """Ask coarse questions, then fine ones, yielding the work done."""
        asked: list[int] = []
        for share in self.parameters.least_shares:
            least = self.problem.capacity_bytes * share
            counted = [t for t in self.segment.price if self.problem.space_bytes[t] >= least]
            if counted != asked:
                yield from self._climb(counted)
            asked = counted
        if self.order is None:
            self.order = tuple(range(self.segment.first, self.segment.end))

    def _climb(self, counted: Sequence[int]) -> Slices:
        """Ask, for dearer and dearer tensors, how far beyond the capacity the least peak lies."""
        space, price = self.problem.space_bytes, self.segment.price
        prices = sorted({p for t in counted if (p := price[t]) is not None})
        levels = _thinned(prices, self.parameters.most_levels)
        for level in levels:
            tensors = [t for t in counted if (p := price[t]) is None or p >= level]
            optional = [t for t in tensors if price[t] is not None]
            excess, worth = worth_of_excess(
                np.array([space[t] for t in optional], dtype=np.int64),
                np.array([price[t] for t in optional], dtype=np.int64),
                most_units=self.parameters.most_units,
            )
            first = int(np.searchsorted(worth, self.value_bytes, side="right"))
            # No order keeps the peak down to the excess below ``low``; some order does at ``high``, or nobody knows.
            low, high, step = first - 1, len(excess), 1
            while high - low > 1:
                at = min(low + step, high - 1) if high == len(excess) else (low + high) // 2
                search = yield from self._fits(tensors, self.problem.capacity_bytes + int(excess[at]))
                if search is not None and search.impossible:
                    self.value_bytes = int(worth[at])
                    low, step = at, 2 * step
                    continue
                high = at
                if search is not None:
                    self.order = search.order if level == levels[0] else self.order or search.order
                    if excess[at] == 0:
                        # All of them fit at once; so do fewer.
                        return

    def _fits(self, tensors: Sequence[int], most_bytes: int) -> Generator[float, None, PeakSearch | None]:
        """Go on from both ends in turn until one search has the answer; None if memory does not suffice."""
        searches = [
            PeakSearch(
                self.problem,
                self.reach,
                self.segment,
                tensors,
                most_bytes,
                backwards=backwards,
                parameters=self.parameters,
            )
            for backwards in (False, True)
        ]
        runs = [search.run() for search in searches]
        turn = 0
        while runs:
            turn += 1
            for search, slices in zip(list(searches), list(runs), strict=True):
                if search.backwards and turn % self.parameters.forwards and len(runs) > 1:
                    continue
                work = next(slices, None)
                if work is not None:
                    yield work
                if search.order is not None or search.impossible:
                    return search
                if work is None:
                    searches.remove(search)
                    runs.remove(slices)
        return None


def worth_of_excess(space: Ints, price: Ints, *, most_units: int = DEFAULTS.most_units) -> tuple[Ints, Ints]:
    """What it costs at least when more than so many bytes of some tensors are absent: a knapsack cover.

    Each tensor takes some space and its absence has a price, in bytes; spaces are counted in ``most_units`` units at
    the most. Returns excess and worth, both ascending: if more than ``excess[i]`` bytes are absent, those that are cost
    ``worth[i]`` or more. Each worth is given with the least excess that has it. ``int64[levels]``.
    """
    total = int(space.sum())
    if total == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    unit = max(int(np.gcd.reduce(space)), -(-total // most_units))
    units = -(-space // unit)
    never = np.int64(1 << 62)
    # least[k]: price of absences of at least ``k`` units.
    least = np.full(int(units.sum()) + 1, never)
    least[0] = 0
    for taken, paid in zip(units.tolist(), price.tolist(), strict=True):
        with_it = np.concatenate([np.full(taken, least[0]), least[:-taken]]) + paid
        least = np.minimum(least, with_it)
    # More than ``unit * k`` bytes are at least ``k + 1`` units.
    worth = least[1 : total // unit + 1]
    rises = np.flatnonzero(np.diff(worth, prepend=-1) > 0)
    return rises * unit, worth[rises]
