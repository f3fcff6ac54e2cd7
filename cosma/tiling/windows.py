"""Search a few neighbouring segments alone: a trial costs only their share of the work.

What lies between the segments and the rest of the network is judged with the segment before and the one behind, which
stay as they are; a plan of the whole network then says whether what is found is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cosma.tiling.excerpt import cut_out
from cosma.tiling.layout import Outcome, Room, outcome
from cosma.tiling.search import TilingSearch, shifted, spliced
from cosma.tiling.segments import Segmentation

if TYPE_CHECKING:
    from cosma.arrays import Ints
    from cosma.tiling.alone import Alone

#: What bytes moved, parts touched and a segmentation are ranked by.
Rate = Callable[[int, int, Segmentation], int]
#: Work for each window, in plans of it as it is. On the twelve networks of ``WINDOW_SHARE``, 20, 40 and 80 moved 3.5,
#: 4.7 and 3.8 % less than no windows.
TRIALS = 40
#: Most segments of a window on each side of the one that it is chosen for; there 1, 2 and 3 gave 4.9, 4.7 and 3.8 %.
MOST_BESIDE = 2
#: Temperature within a window, of the cost of the network; there 0.004, 0.001, 0.0005 and
#: 0.0003 gave 3.5, 4.7, 5.2 and 5.4 %.
WINDOW_HEAT = 0.0005


def search_windows(
    search: TilingSearch, room: Room, now: Segmentation, alone: Sequence[Alone], rate: Rate, work: int
) -> None:
    """Improve a segmentation window by window, for so much work; what is found is among those that the search ranks.

    Parameters
    ----------
    search
        One that knows what the segmentation costs.
    room
        What tiles are planned for.
    now
        The segmentation.
    alone
        Ways to cut operators by themselves, tried within a window too.
    work
        Parts that tiles planned may touch.
    """
    began, rng = search.work, search.rng
    while search.work - began < work and not search.is_over():
        i = search.where(now)
        lo, hi = max(0, i - rng.randint(0, MOST_BESIDE)), min(len(now), i + 1 + rng.randint(0, MOST_BESIDE))
        found = _Window(search, room, now, lo, hi, rate).search_cuts(alone)
        if not found:
            continue
        changed = (*now[:lo], *found, *now[hi:])
        for one in (changed, _everywhere(search, changed, found)):
            if one not in search.known and search.is_better(one, now):
                now = one


def _everywhere(search: TilingSearch, segments: Segmentation, found: Segmentation) -> Segmentation:
    """Like operators elsewhere, cut as those of a window are."""
    result, first = list(segments), found[0].begin
    for place in search.repeats.places(first, found[-1].end):
        result = spliced(result, shifted(found, place - first))
    return tuple(result)


class _Window:
    """Segments ``lo`` to ``hi``, half-open, with the one before and the one behind, which stay as they are.

    ``begin`` is the first operator of all of these, ``first`` and ``last`` bound those of the window, all in the
    numbers of the network.
    """

    def __init__(
        self, search: TilingSearch, room: Room, now: Segmentation, lo: int, hi: int, rate: Rate
    ) -> None:  # fmt: skip
        before, after = now[max(0, lo - 1) : lo], now[hi : hi + 1]
        self.first, self.last = now[lo].begin, now[hi - 1].end
        self.begin = (before or now[lo:])[0].begin
        self.before, self.start, self.after = (shifted(part, -self.begin) for part in (before, now[lo:hi], after))
        self.whole, self.search, self.rate = search.known[now], search, rate
        self.grid, self.room = cut_out(search.grid, self.begin, (after or now[:hi])[-1].end), room
        self.own = outcome(self.grid, (*self.before, *self.start, *self.after), room)

    def search_cuts(self, alone: Sequence[Alone]) -> Segmentation:
        """Cuts of the window that promise to be better; nothing where none are found."""
        search, own, whole = self.search, self.own, self.whole
        search.work += len(self.grid.operand) if own is None else own.work
        if own is None or whole is None or own.cost_bytes == 0:
            return ()
        self.room = self.room._replace(most_tiles=self.room.most_tiles - whole.tiles + own.tiles)
        ways = [one.moved(one.begin - self.first) for one in alone if self.first <= one.begin and one.end <= self.last]
        begin, end = self.first - self.begin, self.last - self.begin
        inner = TilingSearch(
            cut_out(self.grid, begin, end), self._judge, search.rng.randrange(1 << 30), search.stop, None, ways,
            search.slack_bytes,
        )  # fmt: skip
        start = shifted(self.start, -begin)
        ranked = inner.improve(start, TRIALS * own.work, WINDOW_HEAT)
        search.work += inner.work
        return shifted(ranked[0], self.first) if ranked and ranked[0] != start else ()

    def _judge(self, segments: Segmentation, _: Ints | None) -> Outcome | None:
        """What the network would cost if the rest cost what it does now."""
        assert self.own is not None
        assert self.whole is not None
        moved = shifted(segments, self.first - self.begin)
        found = outcome(self.grid, (*self.before, *moved, *self.after), self.room)
        if found is None:
            return None
        cost = self.whole.cost_bytes - self.own.cost_bytes + found.cost_bytes
        score = self.rate(cost, self.whole.work - self.own.work + found.work, moved)
        costs = found.segment_cost[len(self.before) : len(self.before) + len(segments)]
        return found._replace(segment_cost=costs, score=score)
