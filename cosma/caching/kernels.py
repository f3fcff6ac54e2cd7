"""Compiled loops over intervals (numba; imported only by the optimisers)."""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosma.compiled import kernel

Int64s = NDArray[np.int64]
Bools = NDArray[np.bool_]


@kernel
def keep_most(begin: Int64s, end: Int64s, capacity: Int64s) -> Any:
    """Choose the most intervals so that no position holds more than its capacity.

    Parameters
    ----------
    begin, end
        Half-open intervals of positions, by ascending begin.
    capacity
        Room at each position, at least 0.

    Returns
    -------
    bool[intervals]
        The intervals kept. Where a position is too full, those that end last are dropped.
    """
    kept = np.ones(len(begin), dtype=np.bool_)
    ending = np.zeros(len(capacity) + 1, dtype=np.int64)
    active = [(np.int64(0), np.int64(0)) for _ in range(0)]
    held = 0
    upcoming = 0
    for position in range(len(capacity)):
        held -= ending[position]
        while upcoming < len(begin) and begin[upcoming] == position:
            if end[upcoming] > position:
                heapq.heappush(active, (-end[upcoming], np.int64(upcoming)))
                ending[end[upcoming]] += 1
                held += 1
            upcoming += 1
        while held > capacity[position]:
            _, worst = heapq.heappop(active)
            kept[worst] = False
            ending[end[worst]] -= 1
            held -= 1
    return kept


@kernel
def raise_prices(begin: Int64s, end: Int64s, capacity: Int64s, kept: Bools) -> Any:
    """Find prices per position that prove a choice of intervals to be the best.

    Prices are differences of heights. Heights are the least that grow along positions, by at least one across every
    interval dropped, by at most one across every interval kept, and not at all where a position has room left. They
    exist exactly if no choice keeps more intervals.

    Returns
    -------
    int64[positions]
        Prices of at least 0. If the choice is not the best, they are sound but prove less.
    """
    positions = len(capacity)
    used = np.zeros(positions + 1, dtype=np.int64)
    for i in range(len(begin)):
        if kept[i] and begin[i] < end[i]:
            used[begin[i]] += 1
            used[end[i]] -= 1
    held = 0
    height = np.zeros(positions + 1, dtype=np.int64)
    roomy = np.zeros(positions, dtype=np.bool_)
    for position in range(positions):
        held += used[position]
        roomy[position] = held < capacity[position]
    # Intervals by begin in each direction of the sweep, as linked lists.
    first_at_end = np.full(positions + 1, -1, dtype=np.int64)
    next_at_end = np.full(len(begin), -1, dtype=np.int64)
    first_at_begin = np.full(positions + 1, -1, dtype=np.int64)
    next_at_begin = np.full(len(begin), -1, dtype=np.int64)
    for i in range(len(begin)):
        if begin[i] == end[i]:
            continue
        if kept[i]:
            next_at_begin[i] = first_at_begin[begin[i]]
            first_at_begin[begin[i]] = i
        else:
            next_at_end[i] = first_at_end[end[i]]
            first_at_end[end[i]] = i
    for _ in range(positions + 2):
        changed = False
        for position in range(1, positions + 1):
            least = max(height[position], height[position - 1])
            i = first_at_end[position]
            while i >= 0:
                least = max(least, height[begin[i]] + 1)
                i = next_at_end[i]
            if least > height[position]:
                height[position] = least
                changed = True
        for position in range(positions - 1, -1, -1):
            least = height[position]
            if roomy[position]:
                least = max(least, height[position + 1])
            i = first_at_begin[position]
            while i >= 0:
                least = max(least, height[end[i]] - 1)
                i = next_at_begin[i]
            if least > height[position]:
                height[position] = least
                changed = True
        if not changed:
            break
    price = np.empty(positions, dtype=np.int64)
    for position in range(positions):
        price[position] = max(0, height[position + 1] - height[position])
    return price
