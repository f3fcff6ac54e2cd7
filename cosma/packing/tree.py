"""The complete search for a packing, as a numba kernel.

Addresses grow upwards; time is cut into *sections*, each with the set of buffers alive in it. A packing in
which no buffer can move down is *settled*: every buffer lies on address 0, on a forbidden range or on another
buffer. If any packing exists, a settled one does, so only those are searched (MiniMalloc, ASPLOS 2023, calls
them canonical). The state is a skyline: the buffers placed so far, everything below them being closed.

For every unplaced buffer the kernel keeps

- ``rest``: the lowest address on the present skyline,
- ``head`` >= rest: a lower bound on its address in any settled completion,
- ``tail``: an upper bound,
- ``under``: the earliest top of an unplaced buffer it could be put upon.

A settled buffer is at ``rest`` or at least at ``under``; nothing lies in between. That is the branching rule
(two children: *here*, or *not below* ``under``) and, with the following, the inference:

- in each section the unplaced buffers with heads >= h need their sum above h, for every h (one-machine bound);
- a buffer that does not fit beside a set of later heads must lie below all of it, which lowers its tail;
- a tail below ``under`` forces the buffer down now; a head above ``rest`` lifts it to ``under``.

When no unplaced buffer crosses a section boundary the problem falls apart; the parts are solved one by one and
a failed part undoes the decision that created it, however many others were solved in between. Failed parts are
remembered by a 128-bit hash of the heads and rests of their buffers, across restarts.
"""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

FAR = (1 << 31) - 1
"""Later than any address; states are saved as 32-bit numbers, so capacities stay below half of this."""

FOUND, EXHAUSTED, LIMIT = 1, -1, 0
"""Answers of `search`."""


class Shape(NamedTuple):
    """One packing problem in scaled units; buffers are sorted by their first section.

    ``cell_*`` lists each buffer's sections and its height there, ``item_*`` each section's buffers (the kernel
    reorders these), ``start[s]`` is the first buffer whose first section is s or later. ``block_*`` lists per
    buffer, rising and apart, the addresses ``[low, high)`` it cannot have, with high a multiple of its
    alignment; ``wall_*`` lists per section, rising and apart, the forbidden ranges.
    """

    cell_ptr: Ints
    cell_section: Ints
    cell_height: Ints
    item_ptr: Ints
    item: Ints
    item_height: Ints
    first: Ints
    last: Ints
    start: Ints
    align: Ints
    ceiling: Ints
    block_ptr: Ints
    block_low: Ints
    block_high: Ints
    wall_ptr: Ints
    wall_low: Ints
    wall_high: Ints


class State(NamedTuple):
    """What changes during the search; see the module's text for the first four."""

    head: Ints
    rest: Ints
    tail: Ints
    under: Ints
    placed: Ints
    offset: Ints
    stale: Ints
    floor: Ints
    crossing: Ints
    top_one: Ints
    top_two: Ints
    top_owner: Ints
    dirty: Ints
    needs: Ints
    sums: Ints


@njit(cache=True)
def new_state(count, sections):
    """Return the state before anything is placed."""
    return State(
        np.zeros(count, np.int64), np.zeros(count, np.int64), np.full(count, FAR, np.int64),
        np.full(count, FAR, np.int64), np.zeros(count, np.int64), np.zeros(count, np.int64),
        np.ones(count, np.int64), np.zeros(sections, np.int64), np.zeros(sections, np.int64),
        np.full(sections, FAR, np.int64), np.full(sections, FAR, np.int64), np.full(sections, -1, np.int64),
        np.ones(sections, np.int64), np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64),
    )  # fmt: skip


