"""From a graph and a capacity to tilings that are worth planning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isqrt
from typing import NamedTuple

import numpy as np

from cosma.arrays import Bools, Ints
from cosma.clock import never
from cosma.rewrite.tiling import Cuts, Tiling, tile_key
from cosma.tiling.alone import Alone
from cosma.tiling.grid import BY_ROWS, Grid, GridGraph
from cosma.tiling.layout import tiles_of
from cosma.tiling.segments import Segment, Segmentation, pieces_for

#: Stripes that dynamic programming tries for a segment; the search tries all of the ladder; not measured.
FEW_STRIPES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
#: Most operators of one segment, and fewest where a graph has many: the time for each operator grows with the square.
#: The 555 operators of NASNet-A took 15 CPU seconds with 48 and 5 with 22; DenseNet-121 at 512 KiB moved 0.80 MB with
#: 34 and 0.75 with 48.
LONGEST_SEGMENT, LEAST_LONGEST = 48, 12
#: Operators of a graph times the square of the longest segment, at the most; 48 operators up to 260.
MOST_LOOKS = 600_000
#: Shares of the capacity that the estimate may fill; not measured.
SHARES = (0.95, 0.8, 0.6, 0.45, 0.3)
#: Shares of the capacity that the weights of one tile take at the most, to start from; not measured.
WEIGHT_SHARES = (0.25, 0.0625)


def choose_segments(
    grid: Grid, capacity_bytes: int, shares: Sequence[float] = SHARES,
    weight_shares: Sequence[float] = WEIGHT_SHARES, alone: Sequence[Alone] = (), stop: Callable[[], bool] = never,
) -> list[Segmentation]:  # fmt: skip
    """Cut the order given into segments by dynamic programming, once for each share of the capacity.

    The estimate sums what is live and knows no addresses, so that a share below one leaves room for them. ``alone`` are
    operators that may have the scratchpad to themselves, with what that moves. ``stop`` is polled at every operator;
    shares that are finished stand.

    Returns
    -------
    list
        Different segmentations, the boldest first.
    """
    rows, alone = _rows_of(grid), sorted(alone)
    found: list[Segmentation] = []
    for share in shares:
        chosen = _choose(rows, int(capacity_bytes * share), alone, stop)
        for weight_share in weight_shares if chosen else ():
            most = max(1, int(capacity_bytes * weight_share))
            segments = tuple(
                Segment(i, j, n, pieces_for(grid, i, j, most)) if n > 0 else alone[-n].ways[0] for i, j, n in chosen
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


class _Rows(NamedTuple):
    """Activations by number with their rows, and how many rows of each operand a row of a result needs.

    Attributes
    ----------
    size, rows, is_input, is_output
        Of each activation.
    height, channels, weight, in_place
        Of each operator; ``channels`` are those along which its weights are cut.
    start, tensor, stride, window
        CSR: operands, rows between the needs of two rows of the result, and rows that one needs. A stride of 0 says
        that every row needs all.
    result_start, result
        CSR: results.
    maker, first_use, last_use
        Of each activation; -1 for none.
    """

    size: Ints
    rows: Ints
    is_input: Bools
    is_output: Bools
    height: Ints
    channels: Ints
    weight: Ints
    in_place: Bools
    start: Ints
    tensor: Ints
    stride: Ints
    window: Ints
    result_start: Ints
    result: Ints
    maker: Ints
    first_use: Ints
    last_use: Ints


def _rows_of(grid: Grid) -> _Rows:
    """The rows of a grid. Windows are the same everywhere but at the edges: a look in the middle tells them."""
    moved = grid.is_weight == 0
    number = np.cumsum(moved) - 1
    kept = moved[grid.operand]
    owner = np.repeat(np.arange(len(grid.height)), np.diff(grid.start))
    by_rows = grid.row_source == BY_ROWS
    middle = np.maximum(grid.height[owner] - 1, 0) // 2
    at = np.where(by_rows, grid.row_table + middle, 0)
    behind = np.where(by_rows & (middle + 1 < grid.height[owner]), at + 1, at)
    low, high = (table if len(table) else np.zeros(1, np.int64) for table in (grid.low, grid.high))
    stride = np.where(by_rows, low[behind] - low[at], 0)
    window = np.where(stride > 0, high[at] - low[at], 0)
    gives = np.bincount(owner[grid.given_up == 1], minlength=len(grid.height)) > 0
    start = np.concatenate(([0], np.cumsum(np.bincount(owner[kept], minlength=len(grid.height)))))
    tensor, maker = number[grid.operand[kept]], grid.maker[moved]
    first, last = (np.full(len(maker), -1, dtype=np.int64) for _ in range(2))
    first[tensor[::-1]] = owner[kept][::-1]
    last[tensor] = owner[kept]
    clean, stored = grid.clean[moved] == 1, grid.stored[moved] == 1
    return _Rows(
        grid.size[moved], grid.rows[moved], clean, ~clean & ~stored, grid.height,
        np.where(grid.weight > 0, grid.width, 1), grid.weight, gives, start.astype(np.int64), tensor,
        stride[kept], window[kept], grid.result_start, number[grid.result], maker, first, last,
    )  # fmt: skip


def _choose(
    rows: _Rows, capacity: int, alone: Sequence[Alone], stop: Callable[[], bool]
) -> list[tuple[int, int, int]]:
    """Begin, end and stripes of each segment; minus its number in ``alone``, or 0, for one by itself.

    By dynamic programming over the boundaries and what crosses them; nothing where nothing fits, or at a stop.
    """
    from cosma.tiling.kernels import FAR, SPILLED, STATES, extend_segments

    count = len(rows.height)
    at = np.searchsorted([one.begin for one in alone], np.arange(count + 1)).astype(np.int64)
    ends = np.array([one.end for one in alone], dtype=np.int64)
    costs = np.array([one.cost_bytes if one.ways else FAR for one in alone], dtype=np.int64)
    ladder = np.array(FEW_STRIPES, dtype=np.int64)
    longest = min(LONGEST_SEGMENT, max(LEAST_LONGEST, isqrt(MOST_LOOKS // count)))
    best = np.full((count + 1, STATES), FAR, dtype=np.int64)
    back = np.zeros((count + 1, STATES, 3), dtype=np.int64)
    best[0, SPILLED] = 0
    for i in range(count):
        if stop():
            return []
        extend_segments(i, best, back, ladder, longest, capacity, *rows, at, ends, costs)
    found: list[tuple[int, int, int]] = []
    end, state = count if best[count, SPILLED] < FAR else 0, SPILLED
    while end > 0:
        begin, before, stripes = back[end, state].tolist()
        found.append((begin, end, stripes))
        end, state = begin, before
    return found[::-1]
