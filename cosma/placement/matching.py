"""Compiled assignment: one assignment problem, nested ones over a tree of devices, and all pairs of candidates.

Names of alike devices are interchangeable, so the cheapest way to join two layers' placements is an assignment of the
later layer's devices to the earlier one's: within every group first, then of groups to groups (numba; imported only
by the optimisers).
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def assign(gain, size, match, scratch):  # type: ignore[no-untyped-def]
    """Find the assignment of rows to columns with the largest total gain (shortest augmenting paths).

    Only the leading ``size x size`` part of ``gain`` counts. ``match[c]`` becomes the row of column c; ``scratch``
    is ``float64[4, at least size + 1]``. Returns the total. Forbidden pairs are large negative gains.
    """
    if size == 1:
        match[0] = 0
        return gain[0, 0]
    if size == 2:
        straight = gain[0, 0] + gain[1, 1]
        crossed = gain[0, 1] + gain[1, 0]
        if straight >= crossed:
            match[0] = 0
            match[1] = 1
            return straight
        match[0] = 1
        match[1] = 0
        return crossed
    u = scratch[0]
    v = scratch[1]
    least = scratch[2]
    way = scratch[3]
    owner = np.zeros(size + 1, dtype=np.int64)
    used = np.zeros(size + 1, dtype=np.bool_)
    for j in range(size + 1):
        u[j] = 0.0
        v[j] = 0.0
    for i in range(1, size + 1):
        owner[0] = i
        j0 = np.int64(0)
        for j in range(size + 1):
            least[j] = np.inf
            used[j] = False
        while True:
            used[j0] = True
            i0 = owner[j0]
            delta = np.inf
            j1 = np.int64(0)
            for j in range(1, size + 1):
                if not used[j]:
                    reduced = -gain[i0 - 1, j - 1] - u[i0] - v[j]
                    if reduced < least[j]:
                        least[j] = reduced
                        way[j] = j0
                    if least[j] < delta:
                        delta = least[j]
                        j1 = np.int64(j)
            for j in range(size + 1):
                if used[j]:
                    u[owner[j]] += delta
                    v[j] -= delta
                else:
                    least[j] -= delta
            j0 = j1
            if owner[j0] == 0:
                break
        while j0 != 0:
            j1 = np.int64(way[j0])
            owner[j0] = owner[j1]
            j0 = j1
    total = 0.0
    for j in range(1, size + 1):
        match[j - 1] = owner[j] - 1
        total += gain[owner[j] - 1, j - 1]
    return total


@njit(cache=True)
def nested_gain(flow, group_start, group_kind, child_start, step, relabel, work, scratch):  # type: ignore[no-untyped-def]
    """Best total saving over all relabellings of the devices of the later layer, by nested assignment.

    ``flow[d, c]`` is what goes from device d of the earlier layer to device c of the later one. The tree comes as
    levels from the devices outwards: level h has groups ``group_start[h] .. group_start[h + 1]``; the children of
    group g at level h (h >= 1) are the groups ``child_start[g, 0] .. child_start[g, 1]`` (numbered within level h - 1);
    ``group_kind`` says which groups are alike, so that one may take the other's place. ``step[h]`` is what staying
    within one group of level h saves. ``relabel[c]`` becomes the earlier layer's name for device c.
    ``work`` is ``float64[2, devices, devices]``. Returns the saving.
    """
    levels = group_start.shape[0] - 1
    devices = flow.shape[0]
    value = work[0]
    upper = work[1]
    size = np.zeros(devices, dtype=np.int64)
    most = 1
    for h in range(1, levels):
        for g in range(group_start[h], group_start[h + 1]):
            most = max(most, child_start[g, 1] - child_start[g, 0])
    groups = group_start[2] - group_start[1]
    # names[h, g, c, k]: the child of g whose place child k of c takes when c stands for g.
    names = np.zeros((levels, groups, groups, most), dtype=np.int64)
    traffic = flow.copy()
    for a in range(devices):
        for b in range(devices):
            if group_kind[a] == group_kind[b]:
                value[a, b] = step[0] * flow[a, b]
            else:
                value[a, b] = -1e30
    gain = np.zeros((devices, devices))
    match = np.zeros(devices, dtype=np.int64)
    for h in range(1, levels):
        first = group_start[h]
        count = group_start[h + 1] - first
        inner = np.zeros((count, count))
        for a in range(count):
            a0 = child_start[first + a, 0]
            size[a] = child_start[first + a, 1] - a0
            for b in range(count):
                b0 = child_start[first + b, 0]
                together = 0.0
                for i in range(size[a]):
                    for j in range(child_start[first + b, 1] - b0):
                        together += traffic[a0 + i, b0 + j]
                inner[a, b] = together
                if group_kind[first + a] != group_kind[first + b]:
                    upper[a, b] = -1e30
                    continue
                for i in range(size[a]):
                    for j in range(size[a]):
                        gain[i, j] = value[a0 + i, b0 + j]
                best = assign(gain, size[a], match, scratch)
                for j in range(size[a]):
                    names[h, a, b, j] = match[j]
                upper[a, b] = best + (step[h] * together if h + 1 < levels else 0.0)
        for a in range(count):
            for b in range(count):
                value[a, b] = upper[a, b]
                traffic[a, b] = inner[a, b]
    # Walk down from the root: place[h][g] = which group of the earlier layer group g of the later one stands for.
    place = np.zeros(devices, dtype=np.int64)
    below = np.zeros(devices, dtype=np.int64)
    for h in range(levels - 1, 0, -1):
        first = group_start[h]
        for b in range(group_start[h + 1] - first):
            a = place[b]
            for j in range(child_start[first + b, 1] - child_start[first + b, 0]):
                below[child_start[first + b, 0] + j] = child_start[first + a, 0] + names[h, a, b, j]
        for k in range(group_start[h] - group_start[h - 1]):
            place[k] = below[k]
    for d in range(devices):
        relabel[d] = place[d]
    return value[0, 0]


@njit(cache=True)
def pair_gains(earlier, later, counts, devices, group_start, group_kind, child_start, step, gains):  # type: ignore[no-untyped-def]
    """Fill ``gains[a, b]``: the best saving between candidate a of a layer and candidate b of the next."""
    experts = counts.shape[0]
    levels = group_start.shape[0] - 1
    arrival = np.zeros((experts, devices))
    flow = np.zeros((devices, devices))
    relabel = np.zeros(devices, dtype=np.int64)
    work = np.zeros((2, devices, devices))
    scratch = np.zeros((4, devices + 2))
    flat = levels == 2
    match = np.zeros(devices, dtype=np.int64)
    one_kind = True
    for d in range(devices):
        if group_kind[d] != group_kind[0]:
            one_kind = False
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
            if flat and one_kind:
                gains[a, b] = step[0] * assign(flow, devices, match, scratch)
            else:
                gains[a, b] = nested_gain(flow, group_start, group_kind, child_start, step, relabel, work, scratch)
