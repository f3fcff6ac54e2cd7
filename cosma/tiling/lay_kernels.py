"""Tiles of a grid laid out as a network for the replay (numba; imported only where tilings are chosen)."""

# Inside compiled code an int is an int64; the type checker sees numpy scalars instead.
# mypy: disable-error-code="arg-type,return-value,assignment,untyped-decorator,operator,no-any-return"

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosma.compiled import helper, kernel
from cosma.tiling.grid import ALL, BY_ROWS, Grid

Int64s = NDArray[np.int64]


@helper
def row_stops(grid: Grid, begin: int, end: int, stripes: int, stops: Int64s, at: Int64s) -> None:
    """Last row, exclusive, that each operator of a segment has computed after each stripe.

    Operators that no other of the segment reads are cut evenly; each other one computes what its readers lack.
    ``stops[at[v] + s]`` comes back filled.
    """
    for v in range(begin, end):
        for s in range(stripes):
            stops[at[v] + s] = -1
    for v in range(end - 1, begin - 1, -1):
        if stops[at[v]] < 0:
            for s in range(stripes):
                stops[at[v] + s] = grid.height[v] * (s + 1) // stripes
        stops[at[v] + stripes - 1] = grid.height[v]
        for s in range(stripes):
            stop = stops[at[v] + s]
            for k in range(grid.start[v], grid.start[v + 1]):
                t = grid.operand[k]
                u = grid.maker[t]
                if u < begin or u >= v:
                    continue
                need = np.int64(0)
                if stop > 0:
                    need = grid.rows[t]
                    if grid.row_source[k] == BY_ROWS:
                        need = grid.high[grid.row_table[k] + stop - 1]
                    if grid.height[u] == 1:
                        need = np.int64(1)
                before = stops[at[u] + s - 1] if s > 0 else np.int64(0)
                stops[at[u] + s] = max(max(stops[at[u] + s], need), before)


@helper
def span(
    source: int, table: int, extent: int, low: Int64s, high: Int64s, row: int, row_end: int, channel: int,
    channel_end: int,
) -> tuple[int, int]:  # fmt: skip
    """Interval of an operand's axis that a tile reads."""
    if source == ALL:
        return np.int64(0), np.int64(extent)
    first, last = (row, row_end) if source == BY_ROWS else (channel, channel_end)
    return (
        min(low[table + first], low[table + last - 1]),
        max(high[table + first], high[table + last - 1]),
    )


@kernel
def order_tiles(
    grid: Grid, segment_start: Int64s, stripes: Int64s, channels_outside: NDArray[np.uint8], pieces: Int64s
) -> Any:
    """Tiles in the order in which they run, segment by segment.

    Stripe by stripe, operator by operator, and within it channels back and forth; in a segment with
    ``channels_outside``, one group of channels after the other, and its rows back and forth.

    Returns
    -------
    int64[tiles, 6]
        Operator, segment, first row, last row, first channel, last channel of each tile; intervals are half-open.
    """
    count = len(grid.height)
    at = np.zeros(count + 1, np.int64)
    for g in range(len(stripes)):
        for v in range(segment_start[g], segment_start[g + 1]):
            at[v + 1] = at[v] + stripes[g]
    stops = np.zeros(at[count], np.int64)
    most = np.int64(0)
    for g in range(len(stripes)):
        row_stops(grid, segment_start[g], segment_start[g + 1], stripes[g], stops, at)
        for v in range(segment_start[g], segment_start[g + 1]):
            most += stripes[g] * pieces[v]
    tiles = np.zeros((most, 6), np.int64)
    made = 0
    for g in range(len(stripes)):
        begin, end, rounds = segment_start[g], segment_start[g + 1], stripes[g]
        groups = np.int64(1)
        if channels_outside[g]:
            for v in range(begin, end):
                groups = max(groups, pieces[v])
        for outer in range(groups):
            for step in range(rounds):
                s = rounds - 1 - step if channels_outside[g] and outer % 2 else step
                for v in range(begin, end):
                    row = stops[at[v] + s - 1] if s > 0 else np.int64(0)
                    row_end = stops[at[v] + s]
                    if row >= row_end:
                        continue
                    for k in range(pieces[v]):
                        c = pieces[v] - 1 - k if s % 2 and not channels_outside[g] else k
                        if channels_outside[g] and c != outer:
                            continue
                        tiles[made] = (
                            v, g, row, row_end, grid.width[v] * c // pieces[v], grid.width[v] * (c + 1) // pieces[v],
                        )  # fmt: skip
                        made += 1
    return tiles[:made]


