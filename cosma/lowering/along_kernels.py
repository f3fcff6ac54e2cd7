"""An order with addresses in one pass: what stays, what leaves and where everything lies (numba).

Tests replay what it plans: the validator counts the bytes that are said here to be paid.
"""

# Inside compiled code an int is an int64; the type checker sees numpy scalars instead.
# mypy: disable-error-code="arg-type,return-value,assignment,untyped-decorator,operator,no-any-return"

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosma.compiled import helper, kernel

Int64s = NDArray[np.int64]
Int32s = NDArray[np.int32]
Bytes8 = NDArray[np.uint8]

#: Which free gap to take: the lowest, the smallest, or the one whose neighbours leave at about the same time.
FIRST, BEST, TOGETHER = 0, 1, 2
#: Steps between two departures that count as half of what a wasted scratchpad would; not measured.
STEPS_APART = 50.0
#: By what share of all scores a sum of some may be off that is the difference of two sums.
ROUNDING = 1e-9
#: What is said, less the step, instead of the number of arrivals where more was paid than may be.
OVER_LIMIT = -2
#: Whether a tensor has a copy off-chip: none, one, or none as it is a partial sum, whose store is never compulsory.
UNSTORED, STORED, PARTIAL = 0, 1, 2
#: Columns of the log of arrivals.
TENSOR, STEP, ADDRESS, TAKEN_FROM, LAST_TOUCH = 0, 1, 2, 3, 4


@helper
def _insert(seq: Int64s, count: int, address: Int64s, t: int) -> int:
    """Put a tensor into the list sorted by address; returns the new length."""
    k = count
    while k > 0 and address[seq[k - 1]] > address[t]:
        seq[k] = seq[k - 1]
        k -= 1
    seq[k] = t
    return count + 1


@helper
def _remove(seq: Int64s, count: int, t: int) -> int:
    """Take a tensor out of the list; returns the new length."""
    k = np.int64(0)
    while seq[k] != t:
        k += 1
    for j in range(k, count - 1):
        seq[j] = seq[j + 1]
    return count - 1


@helper
def _price(t: int, size: Int64s, store: Int64s, stored: Bytes8) -> int:
    """Bytes paid when a tensor that is read again leaves: its store, if there is none yet, and the read."""
    if stored[t] == PARTIAL:
        return 2 * size[t]
    return size[t] + (np.int64(0) if stored[t] == STORED else store[t])


@helper
def _free_place(seq: Int64s, count: int, address: Int64s, space: Int64s, last: Int64s, need: int, end: int,
                capacity: int, rule: int) -> int:  # fmt: skip
    """Address in a free gap for a tensor last used at ``end``; -1 where none is large enough."""
    best, best_score = np.int64(-1), np.inf
    low = np.int64(0)
    for k in range(count + 1):
        high = address[seq[k]] if k < count else np.int64(capacity)
        if high - low >= need:
            below = last[seq[k - 1]] if k > 0 else np.int64(1 << 40)
            above = last[seq[k]] if k < count else np.int64(1 << 40)
            if rule == FIRST:
                score = float(low)
                if score < best_score:
                    best, best_score = low, score
            elif rule == BEST:
                score = float(high - low)
                if score < best_score:
                    best_score = score
                    best = low if abs(below - end) <= abs(above - end) else high - need
            else:
                waste = float(high - low - need) / capacity
                for side in range(2):
                    gap = abs((below if side == 0 else above) - end)
                    score = waste + (0.0 if high - low == need else float(gap) / (gap + STEPS_APART))
                    if score < best_score:
                        best_score = score
                        best = low if side == 0 else high - need
        if k < count:
            low = address[seq[k]] + space[seq[k]]
    return best


@helper
def _window(seq: Int64s, count: int, address: Int64s, space: Int64s, score: NDArray[np.float64], need: int,
            capacity: int, total_to: NDArray[np.float64], staying_to: Int64s) -> int:  # fmt: skip
    """Address of the window whose tensors are cheapest to give up together; -1 where all hold one that must stay.

    ``total_to`` and ``staying_to`` are room for sums up to each tensor, by which most windows are ruled out at once.
    """
    for k in range(count):
        stays = score[seq[k]] == np.inf
        total_to[k + 1] = total_to[k] + (0.0 if stays else score[seq[k]])
        staying_to[k + 1] = staying_to[k] + (1 if stays else 0)
    slack = ROUNDING * total_to[count]
    best, best_score = np.int64(-1), np.inf
    lo, hi = np.int64(0), np.int64(0)
    for k in range(2 * count + 2):
        if k < count:
            start = address[seq[k]]
        elif k < 2 * count:
            start = address[seq[k - count]] + space[seq[k - count]]
        else:
            start = np.int64(0) if k == 2 * count else np.int64(capacity) - need
        if start + need > capacity:
            start = np.int64(capacity) - need
        if start < 0:
            continue
        if k == count or k == 2 * count:
            lo, hi = np.int64(0), np.int64(0)
        # Tensors from the first that ends above the start to the last that begins below the end: both only go up.
        while lo < count and address[seq[lo]] + space[seq[lo]] <= start:
            lo += 1
        hi = max(hi, lo)
        while hi < count and address[seq[hi]] < start + need:
            hi += 1
        if staying_to[hi] > staying_to[lo] or total_to[hi] - total_to[lo] > best_score + slack:
            continue
        total = 0.0
        for j in range(lo, hi):
            total += score[seq[j]]
        if total < best_score:
            best, best_score = start, total
    return best


