"""Networks of like blocks: one block is cut well by itself, and the others as it is.

A trial of one block takes the share of the work that it is of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cosma.clock import never
from cosma.tiling.choose import choose_segments
from cosma.tiling.excerpt import cut_out
from cosma.tiling.grid import Grid
from cosma.tiling.layout import Outcome, Room, fitted, outcome, tiles_of
from cosma.tiling.search import TilingSearch, shifted, spliced
from cosma.tiling.segments import Segmentation

if TYPE_CHECKING:
    from cosma.arrays import Ints
    from cosma.tiling.alone import Alone
    from cosma.tiling.repeats import Repeats

#: Fewest like blocks in a row that are worth it: DistilBERT at 128 KiB, with five, moved 18.7 MB with this and 17.3
#: without. Fewest operators of a block; not measured.
FEWEST, SHORTEST = 6, 4


def like_blocks(grid: Grid, repeats: Repeats) -> list[tuple[int, int]]:
    """Blocks in a row that are alike, half-open, from where the fewest bytes go from one to the next."""
    period = repeats.period
    if period < SHORTEST:
        return []
    like = np.append(repeats.kind[period:] == repeats.kind[:-period], False)
    ends = np.flatnonzero(~like)
    begins = np.append(0, ends[:-1] + 1)
    longest = int(np.argmax(ends - begins))
    first, last = int(begins[longest]), int(ends[longest]) + period  # half-open
    blocks = (last - first) // period
    if blocks < FEWEST:
        return []
    spare = (last - first) % period
    crossing = _crossing(grid)
    begin = min(range(first, first + spare + 1), key=lambda v: (int(crossing[v]), v))
    return [(begin + k * period, begin + (k + 1) * period) for k in range(blocks)]


def _crossing(grid: Grid) -> Ints:
    """Bytes that are made before each boundary and read behind it."""
    owner = np.repeat(np.arange(len(grid.height)), np.diff(grid.start))
    last = np.full(len(grid.size), -1, dtype=np.int64)
    np.maximum.at(last, grid.operand, owner)
    made = grid.maker >= 0
    change = np.zeros(len(grid.height) + 1, dtype=np.int64)
    kept = made & (last > grid.maker)
    np.add.at(change, grid.maker[kept] + 1, grid.size[kept])
    np.add.at(change, last[kept] + 1, -grid.size[kept])
    crossing: Ints = np.cumsum(change)
    return crossing


def cut_blocks(
    grid: Grid, repeats: Repeats, room: Room, score: Callable[[Outcome | None, Segmentation], Outcome | None],
    alone: Sequence[Alone], work: int, seed: int, start: Segmentation, stop: Callable[[], bool] = never,
) -> tuple[list[Segmentation], int]:  # fmt: skip
    """A start with all like blocks cut as is best for one, and the parts that tiles touched to find that.

    Two blocks in a row are judged, cut alike, so that what goes from one to the next counts.

    Parameters
    ----------
    score
        What ranks the cost of a segmentation.
    start
        A segmentation of the network, from which the rest is taken.
    """
    blocks = like_blocks(grid, repeats)
    if not blocks:
        return [], 0
    middle = len(blocks) // 2 - 1
    (begin, end), period = blocks[middle], repeats.period
    operators = tiles_of(grid, start)[:, 0]
    outside = int(((operators < blocks[0][0]) | (operators >= blocks[-1][1])).sum())
    each = room._replace(most_tiles=(room.most_tiles - outside) // len(blocks))
    both = each._replace(most_tiles=2 * each.most_tiles)
    one, two = cut_out(grid, begin, end), cut_out(grid, begin, end + period)

    def judge(segments: Segmentation, _: Ints | None) -> Outcome | None:
        found = outcome(two, (*segments, *shifted(segments, period)), both)
        if found is None:
            return None
        cost = found.segment_cost.reshape(2, -1).sum(axis=0)
        return score(found._replace(segment_cost=cost), segments)

    ways = [way.moved(way.begin - begin) for way in alone if begin <= way.begin and way.end <= end]
    starts = [
        [cut for found in choose_segments(one, room.capacity_bytes, alone=some, stop=stop)
         if (cut := fitted(one, found, each)) is not None]
        for some in (ways, ())
    ]  # fmt: skip
    starts[1] += [own for own in [_part_of(start, begin, end)] if own]
    search = TilingSearch(one, judge, seed, stop, None, ways, room.capacity_bytes)
    ranked = search.run(starts, work)
    if not ranked:
        return [], search.work
    segments = list(start)
    for other, _ in blocks:
        segments = spliced(segments, shifted(ranked[0], other))
    return [tuple(segments)], search.work


def _part_of(segments: Segmentation, begin: int, end: int) -> Segmentation:
    """Cuts of some operators by themselves; nothing where a segment reaches beyond them."""
    own = [one for one in segments if one.begin < end and one.end > begin]
    return shifted(tuple(own), -begin) if own[0].begin == begin and own[-1].end == end else ()
