"""What a partial packing leaves open, compiled: the rules that place buffers or move their limits.

For every unplaced buffer the kernel keeps

- ``REST``: the lowest address on the present skyline,
- ``HEAD`` >= rest: a lower bound on its address in any settled completion,
- ``TAIL``: an upper bound,
- ``UNDER``: the earliest top of an unplaced buffer it could be put upon.

A settled buffer is at its rest or at least at ``UNDER``; nothing lies in between. That is the branching rule
(two children: *here*, or *not below* ``UNDER``) and, with the following, the inference:

- in each section the unplaced buffers with heads >= h need their sum above h, for every h (one-machine bound);
- a buffer that does not fit beside a set of later heads must lie below all of it, which lowers its tail;
- a tail below ``UNDER`` forces the buffer down now; a head above its rest lifts it to ``UNDER``.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, assignment"

from __future__ import annotations

import numpy as np

from cosma.compiled import helper
from cosma.packing.tables import (
    ALIGN,
    BEYOND_ADDRESSES,
    BLOCK,
    BUFFER,
    CEILING,
    CELL,
    CROSSING,
    DIRTY,
    FIRST,
    FLOOR,
    HEAD,
    HEIGHT,
    HIGH,
    ITEM,
    LAST,
    LOW,
    OFFSET,
    PLACED,
    REST,
    SECTION,
    STALE,
    START,
    STEPS,
    TAIL,
    TOP_ONE,
    TOP_OWNER,
    TOP_TWO,
    UNDER,
    WALL,
)


@helper
def free_from(buffers, blocks, b, address):
    """Return the lowest aligned address >= `address` that no forbidden range rules out for buffer `b`."""
    step = buffers[ALIGN, b]
    if step > 1:
        address = -(-address // step) * step
    for k in range(buffers[BLOCK, b], buffers[BLOCK, b + 1]):
        if address < blocks[LOW, k]:
            break
        address = max(address, blocks[HIGH, k])
    return address


@helper
def wall_top(buffers, blocks, b, address):
    """Return the first end of a blocked range of `b` at or above `address`: a place it could lie on."""
    for k in range(buffers[BLOCK, b], buffers[BLOCK, b + 1]):
        if blocks[HIGH, k] >= address:
            return blocks[HIGH, k]
    return np.int64(BEYOND_ADDRESSES)


@helper
def lift(buffers, sections, cells, blocks, b, address):
    """Raise the head of `b`; return whether it still fits below its ceiling."""
    address = free_from(buffers, blocks, b, address)
    if address > buffers[HEAD, b]:
        buffers[HEAD, b] = address
        buffers[STALE, b] = 1
        for k in range(buffers[CELL, b], buffers[CELL, b + 1]):
            sections[DIRTY, cells[SECTION, k]] = 1
        return address <= buffers[TAIL, b]
    return True


@helper
def put(buffers, sections, cells, items, blocks, b, address, tally):
    """Place `b` and raise what rests on it; return whether all of that still fits."""
    buffers[PLACED, b] = 1
    buffers[OFFSET, b] = address
    for s in range(buffers[FIRST, b], buffers[LAST, b]):
        sections[CROSSING, s] -= 1
    fits = True
    for k in range(buffers[CELL, b], buffers[CELL, b + 1]):
        s = cells[SECTION, k]
        top = address + cells[HEIGHT, k]
        sections[FLOOR, s] = top
        sections[DIRTY, s] = 1
        tally[STEPS] += sections[ITEM, s + 1] - sections[ITEM, s]
        for i in range(sections[ITEM, s], sections[ITEM, s + 1]):
            other = items[BUFFER, i]
            if buffers[PLACED, other] == 0 and buffers[REST, other] < top:
                rest = free_from(buffers, blocks, other, top)
                buffers[REST, other] = rest
                buffers[STALE, other] = 1
                if not lift(buffers, sections, cells, blocks, other, rest):
                    fits = False
    return fits


@helper
def sort_section(buffers, sections, items, s):
    """Bring the unplaced buffers of a section to the front, by rising head; return how many there are."""
    base = sections[ITEM, s]
    count = 0
    for i in range(base, sections[ITEM, s + 1]):
        b = items[BUFFER, i]
        if buffers[PLACED, b]:
            continue
        height = items[HEIGHT, i]
        end = base + count
        if i != end:
            items[BUFFER, i] = items[BUFFER, end]
            items[HEIGHT, i] = items[HEIGHT, end]
        key = buffers[HEAD, b]
        k = end - 1
        while k >= base and buffers[HEAD, items[BUFFER, k]] > key:
            items[BUFFER, k + 1] = items[BUFFER, k]
            items[HEIGHT, k + 1] = items[HEIGHT, k]
            k -= 1
        items[BUFFER, k + 1] = b
        items[HEIGHT, k + 1] = height
        count += 1
    return count


@helper
def lower_tails(buffers, items, base, count, capacity, scratch, tally):
    """Find buffers that must lie below a whole set of later heads; return whether none is squeezed out."""
    for i in range(count - 1):
        b = items[BUFFER, base + i]
        height = items[HEIGHT, base + i]
        if scratch[1, i + 1] + height <= capacity:
            continue
        for k in range(i + 1, count):
            later = buffers[HEAD, items[BUFFER, base + k]]
            if later > buffers[HEAD, b] and later + scratch[0, k] + height > capacity:
                tally[STEPS] += k - i
                limit = capacity - scratch[0, k] - height
                if limit < buffers[TAIL, b]:
                    buffers[TAIL, b] = limit
                    buffers[STALE, b] = 1
                    if limit < buffers[HEAD, b]:
                        return False
                break
    return True


@helper
def check_section(buffers, sections, items, walls, s, capacity, scratch, tally):
    """Bound one section from its heads, lower tails and renew its earliest tops; return whether it fits."""
    count = sort_section(buffers, sections, items, s)
    base = sections[ITEM, s]
    tally[STEPS] += sections[ITEM, s + 1] - base + count
    wall = sections[WALL, s + 1] - 1
    total = np.int64(0)
    need = np.int64(0)
    one = np.int64(BEYOND_ADDRESSES)
    two = np.int64(BEYOND_ADDRESSES)
    owner = np.int64(-1)
    for i in range(count - 1, -1, -1):
        b = items[BUFFER, base + i]
        height = items[HEIGHT, base + i]
        head = buffers[HEAD, b]
        while wall >= sections[WALL, s] and walls[LOW, wall] >= head:
            total += walls[HIGH, wall] - walls[LOW, wall]
            wall -= 1
        total += height
        need = max(need, head + total)
        scratch[0, i] = total
        scratch[1, i] = need
        top = head + height
        if top < one:
            two = one
            one = top
            owner = b
        elif top < two:
            two = top
    if need > capacity:
        return False
    if not lower_tails(buffers, items, base, count, capacity, scratch, tally):
        return False
    if one != sections[TOP_ONE, s] or two != sections[TOP_TWO, s] or owner != sections[TOP_OWNER, s]:
        sections[TOP_ONE, s] = one
        sections[TOP_TWO, s] = two
        sections[TOP_OWNER, s] = owner
        for i in range(base, base + count):
            buffers[STALE, items[BUFFER, i]] = 1
    return True


@helper
def check_buffer(buffers, sections, cells, items, blocks, b, tally):
    """Renew what buffer `b` could lie on; force it down or lift it. Return whether it still has a place."""
    under = np.int64(BEYOND_ADDRESSES)
    for k in range(buffers[CELL, b], buffers[CELL, b + 1]):
        s = cells[SECTION, k]
        row = TOP_TWO if sections[TOP_OWNER, s] == b else TOP_ONE
        under = min(under, sections[row, s])
    buffers[UNDER, b] = under
    head = buffers[HEAD, b]
    if head > buffers[REST, b]:
        wall = wall_top(buffers, blocks, b, head)
        if head != wall:
            return lift(buffers, sections, cells, blocks, b, min(under, wall))
    if head < under and buffers[TAIL, b] < min(under, wall_top(buffers, blocks, b, head + 1)):
        return put(buffers, sections, cells, items, blocks, b, head, tally)
    return True


@helper
def propagate(buffers, sections, cells, items, blocks, walls, section_a, section_b, capacity, scratch, tally):
    """Apply every rule until nothing changes; return the failing section, or -1 when none fails."""
    a = sections[START, section_a]
    b = sections[START, section_b]
    again = True
    while again:
        again = False
        tally[STEPS] += section_b - section_a + b - a
        for s in range(section_a, section_b):
            if sections[DIRTY, s]:
                sections[DIRTY, s] = 0
                if not check_section(buffers, sections, items, walls, s, capacity, scratch, tally):
                    return s
        for k in range(a, b):
            if buffers[STALE, k] and buffers[PLACED, k] == 0:
                buffers[STALE, k] = 0
                tally[STEPS] += buffers[CELL, k + 1] - buffers[CELL, k]
                if not check_buffer(buffers, sections, cells, items, blocks, k, tally):
                    return buffers[FIRST, k]
                again = True
    return np.int64(-1)


@helper
def begin(buffers, sections, blocks):
    """Set the state before anything is placed; return whether every buffer has a place at all."""
    for s in range(sections.shape[1] - 1):
        sections[FLOOR, s] = 0
        sections[CROSSING, s] = 0
        sections[TOP_ONE, s] = BEYOND_ADDRESSES
        sections[TOP_TWO, s] = BEYOND_ADDRESSES
        sections[TOP_OWNER, s] = -1
        sections[DIRTY, s] = 1
    fits = True
    for b in range(buffers.shape[1] - 1):
        rest = free_from(buffers, blocks, b, np.int64(0))
        buffers[REST, b] = rest
        buffers[HEAD, b] = rest
        buffers[TAIL, b] = buffers[CEILING, b]
        buffers[UNDER, b] = BEYOND_ADDRESSES
        buffers[PLACED, b] = 0
        buffers[STALE, b] = 1
        if rest > buffers[CEILING, b]:
            fits = False
        for s in range(buffers[FIRST, b], buffers[LAST, b]):
            sections[CROSSING, s] += 1
    return fits
