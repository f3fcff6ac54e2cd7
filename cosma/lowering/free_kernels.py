"""Tensors in a scratchpad by address, and the gaps between them (numba).

Tensors that take room form a list by address, whose two ends are one guard; its number follows those of the tensors.
Gaps stand in no order, each with its neighbours, so that what comes and leaves costs the same however many lie there.
"""

# Inside compiled code an int is an int64; the type checker sees numpy scalars instead.
# mypy: disable-error-code="arg-type,return-value,assignment,untyped-decorator,operator,no-any-return"

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cosma.arrays import Ints
from cosma.compiled import helper

#: Which free gap to take: the lowest, the smallest, or the one whose neighbours leave at about the same time.
FIRST, BEST, TOGETHER = 0, 1, 2
#: Steps between two departures that count as half of what a wasted scratchpad would; not measured.
STEPS_APART = 50.0
#: When the ends of the scratchpad leave.
NEVER = 1 << 40


class Places(NamedTuple):
    """Where tensors lie, and what is free. Arrays by tensor have one more place, for the guard."""

    #: Address of each tensor, -1 of those that are not there; and bytes that each takes.
    address: Ints
    space: Ints
    #: Last step at which each is used, which decides beside what it should lie.
    last: Ints
    #: Neighbours of each tensor by address, and the gap that lies between; -1 for none.
    below: Ints
    above: Ints
    gap_below: Ints
    gap_above: Ints
    #: First byte and end of each gap, and the tensors on both sides of it.
    low: Ints
    high: Ints
    under: Ints
    over: Ints
    #: How many gaps there are, in an array of one.
    gaps: Ints


@helper
def empty_places(space: Ints, last: Ints, capacity: int) -> Places:
    """Nothing lies anywhere."""
    n = len(space) + 1
    both = np.zeros((2, n), np.int64)
    for t in range(n - 1):  # a loop is compiled in a fraction of the time that an assigned slice takes
        both[0, t], both[1, t] = space[t], last[t]
    both[1, n - 1] = NEVER
    room = np.full((9, n + 1), -1, np.int64)
    places = Places(
        room[0, :n], both[0], both[1], room[1, :n], room[2, :n], room[3, :n], room[4, :n], room[5], room[6], room[7],
        room[8], np.zeros(1, np.int64),
    )  # fmt: skip
    clear(places, capacity)
    return places


@helper
def clear(places: Places, capacity: int) -> None:
    """Take everything out of the list; addresses stay as they are."""
    guard = len(places.space) - 1
    places.below[guard] = places.above[guard] = guard
    places.gap_below[guard] = places.gap_above[guard] = -1
    places.gaps[0] = 0
    if capacity > 0:
        _add_gap(places, 0, capacity, guard, guard)


@helper
def _add_gap(places: Places, low: int, high: int, under: int, over: int) -> None:
    g = places.gaps[0]
    places.low[g], places.high[g], places.under[g], places.over[g] = low, high, under, over
    places.gap_above[under] = places.gap_below[over] = g
    places.gaps[0] = g + 1


@helper
def _drop_gap(places: Places, g: int) -> None:
    """Forget a gap that no tensor names any more; the last takes its number."""
    places.gaps[0] -= 1
    moved = places.gaps[0]
    if moved == g:
        return
    places.low[g], places.high[g] = places.low[moved], places.high[moved]
    places.under[g], places.over[g] = places.under[moved], places.over[moved]
    places.gap_above[places.under[g]] = places.gap_below[places.over[g]] = g


@helper
def free_gap(places: Places, need: int, end: int, capacity: int, rule: int) -> tuple[int, int]:
    """Gap and address for a tensor last used at ``end``; -1 where no gap is large enough. Of equals the lowest."""
    best, at, best_score, best_low = np.int64(-1), np.int64(-1), np.inf, np.int64(0)
    for g in range(places.gaps[0]):
        low, high = places.low[g], places.high[g]
        if high - low < need:
            continue
        if rule == FIRST:
            score = float(low)
            if score < best_score:
                best, at, best_score, best_low = g, low, score, low
            continue
        apart_below = abs(places.last[places.under[g]] - end)
        apart_above = abs(places.last[places.over[g]] - end)
        start = low
        if rule == BEST:
            score = float(high - low)
            if apart_above < apart_below:
                start = high - need
        else:
            score = float(high - low - need) / capacity
            if score > best_score:
                continue
            if high - low > need:
                beside = min(apart_below, apart_above)
                score += float(beside) / (beside + STEPS_APART)
                if apart_above < apart_below:
                    start = high - need
        if score < best_score or (score == best_score and low < best_low):
            best, at, best_score, best_low = g, start, score, low
    return best, at


@helper
def take_gap(places: Places, t: int, g: int, at: int) -> None:
    """Lay a tensor at one of the ends of a gap."""
    b, a, need = places.under[g], places.over[g], places.space[t]
    places.address[t] = at
    places.above[b] = places.below[a] = t
    places.below[t], places.above[t] = b, a
    places.gap_below[t] = places.gap_above[t] = -1
    if places.high[g] - places.low[g] == need:
        places.gap_above[b] = places.gap_below[a] = -1
        _drop_gap(places, g)
    elif at == places.low[g]:
        places.low[g] += need
        places.under[g] = t
        places.gap_above[t], places.gap_above[b] = g, -1
    else:
        places.high[g] -= need
        places.over[g] = t
        places.gap_below[t], places.gap_below[a] = g, -1


@helper
def release(places: Places, t: int) -> None:
    """Take a tensor out, whose place joins the gaps beside it."""
    b, a = places.below[t], places.above[t]
    under, over = places.gap_below[t], places.gap_above[t]
    start, end = places.address[t], places.address[t] + places.space[t]
    places.address[t] = -1
    places.above[b], places.below[a] = a, b
    if under < 0 and over < 0:
        _add_gap(places, start, end, b, a)
    elif over < 0:
        places.high[under], places.over[under], places.gap_below[a] = end, a, under
    elif under < 0:
        places.low[over], places.under[over], places.gap_above[b] = start, b, over
    else:
        places.high[under], places.over[under], places.gap_below[a] = places.high[over], a, under
        _drop_gap(places, over)


@helper
def replace(places: Places, u: int, t: int) -> None:
    """Put a tensor in the place of one that is at least as large and leaves."""
    start, end = places.address[u], places.address[u] + places.space[u]
    if places.space[t] == 0:
        if places.space[u] > 0:
            release(places, u)
        places.address[u], places.address[t] = -1, start
        return
    b, a = places.below[u], places.above[u]
    under, over = places.gap_below[u], places.gap_above[u]
    places.address[t], places.address[u] = start, -1
    places.above[b] = places.below[a] = t
    places.below[t], places.above[t] = b, a
    places.gap_below[t], places.gap_above[t] = under, over
    if under >= 0:
        places.over[under] = t
    if over >= 0:
        places.under[over] = t
        places.low[over] = start + places.space[t]
    elif start + places.space[t] < end:
        _add_gap(places, start + places.space[t], end, t, a)
