"""The complete search for a packing, as a numba kernel.

Addresses grow upwards; time is cut into *sections*, each with the set of buffers alive in it. A packing in
which no buffer can move down is *settled*: every buffer lies on address 0, on a forbidden range or on another
buffer. If any packing exists, a settled one does, so only those are searched (MiniMalloc, ASPLOS 2023, calls
them canonical). The state is a skyline: the buffers placed so far, everything below them being closed.

`cosma.packing.skyline_kernels` infers what follows from a state.

When no unplaced buffer crosses a section boundary the problem falls apart; the parts are solved one by one and
a failed part undoes the decision that created it, however many others were solved in between. Failed parts are
remembered by a 128-bit hash of the heads and rests of their buffers, across restarts.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call, assignment"

from __future__ import annotations

import numpy as np

from cosma.compiled import helper, kernel
from cosma.packing.skyline_kernels import begin, lift, propagate, put, wall_top
from cosma.packing.tables import (
    CROSSING,
    DIRTY,
    HEAD,
    NODES,
    PLACED,
    REMEMBERED,
    REST,
    SAVED,
    STALE,
    START,
    STEPS,
    UNDER,
)

FOUND, EXHAUSTED, LIMIT = 1, -1, 0
"""Answers of `run`."""


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
