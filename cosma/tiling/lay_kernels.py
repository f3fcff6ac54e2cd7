"""Tiles of a grid laid out as steps to plan (numba; imported only where tilings are chosen)."""

# Inside compiled code an int is an int64; the type checker sees numpy scalars instead.
# mypy: disable-error-code="arg-type,return-value,assignment,untyped-decorator,operator,no-any-return"

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosma.compiled import helper, kernel
from cosma.tiling.grid import ALL, BY_CHANNELS, BY_COLUMNS, BY_ROWS, BY_SUM, FIRST_STEP, LAST_STEP, Grid

Int64s = NDArray[np.int64]


@helper
def stops_of(grid: Grid, axis: int, begin: int, end: int, steps: int, stops: Int64s, at: Int64s) -> None:
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
            for s in range(steps):
                stops[at[v] + s] = extent[v] * (s + 1) // steps
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
def span(source: int, table: int, extent: int, low: Int64s, high: Int64s, tile: Int64s) -> tuple[int, int]:
    """Interval of an operand's axis that a tile reads."""
    if source == ALL:
        return np.int64(0), np.int64(extent)
    first, last = tile[2], tile[3]
    if source == BY_CHANNELS:
        first, last = tile[4], tile[5]
    elif source == BY_COLUMNS:
        first, last = tile[6], tile[7]
    elif source == BY_SUM:
        first, last = tile[8], tile[9]
    return (
        min(low[table + first], low[table + last - 1]),
        max(high[table + first], high[table + last - 1]),
    )


@kernel
def order_tiles(
    grid: Grid, segment_start: Int64s, stripes: Int64s, strips: Int64s, channels_outside: NDArray[np.uint8],
    pieces: Int64s, sums: Int64s,
) -> Any:  # fmt: skip
    """Tiles in the order in which they run, segment by segment.

    Strip of columns by strip, in it stripe of rows by stripe, operator by operator, and within it channels back and
    forth; in a segment with ``channels_outside``, one group of channels after the other, and its rows back and forth.
    The partial sums of a tile follow each other, those of the next one in the opposite order.

    Returns
    -------
    int64[tiles, 11]
        Operator, segment, first and last row, channel and column of each tile, and of the axis summed over; intervals
        are half-open. Last the place in a chain of partial sums: ``FIRST_STEP``, ``LAST_STEP``, both as their sum, or
        neither.
    """
    count = len(grid.height)
    at, across_at = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    for g in range(len(stripes)):
        for v in range(segment_start[g], segment_start[g + 1]):
            at[v + 1] = at[v] + stripes[g]
            across_at[v + 1] = across_at[v] + strips[g]
    final = segment_start[len(stripes)]
    stops, across = np.zeros(at[final], np.int64), np.zeros(across_at[final], np.int64)
    most = np.int64(0)
    for g in range(len(stripes)):
        begin, end = segment_start[g], segment_start[g + 1]
        stops_of(grid, BY_ROWS, begin, end, stripes[g], stops, at)
        stops_of(grid, BY_COLUMNS, begin, end, strips[g], across, across_at)
        for v in range(begin, end):
            most += stripes[g] * strips[g] * pieces[v] * sums[v]
    tiles = np.zeros((most, 11), np.int64)
    made, turns = 0, 0
    for g in range(len(stripes)):
        begin, end, rounds = segment_start[g], segment_start[g + 1], stripes[g]
        groups = np.int64(1)
        if channels_outside[g]:
            for v in range(begin, end):
                groups = max(groups, pieces[v])
        for outer in range(groups):
            for step in range(rounds * strips[g]):
                x, s = step // rounds, step % rounds
                if channels_outside[g] and outer % 2:
                    x, s = strips[g] - 1 - x, rounds - 1 - s
                for v in range(begin, end):
                    row = stops[at[v] + s - 1] if s > 0 else np.int64(0)
                    row_end = stops[at[v] + s]
                    column = across[across_at[v] + x - 1] if x > 0 else np.int64(0)
                    column_end = across[across_at[v] + x]
                    if row >= row_end or column >= column_end:
                        continue
                    for k in range(pieces[v]):
                        c = pieces[v] - 1 - k if s % 2 and not channels_outside[g] else k
                        if channels_outside[g] and c != outer:
                            continue
                        turns += 1 if sums[v] > 1 else 0
                        for n in range(sums[v]):
                            q = sums[v] - 1 - n if turns % 2 else n
                            place = FIRST_STEP if n == 0 else 0
                            place += LAST_STEP if n == sums[v] - 1 else 0
                            tiles[made] = (
                                v, g, row, row_end, grid.width[v] * c // pieces[v],
                                grid.width[v] * (c + 1) // pieces[v], column, column_end,
                                grid.depth[v] * q // sums[v], grid.depth[v] * (q + 1) // sums[v], place,
                            )  # fmt: skip
                            made += 1
    return tiles[:made]


