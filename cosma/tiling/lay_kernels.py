"""Tiles of a grid laid out as steps to plan (numba; imported only where tilings are chosen)."""

# Inside compiled code an int is an int64; the type checker sees numpy scalars instead.
# mypy: disable-error-code="arg-type,return-value,assignment,untyped-decorator,operator,no-any-return"

from __future__ import annotations

from typing import Any

import numpy as np

from cosma.arrays import Bytes, Int32s, Ints
from cosma.compiled import helper, kernel
from cosma.tiling.grid import Grid
from cosma.tiling.probe import ALL, BY_SUM, FIRST_STEP, LAST_STEP


@helper
def span(source: int, table: int, extent: int, low: Ints, high: Ints, tile: Ints) -> tuple[int, int]:
    """Interval of an operand's axis that a tile reads: all, or what its interval of the axis followed says."""
    if source == ALL:
        return np.int64(0), np.int64(extent)
    first, last = table + tile[2 * source], table + tile[2 * source + 1] - 1
    return min(low[first], low[last]), max(high[first], high[last])


@helper
def _mark(edge: Bytes, at: Ints, t: int, begin: int, end: int) -> None:
    edge[at[t] + begin] = 1
    edge[at[t] + end] = 1


@helper
def _strides(grid: Grid, counts: Ints) -> Ints:
    """Distance between the numbers of parts that are neighbours along rows, channels and columns: row-major."""
    strides = np.ones((len(counts), 3), np.int64)
    for t in range(len(counts)):
        for a in range(3):
            for b in range(3):
                if grid.place[t, b] > grid.place[t, a]:
                    strides[t, a] *= counts[t, b]
    return strides


@helper
def _is_whole(grid: Grid, tile: Ints) -> bool:
    """Whether a tile is all of its operator."""
    v = tile[0]
    return (
        tile[3] - tile[2] == grid.height[v] and tile[5] - tile[4] == grid.width[v]
        and tile[7] - tile[6] == grid.breadth[v] and tile[9] - tile[8] == grid.depth[v]
    )  # fmt: skip


@helper
def _edges(extent: Ints) -> tuple[Ints, Bytes]:
    """Where each tensor's edges along an axis start, and the edges, with both ends marked."""
    at = np.zeros(len(extent) + 1, np.int64)
    for t in range(len(extent)):
        at[t + 1] = at[t] + extent[t] + 1
    edge = np.zeros(at[len(extent)], np.uint8)
    for t in range(len(extent)):
        _mark(edge, at, t, 0, extent[t])
    return at, edge


@helper
def _numbered(at: Ints, edge: Bytes) -> tuple[Ints, Ints, Ints]:
    """Number the intervals between edges, tensor by tensor.

    Returns
    -------
    number
        Of the interval that starts at each edge; one behind the last at the end.
    cut_start, cuts
        CSR: the edges of each tensor.
    """
    tensors = len(at) - 1
    number, cuts = np.empty(len(edge), np.int64), np.empty(len(edge), np.int64)
    cut_start = np.zeros(tensors + 1, np.int64)
    found = np.int64(0)
    for t in range(tensors):
        for r in range(at[t], at[t + 1]):
            if edge[r]:
                number[r] = found - cut_start[t]
                cuts[found] = r - at[t]
                found += 1
        cut_start[t + 1] = found
    return number, cut_start, cuts


@helper
def _readers(operand_start: Int32s, operand: Int32s, parts: int) -> tuple[Int32s, Int32s]:
    """CSR: the tiles that read each part, ascending."""
    start = np.zeros(parts + 1, np.int32)
    for k in range(operand_start[-1]):
        start[operand[k] + 1] += 1
    for p in range(parts):
        start[p + 1] += start[p]
    filled, reader = start[:-1].copy(), np.zeros(operand_start[-1], np.int32)
    for i in range(len(operand_start) - 1):
        for k in range(operand_start[i], operand_start[i + 1]):
            reader[filled[operand[k]]] = i
            filled[operand[k]] += 1
    return start, reader


