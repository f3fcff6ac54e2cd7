"""Tiles of a grid laid out as steps to plan (numba; imported only where tilings are chosen)."""

# Inside compiled code an int is an int64; the type checker sees numpy scalars instead.
# mypy: disable-error-code="arg-type,return-value,assignment,untyped-decorator,operator,no-any-return"

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosma.compiled import helper, kernel
from cosma.tiling.grid import ALL, BY_CHANNELS, BY_COLUMNS, BY_SUM, FIRST_STEP, LAST_STEP, Grid

Int64s = NDArray[np.int64]


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


@helper
def _mark(edge: NDArray[np.uint8], at: Int64s, t: int, begin: int, end: int) -> None:
    edge[at[t] + begin] = 1
    edge[at[t] + end] = 1


@helper
def _strides(grid: Grid, counts: Int64s) -> Int64s:
    """Distance between the numbers of parts that are neighbours along rows, channels and columns: row-major."""
    strides = np.ones((len(counts), 3), np.int64)
    for t in range(len(counts)):
        for a in range(3):
            for b in range(3):
                if grid.place[t, b] > grid.place[t, a]:
                    strides[t, a] *= counts[t, b]
    return strides


@helper
def _is_whole(grid: Grid, tile: Int64s) -> bool:
    """Whether a tile is all of its operator."""
    v = tile[0]
    return (
        tile[3] - tile[2] == grid.height[v] and tile[5] - tile[4] == grid.width[v]
        and tile[7] - tile[6] == grid.breadth[v] and tile[9] - tile[8] == grid.depth[v]
    )  # fmt: skip


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
    size, space, clean, store
        By part.
    added, unfinished
        By tile: how many of its operands, the first, are sums that it adds to, and whether they, or its results, are
        partial sums still.
    tensor_of
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
        uncut = not grid.selects[v] and _is_whole(grid, tile)
        for k in range(grid.start[v], grid.start[v + 1]):
            t = grid.operand[k]
            a, b = span(grid.row_source[k], grid.row_table[k], grid.rows[t], grid.low, grid.high, tile)
            c, d = span(grid.channel_source[k], grid.channel_table[k], grid.channels[t], grid.low, grid.high, tile)
            e, f = span(grid.column_source[k], grid.column_table[k], grid.columns[t], grid.low, grid.high, tile)
            if uncut:
                a, b, c, d, e, f = 0, grid.rows[t], 0, grid.channels[t], 0, grid.columns[t]
            if grid.read_by[k] and not tile[10] & grid.read_by[k]:
                b = a  # another step reads it
            box = boxes[i, n]
            box[0], box[1], box[2], box[3], box[4], box[5] = a, b, c, d, e, f
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
            box = boxes[i, n]
            box[0], box[1], box[2], box[3], box[4], box[5] = a, b, c, d, e, f
            _mark(row_edge, row_at, t, a, b)
            _mark(channel_edge, channel_at, t, c, d)
            _mark(column_edge, column_at, t, e, f)
            n += 1
    counts = np.zeros((tensors, 3), np.int64)
    row_number = _numbers(row_at, row_edge, counts, 0)
    channel_number = _numbers(channel_at, channel_edge, counts, 1)
    column_number = _numbers(column_at, column_edge, counts, 2)
    strides, first_part = _strides(grid, counts), np.zeros(tensors + 1, np.int64)
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
                    p = (
                        first_part[t] + row_number[row_at[t] + last_row] * strides[t, 0]
                        + channel_number[channel_at[t] + last_channel] * strides[t, 1]
                        + column_number[column_at[t] + last_column] * strides[t, 2]
                    )  # fmt: skip
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
    added, unfinished = np.zeros(count, np.int32), np.zeros(count, np.uint8)
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
                        p = first_part[t] + r * strides[t, 0] + c * strides[t, 1] + x * strides[t, 2]
                        if tiles[i, 10] & FIRST_STEP:
                            result[results] = p
                            results += 1
                        else:  # the partial sum that a step adds to has the place of what becomes of it
                            operand[operands] = p
                            operands += 1
                            added[i] += 1
                        made[p] = 1
        unfinished[i] = not tiles[i, 10] & LAST_STEP
        if results - result_start[i] == 1:
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
                        p = first_part[t] + r * strides[t, 0] + c * strides[t, 1] + x * strides[t, 2]
                        operand[operands] = p
                        operands += 1
                        if not clean[p] and not made[p]:
                            ordered = False
            alone = written >= 0 and operands - before == 1
            if alone and grid.given_up[k] and size[operand[before]] >= size[written]:
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
        pair_operand[:pairs].copy(), size, space, clean, store, added, unfinished, tensor_of, ordered,
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