@helper
def _mark(edge: NDArray[np.uint8], at: Int64s, t: int, begin: int, end: int) -> None:
    edge[at[t] + begin] = 1
    edge[at[t] + end] = 1


@helper
def _part(
    grid: Grid, first_part: Int64s, counts: Int64s, t: int, row: int, channel: int, column: int
) -> int:
    """Number of a part: row-major in the axes of its tensor."""
    if grid.channels_first[t]:
        return first_part[t] + (channel * counts[t, 0] + row) * counts[t, 2] + column
    return first_part[t] + (row * counts[t, 1] + channel) * counts[t, 2] + column


@helper
def _edges(extent: Int64s) -> tuple[Int64s, NDArray[np.uint8]]:
    """Where each tensor's edges along an axis start, and the edges, with both ends marked."""
    at = np.zeros(len(extent) + 1, np.int64)
    for t in range(len(extent)):
        at[t + 1] = at[t] + extent[t] + 1
    edge = np.zeros(at[len(extent)], np.uint8)
    for t in range(len(extent)):
        _mark(edge, at, t, 0, extent[t])
    return at, edge


@helper
def _numbers(at: Int64s, edge: NDArray[np.uint8], counts: Int64s, axis: int) -> Int64s:
    """Number of the interval that starts at each edge; one behind the last at the end."""
    number = np.zeros(len(edge), np.int64)
    for t in range(len(at) - 1):
        found = np.int64(-1)
        for r in range(at[t], at[t + 1]):
            found += edge[r]
            number[r] = found
        counts[t, axis] = found
    return number


