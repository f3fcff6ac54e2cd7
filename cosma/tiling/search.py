"""Better segmentations by small changes, each judged by a plan of all tiles."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from cosma.arrays import Ints
from cosma.clock import never
from cosma.tiling.alone import Alone
from cosma.tiling.grid import Grid
from cosma.tiling.layout import Outcome
from cosma.tiling.repeats import Repeats
from cosma.tiling.segments import BY_OPERATOR, FAR, LADDER, Segment, Segmentation

#: What a segmentation costs, planned as far as limits on the bytes by the end of each segment allow; None where it does
#: not fit.
Judge = Callable[[Segmentation, "Ints | None"], "Outcome | None"]
#: Temperature at the start and at the end, as shares of the cost that the search starts from. With 1.6 million tiles,
#: ResNet-50 at 512, 384 and 128 KiB, U-Net at 256 and MobileNetV2 at 128: a start at 0.02 gave 1.8, 4.9, 18.4, 24.5 and
#: 0.07 MB, at 0.01 2.0, 4.8, 18.5, 25.3 and 0.12.
HOT, COLD = 0.02, 0.0002
#: Share of the work that goes to the best starts of each kind, by equal parts, before the rest goes to the best of all.
#: Of ResNet-50 at 384 and 512 KiB, starts with operators by themselves alone gave 4.8 and 2.4 MB, the others 3.7 and
#: 1.7; of U-Net at 128 KiB 44 and 82.
FIRST_SHARE = 0.6
#: Temperature from then on; not measured.
WARM = 0.003
#: Starts that cost more than so many times the best are not improved; not measured.
PROMISING = 1.5
#: Share of changes made where most bytes are paid; the others are anywhere. In the same runs 0.3 gave 9.5 and 33.6 MB.
GUIDED = 0.7
#: Kinds of change; those named twice are tried twice as often; not measured.
MOVES = (
    "stripes", "stripes", "boundary", "merge", "split", "pieces", "pieces", "loop", "trade", "strips", "sums",
    "alone", "alone", "repeat", "repeat",
)  # fmt: skip
#: Columns of a strip at the least: each strip moves the edge of the one before; not measured.
LEAST_COLUMNS = 8
#: Share of changes of groups that change all that run through a segment; not measured.
ALL_GROUPS = 0.5
#: Chance that a change copied elsewhere takes in a further segment, and that it goes to one place; not measured.
LONGER, ONE_PLACE = 0.75, 0.5


class TilingSearch:
    """Simulated annealing over segmentations of one order.

    Parameters
    ----------
    grid
        The graph.
    judge
        Cost of a segmentation.
    seed
        Same arguments give the same result.
    stop
        Polled between trials.
    report
        Hears of every improvement, and the share of the work done.
    alone
        Operators with ways to cut them that are good where they have the scratchpad to themselves.
    slack_bytes
        How much more a change may have cost at a boundary that both have, and still turn out better.
    """

    def __init__(
        self, grid: Grid, judge: Judge, seed: int, stop: Callable[[], bool] = never,
        report: Callable[[int, float], None] | None = None, alone: Sequence[Alone] = (),
        slack_bytes: int = 1 << 60,
    ) -> None:  # fmt: skip
        self.grid, self.judge, self.stop, self.report = grid, judge, stop, report
        self.rng = random.Random(seed)
        self.known: dict[Segmentation, Outcome | None] = {}
        self.slack_bytes = slack_bytes
        #: Ways to cut each operator by itself, and runs of operators that it belongs to.
        self.ways: list[list[Sequence[Segment]]] = [[] for _ in grid.height]
        self.know_ways(alone)
        self.repeats = Repeats(grid)
        #: Parts that tiles planned so far touch, the work done: in all, before the part reported, and in that part.
        self.work, self.done, self.granted = 0, 0, 1
        #: Least score so far, and least bytes.
        self.lowest = self.least_bytes = FAR

    def know_ways(self, alone: Sequence[Alone]) -> None:
        """Know of more ways to cut operators by themselves."""
        for one in alone:
            for v in range(one.begin, one.end):
                self.ways[v].append(one.ways)

    def begin_work(self, work: int) -> None:
        """Count what is reported as a share of the work that is to be done from now on."""
        self.done, self.granted = self.work, max(1, work)

    def cost(self, segments: Segmentation, limits: Ints | None = None) -> Outcome | None:
        """Cost of a segmentation, looked up where it is known; None also where limits are exceeded."""
        if segments in self.known:
            return self.known[segments]
        found = self.judge(segments, limits)
        self.work += len(self.grid.operand) if found is None else found.work
        if found is not None and not found.whole:
            return None
        self.known[segments] = found
        if found is not None:
            self.lowest = min(self.lowest, found.score)
            if found.cost_bytes < self.least_bytes:
                self.least_bytes = found.cost_bytes
                if self.report is not None:
                    self.report(self.least_bytes, min(1.0, (self.work - self.done) / self.granted))
        return found

    def ranked(self) -> list[Segmentation]:
        """All segmentations seen that fit, the best first; ties go to fewer tiles."""
        fitting = [
            ((o.strained, o.score, o.tiles, i), s) for i, (s, o) in enumerate(self.known.items()) if o is not None
        ]
        return [segments for _, segments in sorted(fitting, key=lambda entry: entry[0])]

    def bytes_moved(self, segments: Segmentation) -> int:
        """What a segmentation that was seen moves beyond the compulsory."""
        found = self.known[segments]
        return FAR if found is None else found.cost_bytes

    def run(self, groups: Sequence[Sequence[Segmentation]], work: int) -> list[Segmentation]:
        """Rank the starts, improve the best of each group, and then the best of all, for so much work.

        Returns
        -------
        list
            Segmentations that fit, the best first.
        """
        firsts: list[Segmentation] = []
        for starts in groups:
            costs = [(self.price(start), start) for start in starts if self.lowest == FAR or not self.is_over()]
            cost, best = min(costs, key=lambda entry: entry[0], default=(FAR, ()))
            if cost < FAR and best not in firsts:
                firsts.append(best)
        if not firsts or self.is_over():
            return self.ranked()
        least = min(map(self.price, firsts))
        firsts = [first for first in firsts if self.price(first) <= PROMISING * least]
        if len(firsts) == 1:
            self._anneal(firsts[0], work, HOT)
            return self.ranked()
        for first in firsts:
            self._anneal(first, int(work * FIRST_SHARE / len(firsts)), HOT)
        self._anneal(self.ranked()[0], int(work * (1 - FIRST_SHARE)), WARM)
        return self.ranked()

    def improve(self, start: Segmentation, work: int, heat: float = WARM) -> list[Segmentation]:
        """Improve one segmentation, for so much work from a temperature on; as :meth:`run` else."""
        if self.price(start) < FAR:
            self._anneal(start, work, heat)
        return self.ranked()

    def price(self, segments: Segmentation) -> int:
        """What a segmentation is ranked by; ``FAR`` where it does not fit."""
        found = self.cost(segments)
        return FAR if found is None else found.score

    def is_better(self, changed: Segmentation, now: Segmentation) -> bool:
        """Whether a change costs less; one that costs much more at a boundary is given up there."""
        found = self.cost(changed, self._limits(now, changed, self.price(now)))
        return found is not None and found.score < self.price(now)

    def is_over(self) -> bool:
        """Whether nothing is left to gain, or the search is to stop."""
        return self.lowest == 0 or self.stop()

    def _anneal(self, now: Segmentation, work: int, hot: float) -> None:
        """Change a segmentation again and again, for so much work."""
        first = price = self.price(now)
        began = self.work
        while self.work - began < work and not self.is_over():
            done = (self.work - began) / work
            heat = first * hot * (COLD / hot) ** done
            changed = self.change(now)
            if changed == now:
                self.work += 1
                continue
            seen = changed in self.known
            most = price - heat * math.log(1.0 - self.rng.random())
            found = self.cost(changed, self._limits(now, changed, most))
            if seen:
                self.work += 1
            if found is not None and found.score <= most:
                now, price = changed, found.score

    def _limits(self, now: Segmentation, changed: Segmentation, most: float) -> Ints:
        """Bytes by the end of each segment beyond which a change is given up.

        Where both have a boundary, what lies in the scratchpad there is worth a scratchpad's bytes at the most.
        """
        outcome = self.known[now]
        assert outcome is not None
        paid = dict(zip((s.end for s in now), np.cumsum(outcome.segment_cost).tolist(), strict=True))
        slack = most - outcome.score + self.slack_bytes
        found = [min(most, paid[s.end] + slack) if s.end in paid else most for s in changed]
        return np.array(found, dtype=np.int64)

    def change(self, segments: Segmentation) -> Segmentation:
        """Change stripes, boundaries, channel groups or the order within a segment or two."""
        found, rng = list(segments), self.rng
        i = self.where(segments)
        here = found[i]
        move = rng.choice(MOVES)
        if move == "stripes":
            found[i] = self._other_stripes(here)
        elif move == "boundary" and len(found) > 1:
            j = min(max(i - rng.randrange(2), 0), len(found) - 2)
            left, right = found[j], found[j + 1]
            cut = min(max(left.begin + 1, left.end + rng.choice((-3, -2, -1, 1, 2, 3))), right.end - 1)
            n = cut - left.begin
            pieces, sums = left.pieces + right.pieces, left.sums + right.sums
            found[j] = replace(left, end=cut, pieces=pieces[:n], sums=sums[:n])
            found[j + 1] = replace(right, begin=cut, pieces=pieces[n:], sums=sums[n:])
        elif move == "merge" and len(found) > 1:
            j = min(max(i - rng.randrange(2), 0), len(found) - 2)
            left, right = found[j], found[j + 1]
            like = rng.choice((left, right))
            pieces, sums = left.pieces + right.pieces, left.sums + right.sums
            found[j : j + 2] = [replace(like, begin=left.begin, end=right.end, pieces=pieces, sums=sums)]
        elif move == "split" and here.end - here.begin > 1:
            cut = rng.randrange(1, here.end - here.begin)
            parts = [_part(here, here.begin, here.begin + cut), _part(here, here.begin + cut, here.end)]
            side = rng.randrange(2)
            parts[side] = self._other_stripes(parts[side])
            found[i : i + 1] = parts
        elif move == "pieces":
            found[i] = self._other_pieces(here)
        elif move == "loop":
            found[i] = replace(here, loop=(here.loop + rng.randrange(1, 3)) % 3)
        elif move == "strips":
            found[i] = self._other_strips(here)
        elif move == "alone":
            found = self._alone(found, here)
        elif move == "repeat":
            found = self._repeat(found, i)
        elif move == "sums":
            found[i] = self._other_sums(here)
        elif move == "trade":
            found[i] = self._other_pieces(self._other_stripes(here))
        return tuple(found)

    def where(self, segments: Segmentation) -> int:
        """A segment to change: one where much is paid, or any."""
        outcome = self.known.get(segments)
        if outcome is not None and outcome.cost_bytes > 0 and self.rng.random() < GUIDED:
            left = self.rng.random() * outcome.cost_bytes
            for i, paid in enumerate(outcome.segment_cost.tolist()):
                left -= paid
                if left < 0:
                    return i
        return self.rng.randrange(len(segments))

    def _other_stripes(self, segment: Segment) -> Segment:
        """A neighbour on the ladder, as far as the segment's rows go."""
        tallest = int(self.grid.height[segment.begin : segment.end].max())
        ladder = [n for n in LADDER if n <= tallest] or [1]
        if tallest not in ladder:
            ladder.append(tallest)
        near = min(range(len(ladder)), key=lambda k: abs(ladder[k] - segment.stripes))
        step = self.rng.choice((-4, -2, -1, -1, 1, 1, 2, 4))
        return replace(segment, stripes=ladder[min(max(near + step, 0), len(ladder) - 1)])

    def _other_strips(self, segment: Segment) -> Segment:
        """More or fewer strips of columns, with fewer or more stripes of rows or as many as before."""
        broadest = int(self.grid.breadth[segment.begin : segment.end].max())
        strips = self.rng.choice((segment.strips - 1, segment.strips + 1, segment.strips + 1, 2 * segment.strips))
        strips = min(max(1, strips), max(1, broadest // LEAST_COLUMNS))
        stripes = segment.stripes
        if self.rng.random() < 0.5:
            stripes = max(1, stripes * segment.strips // strips)
        return replace(segment, strips=strips, stripes=stripes)

    def _other_pieces(self, segment: Segment) -> Segment:
        """More or fewer groups of channels in one operator, or in all that have weights."""
        rng, grid = self.rng, self.grid
        wide = [v for v in range(segment.begin, segment.end) if grid.width[v] > 1]
        heavy = [v for v in wide if grid.weight[v] > 0] or wide
        if not heavy:
            return segment
        factor, shift = rng.choice(((2.0, 0), (0.5, 0), (1.0, 1), (1.0, -1)))
        if segment.loop != BY_OPERATOR and rng.random() < ALL_GROUPS:
            return self._other_groups(segment, factor, shift)
        chosen = heavy if rng.random() < 0.3 else [rng.choice(heavy)]
        pieces = list(segment.pieces)
        for v in chosen:
            k = v - segment.begin
            pieces[k] = min(max(1, int(pieces[k] * factor) + shift), int(grid.width[v]))
        return replace(segment, pieces=tuple(pieces))

    def _other_groups(self, segment: Segment, factor: float, shift: int) -> Segment:
        """More or fewer groups in all operators that groups run through, and as many steps of sums over them."""
        before = max(segment.pieces)
        groups = max(1, int(before * factor) + shift)

        def changed(counts: tuple[int, ...], extent: Ints) -> tuple[int, ...]:
            most = extent[segment.begin : segment.end].tolist()
            return tuple(min(groups, m) if n == before else n for n, m in zip(counts, most, strict=True))

        pieces, sums = changed(segment.pieces, self.grid.width), changed(segment.sums, self.grid.depth)
        return segment if before == 1 else replace(segment, pieces=pieces, sums=sums)

    def _other_sums(self, segment: Segment) -> Segment:
        """More or fewer partial sums in one operator, with fewer or more tiles or as many as before."""
        rng, grid = self.rng, self.grid
        deep = [v for v in range(segment.begin, segment.end) if grid.depth[v] > 1]
        if not deep:
            return segment
        v = rng.choice(deep)
        k = v - segment.begin
        sums, pieces = list(segment.sums), list(segment.pieces)
        factor, shift = rng.choice(((2.0, 0), (2.0, 0), (0.5, 0), (1.0, 1), (1.0, -1)))
        before = sums[k]
        sums[k] = min(max(1, int(before * factor) + shift), int(grid.depth[v]))
        stripes = segment.stripes
        way = rng.randrange(3)
        if way == 1:
            pieces[k] = min(max(1, pieces[k] * before // sums[k]), int(grid.width[v]))
        elif way == 2:
            stripes = max(1, stripes * before // sums[k])
        return replace(segment, stripes=stripes, pieces=tuple(pieces), sums=tuple(sums))

    def _alone(self, found: list[Segment], segment: Segment) -> list[Segment]:
        """Cut operators as is good where they have the scratchpad to themselves, and let them run by themselves."""
        rng = self.rng
        heavy = [v for v in range(segment.begin, segment.end) if self.grid.depth[v] > 1]
        known = self.ways[rng.choice(heavy or range(segment.begin, segment.end))]
        ways = rng.choice(known) if known else ()
        if not ways:
            return found
        way = ways[min(int(rng.expovariate(0.7)), len(ways) - 1)]
        return spliced(found, [way])

    def _repeat(self, found: list[Segment], i: int) -> list[Segment]:
        """Cut like operators elsewhere, in one place or in all, as those of some segments are."""
        rng, begin, end = self.rng, found[i].begin, i + 1
        places = self.repeats.places(begin, found[i].end)
        while places and end < len(found) and rng.random() < LONGER:
            longer = self.repeats.places(begin, found[end].end)
            if not longer:
                break
            places, end = longer, end + 1
        chosen = found[i:end]
        for place in [rng.choice(places)] if places and rng.random() < ONE_PLACE else places:
            found = spliced(found, shifted(chosen, place - begin))
        return found


def shifted(segments: Sequence[Segment], by: int) -> Segmentation:
    """The same cuts of like operators elsewhere."""
    return tuple(replace(one, begin=one.begin + by, end=one.end + by) for one in segments)


def spliced(found: Sequence[Segment], new: Sequence[Segment]) -> list[Segment]:
    """Put segments in the place of those that have their operators; what is left of these stays cut as it is."""
    begin, end = new[0].begin, new[-1].end
    before = [_part(s, s.begin, min(s.end, begin)) for s in found if s.begin < begin]
    return [*before, *new, *(_part(s, max(s.begin, end), s.end) for s in found if s.end > end)]


def _part(segment: Segment, begin: int, end: int) -> Segment:
    """Some of the operators of a segment, cut as they are."""
    own = slice(begin - segment.begin, end - segment.begin)
    return replace(segment, begin=begin, end=end, pieces=segment.pieces[own], sums=segment.sums[own])
