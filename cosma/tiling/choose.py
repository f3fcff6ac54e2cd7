"""From a graph and a capacity to tilings that are worth planning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cosma.rewrite.tiling import Cuts, Tiling, tile_key
from cosma.tiling.alone import Alone
from cosma.tiling.grid import Grid, GridGraph
from cosma.tiling.layout import tiles_of
from cosma.tiling.rows import RowGraph
from cosma.tiling.segments import Segment, Segmentation, pieces_for

#: Stripes that dynamic programming tries for a segment; the search tries all of the ladder; not measured.
FEW_STRIPES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
#: Most operators of one segment; not measured.
LONGEST_SEGMENT = 48
#: Shares of the capacity that the estimate may fill; not measured.
SHARES = (0.95, 0.8, 0.6, 0.45, 0.3)
#: Shares of the capacity that the weights of one tile take at the most, to start from; not measured.
WEIGHT_SHARES = (0.25, 0.0625)


def choose_segments(
    rows: RowGraph, grid: Grid, capacity_bytes: int, shares: Sequence[float] = SHARES,
    weight_shares: Sequence[float] = WEIGHT_SHARES, alone: Sequence[Alone] = (),
) -> list[Segmentation]:  # fmt: skip
    """Cut the order given into segments by dynamic programming, once for each share of the capacity.

    The estimate sums what is live and knows no addresses, so that a share below one leaves room for them.

    Returns
    -------
    list
        Different segmentations, the boldest first.
    """
    found: list[Segmentation] = []
    for share in shares:
        chosen = _choose(rows, int(capacity_bytes * share), alone)
        for weight_share in weight_shares if chosen else ():
            most = max(1, int(capacity_bytes * weight_share))
            segments = tuple(
                Segment(i, j, n, pieces_for(grid, i, j, most)) if n > 0 else alone[i].ways[0] for i, j, n in chosen
            )
            if segments not in found:
                found.append(segments)
    return found


def tiling_of(graph: GridGraph, segments: Segmentation) -> Tiling:
    """Cuts of every operator of a segmentation, and the order of its tiles."""
    tiles = tiles_of(graph.grid, segments).tolist()
    edges: list[tuple[set[int], ...]] = [(set(), set(), set()) for _ in graph.access]
    sums: dict[str, set[int]] = {}
    order = []
    for v, _, row, _, channel, _, column, _, step, _, _ in tiles:
        start = [0] * len(graph.access[v].shapes.get(graph.access[v].result, ()))
        for axis, at, known in zip(graph.axes[v], (row, channel, column), edges[v], strict=True):
            known.add(at)
            if axis >= 0:
                start[axis] = at
        name = graph.access[v].operator.name
        order.append(tile_key(name, start, step))
        if step > 0:
            sums.setdefault(name, set()).add(step)
    cuts: dict[str, tuple[Cuts, ...]] = {}
    for v, one in enumerate(graph.access):
        axes: list[Cuts] = [()] * len(one.shapes.get(one.result, ()))
        for axis, known in zip(graph.axes[v], edges[v], strict=True):
            if len(known) > 1:
                axes[axis] = tuple(sorted(known)[1:])
        if any(axes):
            cuts[one.operator.name] = tuple(axes)
    groups = tuple(tuple(graph.access[v].operator.name for v in range(s.begin, s.end)) for s in segments)
    starts = {name: tuple(sorted(known)) for name, known in sums.items()}
    return Tiling(cuts, groups, starts, order=tuple(order))


def _choose(rows: RowGraph, capacity: int, alone: Sequence[Alone]) -> list[tuple[int, int, int]]:
    from cosma.tiling.kernels import FAR, best_segments

    maker, first_use, last_use = _lifetimes(rows)
    by_itself = np.full(rows.operator_count, FAR, dtype=np.int64)
    for v, one in enumerate(alone):
        if one.ways:
            by_itself[v] = one.cost_bytes
    segments, cost = best_segments(
        np.array(FEW_STRIPES, dtype=np.int64), LONGEST_SEGMENT, capacity, rows.size_bytes, rows.row_count,
        rows.is_input, rows.is_output, rows.height, rows.channels, rows.weight_bytes, rows.in_place, rows.start,
        rows.tensor, rows.stride, rows.window, rows.result_start, rows.result, maker, first_use, last_use, by_itself,
    )  # fmt: skip
    if cost >= FAR:
        return []
    return [(begin, end, stripes) for begin, end, stripes in segments.tolist()]


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
