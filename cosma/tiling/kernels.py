"""Compiled loops of the choice of segments (numba; imported only where tilings are chosen)."""

from __future__ import annotations

from typing import Any

import numpy as np

from cosma.arrays import Bools, Ints
from cosma.compiled import helper, kernel

#: States of a boundary between segments: what crosses it lies off-chip, in the scratchpad, or only the newest does.
SPILLED, RESIDENT, NEWEST = 0, 1, 2
STATES = 3
#: What a segment costs that needs more than the capacity.
DOES_NOT_FIT = np.int64(1) << np.int64(60)
#: What a segment costs that no longer one can run either, at any capacity and in any state.
CANNOT_RUN = DOES_NOT_FIT + np.int64(1)
#: Most pieces that the estimate cuts an operator's weights into; not measured.
WEIGHT_PIECES = np.int64(16)


@helper
def _held(state: int, t: int, boundary: int, maker: Ints) -> Any:
    """Whether a tensor that crosses a boundary lies in the scratchpad there."""
    if state == RESIDENT:
        return True
    if state == NEWEST:
        return maker[t] == boundary - 1
    return False


@helper
def _read_again(i: int, j: int, weight: Ints, room: Any, left: Ints) -> Any:
    """Bytes of weights that do not stay: they are kept as far as they fit, the largest first; ``left`` is scratch."""
    for v in range(i, j):
        left[v] = weight[v]
    again = np.int64(0)
    while True:
        v = i
        for u in range(i + 1, j):
            if left[u] > left[v]:
                v = u
        if left[v] <= 0:
            return again
        left[v] = 0
        if weight[v] <= room:
            room -= weight[v]
        else:
            again += weight[v]


