"""The complete search for a packing, as a numba kernel.

Addresses grow upwards; time is cut into *sections*, each with the set of buffers alive in it. A packing in
which no buffer can move down is *settled*: every buffer lies on address 0, on a forbidden range or on another
buffer. If any packing exists, a settled one does, so only those are searched (MiniMalloc, ASPLOS 2023, calls
them canonical). The state is a skyline: the buffers placed so far, everything below them being closed.

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

When no unplaced buffer crosses a section boundary the problem falls apart; the parts are solved one by one and
a failed part undoes the decision that created it, however many others were solved in between. Failed parts are
remembered by a 128-bit hash of the heads and rests of their buffers, across restarts.

A problem is six tables of 64-bit integers (`Shape`), one row per attribute, named by the constants below: few
arrays and few functions, because every array a kernel takes and every function it calls is compiled again into
its callers.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, assignment"

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cosma.compiled import helper, kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

FAR = (1 << 31) - 1
"""Later than any address; states are saved as 32-bit numbers, so capacities stay below half of this."""

FOUND, EXHAUSTED, LIMIT = 1, -1, 0
"""Answers of `run`."""

HEAD, REST, TAIL, UNDER, PLACED, STALE, OFFSET = range(7)
"""Rows of the buffer table that change; the first `SAVED` are kept per decision."""

FIRST, LAST, ALIGN, CEILING, CELL, BLOCK = range(7, 13)
"""Rows of the buffer table that are given; of `CELL` and `BLOCK`, the next column's entry is the end."""

BUFFER_ROWS = 13

FLOOR, CROSSING, TOP_ONE, TOP_TWO, TOP_OWNER, DIRTY = range(6)
"""Rows of the section table that change: skyline, buffers across its end, two earliest tops, whose the first is."""

ITEM, START, WALL = range(6, 9)
"""Rows of the section table that are given; the next column's entry is the end."""

SECTION_ROWS = 9

SAVED = 5
"""How many rows of either table are saved and restored."""

SECTION, BUFFER, LOW = 0, 0, 0
HEIGHT, HIGH = 1, 1
"""Rows of the other tables: cells (section, height), items (buffer, height), blocks and walls (low, high)."""

NODES, REMEMBERED, STEPS = range(3)
"""Entries of the tally: propagations, nodes cut by memory, buffers and sections looked at."""


class Shape(NamedTuple):
    """One packing problem in scaled units; buffers are sorted by their first section.

    ``buffers`` and ``sections`` have one column more than there are buffers and sections. ``cells`` lists each
    buffer's sections and its height there, ``items`` each section's buffers (the kernel reorders these). Row
    ``START`` of ``sections`` is the first buffer whose first section is this one or later. ``blocks`` lists per
    buffer, rising and apart, the addresses ``[low, high)`` it cannot have, with high a multiple of its
    alignment; ``walls`` lists per section, rising and apart, the forbidden ranges.
    """

    buffers: Ints
    sections: Ints
    cells: Ints
    items: Ints
    blocks: Ints
    walls: Ints

    @property
    def buffer_count(self) -> int:
        """How many buffers."""
        return int(self.buffers.shape[1]) - 1

    @property
    def section_count(self) -> int:
        """How many sections."""
        return int(self.sections.shape[1]) - 1


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
    return np.int64(FAR)


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
    one = np.int64(FAR)
    two = np.int64(FAR)
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
    under = np.int64(FAR)
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
def mix(a, b, c):
    """Hash three numbers to 64 bits."""
    x = np.uint64(a) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(b) * np.uint64(0xC2B2AE3D27D4EB4F)
    x += np.uint64(c) * np.uint64(0x165667B19E3779F9) + np.uint64(0x27D4EB2F165667C5)
    x ^= x >> np.uint64(29)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(32)
    x *= np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@helper
def write_key(buffers, a, b, keys, row):
    """Hash the unplaced of buffers ``[a, b)`` with rests and heads; return whether there are any."""
    one = np.uint64(0)
    two = np.uint64(0)
    for k in range(a, b):
        if buffers[PLACED, k] == 0:
            x = mix(k, buffers[REST, k], buffers[HEAD, k])
            one ^= x
            two += x * np.uint64(0xD6E8FEB86659FD93) + np.uint64(1)
    keys[row, 0] = one
    keys[row, 1] = two
    return one != 0 or two != 0


@helper
def doubled(table):
    """Return a table with twice as many rows that begins with the given ones."""
    rows = table.shape[0]
    larger = np.empty((2 * rows, table.shape[1]), table.dtype)
    for row in range(rows):
        for column in range(table.shape[1]):
            larger[row, column] = table[row, column]
    return larger


@helper
def choose(buffers, a, b, priority):
    """Pick the buffer to branch on: lowest address first, then highest priority."""
    best = np.int64(-1)
    for k in range(a, b):
        if buffers[PLACED, k] or buffers[HEAD, k] >= buffers[UNDER, k]:
            continue
        lower = best < 0 or buffers[HEAD, k] < buffers[HEAD, best]
        if lower or (buffers[HEAD, k] == buffers[HEAD, best] and priority[k] > priority[best]):
            best = k
    return best