@helper
def _boxes(
    grid: Grid, tiles: Ints, row_at: Ints, row_edge: Bytes, channel_at: Ints, channel_edge: Bytes, column_at: Ints,
    column_edge: Bytes,
) -> tuple[Ints, Ints]:  # fmt: skip
    """CSR: the boxes that each tile reads and, after them, writes; marks their edges."""
    count = len(tiles)
    box_start = np.zeros(count + 1, np.int64)
    for i in range(count):
        v = tiles[i, 0]
        touched = grid.start[v + 1] - grid.start[v] + grid.result_start[v + 1] - grid.result_start[v]
        box_start[i + 1] = box_start[i] + touched
    boxes = np.empty((box_start[count], 6), np.int64)
    # What the tile before of the same operator reads along an axis of which both have the same interval is the same.
    before, same = np.full(len(grid.height), -1, np.int64), np.zeros(BY_SUM + 1, np.bool_)
    for i in range(count):
        tile = tiles[i]
        v, n = tile[0], box_start[i]
        near, before[v] = before[v], i
        for axis in range(BY_SUM + 1):
            same[axis] = axis == ALL or (
                tiles[near, 2 * axis] == tile[2 * axis] and tiles[near, 2 * axis + 1] == tile[2 * axis + 1]
            )
        uncut = not grid.selects[v] and _is_whole(grid, tile)
        for k in range(grid.start[v], grid.start[v + 1]):
            t, box = grid.operand[k], boxes[n]
            like = boxes[box_start[near] + n - box_start[i]] if near >= 0 else box
            known = near >= 0 and not grid.read_by[k] and like[0] < like[1] and like[2] < like[3] and like[4] < like[5]
            by_row, by_channel, by_column = grid.row_source[k], grid.channel_source[k], grid.column_source[k]
            for side in range(6):
                box[side] = like[side]
            if not (known and same[by_row]):
                box[0], box[1] = span(by_row, grid.row_table[k], grid.rows[t], grid.low, grid.high, tile)
            if not (known and same[by_channel]):
                box[2], box[3] = span(by_channel, grid.channel_table[k], grid.channels[t], grid.low, grid.high, tile)
            if not (known and same[by_column]):
                box[4], box[5] = span(by_column, grid.column_table[k], grid.columns[t], grid.low, grid.high, tile)
            if uncut:
                box[0], box[2], box[4] = 0, 0, 0
                box[1], box[3], box[5] = grid.rows[t], grid.channels[t], grid.columns[t]
            if grid.read_by[k] and not tile[10] & grid.read_by[k]:
                box[1] = box[0]  # another step reads it
            if box[0] < box[1] and box[2] < box[3] and box[4] < box[5]:
                if not (known and same[by_row]):
                    _mark(row_edge, row_at, t, box[0], box[1])
                if not (known and same[by_channel]):
                    _mark(channel_edge, channel_at, t, box[2], box[3])
                if not (known and same[by_column]):
                    _mark(column_edge, column_at, t, box[4], box[5])
            n += 1
        for k in range(grid.result_start[v], grid.result_start[v + 1]):
            t = grid.result[k]
            a, b = (tile[2], tile[3]) if grid.height[v] > 1 else (np.int64(0), grid.rows[t])
            c, d = (tile[4], tile[5]) if grid.width[v] > 1 else (np.int64(0), grid.channels[t])
            e, f = (tile[6], tile[7]) if grid.breadth[v] > 1 else (np.int64(0), grid.columns[t])
            box = boxes[n]
            box[0], box[1], box[2], box[3], box[4], box[5] = a, b, c, d, e, f
            _mark(row_edge, row_at, t, a, b)
            _mark(channel_edge, channel_at, t, c, d)
            _mark(column_edge, column_at, t, e, f)
            n += 1
    return box_start, boxes


