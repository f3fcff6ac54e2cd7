"""Fast packing heuristics as numba kernels: first fit in many orders, then orders learned from failures.

A buffer is a set of rectangles (*parts*) that move together. Each order is packed by putting every buffer at
its lowest free address (or into its tightest free hole); orders that fail are repaired by moving the buffers
that stuck out, and what blocked them, towards the front. Everything is deterministic: the only randomness is
a counter-based generator started from the caller's seed.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np
from numba import njit

FREE = -1
"""Address of a buffer that is not placed yet."""


@njit(cache=True)
def overlap_lists(lower, upper, owner):
    """List, for every part, the parts of other buffers alive at the same time (compressed sparse rows)."""
    count = lower.size
    order = np.argsort(lower, kind="mergesort")
    degree = np.zeros(count + 1, np.int64)
    for fill in range(2):
        if fill == 1:
            for part in range(count):
                degree[part + 1] += degree[part]
            pointer = degree.copy()
            mates = np.empty(degree[count], np.int64)
        for left in range(count):
            first = order[left]
            for right in range(left + 1, count):
                second = order[right]
                if lower[second] >= upper[first]:
                    break
                if owner[first] == owner[second]:
                    continue
                if fill == 0:
                    degree[first + 1] += 1
                    degree[second + 1] += 1
                else:
                    mates[pointer[first]] = second
                    mates[pointer[second]] = first
                    pointer[first] += 1
                    pointer[second] += 1
    return degree, mates


@njit(cache=True)
def _sort_pairs(key, value, count):
    if count > 48:
        order = np.argsort(key[:count], kind="mergesort")
        key[:count] = key[:count][order]
        value[:count] = value[:count][order]
        return
    for i in range(1, count):
        a = key[i]
        b = value[i]
        j = i - 1
        while j >= 0 and key[j] > a:
            key[j + 1] = key[j]
            value[j + 1] = value[j]
            j -= 1
        key[j + 1] = a
        value[j + 1] = b


@njit(cache=True)
def lowest_free(b, parts, low, high, owner, degree, mates, offset, align, size, capacity, best, starts, ends):
    """Find an address for buffer `b` among the placed ones.

    The addresses an alive neighbour rules out form an open interval; the answer is the lowest aligned address
    outside all of them, or with `best` the lowest address of the tightest hole below `capacity`.
    """
    count = 0
    for part in range(parts[b], parts[b + 1]):
        for index in range(degree[part], degree[part + 1]):
            mate = mates[index]
            base = offset[owner[mate]]
            if base < 0 or low[mate] == high[mate] or low[part] == high[part]:
                continue
            first = base + low[mate] - high[part]
            last = base + high[mate] - low[part]
            if last <= 0:
                continue
            starts[count] = first
            ends[count] = last
            count += 1
    _sort_pairs(starts, ends, count)
    step = align[b]
    place = np.int64(0)
    chosen = np.int64(FREE)
    tightest = np.int64(0)
    for index in range(count):
        if starts[index] >= place:
            if not best:
                return place
            room = starts[index] - place
            if (chosen < 0 or room < tightest) and place + size[b] <= capacity:
                chosen = place
                tightest = room
        if ends[index] > place:
            place = -(-ends[index] // step) * step
    if best and chosen >= 0:
        room = capacity - size[b] - place
        return place if 0 <= room < tightest else chosen
    return place


@njit(cache=True)
def place_in_order(order, parts, low, high, owner, degree, mates, fixed, align, size, capacity, best, offset):
    """Put the buffers down one by one in the given order; return the height and fill `offset`."""
    widest = 1
    for b in range(size.size):
        widest = max(widest, degree[parts[b + 1]] - degree[parts[b]])
    starts = np.empty(widest, np.int64)
    ends = np.empty(widest, np.int64)
    height = np.int64(0)
    for b in range(size.size):
        offset[b] = fixed[b]
        if fixed[b] >= 0:
            height = max(height, fixed[b] + size[b])
    for b in order:
        if offset[b] < 0:
            offset[b] = lowest_free(
                b, parts, low, high, owner, degree, mates, offset, align, size, capacity, best, starts, ends
            )
            height = max(height, offset[b] + size[b])
    return height


@njit(cache=True)
def _live_sums(lower, upper, low, high, owner, count):
    """Return, per buffer, the most bytes alive at one step of its life."""
    times = np.unique(lower)
    live = np.zeros(times.size + 1, np.int64)
    first = np.searchsorted(times, lower)
    last = np.searchsorted(times, upper)
    for part in range(lower.size):
        live[first[part]] += high[part] - low[part]
        live[last[part]] -= high[part] - low[part]
    for step in range(1, times.size):
        live[step] += live[step - 1]
    most = np.zeros(count, np.int64)
    for part in range(lower.size):
        for step in range(first[part], last[part]):
            most[owner[part]] = max(most[owner[part]], live[step])
    return most


@njit(cache=True)
def _order_by(first_key, second_key):
    """Sort by the first key falling, then by the second falling, then by index."""
    order = np.argsort(-second_key, kind="mergesort")
    return order[np.argsort(-first_key[order], kind="mergesort")]


ORDERS = 6


@njit(cache=True)
def static_order(which, begin, end, size, most):
    """One of the `ORDERS` fixed orders, tried in turn."""
    life = end - begin
    if which == 0:
        return _order_by(size, life)
    if which == 1:
        return _order_by(size * life, size)
    if which == 2:
        return _order_by(life, size)
    if which == 3:
        return _order_by(-begin, size)
    if which == 4:
        return _order_by(most, size * life)
    return _order_by(most, size)


@njit(cache=True)
def heuristics(
    lower, upper, low, high, owner, parts, begin, end, fixed, align, size, hint, capacity, rounds, seed
):
    """Try hints, then each fixed order with first and best fit, then `rounds` repaired orders.

    Stops at the first packing of at most `capacity`.

    Returns
    -------
    (offsets, height, tried)
        The lowest packing met (above `capacity` when none fits) and the number of packings made.
    """
    count = size.size
    degree, mates = overlap_lists(lower, upper, owner)
    most = _live_sums(lower, upper, low, high, owner, count)
    offset = np.full(count, FREE, np.int64)
    best_offset = np.full(count, FREE, np.int64)
    best_height = np.int64(2**62)
    best_order = np.arange(count)
    tried = 0
    if hint.size == count:
        order = np.argsort(hint, kind="mergesort")
        best_height = place_in_order(
            order, parts, low, high, owner, degree, mates, fixed, align, size, capacity, False, best_offset
        )
        best_order = order
        tried += 1
        if best_height <= capacity:
            return best_offset, best_height, tried
    for which in range(2 * ORDERS):
        order = static_order(which % ORDERS, begin, end, size, most)
        height = place_in_order(
            order, parts, low, high, owner, degree, mates, fixed, align, size, capacity, which >= ORDERS, offset
        )
        tried += 1
        if height < best_height:
            best_height = height
            best_offset[:] = offset
            best_order = order
            if height <= capacity:
                return best_offset, best_height, tried
    order = best_order.copy()
    offset[:] = best_offset
    current = best_height
    state = np.uint64(seed) * np.uint64(2654435761) + np.uint64(88172645463325252)
    trial = order.copy()
    for _ in range(rounds):
        trial[:] = order
        state = _promote(trial, offset, size, max(capacity, 0), state)
        height = place_in_order(
            trial, parts, low, high, owner, degree, mates, fixed, align, size, capacity, False, offset
        )
        tried += 1
        if height <= current or tried % 16 == 0:
            order[:] = trial
            current = height
        if height < best_height:
            best_height = height
            best_offset[:] = offset
            if height <= capacity:
                break
    return best_offset, best_height, tried


@njit(cache=True)
def _promote(order, offset, size, capacity, state):
    """Move each buffer that sticks out to a random earlier place in the order; return the generator state."""
    for position in range(order.size):
        b = order[position]
        if offset[b] + size[b] <= capacity:
            continue
        state ^= state << np.uint64(13)
        state ^= state >> np.uint64(7)
        state ^= state << np.uint64(17)
        target = np.int64(state % np.uint64(position + 1))
        for shift in range(position, target, -1):
            order[shift] = order[shift - 1]
        order[target] = b
    return state