@njit(cache=True)
def free_from(shape, b, address):
    """Return the lowest aligned address >= `address` that no forbidden range rules out for buffer `b`."""
    step = shape.align[b]
    if step > 1:
        address = -(-address // step) * step
    for k in range(shape.block_ptr[b], shape.block_ptr[b + 1]):
        if address < shape.block_low[k]:
            break
        address = max(address, shape.block_high[k])
    return address


@njit(cache=True)
def wall_top(shape, b, address):
    """Return the first end of a blocked range of `b` at or above `address`: a place it could lie on."""
    for k in range(shape.block_ptr[b], shape.block_ptr[b + 1]):
        if shape.block_high[k] >= address:
            return shape.block_high[k]
    return np.int64(FAR)


@njit(cache=True)
def lift(shape, state, b, address):
    """Raise the head of `b`; return whether it still fits below its ceiling."""
    address = free_from(shape, b, address)
    if address > state.head[b]:
        state.head[b] = address
        state.stale[b] = 1
        for k in range(shape.cell_ptr[b], shape.cell_ptr[b + 1]):
            state.dirty[shape.cell_section[k]] = 1
        return address <= state.tail[b]
    return True


@njit(cache=True)
def put(shape, state, b, address):
    """Place `b` and raise what rests on it; return whether all of that still fits."""
    state.placed[b] = 1
    state.offset[b] = address
    for s in range(shape.first[b], shape.last[b]):
        state.crossing[s] -= 1
    fits = True
    for k in range(shape.cell_ptr[b], shape.cell_ptr[b + 1]):
        s = shape.cell_section[k]
        top = address + shape.cell_height[k]
        state.floor[s] = top
        state.dirty[s] = 1
        for i in range(shape.item_ptr[s], shape.item_ptr[s + 1]):
            other = shape.item[i]
            if state.placed[other] == 0 and state.rest[other] < top:
                state.rest[other] = free_from(shape, other, top)
                state.stale[other] = 1
                if not lift(shape, state, other, state.rest[other]):
                    fits = False
    return fits


@njit(cache=True)
def _sort_section(shape, state, s):
    """Bring the unplaced buffers of a section to the front, by rising head; return how many there are."""
    base = shape.item_ptr[s]
    count = 0
    for i in range(base, shape.item_ptr[s + 1]):
        b = shape.item[i]
        if state.placed[b]:
            continue
        height = shape.item_height[i]
        end = base + count
        if i != end:
            shape.item[i] = shape.item[end]
            shape.item_height[i] = shape.item_height[end]
        key = state.head[b]
        k = end - 1
        while k >= base and state.head[shape.item[k]] > key:
            shape.item[k + 1] = shape.item[k]
            shape.item_height[k + 1] = shape.item_height[k]
            k -= 1
        shape.item[k + 1] = b
        shape.item_height[k + 1] = height
        count += 1
    return count


@njit(cache=True)
def _lower_tails(shape, state, s, count, capacity):
    """Find buffers that must lie below a whole set of later heads; return whether none is squeezed out."""
    base = shape.item_ptr[s]
    for i in range(count - 1):
        b = shape.item[base + i]
        height = shape.item_height[base + i]
        if state.needs[i + 1] + height <= capacity:
            continue
        for k in range(i + 1, count):
            later = state.head[shape.item[base + k]]
            if later > state.head[b] and later + state.sums[k] + height > capacity:
                limit = capacity - state.sums[k] - height
                if limit < state.tail[b]:
                    state.tail[b] = limit
                    state.stale[b] = 1
                    if limit < state.head[b]:
                        return False
                break
    return True


@njit(cache=True)
def check_section(shape, state, s, capacity):
    """Bound one section from its heads, lower tails and renew its earliest tops; return whether it fits."""
    count = _sort_section(shape, state, s)
    base = shape.item_ptr[s]
    wall = shape.wall_ptr[s + 1] - 1
    total = np.int64(0)
    need = np.int64(0)
    one = np.int64(FAR)
    two = np.int64(FAR)
    owner = np.int64(-1)
    for i in range(count - 1, -1, -1):
        b = shape.item[base + i]
        height = shape.item_height[base + i]
        head = state.head[b]
        while wall >= shape.wall_ptr[s] and shape.wall_low[wall] >= head:
            total += shape.wall_high[wall] - shape.wall_low[wall]
            wall -= 1
        total += height
        state.sums[i] = total
        need = max(need, head + total)
        state.needs[i] = need
        top = head + height
        if top < one:
            two = one
            one = top
            owner = b
        elif top < two:
            two = top
    if need > capacity:
        return False
    if not _lower_tails(shape, state, s, count, capacity):
        return False
    if one != state.top_one[s] or two != state.top_two[s] or owner != state.top_owner[s]:
        state.top_one[s] = one
        state.top_two[s] = two
        state.top_owner[s] = owner
        for i in range(base, base + count):
            state.stale[shape.item[i]] = 1
    return True


@njit(cache=True)
def _check_buffer(shape, state, b):
    """Renew what buffer `b` could lie on; force it down or lift it. Return whether it still has a place."""
    under = np.int64(FAR)
    for k in range(shape.cell_ptr[b], shape.cell_ptr[b + 1]):
        s = shape.cell_section[k]
        top = state.top_two[s] if state.top_owner[s] == b else state.top_one[s]
        under = min(under, top)
    state.under[b] = under
    head = state.head[b]
    if head > state.rest[b]:
        wall = wall_top(shape, b, head)
        if head != wall:
            return lift(shape, state, b, min(under, wall))
    if head < under and state.tail[b] < min(under, wall_top(shape, b, head + 1)):
        return put(shape, state, b, head)
    return True


@njit(cache=True)
def propagate(shape, state, section_a, section_b, capacity):
    """Apply every rule until nothing changes; return the failing section, or -1 when none fails."""
    a = shape.start[section_a]
    b = shape.start[section_b]
    again = True
    while again:
        again = False
        for s in range(section_a, section_b):
            if state.dirty[s]:
                state.dirty[s] = 0
                if not check_section(shape, state, s, capacity):
                    return s
        for k in range(a, b):
            if state.stale[k] and state.placed[k] == 0:
                state.stale[k] = 0
                if not _check_buffer(shape, state, k):
                    return shape.first[k]
                again = True
    return -1


@njit(cache=True)
def _mix(a, b, c):
    x = np.uint64(a) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(b) * np.uint64(0xC2B2AE3D27D4EB4F)
    x += np.uint64(c) * np.uint64(0x165667B19E3779F9) + np.uint64(0x27D4EB2F165667C5)
    x ^= x >> np.uint64(29)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(32)
    x *= np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True)
