"""An order with addresses in one pass: what stays, what leaves and where everything lies (numba).

Tests replay what it plans: the validator counts the bytes that are said here to be paid.
"""

# Inside compiled code an int is an int64; the type checker sees numpy scalars instead.
# mypy: disable-error-code="arg-type,return-value,assignment,untyped-decorator,operator,no-any-return"

from __future__ import annotations

from typing import Any

import numpy as np

from cosma.arrays import Bytes, Floats, Int32s, Ints
from cosma.compiled import helper, kernel
from cosma.lowering.free_kernels import NEVER, clear, empty_places, free_gap, release, replace, take_gap

#: By what share of all scores a sum of some may be off that is the difference of two sums.
ROUNDING = 1e-9
#: What is said, less the step, instead of the number of arrivals where more was paid than may be.
OVER_LIMIT = -2
#: Columns of the log of arrivals.
TENSOR, STEP, ADDRESS, TAKEN_FROM, LAST_TOUCH = 0, 1, 2, 3, 4


@helper
def _window(begin: Ints, end: Ints, count: int, need: int, capacity: int, worth_to: Floats,
            staying_to: Ints, worth: Floats) -> int:  # fmt: skip
    """Address of the window whose tensors are cheapest to give up together; -1 where all hold one that must stay.

    Parameters
    ----------
    begin, end, worth
        By tensor, by address: its place, and what its departure costs.
    worth_to, staying_to
        Sums up to each tensor of what departures cost, and of how many must stay: they rule out most windows at once.
    """
    slack = ROUNDING * worth_to[count]
    best, best_score = np.int64(-1), np.inf
    top = np.int64(capacity) - need
    for kind in range(3):
        lo, hi = np.int64(0), np.int64(0)
        for k in range(count if kind < 2 else 2):
            start = top if kind == 2 and k == 1 else np.int64(0)
            if kind < 2:
                start = min(top, begin[k] if kind == 0 else end[k])
            # Tensors from the first that ends above the start to the last that begins below the end: both only go up.
            while lo < count and end[lo] <= start:
                lo += 1
            hi = max(hi, lo)
            while hi < count and begin[hi] < start + need:
                hi += 1
            if staying_to[hi] > staying_to[lo] or worth_to[hi] - worth_to[lo] > best_score + slack:
                continue
            total = 0.0
            for j in range(lo, hi):
                total += worth[j]
            if total < best_score:
                best, best_score = start, total
    return best


@helper
def _arrive(log: Ints, logged: int, entry: Ints, t: int, step: int, at: int, taken: int) -> int:
    """Log an arrival; returns how many there are."""
    log[logged, TENSOR], log[logged, STEP], log[logged, ADDRESS], log[logged, TAKEN_FROM] = t, step, at, taken
    log[logged, LAST_TOUCH] = step
    entry[t] = logged
    return logged + 1


@helper
def _largest_first(wanted: Ints, count: int, space: Ints) -> None:
    """Sort by space, the largest first; ties by number."""
    for a in range(1, count):
        t = wanted[a]
        b = a
        while b > 0 and (space[wanted[b - 1]] < space[t] or (space[wanted[b - 1]] == space[t] and wanted[b - 1] > t)):
            wanted[b] = wanted[b - 1]
            b -= 1
        wanted[b] = t


