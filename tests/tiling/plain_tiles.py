"""Tiles laid out as steps by `cosma.tiling.lay_kernels`, in plain Python: parts as boxes, boxes as sets of parts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import Any

import numpy as np

from cosma.tiling.grid import Grid
from cosma.tiling.probe import ALL, BY_CHANNELS, BY_COLUMNS, BY_ROWS, BY_SUM, FIRST_STEP

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Rows, channels and columns, half-open."""
Part = tuple[int, Box]
"""A box of a tensor."""


@dataclass
class PlainSteps:
    """What each tile touches, as parts in the order in which the kernel lists them."""

    operands: list[list[Part]] = field(default_factory=list)
    results: list[list[Part]] = field(default_factory=list)
    #: Results, sums that a tile adds to included.
    written: list[list[Part]] = field(default_factory=list)
    #: Results that may be written over an operand, with the operand.
    pairs: list[list[tuple[Part, Part]]] = field(default_factory=list)
    #: All parts of all tensors, by number.
    parts: list[Part] = field(default_factory=list)
    #: Whether every part is made before it is read.
    ordered: bool = True


def _extents(grid: Grid, t: int) -> tuple[int, int, int]:
    return int(grid.rows[t]), int(grid.channels[t]), int(grid.columns[t])


def part_bytes(grid: Grid, part: Part) -> int:
    """Share of a tensor's bytes."""
    t, box = part
    share = whole = 1
    for (start, stop), extent in zip(box, _extents(grid, t), strict=True):
        share, whole = share * (stop - start), whole * extent
    return int(grid.size[t]) * share // whole


def _is_empty(box: Box) -> bool:
    return any(start >= stop for start, stop in box)


def _operand_box(grid: Grid, k: int, tile: list[int]) -> Box:
    """What a tile reads of the operand in place ``k``; nothing where another partial sum reads it."""
    if grid.read_by[k] and not tile[10] & grid.read_by[k]:
        return ((0, 0), (0, 0), (0, 0))
    spans = {BY_ROWS: tile[2:4], BY_CHANNELS: tile[4:6], BY_COLUMNS: tile[6:8], BY_SUM: tile[8:10]}
    box: Any = []
    sources = (grid.row_source, grid.row_table), (grid.channel_source, grid.channel_table), (
        grid.column_source, grid.column_table
    )  # fmt: skip
    for (source, table), extent in zip(sources, _extents(grid, int(grid.operand[k])), strict=True):
        if source[k] == ALL:
            box.append((0, extent))
        else:
            read = slice(*(int(table[k]) + i for i in spans[int(source[k])]))
            box.append((int(grid.low[read].min()), int(grid.high[read].max())))
    return tuple(box)


def _result_box(grid: Grid, t: int, tile: list[int]) -> Box:
    cut = grid.height, grid.width, grid.breadth
    spans = (tile[2], tile[3]), (tile[4], tile[5]), (tile[6], tile[7])
    return tuple(
        span if n[tile[0]] > 1 else (0, extent) for n, span, extent in zip(cut, spans, _extents(grid, t), strict=True)
    )  # type: ignore[return-value]


def lay_plainly(grid: Grid, tiles: Any) -> PlainSteps:
    """Cut every tensor at all edges of all boxes that tiles touch of it, and say what of it each tile touches."""
    reads, writes, given_up = [], [], []
    edges: dict[tuple[int, int], set[int]] = defaultdict(set)
    for tile in tiles.tolist():
        v = tile[0]
        whole = not grid.selects[v] and all(
            tile[2 + 2 * i : 4 + 2 * i] == [0, n[v]]
            for i, n in enumerate((grid.height, grid.width, grid.breadth, grid.depth))
        )
        read = [
            (int(t), tuple((0, n) for n in _extents(grid, int(t))) if whole else _operand_box(grid, k, tile))
            for k, t in enumerate(grid.operand[grid.start[v] : grid.start[v + 1]], int(grid.start[v]))
        ]
        write = [
            (int(t), _result_box(grid, t, tile)) for t in grid.result[grid.result_start[v] : grid.result_start[v + 1]]
        ]
        given = grid.given_up[grid.start[v] : grid.start[v + 1]].tolist()
        reads.append([(t, box) for t, box in read if not _is_empty(box)])
        given_up.append([one for one, (_, box) in zip(given, read, strict=True) if not _is_empty(box)])
        writes.append(write)
        for t, box in reads[-1] + write:
            for axis, span in enumerate(box):
                edges[t, axis] |= set(span)
    cuts = [
        [list(pairwise(sorted(edges[t, axis] | {0, n}))) for axis, n in enumerate(_extents(grid, t))]
        for t in range(len(grid.size))
    ]

    def touched(t: int, box: Box) -> list[Part]:
        inside = [
            [span for span in spans if start <= span[0] and span[1] <= stop]
            for spans, (start, stop) in zip(cuts[t], box, strict=True)
        ]
        return [(t, part) for part in product(*inside)]  # type: ignore[misc]

    found = PlainSteps()
    for t, spans in enumerate(cuts):
        outward = np.argsort(grid.place[t])
        inward = np.argsort(outward)
        found.parts += [
            (t, tuple(part[axis] for axis in inward)) for part in product(*(spans[axis] for axis in outward))
        ]  # type: ignore[misc]
    made: set[Part] = set()
    for tile, read, given, write in zip(tiles.tolist(), reads, given_up, writes, strict=True):
        results = [part for t, box in write for part in touched(t, box)]
        made |= set(results)
        # Later partial sums add to what the first one wrote: its place is an operand that is kept.
        operands, fresh = ([], results) if tile[10] & FIRST_STEP else (results, [])
        pairs = []
        for (t, box), may_go in zip(read, given, strict=True):
            parts = touched(t, box)
            operands = operands + parts
            found.ordered &= bool(grid.clean[t]) or made >= set(parts)
            single = len(parts) == len(fresh) == 1
            if may_go and single and part_bytes(grid, parts[0]) >= part_bytes(grid, fresh[0]):
                pairs.append((fresh[0], parts[0]))
        found.operands.append(operands)
        found.results.append(fresh)
        found.written.append(results)
        found.pairs.append(pairs)
    return found