@helper
def _mark(edge: NDArray[np.uint8], at: Int64s, t: int, begin: int, end: int) -> None:
    edge[at[t] + begin] = 1
    edge[at[t] + end] = 1


@helper
def _part(grid: Grid, first_part: Int64s, columns: Int64s, t: int, row: int, channel: int) -> int:
    """Number of a part: row-major in the axes of its tensor."""
    if grid.channels_first[t]:
        rows = (first_part[t + 1] - first_part[t]) // columns[t]
        return first_part[t] + channel * rows + row
    return first_part[t] + row * columns[t] + channel


@kernel
def lay_tiles(grid: Grid, tiles: Int64s, alignment: int) -> Any:
    """Parts that tiles touch, and which tile reads and writes which, as the arrays of a network.

    Returns
    -------
    operand_start, operand, result_start, result, consumer_start, consumer : int32
        CSR; consumers ascend.
    pair_result, pair_start, pair_operand : int32
        Results that may be written over an operand.
    size, space, clean, store, tensor_of
        By part.
    ordered
        Whether every part is made before it is read.
    """
    tensors, count = len(grid.size), len(tiles)
    row_at, channel_at = np.zeros(tensors + 1, np.int64), np.zeros(tensors + 1, np.int64)
    for t in range(tensors):
        row_at[t + 1] = row_at[t] + grid.rows[t] + 1
        channel_at[t + 1] = channel_at[t] + grid.channels[t] + 1
    row_edge = np.zeros(row_at[tensors], np.uint8)
    channel_edge = np.zeros(channel_at[tensors], np.uint8)
    for t in range(tensors):
        _mark(row_edge, row_at, t, 0, grid.rows[t])
        _mark(channel_edge, channel_at, t, 0, grid.channels[t])
    touches = np.int64(0)
    for v in range(len(grid.height)):
        touches = max(touches, grid.start[v + 1] - grid.start[v] + grid.result_start[v + 1] - grid.result_start[v])
    boxes = np.zeros((count, touches, 4), np.int64)
    for i in range(count):
        v, row, row_end, channel, channel_end = tiles[i, 0], tiles[i, 2], tiles[i, 3], tiles[i, 4], tiles[i, 5]
        n = 0
        for k in range(grid.start[v], grid.start[v + 1]):
            t = grid.operand[k]
            a, b = span(grid.row_source[k], grid.row_table[k], grid.rows[t], grid.low, grid.high, row, row_end,
                        channel, channel_end)  # fmt: skip
            c, d = span(grid.channel_source[k], grid.channel_table[k], grid.channels[t], grid.low, grid.high, row,
                        row_end, channel, channel_end)  # fmt: skip
            boxes[i, n] = (a, b, c, d)
            if a < b and c < d:
                _mark(row_edge, row_at, t, a, b)
                _mark(channel_edge, channel_at, t, c, d)
            n += 1
        for k in range(grid.result_start[v], grid.result_start[v + 1]):
            t = grid.result[k]
            a, b = (row, row_end) if grid.height[v] > 1 else (np.int64(0), grid.rows[t])
            c, d = (channel, channel_end) if grid.width[v] > 1 else (np.int64(0), grid.channels[t])
            boxes[i, n] = (a, b, c, d)
            _mark(row_edge, row_at, t, a, b)
            _mark(channel_edge, channel_at, t, c, d)
            n += 1
    # Number of the interval that starts at an edge; one behind the last at the end.
    row_number, channel_number = np.zeros(len(row_edge), np.int64), np.zeros(len(channel_edge), np.int64)
    first_part = np.zeros(tensors + 1, np.int64)
    columns = np.zeros(tensors, np.int64)
    for t in range(tensors):
        rows, channels = np.int64(-1), np.int64(-1)
        for r in range(row_at[t], row_at[t + 1]):
            rows += row_edge[r]
            row_number[r] = rows
        for c in range(channel_at[t], channel_at[t + 1]):
            channels += channel_edge[c]
            channel_number[c] = channels
        columns[t] = channels
        first_part[t + 1] = first_part[t] + rows * channels
    parts = first_part[tensors]
    size, space = np.zeros(parts, np.int64), np.zeros(parts, np.int64)
    clean, store = np.zeros(parts, np.uint8), np.zeros(parts, np.int64)
    tensor_of = np.zeros(parts, np.int64)
    for t in range(tensors):
        last_row = np.int64(0)
        for r in range(1, grid.rows[t] + 1):
            if not row_edge[row_at[t] + r]:
                continue
            last_channel = np.int64(0)
            for c in range(1, grid.channels[t] + 1):
                if not channel_edge[channel_at[t] + c]:
                    continue
                p = _part(grid, first_part, columns, t, row_number[row_at[t] + last_row],
                          channel_number[channel_at[t] + last_channel])  # fmt: skip
                share = (r - last_row) * (c - last_channel)
                size[p] = grid.size[t] * share // (grid.rows[t] * grid.channels[t])
                space[p] = -(-size[p] // alignment) * alignment
                clean[p] = grid.clean[t]
                tensor_of[p] = t
                store[p] = size[p] if grid.stored[t] else 0
                last_channel = c
            last_row = r
    total_operands, total_results = np.int64(0), np.int64(0)
    for i in range(count):
        v, n = tiles[i, 0], 0
        for k in range(grid.start[v], grid.start[v + 1]):
            total_operands += _part_count(grid.operand[k], boxes[i, n], row_at, channel_at, row_number, channel_number)
            n += 1
        for k in range(grid.result_start[v], grid.result_start[v + 1]):
            total_results += _part_count(grid.result[k], boxes[i, n], row_at, channel_at, row_number, channel_number)
            n += 1
    operand_start, result_start = np.zeros(count + 1, np.int32), np.zeros(count + 1, np.int32)
    operand, result = np.zeros(total_operands, np.int32), np.zeros(total_results, np.int32)
    pair_result, pair_start = np.full(count, -1, np.int32), np.zeros(count + 1, np.int32)
    pair_operand = np.zeros(total_operands, np.int32)
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
                    p = _part(grid, first_part, columns, t, r, c)
                    result[results] = p
                    results += 1
                    made[p] = 1
        if grid.in_place[v] and results - result_start[i] == 1:
            written = np.int64(result[results - 1])
        n = 0
        for k in range(grid.start[v], grid.start[v + 1]):
            t, box = grid.operand[k], boxes[i, n]
            n += 1
            if box[0] >= box[1] or box[2] >= box[3]:
                continue
            before = operands
            for r in range(row_number[row_at[t] + box[0]], row_number[row_at[t] + box[1]]):
                for c in range(channel_number[channel_at[t] + box[2]], channel_number[channel_at[t] + box[3]]):
                    p = _part(grid, first_part, columns, t, r, c)
                    operand[operands] = p
                    operands += 1
                    if not clean[p] and not made[p]:
                        ordered = False
            alone = operands - before == 1 and grid.maker[t] >= 0
            if written >= 0 and alone and size[operand[before]] == size[written]:
                pair_result[i] = written
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
        operand_start, operand, result_start, result, consumer_start, consumer, pair_result, pair_start,
        pair_operand[:pairs].copy(), size, space, clean, store, tensor_of, ordered,
    )  # fmt: skip


@helper
def _part_count(
    t: int, box: Int64s, row_at: Int64s, channel_at: Int64s, row_number: Int64s, channel_number: Int64s
) -> int:
    """Number of parts in a box of a tensor."""
    if box[0] >= box[1] or box[2] >= box[3]:
        return np.int64(0)
    rows = row_number[row_at[t] + box[1]] - row_number[row_at[t] + box[0]]
    return rows * (channel_number[channel_at[t] + box[3]] - channel_number[channel_at[t] + box[2]])
