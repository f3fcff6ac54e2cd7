"""What a segmentation costs: its tiles in order, planned in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from cosma.arrays import Int32s, Ints
from cosma.lowering.along import Steps, run_steps
from cosma.lowering.free_kernels import TOGETHER
from cosma.tiling.grid import Grid
from cosma.tiling.lay_kernels import lay_tiles
from cosma.tiling.order_kernels import order_tiles
from cosma.tiling.segments import Segment, Segmentation

#: Bytes that a search counts for each byte of a tensor that a tile touches in too many address ranges. Of ResNet-50 at
#: 512 KiB with four ranges, no tiling found had so few with 1, 4 or 16; other values are not measured.
STRAIN = 4
#: Parts that tiles touch in the mean where there are as many tiles as may be, at the most: planning takes time in
#: proportion, and in proportion to the parts that lie in the scratchpad. DPT has 27, and takes half a second; Mamba has
#: 110 of 64 bytes, and took 4 seconds to 80. More are let in where no start has so few: VGG-19 at 128 KiB has 110 to
#: 140.
MOST_PARTS_EACH = 40


class Outcome(NamedTuple):
    """What one segmentation costs."""

    #: Bytes moved beyond the compulsory.
    cost_bytes: int
    #: Number of tiles planned.
    tiles: int
    #: Bytes by segment.
    segment_cost: Ints
    #: Whether the plan was made to its end; if not, it exceeds a limit.
    whole: bool = True
    #: Parts that the tiles planned read and write: planning takes time in proportion.
    work: int = 0
    #: What a search ranks by.
    score: int = 0
    #: Whether a tile touches a tensor in more address ranges than an operand may consist of.
    strained: bool = False


class Room(NamedTuple):
    """What tiles are planned for."""

    #: Of the scratchpad.
    capacity_bytes: int
    alignment: int
    #: Whether weights pass the scratchpad by: they take no room, and every tile reads them again.
    weights_pass: bool
    #: More of them are not looked at.
    most_tiles: int
    #: Most address ranges that an operand or a result may consist of; 0 for any number.
    most_ranges: int = 0
    #: Most parts that tiles touch in the mean, where there are as many as may be.
    most_parts_each: float = MOST_PARTS_EACH


def tiles_of(grid: Grid, segments: Segmentation) -> Ints:
    """Operator, segment, region and partial sum of each tile, in the order in which tiles run."""
    start = np.array([segments[0].begin, *(s.end for s in segments)], dtype=np.int64)
    stripes = np.array([s.stripes for s in segments], dtype=np.int64)
    strips = np.array([s.strips for s in segments], dtype=np.int64)
    loops = np.array([s.loop for s in segments], dtype=np.uint8)
    pieces, sums = np.ones(len(grid.height), dtype=np.int64), np.ones(len(grid.height), dtype=np.int64)
    for segment in segments:
        pieces[segment.begin : segment.end] = segment.pieces
        sums[segment.begin : segment.end] = segment.sums
    tiles: Ints = order_tiles(grid, start, stripes, strips, loops, pieces, sums)
    return tiles


def outcome(
    grid: Grid, segments: Segmentation, room: Room, rule: int = TOGETHER, limits: Ints | None = None
) -> Outcome | None:
    """Plan a segmentation in one pass; None where a tile does not fit, or there are too many tiles or parts of them.

    ``limits`` are the most bytes by the end of each segment; the plan ends where they are exceeded. What a tile touches
    in more address ranges than there may be is charged, so that a search finds away from it.

    A plan of the graph of tiles costs the same, but for tensors of which a tile reads less than tables of access say.
    """
    if _too_many(segments, room):
        return None
    tiles = tiles_of(grid, segments)
    if len(tiles) > room.most_tiles:
        return None
    steps, again, strain, ordered = _steps(grid, tiles, room)
    if len(steps.operand) + len(steps.result) > room.most_parts_each * room.most_tiles:
        return None
    again = again + strain
    limit = None if limits is None else _limit_by_step(tiles[:, 1], limits, again)
    found = run_steps(steps, room.capacity_bytes, rule, limit) if ordered else None
    if found is None:
        return None
    done = len(found[0])
    cost = found[0] + again[:done]
    by_segment = np.zeros(len(segments), dtype=np.int64)
    np.add.at(by_segment, tiles[:done, 1], cost)
    work = int(steps.operand_start[done] + steps.result_start[done])
    strained = bool(strain.any())
    return Outcome(int(cost.sum()), done, by_segment, whole=found[1] is not None, work=work, strained=strained)


def _limit_by_step(segment: Ints, limits: Ints, again: Ints) -> Ints:
    """Limits at the last step of each segment, less the weights that pass by; none elsewhere."""
    found = np.full(len(segment), np.iinfo(np.int64).max, dtype=np.int64)
    last = np.flatnonzero(np.diff(segment, append=-1))
    found[last] = limits[segment[last]] - np.cumsum(again)[last]
    return found


def cost_alone(grid: Grid, segment: Segment, room: Room, rule: int = TOGETHER) -> tuple[int, int] | None:
    """Bytes that a grid of one segment moves beyond its operands and results once, and the parts that tiles touch.

    What it reads comes from off-chip, and what it leaves goes there. None where a tile does not fit, or there are too
    many.
    """
    if _too_many((segment,), room):
        return None
    tiles = tiles_of(grid, (segment,))
    if len(tiles) > room.most_tiles:
        return None
    steps, again, strain, ordered = _steps(grid, tiles, room)
    found = run_steps(steps, room.capacity_bytes, rule) if ordered else None
    return None if found is None else (int((found[0] + again + strain).sum()), len(steps.operand) + len(steps.result))


def needs_of_middles(grid: Grid, segment: Segment, room: Room) -> Ints | None:
    """Bytes that the tile in the middle of each operator of a segment needs, as if nothing else were cut.

    None where there are too many tiles.
    """
    if _too_many((segment,), room):
        return None
    tiles = tiles_of(grid, (segment,))
    tiles = tiles[np.argsort(tiles[:, 0], kind="stable")]
    start = np.searchsorted(tiles[:, 0], np.arange(segment.begin, segment.end + 1))
    return needs_of_tiles(_steps(grid, tiles[(start[:-1] + start[1:]) // 2], room)[0])


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
    if segment.sums[k] < int(grid.depth[v]):
        sums = list(segment.sums)
        sums[k] = min(int(grid.depth[v]), sums[k] + max(1, sums[k] // 3))
        return replace(segment, sums=tuple(sums))
    return segment


def _too_many(segments: Sequence[Segment], room: Room) -> bool:
    """Whether there are surely more tiles than are looked at; stripes without rows of their own make none."""
    return sum(segment.tile_count for segment in segments) > 4 * room.most_tiles


def needs_of_tiles(steps: Steps) -> Ints:
    """Bytes that each tile needs while it runs, less what an operand gives up to its result.

    Whether the operand is read again is left out: the least that it can be.
    """
    read = _sums(steps.space, steps.operand_start, steps.operand)
    written = _sums(steps.space, steps.result_start, steps.result)
    pairs = np.flatnonzero(np.diff(steps.pair_start))
    paired = np.zeros(len(read), dtype=np.int64)
    paired[pairs] = steps.space[steps.pair_result[steps.pair_start[pairs]]]
    needs: Ints = read + written - paired
    return needs


def _sums(space: Ints, start: Int32s, values: Int32s) -> Ints:
    total = np.concatenate(([0], np.cumsum(space[values])))
    sums: Ints = total[start[1:]] - total[start[:-1]]
    return sums


def _steps(grid: Grid, tiles: Ints, room: Room) -> tuple[Steps, Ints, Ints, bool]:
    """Tiles as steps, and whether parts are made before they are read.

    For each tile the bytes of weights that it reads again in passing, and those that it touches in too many ranges.
    """
    *arrays, tensor_of, ordered = lay_tiles(grid, tiles, room.alignment)
    steps = Steps(*arrays)
    again = np.zeros(len(tiles), dtype=np.int64)
    strain = np.zeros(len(tiles), dtype=np.int64)
    if room.most_ranges:
        for start, parts in ((steps.operand_start, steps.operand), (steps.result_start, steps.result)):
            _add_strain(strain, start, tensor_of[parts], steps.size[parts], room.most_ranges)
    if room.weights_pass:
        weight = grid.is_weight[tensor_of] == 1
        readers = np.diff(steps.consumer_start)
        later = np.ones(len(steps.consumer), dtype=np.bool_)
        later[steps.consumer_start[:-1][readers > 0]] = False
        bytes_read = np.repeat(np.where(weight, steps.size, 0), readers)
        np.add.at(again, steps.consumer[later], bytes_read[later])
        steps.size[weight] = 0
        steps.space[weight] = 0
    return steps, again, strain, bool(ordered)


def _add_strain(strain: Ints, start: Int32s, tensor: Ints, size: Ints, most_ranges: int) -> None:
    """Charge each tile for the tensors of which it touches more parts than there may be ranges.

    Parts of one tensor come one after another. Some may lie side by side, so that this asks for more than is needed.
    """
    if not len(tensor):
        return
    tile = np.repeat(np.arange(len(start) - 1), np.diff(start))
    first = np.flatnonzero((np.diff(tensor, prepend=-1) != 0) | (np.diff(tile, prepend=-1) != 0))
    many = np.diff(first, append=len(tensor)) > most_ranges
    np.add.at(strain, tile[first], np.where(many, STRAIN * np.add.reduceat(size, first), 0))
