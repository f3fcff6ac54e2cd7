"""From a graph and a capacity to tilings that are worth planning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from cosma.rewrite.tiling import Cuts, Tiling, even_cuts
from cosma.tiling.rows import RowGraph, build_rows, channel_axis, row_axis

if TYPE_CHECKING:
    from cosma.access import NodeSite
    from cosma.graph import Graph

#: Stripes tried for a segment.
LADDER = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128)
#: Most operators of one segment.
LONGEST_SEGMENT = 64
#: Shares of the capacity that the estimate may fill.
SHARES = (0.95, 0.85, 0.7, 0.55, 0.4)


def choose_tilings(
    graph: Graph, sites: Mapping[str, NodeSite], capacity_bytes: int, shares: tuple[float, ...] = SHARES
) -> list[Tiling]:
    """Choose tilings by dynamic programming over segments of the order given, one for each share of the capacity.

    The estimate sums what is live and knows no addresses, so that a share below one leaves room for them.

    Returns
    -------
    list
        Different tilings, the boldest first; those of networks that need no cut are empty.
    """
    found: list[Tiling] = []
    rows = build_rows(graph, sites)
    for share in shares:
        tiling = _choose(rows, int(capacity_bytes * share))
        if tiling is not None and tiling not in found:
            found.append(tiling)
    return found


def _choose(rows: RowGraph, capacity: int) -> Tiling | None:
    from cosma.tiling.kernels import FAR, best_segments

    maker, first_use, last_use = _lifetimes(rows)
    segments, cost = best_segments(
        np.array(LADDER, dtype=np.int64), LONGEST_SEGMENT, capacity, rows.size_bytes, rows.row_count, rows.is_input,
        rows.is_output, rows.height, rows.channels, rows.weight_bytes, rows.in_place, rows.start, rows.tensor,
        rows.stride, rows.window, rows.result_start, rows.result, maker, first_use, last_use,
    )  # fmt: skip
    if cost >= FAR:
        return None
    cuts: dict[str, tuple[Cuts, ...]] = {}
    groups = []
    for begin, end, stripes in segments.tolist():
        groups.append(tuple(rows.access[v].operator.name for v in range(begin, end)))
        cuts |= _cut_segment(rows, begin, end, stripes, capacity)
    return Tiling(cuts, tuple(groups))


def _lifetimes(rows: RowGraph) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Producer, first and last reader of each activation; -1 where there is none."""
    count = len(rows.size_bytes)
    maker, first, last = (np.full(count, -1, dtype=np.int64) for _ in range(3))
    for v in range(rows.operator_count):
        maker[rows.result[rows.result_start[v] : rows.result_start[v + 1]]] = v
        for t in rows.tensor[rows.start[v] : rows.start[v + 1]].tolist():
            first[t] = v if first[t] < 0 else first[t]
            last[t] = v
    return maker, first, last


def _cut_segment(
    rows: RowGraph, begin: int, end: int, stripes: int, capacity: int
) -> dict[str, tuple[Cuts, ...]]:
    """Cut a segment's operators so that each stripe computes just the rows that the stripe of its readers lacks."""
    edges: dict[int, list[int]] = {}
    wanted: dict[int, list[int]] = {}  # by tensor: last row, exclusive, that readers within need for each stripe
    found: dict[str, tuple[Cuts, ...]] = {}
    for v in range(end - 1, begin - 1, -1):
        one = rows.access[v]
        shape = one.shapes.get(one.result, ())
        axis = row_axis(len(shape))
        height = int(rows.height[v])
        row_cuts: tuple[int, ...] = ()
        if stripes > 1 and height > 1:
            needs = [wanted[t] for t in rows.result[rows.result_start[v] : rows.result_start[v + 1]].tolist()
                     if t in wanted]  # fmt: skip
            stops = (
                [max(column) for column in zip(*needs, strict=True)] if needs else [*even_cuts(height, stripes), height]
            )
            row_cuts = tuple(sorted({stop for stop in stops if 0 < stop < height}))
            edges[v] = stops
            for name, boxes in _needs(rows, v, stops, axis).items():
                t = rows.tensor_names.index(name)
                wanted[t] = [max(a, b) for a, b in zip(wanted.get(t, boxes), boxes, strict=True)]
        channel = channel_axis(one)
        pieces = _weight_pieces(rows, v, stripes, capacity)
        cuts: list[Cuts] = [()] * len(shape)
        if row_cuts:
            cuts[axis] = row_cuts
        if channel is not None and pieces > 1 and channel != axis:
            cuts[channel] = even_cuts(shape[channel], pieces)
        if any(cuts):
            found[one.operator.name] = tuple(cuts)
    return found


def _needs(rows: RowGraph, v: int, stops: list[int], axis: int) -> dict[str, list[int]]:
    """Last row, exclusive, of each operand that rows up to each stop need."""
    one = rows.access[v]
    shape = one.shapes[one.result]
    found: dict[str, list[int]] = {}
    for stop in stops:
        box = tuple((max(0, stop - 1), stop) if i == axis else (0, size) for i, size in enumerate(shape))
        for name, read in one.reads(box).items():
            if name in one.operator.inputs and len(read) > 1:
                found.setdefault(name, []).append(read[row_axis(len(read))][1])
    return {name: ends for name, ends in found.items() if len(ends) == len(stops)}


def _weight_pieces(rows: RowGraph, v: int, stripes: int, capacity: int) -> int:
    """Into how many pieces weights are cut so that one takes at most an eighth of the room."""
    weight = int(rows.weight_bytes[v])
    most = max(1, capacity // 8)
    return min(int(rows.channels[v]), -(-weight // most), 16) if weight > most else 1
