"""What a segmentation costs: its tiles in order, planned in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cosma.lowering.along import Steps, run_steps
from cosma.lowering.along_kernels import TOGETHER
from cosma.tiling.grid import Grid
from cosma.tiling.lay_kernels import lay_tiles, order_tiles
from cosma.tiling.segments import Segment, Segmentation

Int64s = NDArray[np.int64]


class Outcome(NamedTuple):
    """What one segmentation costs.

    Attributes
    ----------
    cost_bytes
        Bytes moved beyond the compulsory.
    tiles
        Number of tiles.
    segment_cost
        Bytes by segment.
    """

    cost_bytes: int
    tiles: int
    segment_cost: Int64s


class Room(NamedTuple):
    """What tiles are planned for.

    Attributes
    ----------
    capacity_bytes, alignment
        Of the scratchpad.
    weights_pass
        Whether weights pass the scratchpad by: they take no room, and every tile reads them again.
    most_tiles
        More of them are not looked at.
    """

    capacity_bytes: int
    alignment: int
    weights_pass: bool
    most_tiles: int


def tiles_of(grid: Grid, segments: Segmentation) -> Int64s:
    """Operator, segment, rows, channels and columns of each tile, in the order in which tiles run."""
    start = np.array([segments[0].begin, *(s.end for s in segments)], dtype=np.int64)
    stripes = np.array([s.stripes for s in segments], dtype=np.int64)
    strips = np.array([s.strips for s in segments], dtype=np.int64)
    outside = np.array([s.channels_outside for s in segments], dtype=np.uint8)
    pieces = np.array([n for s in segments for n in s.pieces], dtype=np.int64)
    tiles: Int64s = order_tiles(grid, start, stripes, strips, outside, pieces)
    return tiles


def outcome(grid: Grid, segments: Segmentation, room: Room, rule: int = TOGETHER) -> Outcome | None:
    """Plan a segmentation in one pass; None where a tile does not fit, or where there are too many of them.

    A plan of the graph of tiles costs the same, but for tensors of which a tile reads less than tables of access say.
    """
    if _too_many(segments, room):
        return None
    tiles = tiles_of(grid, segments)
    if len(tiles) > room.most_tiles:
        return None
    steps, again, ordered = _steps(grid, tiles, room)
    found = run_steps(steps, room.capacity_bytes, rule) if ordered else None
    if found is None:
        return None
    cost = found[0] + again
    by_segment = np.zeros(len(segments), dtype=np.int64)
    np.add.at(by_segment, tiles[:, 1], cost)
    return Outcome(int(cost.sum()), len(tiles), by_segment)


def fitted(grid: Grid, segments: Segmentation, room: Room) -> Segmentation | None:
    """Cut finer where a tile does not fit, until all do; None where they never do or there are too many of them.

    What takes more of a tile that is too large is cut: its weights along channels, or else its rows.
    """
    changed = list(segments)
    while not _too_many(changed, room):
        tiles = tiles_of(grid, tuple(changed))
        if len(tiles) > room.most_tiles:
            return None
        needs = needs_of_tiles(_steps(grid, tiles, room)[0])
        over = needs > room.capacity_bytes
        if not over.any():
            return tuple(changed)
        better = False
        for v, g in sorted({(int(v), int(g)) for v, g in tiles[over][:, :2]}):
            finer = _finer(grid, changed[g], v, int(needs[tiles[:, 0] == v].max()), weights_pass=room.weights_pass)
            better |= finer != changed[g]
            changed[g] = finer
        if not better:
            return None
    return None


def _finer(grid: Grid, segment: Segment, v: int, need: int, *, weights_pass: bool) -> Segment:
    """Cut an operator a third finer along what takes more of its largest tile."""
    k = v - segment.begin
    weight = 0 if weights_pass else int(grid.weight[v]) // segment.pieces[k]
    by_rows = segment.stripes < int(grid.height[v])
    if segment.pieces[k] < int(grid.width[v]) and (2 * weight > need or not by_rows):
        pieces = list(segment.pieces)
        pieces[k] = min(int(grid.width[v]), pieces[k] + max(1, pieces[k] // 3))
        return replace(segment, pieces=tuple(pieces))
    if by_rows:
        stripes = min(int(grid.height[v]), segment.stripes + max(1, segment.stripes // 3))
        return replace(segment, stripes=stripes)
    return segment


def _too_many(segments: Sequence[Segment], room: Room) -> bool:
    """Whether there are surely more tiles than are looked at; stripes without rows of their own make none."""
    return sum(s.stripes * s.strips * sum(s.pieces) for s in segments) > 4 * room.most_tiles


def needs_of_tiles(steps: Steps) -> Int64s:
    """Bytes that each tile needs while it runs, less what an operand gives up to its result.

    Whether the operand is read again is left out: the least that it can be.
    """
    read = _sums(steps.space, steps.operand_start, steps.operand)
    written = _sums(steps.space, steps.result_start, steps.result)
    paired = np.where(steps.pair_result >= 0, steps.space[steps.pair_result], 0)
    needs: Int64s = read + written - paired
    return needs


def _sums(space: Int64s, start: NDArray[np.int32], values: NDArray[np.int32]) -> Int64s:
    total = np.concatenate(([0], np.cumsum(space[values])))
    sums: Int64s = total[start[1:]] - total[start[:-1]]
    return sums


def _steps(grid: Grid, tiles: Int64s, room: Room) -> tuple[Steps, Int64s, bool]:
    """Tiles as steps, bytes of weights that each reads again in passing, and whether parts are made before read."""
    *arrays, tensor_of, ordered = lay_tiles(grid, tiles, room.alignment)
    steps = Steps(*arrays)
    again = np.zeros(len(tiles), dtype=np.int64)
    if room.weights_pass:
        weight = grid.is_weight[tensor_of] == 1
        readers = np.diff(steps.consumer_start)
        later = np.ones(len(steps.consumer), dtype=np.bool_)
        later[steps.consumer_start[:-1][readers > 0]] = False
        bytes_read = np.repeat(np.where(weight, steps.size, 0), readers)
        np.add.at(again, steps.consumer[later], bytes_read[later])
        steps.size[weight] = 0
        steps.space[weight] = 0
    return steps, again, bool(ordered)