def part_key(shape, state, section_a, section_b):
    """Hash the unplaced buffers of a part with their rests and heads; (0, 0) when there are none."""
    one = np.uint64(0)
    two = np.uint64(0)
    for b in range(shape.start[section_a], shape.start[section_b]):
        if state.placed[b] == 0:
            x = _mix(b, state.rest[b], state.head[b])
            one ^= x
            two += x * np.uint64(0xD6E8FEB86659FD93) + np.uint64(1)
    return one, two


@njit(cache=True)
def _choose(shape, state, section_a, section_b, priority):
    """Pick the buffer to branch on: lowest address first, then highest priority."""
    best = -1
    for b in range(shape.start[section_a], shape.start[section_b]):
        if state.placed[b] or state.head[b] >= state.under[b]:
            continue
        lower = best < 0 or state.head[b] < state.head[best]
        if lower or (state.head[b] == state.head[best] and priority[b] > priority[best]):
            best = b
    return best


@njit(cache=True)
def _save(store, row, state, a, b, section_a, section_b):
    buffers, sections = store
    buffers[0, row, a:b] = state.head[a:b]
    buffers[1, row, a:b] = state.rest[a:b]
    buffers[2, row, a:b] = state.tail[a:b]
    buffers[3, row, a:b] = state.under[a:b]
    buffers[4, row, a:b] = state.placed[a:b]
    sections[0, row, section_a:section_b] = state.floor[section_a:section_b]
    sections[1, row, section_a:section_b] = state.crossing[section_a:section_b]
    sections[2, row, section_a:section_b] = state.top_one[section_a:section_b]
    sections[3, row, section_a:section_b] = state.top_two[section_a:section_b]
    sections[4, row, section_a:section_b] = state.top_owner[section_a:section_b]


@njit(cache=True)
def _restore(store, row, state, a, b, section_a, section_b):
    buffers, sections = store
    state.head[a:b] = buffers[0, row, a:b]
    state.rest[a:b] = buffers[1, row, a:b]
    state.tail[a:b] = buffers[2, row, a:b]
    state.under[a:b] = buffers[3, row, a:b]
    state.placed[a:b] = buffers[4, row, a:b]
    state.stale[a:b] = 0
    state.floor[section_a:section_b] = sections[0, row, section_a:section_b]
    state.crossing[section_a:section_b] = sections[1, row, section_a:section_b]
    state.top_one[section_a:section_b] = sections[2, row, section_a:section_b]
    state.top_two[section_a:section_b] = sections[3, row, section_a:section_b]
    state.top_owner[section_a:section_b] = sections[4, row, section_a:section_b]
    state.dirty[section_a:section_b] = 0


@njit(cache=True)
def _begin(shape, state):
    """Set ceilings, first rests and boundary counts; return whether every buffer has a place at all."""
    for b in range(shape.first.size):
        state.tail[b] = shape.ceiling[b]
        state.rest[b] = free_from(shape, b, 0)
        state.head[b] = state.rest[b]
        if state.head[b] > state.tail[b]:
            return False
        for s in range(shape.first[b], shape.last[b]):
            state.crossing[s] += 1
    return True


