"""Tiles of a segmentation in the order in which they run (numba; imported only where tilings are chosen)."""

# Inside compiled code an int is an int64; the type checker sees numpy scalars instead.
# mypy: disable-error-code="arg-type,return-value,assignment,untyped-decorator,operator,no-any-return"

from __future__ import annotations

from typing import Any

import numpy as np

from cosma.arrays import Bytes, Ints
from cosma.compiled import helper, kernel
from cosma.tiling.grid import Grid
from cosma.tiling.probe import BY_CHANNELS, BY_COLUMNS, BY_ROWS, BY_SUM, FIRST_STEP, LAST_STEP
from cosma.tiling.segments import GROUPS_OUTSIDE, GROUPS_WITHIN

#: When an operator runs in a loop over groups of channels: in the first round, with each group, a step of its sum with
#: each, or in the last round.
EARLY, ROTATING, SUMMED, LATE = 0, 1, 2, 3


@helper
def _stop_near(grid: Grid, axis: int, v: int, target: int, least: int) -> int:
    """Where to cut at a row (or column) or before: not within rows that read the same of some operand, if possible.

    A cut within, as within a row of pixels that are read as one long row, would be one of the operand as well.
    """
    for stop in range(target, least, -1):
        apart = True
        for k in range(grid.start[v], grid.start[v + 1]):
            follows, moves = False, False
            for source, table in (
                (grid.row_source[k], grid.row_table[k]), (grid.channel_source[k], grid.channel_table[k]),
                (grid.column_source[k], grid.column_table[k]),
            ):  # fmt: skip
                if source == axis:
                    low, high = grid.low[table + stop], grid.high[table + stop]
                    before, behind = grid.low[table + stop - 1], grid.high[table + stop - 1]
                    follows = True
                    moves = moves or low != before or high != behind or before == behind
            apart = apart and (moves or not follows)
        if apart:
            return stop
    return target