@helper
def _segment_cost(
    i: int, j: int, n: int, stripes: int, before: int, after: int, capacity: int,
    size: Ints, rows: Ints, is_input: Bools, is_output: Bools, height: Ints, channels: Ints, weight: Ints,
    in_place: Bools, start: Ints, tensor: Ints, wanted: Ints, result_start: Ints,
    result: Ints, maker: Ints, first_use: Ints, last_use: Ints, need: Ints, shared: Ints, first: Ints,
    last: Ints, load: Ints, mark: Ints, seen: Ints, crossing_start: Ints, crossing: Ints,
) -> Any:  # fmt: skip
    """Estimate what operators ``[i, j)`` cost when they run stripe by stripe, in stripes of entry ``n`` of the ladder.

    ``wanted`` holds by operand and entry the rows of the operand that a stripe reads at the most; -1 where every row of
    the result reads the same rows.
    ``need``, ``shared``, ``first``, ``last``, ``mark`` and ``seen`` are scratch by tensor, ``load`` by operator. The
    last of ``seen`` counts the calls, and others hold the call that has last touched a tensor. ``crossing`` lists by
    operator what was made before it and is read by it or later.

    Returns
    -------
    int64
        Bytes moved beyond the compulsory, ``DOES_NOT_FIT`` at this capacity, or ``CANNOT_RUN`` stripe by stripe.
    """
    for v in range(i, j):
        load[v] = 0
        if stripes > 1 and height[v] < stripes:
            return CANNOT_RUN
    cost = np.int64(0)
    touched = np.int64(0)
    seen[-1] += 1
    call = seen[-1]
    # Rows that readers within the segment need of each tensor, and where it is used.
    for v in range(i, j):
        advance = -(-height[v] // stripes)
        for k in range(result_start[v], result_start[v + 1]):
            t = result[k]
            mark[touched] = t
            touched += 1
            first[t], last[t], need[t], shared[t], seen[t] = v, v, advance, 0, call
        for k in range(start[v], start[v + 1]):
            t = tensor[k]
            inside = maker[t] >= i
            read, both = rows[t], np.int64(0)
            if stripes > 1:
                read, both = wanted[k, n, 0], wanted[k, n, 1]
            if read < 0:
                if inside and rows[t] > 1:
                    return CANNOT_RUN
                read = rows[t]
            if seen[t] != call:
                mark[touched] = t
                touched += 1
                first[t], need[t], shared[t], seen[t] = v, 0, 0, call
            last[t] = v
            need[t], shared[t] = max(need[t], read), max(shared[t], both)
    base = np.int64(0)
    for m in range(touched):
        t = mark[m]
        row = -(-size[t] // rows[t])
        inside = maker[t] >= i
        leaves = last_use[t] >= j or (is_output[t] and inside)
        stays = leaves and last_use[t] >= j and _held(after, t, j, maker)
        came = (not inside) and (not is_input[t]) and _held(before, t, i, maker)
        if stays or came:
            base_from = i if (came or stripes > 1) else first[t]
            until = j - 1 if (stays or stripes > 1) else last[t]
            load[base_from] += size[t]
            if until + 1 < j:
                load[until + 1] -= size[t]
        else:
            whole = need[t] * row if need[t] < rows[t] else size[t]
            halo = shared[t] * row
            if stripes > 1 and need[t] >= rows[t]:
                halo = size[t]
            base += halo
            load[first[t]] += whole - halo
            if last[t] + 1 < j:
                load[last[t] + 1] -= whole - halo
        # What it moves.
        if inside:
            if leaves and not stays and not is_output[t]:
                cost += size[t]
        elif is_input[t]:
            if first_use[t] < i:
                cost += size[t]
        elif not came or (last_use[t] >= j and not stays):
            cost += size[t]
    # What crosses the whole segment unused.
    for k in range(crossing_start[i], crossing_start[i + 1]):
        t = crossing[k]
        if last_use[t] >= j and seen[t] != call:
            came, stays = _held(before, t, i, maker), _held(after, t, j, maker)
            if came and stays:
                base += size[t]
            elif came:
                cost += size[t]
                load[i] += size[t]
                if i + 1 < j:
                    load[i + 1] -= size[t]
            elif stays:
                cost += size[t]
                load[j - 1] += size[t]
    for v in range(i + 1, j):
        load[v] += load[v - 1]
    peak = np.int64(0)
    for v in range(i, j):
        load[v] += base
        if in_place[v]:
            load[v] -= size[result[result_start[v]]] // stripes if stripes > 1 else size[result[result_start[v]]]
        # Weights read again for every stripe come in pieces of their channels.
        peak = max(peak, load[v] - (-weight[v] // max(np.int64(1), min(channels[v], WEIGHT_PIECES))))
    if peak > capacity:
        return DOES_NOT_FIT
    if stripes == 1:
        return cost
    return cost + (stripes - 1) * _read_again(i, j, weight, capacity - peak, load)


@helper
def _crossings(count: int, is_input: Bools, maker: Ints, last_use: Ints) -> tuple[Ints, Ints]:
    """CSR by operator: what was made before it and is read by it or later."""
    start = np.zeros(count + 2, np.int64)
    for t in range(len(maker)):
        if not is_input[t]:
            for v in range(maker[t] + 1, last_use[t] + 1):
                start[v + 1] += 1
    for v in range(count + 1):
        start[v + 1] += start[v]
    crossing, filled = np.zeros(start[-1], np.int64), start[:-1].copy()
    for t in range(len(maker)):
        if not is_input[t]:
            for v in range(maker[t] + 1, last_use[t] + 1):
                crossing[filled[v]] = t
                filled[v] += 1
    return start, crossing


@kernel
def extend_segments(
    i: int, best: Ints, back: Ints, ladder: Ints, longest: int, capacity: int,
    size: Ints, rows: Ints, is_input: Bools, is_output: Bools, height: Ints, channels: Ints, weight: Ints,
    in_place: Bools, start: Ints, tensor: Ints, wanted: Ints, result_start: Ints,
    result: Ints, maker: Ints, first_use: Ints, last_use: Ints, alone_start: Ints, alone_end: Ints,
    alone_cost: Ints, tile_price: int,
) -> None:  # fmt: skip
    """Try all segments that begin at operator ``i``: one step of the dynamic program over boundaries and states.

    ``best`` holds the least estimate up to each boundary and state, ``back`` where its last segment begins, the state
    there, and its stripes; for operators by themselves minus the number in ``alone_end`` instead of stripes.
    ``alone_start`` (CSR by first operator) and ``alone_end`` are operators that may have the scratchpad to themselves;
    ``alone_cost`` is what they then move beyond operands and results. Every stripe of an operator counts as
    ``tile_price`` bytes.
    """
    count = len(height)
    tensors = len(size)
    # Numbers of numpy's: a kernel is compiled once more for constants of Python's.
    whole: Any = np.int64(1)
    first_entry: Any = np.int64(0)
    spilled: Any = np.int64(SPILLED)
    ample: Any = DOES_NOT_FIT
    need, shared = np.zeros(tensors, np.int64), np.zeros(tensors, np.int64)
    first, last = np.full(tensors, -1, np.int64), np.zeros(tensors, np.int64)
    mark = np.zeros(len(tensor) + len(result) + 1, np.int64)
    load, seen = np.zeros(count, np.int64), np.zeros(tensors + 1, np.int64)
    crossing_start, crossing = _crossings(count, is_input, maker, last_use)
    tried = np.ones(len(ladder), np.bool_)
    for before in range(STATES):
        if best[i, before] >= DOES_NOT_FIT:
            continue
        for k in range(alone_start[i], alone_start[i + 1]) if before == SPILLED else range(0):
            j = alone_end[k]
            if alone_cost[k] >= DOES_NOT_FIT:
                continue
            cost = alone_cost[k] + _segment_cost(
                i, j, first_entry, whole, spilled, spilled, ample, size, rows, is_input, is_output, height, channels,
                weight, in_place, start, tensor, wanted, result_start, result, maker, first_use, last_use, need,
                shared, first, last, load, mark, seen, crossing_start, crossing,
            )  # fmt: skip
            if best[i, before] + cost < best[j, SPILLED]:
                best[j, SPILLED] = best[i, before] + cost
                back[j, SPILLED, 0], back[j, SPILLED, 1], back[j, SPILLED, 2] = i, before, -k
        tried[:] = True
        for j in range(i + 1, min(count, i + longest) + 1):
            fits = False
            for n in range(len(ladder)):
                stripes = ladder[n]
                for after in range(STATES if j < count and tried[n] else tried[n]):
                    if best[i, before] >= best[j, after]:  # nothing costs less than nothing
                        fits = True
                        continue
                    cost = _segment_cost(
                        i, j, n, stripes, before, after, capacity, size, rows, is_input, is_output, height, channels,
                        weight, in_place, start, tensor, wanted, result_start, result, maker, first_use,
                        last_use, need, shared, first, last, load, mark, seen, crossing_start, crossing,
                    )  # fmt: skip
                    if cost >= DOES_NOT_FIT:
                        tried[n] = cost != CANNOT_RUN
                        continue
                    fits = True
                    cost += tile_price * stripes * (j - i)
                    if best[i, before] + cost < best[j, after]:
                        best[j, after] = best[i, before] + cost
                        back[j, after, 0], back[j, after, 1], back[j, after, 2] = i, before, stripes
            if not fits and j > i + 8:
                break
