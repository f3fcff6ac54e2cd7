"""The tilings of a network that cost least on a scratchpad, by search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cosma.accelerator import Weights
from cosma.clock import never
from cosma.tiling.choose import SHARES, WEIGHT_SHARES, choose_segments
from cosma.tiling.excerpt import in_order
from cosma.tiling.grid import GridGraph, build_grid
from cosma.tiling.segments import FAR, Segment, Segmentation, pieces_for

if TYPE_CHECKING:
    from cosma.accelerator import Accelerator
    from cosma.access import NodeSite
    from cosma.arrays import Ints
    from cosma.graph import Graph
    from cosma.tiling.alone import Alone
    from cosma.tiling.layout import Outcome, Room
    from cosma.tiling.probe import Touches

#: Uniform tilings tried beside those chosen: as many stripes in every operator; not measured.
UNIFORM_STRIPES = (2, 4, 8, 16)
#: Work for each nominal second of effort, in parts that planned tiles read and write. A search took 250 to 400
#: nanoseconds for each on ResNet-50 and HRNet.
WORK_PER_SECOND = 3_000_000
#: Work that goes at the most to runs of operators by themselves: a share of all, or so much where that is more; not
#: measured.
TOGETHER_SHARE, LEAST_TOGETHER = 0.25, 1_000_000
#: Parts touched that make a tiling count as if it moved twice as much: fewer parts are fewer transfers, and more
#: tilings tried with the same work. At nominal 8 seconds, ResNet-50 at 128 and 384 KiB, U-Net at 192 and 512 and
#: DenseNet-121 at 192 and 384 moved 75 MB in sum with 700,000, 83 with 350,000, and 83 where parts did not count.
PARTS_THAT_DOUBLE = 700_000
#: Shares of the capacity that an estimate may fill, in graphs of more operators than this: each takes as long.
#: DenseNet-121 at 512 KiB moved 1.17 MB with these and 0.75 with all; from how many operators on, is not measured.
#: Such graphs get no estimates without operators that have the scratchpad to themselves: NASNet mobile, DARTS and CLIP
#: moved as much with the others alone, in up to a third less time.
MANY, FEW_SHARES = 300, (0.95, 0.6, 0.3)
#: Parts that tiles touch in the mean, from which on no more are let in, four times as many at once; not measured.
BEYOND_PARTS_EACH = 600
#: Share of the work that goes to one of like blocks by itself. At nominal 3.2 seconds and 128 KiB, ViT-B moved 113 MB
#: without, 93 with 0.25 and 92 with 0.4, BERT-base 39, 35 and 35, MobileBERT 4.3, 4.2 and 3.9.
BLOCK_SHARE = 0.4
#: Share of the work that goes to windows of neighbouring segments, once starts are improved. On twelve networks at 128
#: to 256 KiB and nominal 3.2 seconds, 0.4 moved 1.6 % less than none in the mean, 0.7 3.5 and 0.85 4.7; at nominal 8
#: seconds 0.85 moved 7.7 % less.
WINDOW_SHARE = 0.85
#: No windows are searched where one holds more than this share of all tiles, in the mean over tiles: VGG-19 and
#: ResNet-50 without weights at 256 KiB moved 0.54 and 0.26 MB without windows, 0.69 and 0.30 with them (two seeds,
#: nominal 8 seconds).
LARGEST_WINDOW = 0.5
#: Least effort by which several orders are looked at. With 0.4 nominal seconds SqueezeNet at 96 KiB moved 0.35 MB in
#: one order and 0.36 in the best of several; with 0.08 ResNet-50 at 256 KiB 14.5 and 17.4; with 0.8 NASNet-A 6.6 and
#: 2.0.
LEAST_EFFORT = 0.5
#: Share of the work by which each of several orders is looked at before the best goes on. On the twelve networks above,
#: 0.1, 0.15 and 0.2 moved 5.5, 6.8 and 7.1 % less in the mean than the order given alone at nominal 3.2 seconds.
ORDER_SHARE = 0.2
#: Share of the work that goes to such looks at the most; not measured.
MOST_LOOKED = 0.6
#: Shares of the capacity that an estimate may fill where several orders are looked at: each takes as long. With 0.95
#: and 0.6 these networks moved as much, with all of ``SHARES`` 0.8 % less and took 90 seconds in all instead of 73.
LOOK_SHARES = (0.95,)
#: Most tiles of a graph, and most for each operator where that is more; not measured.
MOST_TILES = 4000
MOST_TILES_EACH = 12
#: Where operators need more when they are best cut by themselves, or the starts do, so many times that; not measured.
BEYOND_ALONE = 1.25
#: Starts of up to so many tiles are let in. At nominal 3.2 seconds, Xception at 256 KiB moved 125 MB
#: without its starts of 4,100 to 4,700 tiles and 41 with them, SegFormer at 128 251 without those of 10,000 and 130.
MOST_TILES_OF_STARTS = 12000


class Searched(NamedTuple):
    """What a search has found.

    Attributes
    ----------
    graph
        The network in the order found best, as grids that its operators can be cut on.
    ranked
        Segmentations of that order that fit, the best first; the second is the best of whole sums if there are any.
    cost_bytes
        What each moves beyond the compulsory as far as tables of access say.
    alone
        Operators, and runs of operators, with ways to cut them by themselves.
    room
        What they were planned for.
    """

    graph: GridGraph
    ranked: list[Segmentation]
    cost_bytes: list[int]
    alone: list[Alone]
    room: Room

    @property
    def order(self) -> tuple[str, ...]:
        """Names of the operators in the order found best."""
        return tuple(one.operator.name for one in self.graph.access)


def search_tilings(
    graph: Graph, sites: Mapping[str, NodeSite], accelerator: Accelerator, *, effort: float, seed: int = 0,
    stop: Callable[[], bool] = never, report: Callable[[int, float], None] | None = None,
    before: Searched | None = None, orders: Sequence[Sequence[int]] = (), known: Touches | None = None,
) -> Searched:  # fmt: skip
    """Search for the segmentations that move least.

    Tables of access are a superset where a step of a sum reads an operand twice, so that what has partial sums may fit
    by them and not as a graph.

    Parameters
    ----------
    graph, sites
        The network before tiles, and its nodes.
    effort
        Work to spend, in nominal seconds; without any, the starts are ranked alone.
    stop
        Polled between tilings; the best so far stand.
    report
        Hears of the least bytes beyond the compulsory, and the share of the work done.
    before
        A search of the same network to go on from, instead of the starts that an estimate finds.
    orders
        Topological orders of the operators to look at, by number; by default the one given alone. The best goes on
        with most of the effort.
    known
        What :func:`build_grid` knows of operators of the same network.
    """
    from cosma.tiling.alone import each_alone
    from cosma.tiling.layout import Room

    found = build_grid(graph, sites, known) if before is None else before.graph
    if not accelerator.in_place:
        found = found._replace(grid=found.grid._replace(given_up=np.zeros_like(found.grid.given_up)))
    passing = accelerator.weights == Weights.STREAM
    room = Room(accelerator.capacity_bytes, accelerator.alignment, passing, 0, accelerator.pieces or 0)
    total = int(WORK_PER_SECOND * effort)
    if before is not None and not before.ranked:
        return before
    if before is not None:
        run = _InOrder(found, before.room, before.alone, seed, stop, report)
        run.go_on(before.ranked[0], total)
        return run.searched()
    count = len(found.access)
    most = max(MOST_TILES, MOST_TILES_EACH * count)
    alone = each_alone(found.grid, room._replace(most_tiles=most), stop)
    room = room._replace(most_tiles=max(most, int(BEYOND_ALONE * sum(one.tiles for one in alone))))
    given = tuple(range(count))
    different = dict.fromkeys([tuple(order) for order in orders] if orders and effort >= LEAST_EFFORT else [given])
    share = 1.0 if len(different) == 1 else min(ORDER_SHARE, MOST_LOOKED / len(different))
    shares = LOOK_SHARES if len(different) > 1 else SHARES if count <= MANY else FEW_SHARES
    tell = None if report is None else _least_of_all(report)
    runs: list[_InOrder] = []
    runs_known: dict[bytes, Alone] = {}
    for i, order in enumerate(different):
        if runs and (stop() or any(run.search.is_over() for run in runs)):
            break
        own = [alone[v].moved(k)._replace(work=0 if runs else alone[v].work) for k, v in enumerate(order)]
        run = _InOrder(found if order == given else in_order(found, order), room, own, seed, stop, None)
        run.report_from(tell, i * share, share)
        run.begin(int(total * share), runs_known, shares)
        runs.append(run)
    best = min(runs, key=lambda run: run.cost)
    left = 1 - len(runs) * share
    if len(different) > 1 and left > 0 and best.ranked and not best.search.is_over():
        best.report_from(tell, 1 - left, left)
        best.go_on(best.ranked[0], int(total * left))
    return best.searched()


class _InOrder:
    """The search for segmentations of one order."""

    def __init__(
        self, graph: GridGraph, room: Room, alone: list[Alone], seed: int, stop: Callable[[], bool],
        report: Callable[[int, float], None] | None,
    ) -> None:  # fmt: skip
        from cosma.tiling.search import TilingSearch

        self.graph, self.room, self.alone, self.seed, self.stop = graph, room, alone, seed, stop
        self.search = TilingSearch(graph.grid, self._judge, seed, stop, report, alone, room.capacity_bytes)
        self.ranked: list[Segmentation] = []

    def report_from(self, report: Callable[[int, float], None] | None, begin: float, share: float) -> None:
        """Report a share of the work of several searches."""
        self.search.report = None if report is None else lambda cost, done: report(cost, begin + share * done)

    @property
    def cost(self) -> int:
        """What the best is ranked by."""
        return self.search.price(self.ranked[0]) if self.ranked else FAR

    def searched(self) -> Searched:
        """What has been found so far."""
        ranked = _whole_sums_second(self.ranked)
        cost = [self.search.bytes_moved(one) for one in ranked]
        return Searched(self.graph, ranked, cost, self.alone, self.room)

    def begin(self, work: int, known: dict[bytes, Alone], shares: Sequence[float]) -> None:
        """Rank the starts, made for shares of the capacity, and improve the best for so much work.

        ``known`` are runs of operators that searches in other orders looked at.
        """
        from cosma.tiling.blocks import cut_blocks
        from cosma.tiling.together import runs_together

        search, grid = self.search, self.graph.grid
        search.begin_work(work)
        single = list(self.alone)
        most = max(LEAST_TOGETHER, int(work * TOGETHER_SHARE))
        self.alone += runs_together(grid, self.room, most, self.stop, known)
        search.know_ways(self.alone[len(single) :])
        groups = self._starts(single, shares)
        starts = list(chain(*groups))
        while starts and self.room.most_parts_each < BEYOND_PARTS_EACH and not self.stop():
            if any(search.price(start) < FAR for start in starts):
                break
            self.room = self.room._replace(most_parts_each=4 * self.room.most_parts_each)
            search.known.clear()
        left = max(work // 2, work - sum(one.work for one in self.alone))
        in_blocks: list[Segmentation] = []
        spent, share = 0, 0.0
        if starts:
            base = min(starts, key=search.price)
            in_blocks, spent = cut_blocks(
                grid, search.repeats, self.room, _scored, self.alone, int(left * BLOCK_SHARE), self.seed, base,
                self.stop,
            )  # fmt: skip
            share = _window_share(base)
        left -= spent
        search.begin_work(left)
        self.ranked = search.run([*groups, in_blocks], int(left * (1 - share)))
        self._in_windows(int(left * share))

    def go_on(self, start: Segmentation, work: int) -> None:
        """Improve a segmentation for so much work."""
        share = _window_share(start)
        self.search.begin_work(work)
        self.ranked = self.search.improve(start, int(work * (1 - share)))
        self._in_windows(int(work * share))

    def _in_windows(self, work: int) -> None:
        from cosma.tiling.windows import search_windows

        if work and self.ranked and not self.search.is_over():
            search_windows(self.search, self.room, self.ranked[0], self.alone, _rate, work)
            self.ranked = self.search.ranked()

    def _starts(self, single: Sequence[Alone], shares: Sequence[float]) -> list[list[Segmentation]]:
        """Segmentations that fit: of operators as they are best cut by themselves, and others."""
        from cosma.tiling.layout import fitted

        grid, count, capacity = self.graph.grid, len(self.graph.access), self.room.capacity_bytes
        most = max(MOST_TILES_OF_STARTS, self.room.most_tiles)
        by_themselves, *others = (
            choose_segments(grid, capacity, shares, alone=alone, stop=self.stop, most_tiles=most)
            for alone in ((self.alone, ()) if count <= MANY else (self.alone,))
        )
        uniform: list[Segmentation] = []
        for stripes in UNIFORM_STRIPES:
            pieces = pieces_for(grid, 0, count, max(1, int(capacity * WEIGHT_SHARES[0])))
            uniform.append((Segment(0, count, stripes, pieces),))
        uniform.append(tuple(Segment(v, v + 1, 1, (1,)) for v in range(count)))
        tiles = [sum(one.tile_count for one in start) for start in by_themselves]
        allowed = max((n for n in tiles if n <= MOST_TILES_OF_STARTS), default=0)
        self.room = self.room._replace(most_tiles=max(self.room.most_tiles, int(BEYOND_ALONE * allowed)))
        if all(one.ways for one in single):
            by_themselves.append(tuple(one.ways[0] for one in single))
        kinds = by_themselves, [*chain(*others), *uniform]
        fit = [[fitted(grid, start, self.room) for start in starts] for starts in kinds]
        return [[start for start in starts if start is not None] for starts in fit]

    def _judge(self, segments: Segmentation, limits: Ints | None) -> Outcome | None:
        from cosma.tiling.layout import outcome

        return _scored(outcome(self.graph.grid, segments, self.room, limits=limits), segments)


def _least_of_all(report: Callable[[int, float], None]) -> Callable[[int, float], None]:
    """Report the least cost of several searches, and the largest share of their work."""
    least, furthest = FAR, 0.0

    def tell(cost_bytes: int, share: float) -> None:
        nonlocal least, furthest
        least, furthest = min(least, cost_bytes), max(furthest, share)
        report(least, furthest)

    return tell


def _window_share(segments: Segmentation) -> float:
    """Share of the work that goes to windows: none where a window with what is beside it is most of the network."""
    from cosma.tiling.windows import MOST_BESIDE

    tiles = np.array([one.tile_count for one in segments])
    around = np.convolve(tiles, np.ones(2 * MOST_BESIDE + 1), "full")[MOST_BESIDE:-MOST_BESIDE]
    return WINDOW_SHARE if float(np.dot(around, tiles)) < LARGEST_WINDOW * float(tiles.sum()) ** 2 else 0.0


def _scored(found: Outcome | None, segments: Segmentation) -> Outcome | None:
    """Rank by bytes moved, with a share of them for the parts touched and a byte for each step of a sum but the last.

    So where nothing is moved, what has no partial sums is better.
    """
    if found is None:
        return None
    return found._replace(score=_rate(found.cost_bytes, found.work, segments))


def _rate(cost_bytes: int, work: int, segments: Segmentation) -> int:
    """What a segmentation of some bytes moved and parts touched is ranked by."""
    steps = sum(s.stripes * s.strips * n * (k - 1) for s in segments for n, k in zip(s.pieces, s.sums, strict=True))
    return cost_bytes + cost_bytes * work // PARTS_THAT_DOUBLE + steps


def _whole_sums_second(ranked: list[Segmentation]) -> list[Segmentation]:
    """Put the best segmentation without partial sums in the second place, if it is not in the first."""
    plain = next((i for i, s in enumerate(ranked) if all(max(one.sums) == 1 for one in s)), 0)
    return [*ranked[:1], ranked[plain], *ranked[1:plain], *ranked[plain + 1 :]] if plain > 1 else ranked