@helper
def stops_of(grid: Grid, axis: int, begin: int, end: int, steps: int, stops: Ints, at: Ints) -> None:
    """Last row (or column, for ``BY_COLUMNS``), exclusive, that a segment's operators have computed after each step.

    Operators that no other of the segment reads are cut evenly; each other one computes what its readers lack.
    ``stops[at[v] + s]`` comes back filled.
    """
    extent = grid.height if axis == BY_ROWS else grid.breadth
    sizes = grid.rows if axis == BY_ROWS else grid.columns
    source = grid.row_source if axis == BY_ROWS else grid.column_source
    table = grid.row_table if axis == BY_ROWS else grid.column_table
    for v in range(begin, end):
        for s in range(steps):
            stops[at[v] + s] = -1
    for v in range(end - 1, begin - 1, -1):
        if stops[at[v]] < 0:
            for s in range(steps - 1):
                target = extent[v] * (s + 1) // steps
                stops[at[v] + s] = _stop_near(grid, axis, v, target, target - extent[v] // (2 * steps))
        stops[at[v] + steps - 1] = extent[v]
        for s in range(steps):
            stop = stops[at[v] + s]
            for k in range(grid.start[v], grid.start[v + 1]):
                t = grid.operand[k]
                u = grid.maker[t]
                if u < begin or u >= v:
                    continue
                need = np.int64(0)
                if stop > 0:
                    need = sizes[t]
                    if source[k] == axis:
                        need = grid.high[table[k] + stop - 1]
                    if extent[u] == 1:
                        need = np.int64(1)
                before = stops[at[u] + s - 1] if s > 0 else np.int64(0)
                stops[at[u] + s] = max(max(stops[at[u] + s], need), before)


@helper
def _kinds(grid: Grid, begin: int, end: int, pieces: Ints, sums: Ints, kind: Ints) -> None:
    """In which rounds of a loop over groups of channels each operator of a segment runs; fills ``kind``.

    One that reads what another makes of a group runs with the group if it reads that by its own channels, takes a step
    of its sum if it sums over that, and else waits for the last round.
    """
    for v in range(begin, end):
        by_group, by_step, late = pieces[v] > 1, False, False
        for k in range(grid.start[v], grid.start[v + 1]):
            u = grid.maker[grid.operand[k]]
            if u < begin or u >= v or kind[u] == EARLY:
                continue
            if kind[u] != ROTATING:
                late = True
            elif grid.channel_source[k] == BY_SUM and sums[v] > 1:
                by_step = True
            elif grid.channel_source[k] != BY_CHANNELS or pieces[v] == 1:
                late = True
        if late:
            kind[v] = LATE
        elif by_step:
            kind[v] = SUMMED
        else:
            kind[v] = ROTATING if by_group else EARLY


@helper
def _reversible(grid: Grid, axis: int, begin: int, end: int, steps: int, stops: Ints, at: Ints) -> bool:
    """Whether the operators of a segment may run their last stripe (or strip) first."""
    if steps == 1:
        return True
    for v in range(begin, end):
        for k in range(grid.start[v], grid.start[v + 1]):
            u = grid.maker[grid.operand[k]]
            if u < begin or u >= v:
                continue
            source = grid.row_source[k] if axis == BY_ROWS else grid.column_source[k]
            table = grid.row_table[k] if axis == BY_ROWS else grid.column_table[k]
            if source != axis:
                return False
            for s in range(1, steps):
                first = stops[at[v] + s - 1]
                if first < stops[at[v] + s] and grid.low[table + first] < stops[at[u] + s - 1]:
                    return False
    return True


@helper
def _rounds_of(
    grid: Grid, begin: int, end: int, pieces: Ints, sums: Ints, kind: Ints, rounds: int, back: bool,
    first: Ints, when: Ints,
) -> None:  # fmt: skip
    """Round in which each group of a rotating operator, and each step of a sum, has all that it reads.

    ``when[first[v] + c]`` comes back filled; with ``back`` the last group is the first to run.
    """
    for v in range(begin, end):
        if kind[v] != ROTATING and kind[v] != SUMMED:
            continue
        source = BY_CHANNELS if kind[v] == ROTATING else BY_SUM
        count, extent = (pieces[v], grid.width[v]) if kind[v] == ROTATING else (sums[v], grid.depth[v])
        for n in range(count):
            c = count - 1 - n if back else n
            low, high = extent * c // count, extent * (c + 1) // count
            found, waits = np.int64(0), False
            for k in range(grid.start[v], grid.start[v + 1]):
                t = grid.operand[k]
                u = grid.maker[t]
                if u < begin or u >= v or kind[u] != ROTATING or grid.channel_source[k] != source:
                    continue
                waits = True
                a, b = grid.low[grid.channel_table[k] + low], grid.high[grid.channel_table[k] + high - 1]
                if a < b:
                    last = a if back else b - 1
                    piece = -(-pieces[u] * (last + 1) // grid.width[u]) - 1
                    found = max(found, when[first[u] + piece])
            if not waits:
                found = rounds - 1 - c * rounds // count if back else -(-(c + 1) * rounds // count) - 1
            when[first[v] + c] = found if n == 0 else max(found, when[first[v] + c + (1 if back else -1)])


@kernel
def order_tiles(
    grid: Grid, segment_start: Ints, stripes: Ints, strips: Ints, loops: Bytes,
    pieces: Ints, sums: Ints,
) -> Any:  # fmt: skip
    """Tiles in the order in which they run, segment by segment.

    Strip of columns by strip, in it stripe of rows by stripe, operator by operator, and within it channels back and
    forth. The partial sums of a tile follow each other, those of the next one in the opposite order. Where groups run
    through several operators, stripes (``GROUPS_OUTSIDE``) or groups (``GROUPS_WITHIN``) go back and forth.

    Returns
    -------
    int64[tiles, 11]
        Operator, segment, first and last row, channel and column of each tile, and of the axis summed over; intervals
        are half-open. Last the place in a chain of partial sums: ``FIRST_STEP``, ``LAST_STEP``, both as their sum, or
        neither.
    """
    # Constants that kernels take are numbers of numpy's: of others each value would be compiled by itself.
    by_rows, by_columns, ahead, back_to_front = np.int64(BY_ROWS), np.int64(BY_COLUMNS), np.bool_(False), np.bool_(True)
    count = len(grid.height)
    at, across_at = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    for g in range(len(stripes)):
        for v in range(segment_start[g], segment_start[g + 1]):
            at[v + 1] = at[v] + stripes[g]
            across_at[v + 1] = across_at[v] + strips[g]
    final = segment_start[len(stripes)]
    stops, across = np.zeros(at[final], np.int64), np.zeros(across_at[final], np.int64)
    kind, first = np.zeros(count, np.int64), np.zeros(count + 1, np.int64)
    for v in range(count):
        first[v + 1] = first[v] + max(pieces[v], sums[v])
    when, when_back = np.zeros(first[count], np.int64), np.zeros(first[count], np.int64)
    most = np.int64(0)
    for g in range(len(stripes)):
        begin, end = segment_start[g], segment_start[g + 1]
        stops_of(grid, by_rows, begin, end, stripes[g], stops, at)
        stops_of(grid, by_columns, begin, end, strips[g], across, across_at)
        _kinds(grid, begin, end, pieces, sums, kind)
        for v in range(begin, end):
            most += stripes[g] * strips[g] * pieces[v] * sums[v]
    tiles = np.zeros((most, 11), np.int64)
    made, turns = 0, 0
    for g in range(len(stripes)):
        begin, end = segment_start[g], segment_start[g + 1]
        steps, rounds = stripes[g] * strips[g], np.int64(1)
        outside, within = loops[g] == GROUPS_OUTSIDE, loops[g] == GROUPS_WITHIN
        if outside or within:
            for v in range(begin, end):
                rounds = max(rounds, pieces[v])
        if rounds > 1:
            _rounds_of(grid, begin, end, pieces, sums, kind, rounds, ahead, first, when)
            _rounds_of(grid, begin, end, pieces, sums, kind, rounds, back_to_front, first, when_back)
        turning = (
            outside and rounds > 1
            and _reversible(grid, by_rows, begin, end, stripes[g], stops, at)
            and _reversible(grid, by_columns, begin, end, strips[g], across, across_at)
        )  # fmt: skip
        for turn in range(rounds * steps):
            step, nth = (turn % steps, turn // steps) if outside else (turn // rounds, turn % rounds)
            x, s = step // stripes[g], step % stripes[g]
            if turning and nth % 2:
                x, s = strips[g] - 1 - x, stripes[g] - 1 - s
            back = within and step % 2 == 1
            turn_of = when_back if back else when
            for v in range(begin, end):
                row = stops[at[v] + s - 1] if s > 0 else np.int64(0)
                row_end = stops[at[v] + s]
                column = across[across_at[v] + x - 1] if x > 0 else np.int64(0)
                column_end = across[across_at[v] + x]
                if row >= row_end or column >= column_end:
                    continue
                if rounds > 1 and ((kind[v] == EARLY and nth > 0) or (kind[v] == LATE and nth < rounds - 1)):
                    continue
                by_group, by_step = rounds > 1 and kind[v] == ROTATING, rounds > 1 and kind[v] == SUMMED
                for k in range(pieces[v]):
                    c = pieces[v] - 1 - k if s % 2 and not outside else k
                    if by_group and turn_of[first[v] + c] != nth:
                        continue
                    turns += 1 if sums[v] > 1 else 0
                    down = back if by_step else turns % 2 == 1
                    for n in range(sums[v]):
                        q = sums[v] - 1 - n if down else n
                        if by_step and turn_of[first[v] + q] != nth:
                            continue
                        place = FIRST_STEP if n == 0 else 0
                        place += LAST_STEP if n == sums[v] - 1 else 0
                        # One by one: a row that is assigned as a tuple takes a second more to compile.
                        tile = tiles[made]
                        tile[0], tile[1], tile[2], tile[3] = v, g, row, row_end
                        tile[4], tile[5] = grid.width[v] * c // pieces[v], grid.width[v] * (c + 1) // pieces[v]
                        tile[6], tile[7] = column, column_end
                        tile[8], tile[9] = grid.depth[v] * q // sums[v], grid.depth[v] * (q + 1) // sums[v]
                        tile[10] = place
                        made += 1
    return tiles[:made]
