"""Fast packing heuristics: first fit in many orders, then orders learned from failures.

A buffer is a set of rectangles (*parts*) that move together. Each order is packed by putting every buffer at
its lowest free address (or into its tightest free hole); orders that fail are repaired by moving the buffers
that stuck out, and what blocked them, towards the front. Everything is deterministic: the only randomness is
a counter-based generator started from the caller's seed.

The loops are numba kernels over two tables of 64-bit integers, one row per attribute; what happens once per
problem (sorting, sums) is numpy, because what a kernel calls is compiled with it.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from cosma.arrays import Ints
from cosma.compiled import kernel
from cosma.intervals import sums_over

if TYPE_CHECKING:

    from cosma.packing.arrays import Instance


ORDERS = 6
"""Fixed orders, each tried with first fit and with best fit."""

MOST_PAIRS = 1_000_000
"""Pairs of parts alive together that are listed, 16 bytes each; beyond, packing takes another way."""

FREE = -1
"""Address of a buffer that is not placed yet."""

LOW, HIGH, OWNER, MATES = range(4)
"""Rows of the part table: bytes from the owner's address, owner, first of its mates (ended by the next column's)."""

PARTS, FIXED, ALIGN, SIZE = range(4)
"""Rows of the buffer table: first of its parts (ended by the next column's), fixed address or `FREE`, the rest."""


@kernel
def overlap_lists(order, lower, upper, owner):
    """List, for every part, the parts of other buffers alive at the same time (compressed sparse rows).

    `order` sorts the parts by `lower`.
    """
    count = lower.size
    begins = np.zeros(count + 1, np.int64)
    mates = np.empty(0, np.int64)
    pointer = np.zeros(count, np.int64)
    for fill in range(2):
        if fill == 1:
            for part in range(count):
                begins[part + 1] += begins[part]
                pointer[part] = begins[part]
            mates = np.empty(begins[count], np.int64)
        for left in range(count):
            first = order[left]
            for right in range(left + 1, count):
                second = order[right]
                if lower[second] >= upper[first]:
                    break
                if owner[first] == owner[second]:
                    continue
                if fill == 0:
                    begins[first + 1] += 1
                    begins[second + 1] += 1
                else:
                    mates[pointer[first]] = second
                    mates[pointer[second]] = first
                    pointer[first] += 1
                    pointer[second] += 1
    return begins, mates


@kernel
def place_in_order(order, part, buffer, mates, capacity, best, offset, edges):
    """Put the buffers down one by one in the given order; return the height and fill `offset`.

    The addresses that the placed ones alive at the same time rule out for a buffer form open intervals; it gets
    the lowest aligned address outside all of them, or with `best` the lowest address of the tightest hole below
    `capacity`. `edges` is working memory: two rows as long as the most mates of one buffer.
    """
    height = np.int64(0)
    for b in range(offset.size):
        offset[b] = buffer[FIXED, b]
        if offset[b] >= 0:
            height = max(height, offset[b] + buffer[SIZE, b])
    for position in range(order.size):
        b = order[position]
        if offset[b] >= 0:
            continue
        count = np.int64(0)
        for own in range(buffer[PARTS, b], buffer[PARTS, b + 1]):
            for index in range(part[MATES, own], part[MATES, own + 1]):
                mate = mates[index]
                base = offset[part[OWNER, mate]]
                last = base + part[HIGH, mate] - part[LOW, own]
                if base < 0 or last <= 0 or part[LOW, mate] == part[HIGH, mate] or part[LOW, own] == part[HIGH, own]:
                    continue
                edges[0, count] = base + part[LOW, mate] - part[HIGH, own]
                edges[1, count] = last
                count += 1
        # Shell sort by start; equal starts may come in any order.
        gap = np.int64(1)
        while gap < count:
            gap = 3 * gap + 1
        while gap > 1:
            gap //= 3
            for i in range(gap, count):
                start = edges[0, i]
                end = edges[1, i]
                j = i - gap
                while j >= 0 and edges[0, j] > start:
                    edges[0, j + gap] = edges[0, j]
                    edges[1, j + gap] = edges[1, j]
                    j -= gap
                edges[0, j + gap] = start
                edges[1, j + gap] = end
        step = buffer[ALIGN, b]
        size = buffer[SIZE, b]
        place = np.int64(0)
        chosen = np.int64(FREE)
        tightest = np.int64(0)
        for index in range(count):
            if edges[0, index] >= place:
                if not best:
                    break
                room = edges[0, index] - place
                if (chosen < 0 or room < tightest) and place + size <= capacity:
                    chosen = place
                    tightest = room
            if edges[1, index] > place:
                place = -(-edges[1, index] // step) * step
        if chosen >= 0:
            room = capacity - size - place
            if room < 0 or room >= tightest:
                place = chosen
        offset[b] = place
        height = max(height, place + size)
    return height


@kernel
def promote(order, offset, buffer, capacity, state):
    """Move each buffer that sticks out to a random earlier place in the order; return the generator state."""
    for position in range(order.size):
        b = order[position]
        if offset[b] + buffer[SIZE, b] <= capacity:
            continue
        state ^= state << np.uint64(13)
        state ^= state >> np.uint64(7)
        state ^= state << np.uint64(17)
        target = np.int64(state % np.uint64(position + 1))
        for shift in range(position, target, -1):
            order[shift] = order[shift - 1]
        order[target] = b
    return state


def heuristics(
    instance: Instance, capacity: int, rounds: int, seed: int, deadline: float | None = None
) -> tuple[Ints, int, dict[str, int]]:
    """Try hints, then each fixed order with first and best fit, then `rounds` repaired orders.

    Stops at the first packing of at most `capacity`, or after the first that ends behind the deadline (a
    ``time.monotonic`` value). Where more than `MOST_PAIRS` are alive together, `cosma.packing.large` packs. Returns
    offsets and height of the lowest packing met, above `capacity` when none fits, and the work: packings made, and
    pairs of buffers looked at.
    """
    if instance.pairs() > MOST_PAIRS:
        from cosma.packing.large import pack_large

        return pack_large(instance, capacity, rounds=rounds, seed=seed, deadline=deadline)
    part, buffer, mates = tables(instance)
    count = instance.count
    widest = int(np.max(np.diff(part[MATES][buffer[PARTS]]), initial=1))
    edges = np.empty((2, widest), np.int64)
    offset = np.full(buffer.shape[1] - 1, FREE, np.int64)
    best_offset = offset.copy()
    best_height = 2**62
    tried = 0

    def late() -> bool:
        return deadline is not None and time.monotonic() >= deadline

    orders = static_orders(instance)
    attempts = [(order, best) for best in (False, True) for order in orders]
    if instance.hint.size:
        attempts.insert(0, (np.argsort(instance.hint, kind="stable"), False))
    best_order = attempts[0][0]
    for order, best in attempts:
        height = int(place_in_order(order, part, buffer, mates, capacity, best, offset, edges))
        tried += 1
        if height < best_height:
            best_height, best_order = height, order
            best_offset[:] = offset
        if height <= capacity or late():
            break
    order = best_order.copy()
    offset[:] = best_offset
    current = best_height
    state = np.uint64((seed * 2654435761 + 88172645463325252) % 2**64)
    for _ in range(rounds if best_height > capacity else 0):
        if late():
            break
        trial = order.copy()
        state = np.uint64(promote(trial, offset, buffer, max(capacity, 0), state))
        height = int(place_in_order(trial, part, buffer, mates, capacity, False, offset, edges))
        tried += 1
        if height <= current or tried % 16 == 0:
            order, current = trial, height
        if height < best_height:
            best_height = height
            best_offset[:] = offset
            if height <= capacity:
                break
    return best_offset[:count], best_height, {"placements": tried, "pairs": tried * (mates.size + buffer.shape[1])}


def tables(instance: Instance) -> tuple[Ints, Ints, Ints]:
    """Return the part table, the buffer table and the mates (parts alive with each part) for the kernels."""
    order = np.argsort(instance.lower, kind="stable")
    begins, mates = overlap_lists(order, instance.lower, instance.upper, instance.owner)
    part = np.zeros((4, instance.lower.size + 1), np.int64)
    part[LOW, :-1], part[HIGH, :-1], part[OWNER, :-1] = instance.low, instance.high, instance.owner
    part[MATES] = begins
    buffer = np.zeros((4, instance.size.size + 1), np.int64)
    buffer[PARTS] = instance.parts
    buffer[FIXED, :-1], buffer[ALIGN, :-1], buffer[SIZE, :-1] = instance.fixed, instance.align, instance.size
    return part, buffer, mates


def static_orders(instance: Instance) -> list[Ints]:
    """List the fixed orders: the first key falls, then the second, then by index."""
    size, life = instance.size, instance.end - instance.begin
    # As floating-point numbers, because sizes times steps may not fit 64-bit integers.
    area, most = size.astype(np.float64) * life, live_sums(instance)
    keys = [(size, life), (area, size), (life, size), (-instance.begin, size), (most, area), (most, size)]
    assert len(keys) == ORDERS
    return [np.lexsort((-second, -first)) for first, second in keys]


def live_sums(instance: Instance) -> Ints:
    """Return, per buffer, the most bytes alive at one step of its life."""
    most = np.zeros(instance.size.size, np.int64)
    if not instance.lower.size:
        return most
    times = np.unique(instance.lower)
    first, last = np.searchsorted(times, instance.lower), np.searchsorted(times, instance.upper)
    live = sums_over(first, last, instance.high - instance.low, times.size + 1)
    spans = np.stack((first, last), axis=1).ravel()
    np.maximum.at(most, instance.owner, np.maximum.reduceat(live, spans)[::2])
    return most
