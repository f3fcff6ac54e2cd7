"""First fit for many buffers, in memory near linear in their number: a tree over time of occupied addresses.

Listing every pair of buffers alive at the same time takes memory by the square of their number. Here time is a
binary tree. A rectangle is split into the few nodes that cover its life (its *canonical* nodes). Each node keeps two
lists of address ranges, rising and merged where they touch:

- ``COVER``: what is occupied throughout the node's span by rectangles with this canonical node;
- ``TOUCH``: what is occupied at any step of the node's span by rectangles with canonical nodes in its subtree.

What is in the way of a rectangle is then in the ``TOUCH`` lists of its canonical nodes and in the ``COVER`` lists of
their ancestors. Dense packings merge to few ranges, so both looking and adding are cheap.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.arrays import Ints
from cosma.compiled import helper, kernel
from cosma.intervals import sums_over
from cosma.packing.arrays import sections_of

if TYPE_CHECKING:

    from cosma.packing.arrays import Instance


COVER, TOUCH = 0, 1
"""Kinds of lists of a node; list ``2 * node + kind``."""

WHERE, COUNT, ROOM = range(3)
"""Rows of the table of lists: first range in the pool, ranges, and ranges that there is room for."""

LOW, HIGH = range(2)
"""Rows of the pool of ranges."""

BEGIN, END, BOTTOM, TOP = range(4)
"""Rows of the part table: first section, first section after, and bytes from the owner's address."""

PARTS, FIXED, ALIGN, SIZE = range(4)
"""Rows of the buffer table: first of its parts (ended by the next column's), fixed address or -1, the rest."""

CLASSES = 40
"""Sizes of room in the pool, in powers of two. One entry more is the end of what the pool has given out."""

STEPS = CLASSES + 1
"""Entry after these: ranges and lists looked at so far."""

LEAST_ROOM = 2
"""Ranges a list has room for at first."""

MOST_LOOKED = 2000
"""Buffers alive that a sweep looks at for one buffer: a few microseconds."""

MOST_NODES = 128
"""More nodes than a path to the root and the canonical nodes of one rectangle are together."""


@helper
def trace(begin, end, leaves, nodes):
    """List the canonical nodes of the sections ``[begin, end)``, then their ancestors; return how many of each."""
    left, right = begin + leaves, end + leaves
    first, last = left, right - 1
    canonical = ancestors = 0
    began = ended = False
    middle = nodes.size // 2
    while first > 0:
        if began:
            nodes[middle + ancestors] = first
            ancestors += 1
        if ended and not (began and first == last):
            nodes[middle + ancestors] = last
            ancestors += 1
        if left < right:
            if left & 1:
                nodes[canonical] = left
                canonical += 1
                left += 1
                began = True
            if right & 1:
                right -= 1
                nodes[canonical] = right
                canonical += 1
                ended = True
        left >>= 1
        right >>= 1
        first >>= 1
        last >>= 1
    return canonical, ancestors


@helper
def add(lists, pool, spare, k, low, high):
    """Add a range to list `k`; return the pool, a larger one where it was full."""
    where, count = lists[WHERE, k], lists[COUNT, k]
    left, right = where, where + count
    while left < right:
        middle = (left + right) >> 1
        if pool[HIGH, middle] < low:
            left = middle + 1
        else:
            right = middle
    first = left
    last = first
    spare[STEPS] += 1
    while last < where + count and pool[LOW, last] <= high:
        last += 1
    if last > first:
        pool[LOW, first] = min(low, pool[LOW, first])
        pool[HIGH, first] = max(high, pool[HIGH, last - 1])
        gone = last - first - 1
        if gone:
            spare[STEPS] += (where + count - last) >> 2
            for i in range(last, where + count):
                pool[LOW, i - gone] = pool[LOW, i]
                pool[HIGH, i - gone] = pool[HIGH, i]
            lists[COUNT, k] = count - gone
        return pool
    if count == lists[ROOM, k]:
        room = LEAST_ROOM if count == 0 else 2 * count
        size_class = 0
        while (1 << size_class) < room:
            size_class += 1
        fresh = spare[size_class]
        if fresh >= 0:
            spare[size_class] = pool[LOW, fresh]
        else:
            fresh = spare[CLASSES]
            spare[CLASSES] += room
            if spare[CLASSES] > pool.shape[1]:
                larger = np.empty((2, 2 * spare[CLASSES]), np.int64)
                larger[:, :fresh] = pool[:, :fresh]
                pool = larger
        for i in range(count):
            pool[LOW, fresh + i] = pool[LOW, where + i]
            pool[HIGH, fresh + i] = pool[HIGH, where + i]
        if count:
            pool[LOW, where] = spare[size_class - 1]
            spare[size_class - 1] = where
        first += fresh - where
        where = fresh
        lists[WHERE, k] = where
        lists[ROOM, k] = room
    spare[STEPS] += (where + count - first) >> 2
    for i in range(where + count, first, -1):
        pool[LOW, i] = pool[LOW, i - 1]
        pool[HIGH, i] = pool[HIGH, i - 1]
    pool[LOW, first] = low
    pool[HIGH, first] = high
    lists[COUNT, k] = count + 1
    return pool