@kernel
def lay_tiles(grid: Grid, tiles: Ints, alignment: int) -> Any:
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
    box_start, boxes = _boxes(grid, tiles, row_at, row_edge, channel_at, channel_edge, column_at, column_edge)
    row_number, row_start, row_cuts = _numbered(row_at, row_edge)
    channel_number, channel_start, channel_cuts = _numbered(channel_at, channel_edge)
    column_number, column_start, column_cuts = _numbered(column_at, column_edge)
    counts, first_part = np.zeros((tensors, 3), np.int64), np.zeros(tensors + 1, np.int64)
    for t in range(tensors):
        counts[t, 0] = row_start[t + 1] - row_start[t] - 1
        counts[t, 1] = channel_start[t + 1] - channel_start[t] - 1
        counts[t, 2] = column_start[t + 1] - column_start[t] - 1
        first_part[t + 1] = first_part[t] + counts[t, 0] * counts[t, 1] * counts[t, 2]
    strides = _strides(grid, counts)
    parts = first_part[tensors]
    size, space = np.zeros(parts, np.int64), np.zeros(parts, np.int64)
    clean, store = np.zeros(parts, np.uint8), np.zeros(parts, np.int64)
    tensor_of = np.zeros(parts, np.int64)
    for t in range(tensors):
        whole = grid.rows[t] * grid.channels[t] * grid.columns[t]
        for r in range(counts[t, 0]):
            rows = row_cuts[row_start[t] + r + 1] - row_cuts[row_start[t] + r]
            for c in range(counts[t, 1]):
                channels = channel_cuts[channel_start[t] + c + 1] - channel_cuts[channel_start[t] + c]
                for x in range(counts[t, 2]):
                    columns = column_cuts[column_start[t] + x + 1] - column_cuts[column_start[t] + x]
                    p = first_part[t] + r * strides[t, 0] + c * strides[t, 1] + x * strides[t, 2]
                    size[p] = grid.size[t] * (rows * channels * columns) // whole
                    space[p] = -(-size[p] // alignment) * alignment
                    clean[p] = grid.clean[t]
                    tensor_of[p] = t
                    store[p] = size[p] if grid.stored[t] else 0
    total_operands, total_results = np.int64(0), np.int64(0)
    for i in range(count):
        v, n = tiles[i, 0], box_start[i]
        results_from = n + grid.start[v + 1] - grid.start[v]
        for m in range(n, box_start[i + 1]):
            box = boxes[m]
            t = grid.operand[grid.start[v] + m - n] if m < results_from else (
                grid.result[grid.result_start[v] + m - results_from]
            )
            if box[0] >= box[1] or box[2] >= box[3] or box[4] >= box[5]:
                box[0], box[1], box[2], box[3], box[4], box[5] = 0, 0, 0, 0, 0, 0
                continue
            # From here on a box is one of numbers of parts.
            box[0], box[1] = row_number[row_at[t] + box[0]], row_number[row_at[t] + box[1]]
            box[2], box[3] = channel_number[channel_at[t] + box[2]], channel_number[channel_at[t] + box[3]]
            box[4], box[5] = column_number[column_at[t] + box[4]], column_number[column_at[t] + box[5]]
            parts_of = (box[1] - box[0]) * (box[3] - box[2]) * (box[5] - box[4])
            if m >= results_from and tiles[i, 10] & FIRST_STEP:
                total_results += parts_of
            else:
                total_operands += parts_of
    operand_start, result_start = np.zeros(count + 1, np.int32), np.zeros(count + 1, np.int32)
    operand, result = np.zeros(total_operands, np.int32), np.zeros(total_results, np.int32)
    added, unfinished = np.zeros(count, np.int32), np.zeros(count, np.uint8)
    pair_start = np.zeros(count + 1, np.int32)
    pair_result, pair_operand = np.zeros(total_operands, np.int32), np.zeros(total_operands, np.int32)
    operands, results, pairs = np.int64(0), np.int64(0), np.int64(0)
    made = np.zeros(parts, np.uint8)
    ordered = True
    for i in range(count):
        v = tiles[i, 0]
        n = box_start[i] + grid.start[v + 1] - grid.start[v]
        written = np.int64(-1)
        for k in range(grid.result_start[v], grid.result_start[v + 1]):
            t, box = grid.result[k], boxes[n]
            n += 1
            for r in range(box[0], box[1]):
                for c in range(box[2], box[3]):
                    for x in range(box[4], box[5]):
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
        n = box_start[i]
        for k in range(grid.start[v], grid.start[v + 1]):
            t, box = grid.operand[k], boxes[n]
            n += 1
            before = operands
            for r in range(box[0], box[1]):
                for c in range(box[2], box[3]):
                    for x in range(box[4], box[5]):
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
    consumer_start, consumer = _readers(operand_start, operand, parts)
    return (
        operand_start, operand, result_start, result, consumer_start, consumer, pair_start, pair_result[:pairs].copy(),
        pair_operand[:pairs].copy(), size, space, clean, store, added, unfinished, tensor_of, ordered,
    )  # fmt: skip