@kernel
def run_along(
    operand_start: Int32s, operand: Int32s, result_start: Int32s, result: Int32s, consumer_start: Int32s,
    consumer: Int32s, pair_start: Int32s, pair_result: Int32s, pair_operand: Int32s, size: Ints, space: Ints,
    clean: Bytes, store: Ints, added: Int32s, unfinished: Bytes, capacity: int, rule: Ints, favour: Floats,
    limit: Ints, log: Ints,
) -> Any:  # fmt: skip
    """Run operators in order; a tensor that needs room takes a free gap, or the window that is cheapest to clear.

    A tensor that leaves and is read again pays for that at once. Where what stays lies so badly that no window is
    free of it, all that is in the scratchpad leaves, and the step starts from an empty one.

    Parameters
    ----------
    operand_start, operand, result_start, result, consumer_start, consumer
        CSR; an operator's number is its step, so that consumers ascend.
    pair_start, pair_result, pair_operand
        CSR: results that may take over an operand's place, and such operands; the first that can be is taken over.
    size, space, clean, store
        By tensor: bytes, bytes with alignment, whether a copy lies off-chip from the start, bytes of the first store.
    added, unfinished
        By operator: how many of its operands, the first, are sums that it adds to in their places, and whether what it
        adds to or yields is a partial sum still.
    capacity, rule
        Bytes, and for each step which free gap to take.
    favour
        By tensor: how often it counts as dearer to give up than it is.
    limit
        For each step, the most bytes that may be paid by its end.
    log
        Room for arrivals, one row each: tensor, step, address, operand taken over or -1, last step that touches it.

    Returns
    -------
    cost : int64[steps]
        Bytes paid at each step beyond the compulsory.
    logged
        Arrivals; -1 where a step does not fit, or the log is full, and -2 less the step at which a
        limit is exceeded.
    """
    steps, tensors = len(operand_start) - 1, len(size)
    entry = np.full(tensors, -1, np.int64)
    pointer = consumer_start[:-1].astype(np.int64)
    last, next_use = np.zeros(tensors, np.int64), np.zeros(tensors, np.int64)
    # Bytes paid when a tensor that is read again leaves: the read, and its store, if it has no copy off-chip yet.
    price = np.empty(tensors, np.int64)
    seq, wanted = np.zeros(tensors + 1, np.int64), np.zeros(tensors + 1, np.int64)
    wanted_at = np.full(tensors, -1, np.int64)
    score, worth = np.zeros(tensors, np.float64), np.zeros(tensors + 1, np.float64)
    worth_to, staying_to = np.zeros(tensors + 1, np.float64), np.zeros(tensors + 1, np.int64)
    begin, end = np.zeros(tensors + 1, np.int64), np.zeros(tensors + 1, np.int64)
    pinned = np.full(tensors, -1, np.int64)
    taken, given = np.full(tensors, -1, np.int64), np.full(tensors, -1, np.int64)
    cost = np.zeros(steps, np.int64)
    logged, total = np.int64(0), np.int64(0)
    for t in range(tensors):  # a loop is compiled in a fraction of the time that numpy's broadcasting takes
        price[t] = size[t] if clean[t] else size[t] + store[t]
        last[t] = consumer[consumer_start[t + 1] - 1] if consumer_start[t + 1] > consumer_start[t] else -1
        next_use[t] = consumer[consumer_start[t]] if consumer_start[t + 1] > consumer_start[t] else NEVER
    for i in range(steps - 1, -1, -1):  # what takes over a place holds it as long
        for k in range(pair_start[i], pair_start[i + 1]):
            if last[pair_operand[k]] == i:
                last[pair_operand[k]] = max(i, last[pair_result[k]])
    places = empty_places(space, last, capacity)
    address, last, guard = places.address, places.last, tensors
    for i in range(steps):
        need = np.int64(0)
        for k in range(operand_start[i], operand_start[i + 1]):
            t = np.int64(operand[k])
            if pinned[t] == i:
                continue
            pinned[t] = i
            while pointer[t] < consumer_start[t + 1] and consumer[pointer[t]] <= i:
                pointer[t] += 1
            next_use[t] = consumer[pointer[t]] if pointer[t] < consumer_start[t + 1] else NEVER
            need += space[t]
            if address[t] >= 0:
                log[entry[t], LAST_TOUCH] = i
        for k in range(pair_start[i], pair_start[i + 1]):
            t, u = np.int64(pair_operand[k]), np.int64(pair_result[k])
            if next_use[t] == NEVER and given[t] < 0 and taken[u] < 0:
                taken[u], given[t] = t, u
        for k in range(result_start[i], result_start[i + 1]):
            t = np.int64(result[k])
            pinned[t] = i
            last[t] = max(last[t], i)
            if taken[t] < 0:
                need += space[t]
        if need > capacity or logged + 2 * (operand_start[i + 1] - operand_start[i]) + 2 * (
            result_start[i + 1] - result_start[i]
        ) > len(log):
            return cost, np.int64(-1)
        before = logged
        for attempt in range(2):
            if attempt == 1:
                t = places.above[guard]
                while t != guard:
                    is_new = entry[t] >= before  # it came for this step, which starts anew
                    if not is_new:
                        cost[i] += price[t]
                        price[t] = size[t]
                        if pinned[t] == i:
                            log[entry[t], LAST_TOUCH] = i - 1
                    address[t] = -1
                    t = places.above[t]
                for k in range(before, logged):
                    address[log[k, TENSOR]] = -1
                clear(places, capacity)
                logged = before
            n = np.int64(0)
            for k in range(operand_start[i], operand_start[i + 1]):
                t = np.int64(operand[k])
                if address[t] < 0 and wanted_at[t] != 2 * i + attempt:
                    wanted_at[t] = 2 * i + attempt
                    wanted[n] = t
                    n += 1
            for k in range(result_start[i], result_start[i + 1]):
                t = np.int64(result[k])
                if taken[t] < 0:
                    wanted[n] = t
                    n += 1
            _largest_first(wanted, n, space)
            scored, placed = False, np.int64(0)
            while placed < n:
                t = wanted[placed]
                if space[t] == 0:  # takes no room: it is nowhere in the list
                    address[t] = 0
                    logged = _arrive(log, logged, entry, t, i, 0, -1)
                    placed += 1
                    continue
                gap, at = free_gap(places, space[t], last[t], capacity, rule[i])
                if gap < 0:
                    count = np.int64(0)
                    u = places.above[guard]
                    while u != guard:
                        seq[count], begin[count], end[count] = u, address[u], address[u] + space[u]
                        if not scored:
                            score[u] = np.inf if pinned[u] == i else favour[u] * price[u] / (next_use[u] - i)
                        stays = score[u] == np.inf
                        worth[count] = score[u]
                        worth_to[count + 1] = worth_to[count] + (0.0 if stays else score[u])
                        staying_to[count + 1] = staying_to[count] + (1 if stays else 0)
                        count += 1
                        u = places.above[u]
                    scored = True
                    at = _window(begin, end, count, space[t], capacity, worth_to, staying_to, worth)
                    if at < 0:
                        break
                    for k in range(count):
                        u = seq[k]
                        if begin[k] < at + space[t] and end[k] > at:
                            cost[i] += price[u]
                            price[u] = size[u]
                            release(places, u)
                    gap, at = free_gap(places, space[t], last[t], capacity, rule[i])
                take_gap(places, t, gap, at)
                score[t] = np.inf
                logged = _arrive(log, logged, entry, t, i, at, -1)
                placed += 1
            if placed == n:
                break
            if attempt == 1:
                return cost, np.int64(-1)
        for j in range(pair_start[i], pair_start[i + 1]):
            t = np.int64(pair_result[j])
            u = taken[t]
            if u < 0 or address[t] >= 0:
                continue
            logged = _arrive(log, logged, entry, t, i, address[u], u)
            replace(places, u, t)
        for k in range(operand_start[i], operand_start[i] + added[i]):
            t = np.int64(operand[k])
            price[t] = size[t] + (size[t] if unfinished[i] else store[t])
        for k in range(result_start[i], result_start[i + 1]) if unfinished[i] else range(0):
            price[result[k]] = 2 * size[result[k]]  # the store of a partial sum is never compulsory
        for k in range(operand_start[i], operand_start[i + 1]):
            t = np.int64(operand[k])
            if address[t] >= 0 and next_use[t] == NEVER:
                if space[t] > 0:
                    release(places, t)
                address[t] = -1
        for k in range(result_start[i], result_start[i + 1]):
            t = np.int64(result[k])
            if address[t] >= 0 and next_use[t] == NEVER:
                if space[t] > 0:
                    release(places, t)
                address[t] = -1
        total += cost[i]
        if total > limit[i]:
            return cost, np.int64(OVER_LIMIT - i)
    return cost, logged