@helper
def settle(lists, pool, spare, part, buffer, leaves, unit, b, address, nodes):
    """Occupy what buffer `b` takes at an address; return the pool."""
    for own in range(buffer[PARTS, b], buffer[PARTS, b + 1]):
        low = address + part[BOTTOM, own]
        # No address lies between an end and the next multiple of the unit.
        high = -(-(address + part[TOP, own]) // unit) * unit
        if part[BOTTOM, own] == part[TOP, own]:
            continue
        canonical, ancestors = trace(part[BEGIN, own], part[END, own], leaves, nodes)
        for k in range(canonical):
            node = nodes[k]
            pool = add(lists, pool, spare, 2 * node + TOUCH, low, high)
            if node < leaves:
                pool = add(lists, pool, spare, 2 * node + COVER, low, high)
        for k in range(nodes.size // 2, nodes.size // 2 + ancestors):
            pool = add(lists, pool, spare, 2 * nodes[k] + TOUCH, low, high)
    return pool


@helper
def lowest(lists, pool, spare, part, buffer, leaves, b, nodes, seen):
    """Return the lowest aligned address at which buffer `b` touches nothing.

    `seen` is working memory: per list looked at, the next range, the end of the ranges and the buffer's own range.
    """
    looked = 0
    for own in range(buffer[PARTS, b], buffer[PARTS, b + 1]):
        if part[BOTTOM, own] == part[TOP, own]:
            continue
        canonical, ancestors = trace(part[BEGIN, own], part[END, own], leaves, nodes)
        for k in range(canonical + ancestors):
            listed = 2 * nodes[k] + TOUCH if k < canonical else 2 * nodes[nodes.size // 2 + k - canonical] + COVER
            if lists[COUNT, listed]:
                seen[0, looked] = lists[WHERE, listed]
                seen[1, looked] = lists[WHERE, listed] + lists[COUNT, listed]
                seen[2, looked] = part[BOTTOM, own]
                seen[3, looked] = part[TOP, own]
                looked += 1
    step = buffer[ALIGN, b]
    address = np.int64(0)
    calm = k = 0
    while calm < looked:
        spare[STEPS] += 1
        i, stop, bottom, top = seen[0, k], seen[1, k], address + seen[2, k], address + seen[3, k]
        # Ranges passed are found by doubling steps, then by halving.
        stride = 1
        while i + stride < stop and pool[HIGH, i + stride - 1] <= bottom:
            i += stride
            stride *= 2
        while stride > 0:
            if i + stride <= stop and pool[HIGH, i + stride - 1] <= bottom:
                i += stride
            stride >>= 1
        seen[0, k] = i
        if i < stop and pool[LOW, i] < top:
            address = -(-(pool[HIGH, i] - seen[2, k]) // step) * step
            calm = 0
        else:
            calm += 1
            k += 1
            if k == looked:
                k = 0
    return address


@kernel
def place(order, part, buffer, leaves, unit, lists, pool, spare, offset, nodes, seen):
    """Put buffers down one by one at their lowest free addresses; return the height of these and the pool."""
    height = np.int64(0)
    for position in range(order.size):
        b = order[position]
        address = buffer[FIXED, b]
        if address < 0:
            address = lowest(lists, pool, spare, part, buffer, leaves, b, nodes, seen)
        offset[b] = address
        height = max(height, address + buffer[SIZE, b])
        pool = settle(lists, pool, spare, part, buffer, leaves, unit, b, address, nodes)
    return height, pool


@kernel
def sweep(order, fixed, begin, end, top, align, offset):
    """Put buffers down in the order of their starts, each at its lowest address free for its whole life.

    The first `fixed` of the order have their addresses and come by these; they are in the way up to their ends, even
    before they start. Buffers alive are linked by address. Where `MOST_LOOKED` leave no room, a buffer is put on top.
    """
    link = np.full(order.size + 1, -1, np.int64)
    tail = np.int64(0)
    height = np.int64(0)
    for position in range(order.size):
        b = order[position]
        before = tail
        if position >= fixed:
            address = before = looked = np.int64(0)
            node = link[0] if top[b] else np.int64(-1)
            while node >= 0:
                other = order[node - 1]
                if end[other] <= begin[b]:
                    link[before] = link[node]
                    tail = before if tail == node else tail
                elif offset[other] >= address + top[b]:
                    break
                else:
                    address = max(address, -(-(offset[other] + top[other]) // align[b]) * align[b])
                    before = node
                    looked += 1
                    if looked == MOST_LOOKED:
                        address = -(-height // align[b]) * align[b]
                        before = tail
                        break
                node = link[node]
            offset[b] = address
        if top[b]:
            link[position + 1] = link[before]
            link[before] = position + 1
            tail = np.int64(position + 1) if before == tail else tail
            height = max(height, offset[b] + top[b])


def sweep_fit(instance: Instance) -> tuple[Ints, int]:
    """Give addresses in one sweep over the starts, in time linear in the buffers; return these and the height."""
    top = np.zeros(instance.size.size, np.int64)
    np.maximum.at(top, instance.owner, instance.high)
    offset = np.maximum(instance.fixed, 0)
    held = np.flatnonzero(instance.fixed >= 0)
    free = np.flatnonzero(instance.fixed < 0)
    order = np.concatenate((
        held[np.argsort(offset[held], kind="stable")], free[np.argsort(instance.begin[free], kind="stable")]
    ))  # fmt: skip
    sweep(order, held.size, instance.begin, instance.end, top, instance.align, offset)
    return offset, int((offset + instance.size).max(initial=0))


class Occupancy:
    """What is occupied when, at first nothing; buffers are put down in the order given.

    Parameters
    ----------
    instance
        The buffers, and the forbidden ranges as fixed buffers behind them.
    """

    def __init__(self, instance: Instance) -> None:
        begin, end, sections = sections_of(instance.lower, instance.upper)
        self.sections = sections
        self.leaves = 1 << max(0, sections - 1).bit_length()
        self.part = np.stack((begin, end, instance.low, instance.high))
        self.buffer = np.zeros((4, instance.size.size + 1), np.int64)
        self.buffer[PARTS] = instance.parts
        self.buffer[FIXED, :-1], self.buffer[ALIGN, :-1] = instance.fixed, instance.align
        self.buffer[SIZE, :-1] = instance.size
        free = instance.align[: instance.count]
        self.unit = int(np.gcd.reduce(free)) if free.size and not instance.low.any() else 1
        self.lists = np.zeros((3, 4 * self.leaves), np.int64)
        self.pool = np.empty((2, 16 + 8 * instance.size.size), np.int64)
        self.spare = np.zeros(CLASSES + 2, np.int64)
        self.offset = np.empty(instance.size.size, np.int64)
        self._nodes = np.empty(2 * MOST_NODES, np.int64)
        widest = int(np.max(np.diff(instance.parts), initial=1))
        self._seen = np.empty((4, widest * 2 * MOST_NODES), np.int64)
        self.clear()

    def clear(self) -> None:
        """Take everything out."""
        self.lists[:] = 0
        self.spare[:CLASSES] = -1
        self.spare[CLASSES] = 0

    @property
    def steps(self) -> int:
        """Ranges and lists looked at so far: work, whatever the machine."""
        return int(self.spare[STEPS])

    def put(self, order: Ints) -> int:
        """Put buffers down at their lowest free addresses (fixed ones at theirs); return their height."""
        height, self.pool = place(
            order, self.part, self.buffer, self.leaves, self.unit, self.lists, self.pool, self.spare, self.offset,
            self._nodes, self._seen,
        )  # fmt: skip
        return int(height)


def load_of(instance: Instance, occupancy: Occupancy) -> Ints:
    """Return, per buffer, the most bytes alive in one section of its life."""
    most = np.zeros(instance.size.size, np.int64)
    if not instance.lower.size:
        return most
    begin, end = occupancy.part[BEGIN], occupancy.part[END]
    live = sums_over(begin, end, instance.high - instance.low, occupancy.sections + 1)
    # One row per power of two: the fullest of so many sections from each on.
    rows = [live]
    while 2 << (len(rows) - 1) <= occupancy.sections:
        half = 1 << (len(rows) - 1)
        rows.append(np.maximum(rows[-1][:-half], rows[-1][half:]))
    table = np.zeros((len(rows), live.size), np.int64)
    for k, row in enumerate(rows):
        table[k, : row.size] = row
    level = np.floor(np.log2(end - begin)).astype(np.int64)
    fullest = np.maximum(table[level, begin], table[level, end - (1 << level)])
    np.maximum.at(most, instance.owner, fullest)
    return most