@njit(cache=True)
def search(shape, capacity, priority, memory, node_limit, offset, blame):
    """Search until a packing is found, all are excluded, or `node_limit` nodes were made.

    Parameters
    ----------
    shape
        The problem; `item` and `item_height` are reordered in place.
    capacity
        Height available, in the units of `shape`.
    priority
        Which of several buffers with equally low addresses to branch on first (highest wins).
    memory
        uint64 array of shape (2, power of two): failed parts, kept between calls on the same problem.
    node_limit
        Propagations before giving up.
    offset
        Filled with addresses when found.
    blame
        Per section, how often it was where a branch failed; added to.

    Returns
    -------
    (answer, nodes, remembered)
        `FOUND`, `EXHAUSTED` or `LIMIT`; nodes made; nodes cut by memory.
    """
    count = shape.first.size
    sections = shape.item_ptr.size - 1
    state = new_state(count, sections)
    nodes = 0
    remembered = 0
    if not _begin(shape, state):
        return EXHAUSTED, nodes, remembered
    rows = count + 1
    store = (np.empty((5, rows, count), np.int32), np.empty((5, rows, sections), np.int32))
    # One row per placement decision on the path: buffer, its part, the address beyond which it goes next,
    # and what was pending then.
    level = np.empty((rows, 5), np.int64)
    # Parts of the problem on the path: sections, creating level (or -1), the part it was narrowed from (or -1),
    # and the next pending part. Keys are hashes of the state at creation.
    part = np.empty((1024, 5), np.int64)
    keys = np.empty((1024, 2), np.uint64)
    mask = np.uint64(memory.shape[1] - 1)
    parts = 0
    pending = -1
    depth = 0
    section_a, section_b, creator, narrowed = 0, sections, -1, -1
    intact = True
    while True:
        nodes += 1
        fails = not intact
        if intact:
            culprit = propagate(shape, state, section_a, section_b, capacity)
            if culprit >= 0:
                blame[culprit] += 1.0
                fails = True
        s = section_a
        while s < section_b and not fails:
            end = s + 1
            while end < section_b and state.crossing[end - 1] > 0:
                end += 1
            one, two = part_key(shape, state, s, end)
            if one != 0 or two != 0:
                slot = one & mask
                if memory[0, slot] == one and memory[1, slot] == two:
                    fails = True
                    remembered += 1
                    break
                if parts == part.shape[0]:
                    part = np.concatenate((part, part))
                    keys = np.concatenate((keys, keys))
                part[parts, 0] = s
                part[parts, 1] = end
                part[parts, 2] = creator
                part[parts, 3] = narrowed
                part[parts, 4] = pending
                keys[parts, 0] = one
                keys[parts, 1] = two
                pending = parts
                parts += 1
            s = end
        if not fails and pending < 0:
            offset[:] = state.offset
            return FOUND, nodes, remembered
        if nodes >= node_limit:
            return LIMIT, nodes, remembered
        if fails:
            while narrowed >= 0:
                slot = keys[narrowed, 0] & mask
                memory[0, slot] = keys[narrowed, 0]
                memory[1, slot] = keys[narrowed, 1]
                narrowed = part[narrowed, 3]
            if creator < 0:
                return EXHAUSTED, nodes, remembered
            depth = creator
            b = level[depth, 0]
            narrowed = level[depth, 1]
            beyond = level[depth, 2]
            pending = level[depth, 3]
            parts = level[depth, 4]
            section_a, section_b, creator = part[narrowed, 0], part[narrowed, 1], part[narrowed, 2]
            _restore(store, depth, state, shape.start[section_a], shape.start[section_b], section_a, section_b)
            intact = lift(shape, state, b, beyond)
            continue
        current = pending
        pending = part[current, 4]
        section_a, section_b = part[current, 0], part[current, 1]
        b = _choose(shape, state, section_a, section_b, priority)
        _save(store, depth, state, shape.start[section_a], shape.start[section_b], section_a, section_b)
        beyond = min(state.under[b], wall_top(shape, b, state.head[b] + 1))
        level[depth, 0] = b
        level[depth, 1] = current
        level[depth, 2] = beyond
        level[depth, 3] = pending
        level[depth, 4] = parts
        intact = put(shape, state, b, state.head[b])
        creator, narrowed = depth, -1
        depth += 1
