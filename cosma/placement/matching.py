"""Compiled assignment: one assignment problem, nested ones over a tree of devices, and all pairs of candidates.

Names of alike devices are interchangeable, so the cheapest way to join two layers' placements is an assignment of the
later layer's devices to the earlier one's: within every group first, then of groups to groups (numba; imported only
by the optimisers).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cosma.compiled import helper, kernel

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@helper
def assign(gain: Floats, size: int, match: Ints, reals: Floats, whole: Ints) -> float:
    """Find the assignment of rows to columns with the largest total gain (shortest augmenting paths).

    Only the leading ``size x size`` part of ``gain`` counts. ``match[c]`` becomes the row of column c; scratch is
    ``reals``, ``float64[3, at least size + 1]``, and ``whole``, ``int64[3, at least size + 1]``. Returns the total.
    Forbidden pairs are large negative gains.
    """
    if size == 1:
        match[0] = 0
        return float(gain[0, 0])
    if size == 2:
        straight = gain[0, 0] + gain[1, 1]
        crossed = gain[0, 1] + gain[1, 0]
        if straight >= crossed:
            match[0] = 0
            match[1] = 1
            return float(straight)
        match[0] = 1
        match[1] = 0
        return float(crossed)
    u = reals[0]
    v = reals[1]
    least = reals[2]
    way = whole[0]
    owner = whole[1]
    used = whole[2]
    for j in range(size + 1):
        u[j] = 0.0
        v[j] = 0.0
        owner[j] = 0
    for i in range(1, size + 1):
        owner[0] = i
        j0 = 0
        for j in range(size + 1):
            least[j] = np.inf
            used[j] = 0
        while True:
            used[j0] = 1
            i0 = owner[j0]
            delta = np.inf
            j1 = 0
            for j in range(1, size + 1):
                if used[j] == 0:
                    reduced = -gain[i0 - 1, j - 1] - u[i0] - v[j]
                    if reduced < least[j]:
                        least[j] = reduced
                        way[j] = j0
                    if least[j] < delta:
                        delta = least[j]
                        j1 = j
            for j in range(size + 1):
                if used[j] == 1:
                    u[owner[j]] += delta
                    v[j] -= delta
                else:
                    least[j] -= delta
            j0 = j1
            if owner[j0] == 0:
                break
        while j0 != 0:
            j1 = way[j0]
            owner[j0] = owner[j1]
            j0 = j1
    total = 0.0
    for j in range(1, size + 1):
        match[j - 1] = owner[j] - 1
        total += gain[owner[j] - 1, j - 1]
    return total


@helper
def nested_gain(
    flow: Floats, group_start: Ints, group_kind: Ints, child_start: Ints, step: Floats, match: Ints, work: Floats,
    reals: Floats, whole: Ints,
) -> float:  # fmt: skip
    """Best total saving over all relabellings of the devices of the later layer, by nested assignment.

    ``flow[d, c]`` is what goes from device d of the earlier layer to device c of the later one. The tree comes as
    levels from the devices outwards: level h has groups ``group_start[h] .. group_start[h + 1]``; the children of
    group g at level h (h >= 1) are the groups ``child_start[g, 0] .. child_start[g, 1]`` (numbered within level h - 1);
    ``group_kind`` says which groups are alike, so that one may take the other's place. ``step[h]`` is what staying
    within one group of level h saves. Scratch is ``match``, ``int64[devices]``, ``work``, ``float64[5, devices,
    devices]``, and that of ``assign``. Returns the saving; ``recombine.rename`` is the same in plain Python and also
    says which device stands for which.
    """
    levels = group_start.shape[0] - 1
    devices = flow.shape[0]
    value = work[0]
    upper = work[1]
    traffic = work[2]
    inner = work[3]
    gain = work[4]
    for a in range(devices):
        for b in range(devices):
            traffic[a, b] = flow[a, b]
            if group_kind[a] == group_kind[b]:
                value[a, b] = step[0] * flow[a, b]
            else:
                value[a, b] = -1e30
    for h in range(1, levels):
        first = group_start[h]
        count = group_start[h + 1] - first
        for a in range(count):
            a0 = child_start[first + a, 0]
            size = child_start[first + a, 1] - a0
            for b in range(count):
                b0 = child_start[first + b, 0]
                together = 0.0
                for i in range(size):
                    for j in range(child_start[first + b, 1] - b0):
                        together += traffic[a0 + i, b0 + j]
                inner[a, b] = together
                if group_kind[first + a] != group_kind[first + b]:
                    upper[a, b] = -1e30
                    continue
                for i in range(size):
                    for j in range(size):
                        gain[i, j] = value[a0 + i, b0 + j]
                best = assign(gain, size, match, reals, whole)
                if h + 1 < levels:
                    best += step[h] * together
                upper[a, b] = best
        for a in range(count):
            for b in range(count):
                value[a, b] = upper[a, b]
                traffic[a, b] = inner[a, b]
    return float(value[0, 0])


@kernel
def pair_gains(
    earlier: Ints, later: Ints, counts: Floats, devices: int, group_start: Ints, group_kind: Ints, child_start: Ints,
    step: Floats, gains: Floats,
) -> None:  # fmt: skip
    """Fill ``gains[a, b]``: the best saving between candidate a of a layer and candidate b of the next."""
    experts = counts.shape[0]
    arrival = np.empty((experts, devices))
    flow = np.empty((devices, devices))
    work = np.empty((5, devices, devices))
    match = np.empty(devices, dtype=np.int64)
    reals = np.empty((3, devices + 2))
    whole = np.empty((3, devices + 2), dtype=np.int64)
    for b in range(later.shape[0]):
        for e in range(experts):
            for d in range(devices):
                arrival[e, d] = 0.0
            for f in range(experts):
                arrival[e, later[b, f]] += counts[e, f]
        for a in range(earlier.shape[0]):
            for d in range(devices):
                for c in range(devices):
                    flow[d, c] = 0.0
            for e in range(experts):
                row = earlier[a, e]
                for c in range(devices):
                    flow[row, c] += arrival[e, c]
            gains[a, b] = nested_gain(flow, group_start, group_kind, child_start, step, match, work, reals, whole)


@kernel
def flow_gains(
    flows: Floats, group_start: Ints, group_kind: Ints, child_start: Ints, step: Floats, gains: Floats
) -> None:
    """Fill ``gains[i]``: the best saving over all relabellings of what goes between devices, ``flows[i]``."""
    devices = flows.shape[1]
    work = np.empty((5, devices, devices))
    match = np.empty(devices, dtype=np.int64)
    reals = np.empty((3, devices + 2))
    whole = np.empty((3, devices + 2), dtype=np.int64)
    for i in range(flows.shape[0]):
        gains[i] = nested_gain(flows[i], group_start, group_kind, child_start, step, match, work, reals, whole)
