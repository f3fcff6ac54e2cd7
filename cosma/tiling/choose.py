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
from cosma.tiling.grid import Grid, GridGraph
from cosma.tiling.layout import tiles_of
from cosma.tiling.probe import BY_ROWS
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
#: How often the price of an operator's stripe is raised where a choice has too many tiles, and by how much. At first as
#: many stripes as tiles are allowed count as a quarter of the bytes moved; neither is measured. Swin2SR at 512 KiB
#: moved 271 MB with 18,800 tiles, 281 with 14,100 and 403 with 9,400 as chosen, 832 after a search that had none of
#: these.
RAISES, RAISE = 4, 4
#: Shares of the capacity that the weights of one tile take at the most, to start from; not measured.
WEIGHT_SHARES = (0.25, 0.0625)


def choose_segments(
    grid: Grid, capacity_bytes: int, shares: Sequence[float] = SHARES,
    weight_shares: Sequence[float] = WEIGHT_SHARES, alone: Sequence[Alone] = (), stop: Callable[[], bool] = never,
    most_tiles: int = 1 << 60,
) -> list[Segmentation]:  # fmt: skip
    """Cut the order given into segments by dynamic programming, once for each share of the capacity.

    The estimate sums what is live and knows no addresses, so that a share below one leaves room for them. ``alone`` are
    operators that may have the scratchpad to themselves, with what that moves. Where more than ``most_tiles`` come of
    it, stripes get a price, which is raised a few times; groups of channels, which make more tiles of a stripe, have
    none. ``stop`` is polled at every operator; shares that are finished stand.

    Returns
    -------
    list
        Different segmentations, the boldest first.
    """
    rows, alone = _rows_of(grid), sorted(alone)
    found: list[Segmentation] = []
    for share in shares:
        limit, tile_price = int(capacity_bytes * share), 0
        cut: list[Segmentation] = []
        for _ in range(1 + RAISES):
            estimate, chosen = _choose(rows, limit, alone, tile_price, stop)
            if not chosen:
                break  # nothing fits, or a stop: a choice made with a lower price stands
            cut = [_segments(grid, chosen, alone, int(capacity_bytes * one)) for one in weight_shares]
            if min(sum(one.tile_count for one in segments) for segments in cut) <= most_tiles:
                break
            tile_price = RAISE * tile_price or 1 + estimate // (RAISE * most_tiles)
        found += [segments for segments in cut if segments not in found]
    return found


def _segments(grid: Grid, chosen: list[tuple[int, int, int]], alone: Sequence[Alone], most_weight: int) -> Segmentation:
    """Segments chosen, with weights of a tile of so many bytes at the most."""
    return tuple(
        Segment(i, j, n, pieces_for(grid, i, j, max(1, most_weight))) if n > 0 else alone[-n].ways[0]
        for i, j, n in chosen
    )


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
    """Activations by number with their rows, and how many rows of each operand a stripe of a result reads.

    Attributes
    ----------
    size, rows, is_input, is_output
        Of each activation.
    height, channels, weight, in_place
        Of each operator; ``channels`` are those along which its weights are cut.
    start, tensor, wanted
        CSR: operands, and the rows of each that a stripe reads at the most, and that two in a row read both, by entry
        of ``FEW_STRIPES``; -1 where every row of the result reads the same rows.
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
    wanted: Ints
    result_start: Ints
    result: Ints
    maker: Ints
    first_use: Ints
    last_use: Ints


def _rows_of(grid: Grid) -> _Rows:
    """The rows of a grid."""
    moved = grid.is_weight == 0
    number = np.cumsum(moved) - 1
    kept = moved[grid.operand]
    owner = np.repeat(np.arange(len(grid.height)), np.diff(grid.start))
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
        _wanted(grid, np.flatnonzero(kept), owner), grid.result_start, number[grid.result], maker, first, last,
    )  # fmt: skip


def _wanted(grid: Grid, edges: Ints, owner: Ints) -> Ints:
    """What :func:`rows_by_stripe` says of some operands; -1 where their rows do not follow those of the result."""
    found = np.full((len(edges), len(FEW_STRIPES), 2), -1, dtype=np.int64)
    known: dict[tuple[int, int], Ints] = {}
    for own, k in zip(found, edges.tolist(), strict=True):
        if grid.row_source[k] == BY_ROWS:
            key = int(grid.row_table[k]), int(grid.height[owner[k]])
            if key not in known:
                table = slice(key[0], key[0] + key[1])
                known[key] = rows_by_stripe(grid.low[table], grid.high[table])
            own[:] = known[key]
    return found


def rows_by_stripe(low: Ints, high: Ints) -> Ints:
    """Rows of an operand that a stripe reads at the most, and that two in a row read, by entry of ``FEW_STRIPES``.

    Rows of the result read rows ``low`` to ``high``, half-open; -1 where all read the same.
    """
    found = np.full((len(FEW_STRIPES), 2), -1, dtype=np.int64)
    if (low == low[0]).all() and (high == high[0]).all():
        return found
    for own, stripes in zip(found, np.minimum(FEW_STRIPES, len(low)).tolist(), strict=True):
        begins = np.arange(stripes) * len(low) // stripes
        first, last = np.minimum.reduceat(low, begins), np.maximum.reduceat(high, begins)
        own[:] = (last - first).max(), (last[:-1] - first[1:]).max(initial=0)
    return found


def _choose(
    rows: _Rows, capacity: int, alone: Sequence[Alone], tile_price: int, stop: Callable[[], bool]
) -> tuple[int, list[tuple[int, int, int]]]:
    """The estimate, and of each segment begin, end and stripes; minus its number in ``alone``, or 0, for one by itself.

    By dynamic programming over the boundaries and what crosses them; nothing where nothing fits, or at a stop.
    """
    from cosma.tiling.kernels import DOES_NOT_FIT, SPILLED, STATES, extend_segments

    count = len(rows.height)
    at = np.searchsorted([one.begin for one in alone], np.arange(count + 1)).astype(np.int64)
    ends = np.array([one.end for one in alone], dtype=np.int64)
    costs = np.full(len(alone), DOES_NOT_FIT, dtype=np.int64)
    for k, one in enumerate(alone):
        if one.ways:
            costs[k] = one.cost_bytes + tile_price * one.tiles
    ladder = np.array(FEW_STRIPES, dtype=np.int64)
    longest = min(LONGEST_SEGMENT, max(LEAST_LONGEST, isqrt(MOST_LOOKS // count)))
    best = np.full((count + 1, STATES), DOES_NOT_FIT, dtype=np.int64)
    back = np.zeros((count + 1, STATES, 3), dtype=np.int64)
    best[0, SPILLED] = 0
    for i in range(count):
        if stop():
            return 0, []
        extend_segments(i, best, back, ladder, longest, capacity, *rows, at, ends, costs, tile_price)
    found: list[tuple[int, int, int]] = []
    end, state = count if best[count, SPILLED] < DOES_NOT_FIT else 0, SPILLED
    while end > 0:
        begin, before, stripes = back[end, state].tolist()
        found.append((begin, end, stripes))
        end, state = begin, before
    return int(best[count, SPILLED]), found[::-1]