@helper
def _arrive(log: Int64s, logged: int, entry: Int64s, t: int, step: int, at: int, taken: int) -> int:
    """Log an arrival; returns how many there are."""
    log[logged, TENSOR], log[logged, STEP], log[logged, ADDRESS], log[logged, TAKEN_FROM] = t, step, at, taken
    log[logged, LAST_TOUCH] = step
    entry[t] = logged
    return logged + 1


@helper
def _largest_first(wanted: Int64s, count: int, space: Int64s) -> None:
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
    consumer: Int32s, pair_start: Int32s, pair_result: Int32s, pair_operand: Int32s, size: Int64s, space: Int64s,
    clean: Bytes8, store: Int64s, added: Int32s, unfinished: Bytes8, capacity: int, rule: int, limit: Int64s,
    log: Int64s,
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
        Bytes, and which free gap to take.
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
    address, entry = np.full(tensors, -1, np.int64), np.full(tensors, -1, np.int64)
    pointer = consumer_start[:-1].astype(np.int64)
    last = np.zeros(tensors, np.int64)
    stored = clean.copy()
    seq, wanted = np.zeros(tensors + 1, np.int64), np.zeros(tensors + 1, np.int64)
    score, total_to = np.zeros(tensors, np.float64), np.zeros(tensors + 1, np.float64)
    staying_to = np.zeros(tensors + 1, np.int64)
    pinned = np.full(tensors, -1, np.int64)
    taken, given = np.full(tensors, -1, np.int64), np.full(tensors, -1, np.int64)
    cost = np.zeros(steps, np.int64)
    count, logged, total = np.int64(0), np.int64(0), np.int64(0)
    for t in range(tensors):
        last[t] = consumer[consumer_start[t + 1] - 1] if consumer_start[t + 1] > consumer_start[t] else -1
    for i in range(steps - 1, -1, -1):  # what takes over a place holds it as long
        for k in range(pair_start[i], pair_start[i + 1]):
            if last[pair_operand[k]] == i:
                last[pair_operand[k]] = max(i, last[pair_result[k]])
    for i in range(steps):
        need = np.int64(0)
        for k in range(operand_start[i], operand_start[i + 1]):
            t = np.int64(operand[k])
            if pinned[t] == i:
                continue
            pinned[t] = i
            while pointer[t] < consumer_start[t + 1] and consumer[pointer[t]] <= i:
                pointer[t] += 1
            need += space[t]
            if address[t] >= 0:
                log[entry[t], LAST_TOUCH] = i
        for k in range(pair_start[i], pair_start[i + 1]):
            t, u = np.int64(pair_operand[k]), np.int64(pair_result[k])
            if pointer[t] == consumer_start[t + 1] and given[t] < 0 and taken[u] < 0:
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
                for k in range(count):
                    t = seq[k]
                    is_new = entry[t] >= before  # it came for this step, which starts anew
                    if not is_new:
                        cost[i] += _price(t, size, store, stored)
                        stored[t] = STORED
                        if pinned[t] == i:
                            log[entry[t], LAST_TOUCH] = i - 1
                    address[t] = -1
                for k in range(before, logged):
                    address[log[k, TENSOR]] = -1
                count, logged = np.int64(0), before
            n = np.int64(0)
            for k in range(operand_start[i], operand_start[i + 1]):
                t = np.int64(operand[k])
                known = address[t] >= 0
                for j in range(n):
                    known = known or wanted[j] == t
                if not known:
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
                at = _free_place(seq, count, address, space, last, space[t], last[t], capacity, rule)
                if at < 0:
                    if not scored:
                        scored = True
                        for k in range(count):
                            u = seq[k]
                            score[u] = np.inf
                            if pinned[u] != i:
                                score[u] = _price(u, size, store, stored) / (consumer[pointer[u]] - i)
                    at = _window(seq, count, address, space, score, space[t], capacity, total_to, staying_to)
                    if at < 0:
                        break
                    kept = np.int64(0)
                    for k in range(count):
                        u = seq[k]
                        if address[u] < at + space[t] and address[u] + space[u] > at:
                            cost[i] += _price(u, size, store, stored)
                            stored[u] = STORED
                            address[u] = -1
                        else:
                            seq[kept] = u
                            kept += 1
                    count = kept
                    at = _free_place(seq, count, address, space, last, space[t], last[t], capacity, rule)
                address[t] = at
                score[t] = np.inf
                count = _insert(seq, count, address, t)
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
            for k in range(count):
                if seq[k] == u:
                    seq[k] = t
            address[t] = address[u]
            address[u] = -1
        for k in range(operand_start[i], operand_start[i] + added[i]):
            stored[operand[k]] = PARTIAL if unfinished[i] else UNSTORED
        for k in range(result_start[i], result_start[i + 1]) if unfinished[i] else range(0):
            stored[result[k]] = PARTIAL
        for k in range(operand_start[i], operand_start[i + 1]):
            t = np.int64(operand[k])
            if address[t] >= 0 and pointer[t] == consumer_start[t + 1]:
                if space[t] > 0:
                    count = _remove(seq, count, t)
                address[t] = -1
        for k in range(result_start[i], result_start[i + 1]):
            t = np.int64(result[k])
            if address[t] >= 0 and pointer[t] == consumer_start[t + 1]:
                if space[t] > 0:
                    count = _remove(seq, count, t)
                address[t] = -1
        total += cost[i]
        if total > limit[i]:
            return cost, np.int64(OVER_LIMIT - i)
    return cost, logged