@kernel
def lay_tiles(grid: Grid, tiles: Int64s, alignment: int) -> Any:
    """Parts that tiles touch, and which tile reads and writes which, as arrays.

    Returns
    -------
    operand_start, operand, result_start, result, consumer_start, consumer : int32
        CSR; consumers ascend.
    pair_start, pair_result, pair_operand : int32
        CSR: results that may be written over an operand.
    size, space, clean, store, tensor_of
        By part.
    ordered
        Whether every part is made before it is read.
    """
    tensors, count = len(grid.size), len(tiles)
    row_at, row_edge = _edges(grid.rows)
    channel_at, channel_edge = _edges(grid.channels)
    column_at, column_edge = _edges(grid.columns)
    touches = np.int64(0)
    for v in range(len(grid.height)):
        touches = max(touches, grid.start[v + 1] - grid.start[v] + grid.result_start[v + 1] - grid.result_start[v])
    boxes = np.zeros((count, touches, 6), np.int64)
    for i in range(count):
        tile = tiles[i]
        v, n = tile[0], 0
        for k in range(grid.start[v], grid.start[v + 1]):
            t = grid.operand[k]
            a, b = span(grid.row_source[k], grid.row_table[k], grid.rows[t], grid.low, grid.high, tile)
            c, d = span(grid.channel_source[k], grid.channel_table[k], grid.channels[t], grid.low, grid.high, tile)
            e, f = span(grid.column_source[k], grid.column_table[k], grid.columns[t], grid.low, grid.high, tile)
            if grid.read_by[k] and not tile[10] & grid.read_by[k]:
                b = a  # another step reads it
            boxes[i, n] = (a, b, c, d, e, f)
            if a < b and c < d and e < f:
                _mark(row_edge, row_at, t, a, b)
                _mark(channel_edge, channel_at, t, c, d)
                _mark(column_edge, column_at, t, e, f)
            n += 1
        for k in range(grid.result_start[v], grid.result_start[v + 1]):
            t = grid.result[k]
            a, b = (tile[2], tile[3]) if grid.height[v] > 1 else (np.int64(0), grid.rows[t])
            c, d = (tile[4], tile[5]) if grid.width[v] > 1 else (np.int64(0), grid.channels[t])
            e, f = (tile[6], tile[7]) if grid.breadth[v] > 1 else (np.int64(0), grid.columns[t])
            boxes[i, n] = (a, b, c, d, e, f)
            _mark(row_edge, row_at, t, a, b)
            _mark(channel_edge, channel_at, t, c, d)
            _mark(column_edge, column_at, t, e, f)
            n += 1
    counts = np.zeros((tensors, 3), np.int64)
    row_number = _numbers(row_at, row_edge, counts, 0)
    channel_number = _numbers(channel_at, channel_edge, counts, 1)
    column_number = _numbers(column_at, column_edge, counts, 2)
    first_part = np.zeros(tensors + 1, np.int64)
    for t in range(tensors):
        first_part[t + 1] = first_part[t] + counts[t, 0] * counts[t, 1] * counts[t, 2]
    parts = first_part[tensors]
    size, space = np.zeros(parts, np.int64), np.zeros(parts, np.int64)
    clean, store = np.zeros(parts, np.uint8), np.zeros(parts, np.int64)
    tensor_of = np.zeros(parts, np.int64)
    for t in range(tensors):
        whole = grid.rows[t] * grid.channels[t] * grid.columns[t]
        last_row = np.int64(0)
        for r in range(1, grid.rows[t] + 1):
            if not row_edge[row_at[t] + r]:
                continue
            last_channel = np.int64(0)
            for c in range(1, grid.channels[t] + 1):
                if not channel_edge[channel_at[t] + c]:
                    continue
                last_column = np.int64(0)
                for x in range(1, grid.columns[t] + 1):
                    if not column_edge[column_at[t] + x]:
                        continue
                    p = _part(grid, first_part, counts, t, row_number[row_at[t] + last_row],
                              channel_number[channel_at[t] + last_channel],
                              column_number[column_at[t] + last_column])  # fmt: skip
                    share = (r - last_row) * (c - last_channel) * (x - last_column)
                    size[p] = grid.size[t] * share // whole
                    space[p] = -(-size[p] // alignment) * alignment
                    clean[p] = grid.clean[t]
                    tensor_of[p] = t
                    store[p] = size[p] if grid.stored[t] else 0
                    last_column = x
                last_channel = c
            last_row = r
    total_operands, total_results = np.int64(0), np.int64(0)
    for i in range(count):
        v, n = tiles[i, 0], 0
        for k in range(grid.start[v], grid.start[v + 1]):
            total_operands += _part_count(grid.operand[k], boxes[i, n], row_at, channel_at, column_at, row_number,
                                          channel_number, column_number)
            n += 1
        for k in range(grid.result_start[v], grid.result_start[v + 1]):
            parts_of = _part_count(grid.result[k], boxes[i, n], row_at, channel_at, column_at, row_number,
                                   channel_number, column_number)
            if tiles[i, 10] & FIRST_STEP:
                total_results += parts_of
            else:
                total_operands += parts_of
            n += 1
    operand_start, result_start = np.zeros(count + 1, np.int32), np.zeros(count + 1, np.int32)
    operand, result = np.zeros(total_operands, np.int32), np.zeros(total_results, np.int32)
    pair_start = np.zeros(count + 1, np.int32)
    pair_result, pair_operand = np.zeros(total_operands, np.int32), np.zeros(total_operands, np.int32)
    operands, results, pairs = np.int64(0), np.int64(0), np.int64(0)
    made = np.zeros(parts, np.uint8)
    ordered = True
    for i in range(count):
        v, n = tiles[i, 0], grid.start[tiles[i, 0] + 1] - grid.start[tiles[i, 0]]
        written = np.int64(-1)
        for k in range(grid.result_start[v], grid.result_start[v + 1]):
            t, box = grid.result[k], boxes[i, n]
            n += 1
            for r in range(row_number[row_at[t] + box[0]], row_number[row_at[t] + box[1]]):
                for c in range(channel_number[channel_at[t] + box[2]], channel_number[channel_at[t] + box[3]]):
                    for x in range(column_number[column_at[t] + box[4]], column_number[column_at[t] + box[5]]):
                        p = _part(grid, first_part, counts, t, r, c, x)
                        if tiles[i, 10] & FIRST_STEP:
                            result[results] = p
                            results += 1
                        else:  # the partial sum that a step adds to has the place of what becomes of it
                            operand[operands] = p
                            operands += 1
                        made[p] = 1
        if grid.in_place[v] and results - result_start[i] == 1:
            written = np.int64(result[results - 1])
        n = 0
        for k in range(grid.start[v], grid.start[v + 1]):
            t, box = grid.operand[k], boxes[i, n]
            n += 1
            if box[0] >= box[1] or box[2] >= box[3] or box[4] >= box[5]:
                continue
            before = operands
            for r in range(row_number[row_at[t] + box[0]], row_number[row_at[t] + box[1]]):
                for c in range(channel_number[channel_at[t] + box[2]], channel_number[channel_at[t] + box[3]]):
                    for x in range(column_number[column_at[t] + box[4]], column_number[column_at[t] + box[5]]):
                        p = _part(grid, first_part, counts, t, r, c, x)
                        operand[operands] = p
                        operands += 1
                        if not clean[p] and not made[p]:
                            ordered = False
            alone = operands - before == 1 and grid.maker[t] >= 0
            if written >= 0 and alone and size[operand[before]] == size[written]:
                pair_result[pairs] = written
                pair_operand[pairs] = operand[before]
                pairs += 1
        operand_start[i + 1], result_start[i + 1], pair_start[i + 1] = operands, results, pairs
    consumer_start = np.zeros(parts + 1, np.int32)
    for k in range(operands):
        consumer_start[operand[k] + 1] += 1
    for p in range(parts):
        consumer_start[p + 1] += consumer_start[p]
    filled = consumer_start[:-1].copy()
    consumer = np.zeros(operands, np.int32)
    for i in range(count):
        for k in range(operand_start[i], operand_start[i + 1]):
            consumer[filled[operand[k]]] = i
            filled[operand[k]] += 1
    return (
        operand_start, operand, result_start, result, consumer_start, consumer, pair_start, pair_result[:pairs].copy(),
        pair_operand[:pairs].copy(), size, space, clean, store, tensor_of, ordered,
    )  # fmt: skip


@helper
def _part_count(
    t: int, box: Int64s, row_at: Int64s, channel_at: Int64s, column_at: Int64s, row_number: Int64s,
    channel_number: Int64s, column_number: Int64s,
) -> int:  # fmt: skip
    """Number of parts in a box of a tensor."""
    if box[0] >= box[1] or box[2] >= box[3] or box[4] >= box[5]:
        return np.int64(0)
    rows = row_number[row_at[t] + box[1]] - row_number[row_at[t] + box[0]]
    channels = channel_number[channel_at[t] + box[3]] - channel_number[channel_at[t] + box[2]]
    return rows * channels * (column_number[column_at[t] + box[5]] - column_number[column_at[t] + box[4]])