@helper
def copy_state(table, saved, level, a, b, clean, back):
    """Save the changing rows of columns ``[a, b)``, or bring them `back` and clear row `clean`."""
    for row in range(SAVED):
        if back:
            for k in range(a, b):
                table[row, k] = saved[level, row, k]
        else:
            for k in range(a, b):
                saved[level, row, k] = table[row, k]
    if back:
        for k in range(a, b):
            table[clean, k] = 0


@helper
def begin(buffers, sections, blocks):
    """Set the state before anything is placed; return whether every buffer has a place at all."""
    for s in range(sections.shape[1] - 1):
        sections[FLOOR, s] = 0
        sections[CROSSING, s] = 0
        sections[TOP_ONE, s] = FAR
        sections[TOP_TWO, s] = FAR
        sections[TOP_OWNER, s] = -1
        sections[DIRTY, s] = 1
    fits = True
    for b in range(buffers.shape[1] - 1):
        rest = free_from(buffers, blocks, b, np.int64(0))
        buffers[REST, b] = rest
        buffers[HEAD, b] = rest
        buffers[TAIL, b] = buffers[CEILING, b]
        buffers[UNDER, b] = FAR
        buffers[PLACED, b] = 0
        buffers[STALE, b] = 1
        if rest > buffers[CEILING, b]:
            fits = False
        for s in range(buffers[FIRST, b], buffers[LAST, b]):
            sections[CROSSING, s] += 1
    return fits


@kernel
def run(
    buffers, sections, cells, items, blocks, walls, capacity, priority, memory, node_limit, step_limit,
    blame, tally, saved_buffers, saved_sections, level, part, keys, scratch,
):  # fmt: skip
    """Search until a packing is found, all are excluded, or a limit is met; see `cosma.packing.workspace.search`."""
    if not begin(buffers, sections, blocks):
        return EXHAUSTED
    mask = np.uint64(memory.shape[1] - 1)
    parts = np.int64(0)
    pending = np.int64(-1)
    depth = np.int64(0)
    section_a = np.int64(0)
    section_b = np.int64(sections.shape[1] - 1)
    creator = np.int64(-1)
    narrowed = np.int64(-1)
    intact = True
    while True:
        tally[NODES] += 1
        fails = not intact
        if intact:
            culprit = propagate(
                buffers, sections, cells, items, blocks, walls, section_a, section_b, capacity, scratch, tally
            )
            if culprit >= 0:
                blame[culprit] += 1.0
                fails = True
        s = section_a
        while s < section_b and not fails:
            end = s + 1
            while end < section_b and sections[CROSSING, end - 1] > 0:
                end += 1
            if parts == part.shape[0]:
                part = doubled(part)
                keys = doubled(keys)
            if write_key(buffers, sections[START, s], sections[START, end], keys, parts):
                slot = keys[parts, 0] & mask
                if memory[0, slot] == keys[parts, 0] and memory[1, slot] == keys[parts, 1]:
                    fails = True
                    tally[REMEMBERED] += 1
                    break
                part[parts, 0] = s
                part[parts, 1] = end
                part[parts, 2] = creator
                part[parts, 3] = narrowed
                part[parts, 4] = pending
                pending = parts
                parts += 1
            s = end
        if not fails and pending < 0:
            return FOUND
        if tally[NODES] >= node_limit or tally[STEPS] >= step_limit:
            return LIMIT
        if fails:
            while narrowed >= 0:
                slot = keys[narrowed, 0] & mask
                memory[0, slot] = keys[narrowed, 0]
                memory[1, slot] = keys[narrowed, 1]
                narrowed = part[narrowed, 3]
            if creator < 0:
                return EXHAUSTED
            depth = creator
            current = level[depth, 1]
            narrowed = current
            pending = level[depth, 3]
            parts = level[depth, 4]
            creator = part[current, 2]
        else:
            current = pending
            pending = part[current, 4]
        section_a = part[current, 0]
        section_b = part[current, 1]
        a = sections[START, section_a]
        b = sections[START, section_b]
        tally[STEPS] += section_b - section_a + b - a
        copy_state(buffers, saved_buffers, depth, a, b, STALE, fails)
        copy_state(sections, saved_sections, depth, section_a, section_b, DIRTY, fails)
        if fails:
            intact = lift(buffers, sections, cells, blocks, level[depth, 0], level[depth, 2])
            continue
        chosen = choose(buffers, a, b, priority)
        head = buffers[HEAD, chosen]
        level[depth, 0] = chosen
        level[depth, 1] = current
        level[depth, 2] = min(buffers[UNDER, chosen], wall_top(buffers, blocks, chosen, head + 1))
        level[depth, 3] = pending
        level[depth, 4] = parts
        intact = put(buffers, sections, cells, items, blocks, chosen, head, tally)
        creator = depth
        narrowed = np.int64(-1)
        depth += 1
