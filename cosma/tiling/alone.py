"""Ways to cut an operator, or operators that groups of channels run through, with the scratchpad to themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import NamedTuple

from cosma.clock import never
from cosma.tiling.excerpt import cut_out
from cosma.tiling.grid import Grid
from cosma.tiling.layout import Room, cost_alone, needs_of_middles
from cosma.tiling.repeats import likeness
from cosma.tiling.segments import GROUPS_OUTSIDE, Segment

#: Stripes and groups of channels looked at. With these, all operators of U-Net at 128 KiB took 385,000 tiles and 1.3
#: CPU seconds, of VGG-19 at 256 KiB 236,000 and 0.8, the 243 of DenseNet-121 84,000 and 0.9.
COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
#: More of them, looked at where none of these fits: classifiers of 32,000 words, layers of 38 MB; not measured.
MORE_COUNTS = (1, 8, 64, 128, 192, 256, 384, 512, 1024)
#: Strips of columns, looked at where no stripes and groups fit: frames of a film, products of each head; not measured.
STRIPS = (2, 4, 8, 16, 32)
#: Most tiles of an operator that is looked at: its share of all, within limits; not measured.
LEAST_TILES_ALONE, MOST_TILES_ALONE = 256, 1200
#: Ways kept for each operator; not measured.
KEPT = 6


class Alone(NamedTuple):
    """How operators are best cut that have the scratchpad to themselves.

    Attributes
    ----------
    begin, end
        The operators, half-open, by number.
    ways
        Segments of them, the best first; none where they do not fit.
    cost_bytes
        What the best moves beyond operands and results once.
    work
        Parts that the tiles planned to find that touch.
    """

    begin: int
    end: int
    ways: tuple[Segment, ...]
    cost_bytes: int
    work: int

    @property
    def tiles(self) -> int:
        """Tiles of the best way; 0 where there is none."""
        return self.ways[0].tile_count if self.ways else 0

    def moved(self, begin: int) -> Alone:
        """The same of like operators that begin elsewhere."""
        by = begin - self.begin
        ways = tuple(replace(way, begin=way.begin + by, end=way.end + by) for way in self.ways)
        return self._replace(begin=begin, end=self.end + by, ways=ways)


def best_ways(begin: int, end: int, found: list[tuple[int, int, Segment]], work: int) -> Alone:
    """The best of cuts with what they move and the parts that they touch; ties go to fewer parts."""
    found.sort()
    ways = tuple(way for _, _, way in found[:KEPT])
    return Alone(0, end - begin, ways, found[0][0] if found else 0, work).moved(begin)


def each_alone(grid: Grid, room: Room, stop: Callable[[], bool] = never) -> list[Alone]:
    """Cuts of every operator that move least with the scratchpad to itself; those of like ones are the same.

    ``stop`` is polled.
    """
    known: dict[bytes, Alone] = {}
    found = []
    for v in range(len(grid.height)):
        key = likeness(grid, v, v + 1)
        if key in known:
            found.append(known[key].moved(v)._replace(work=0))
        else:
            known[key] = ways_alone(grid, v, room, stop)
            found.append(known[key])
    return found


def ways_alone(grid: Grid, v: int, room: Room, stop: Callable[[], bool] = never) -> Alone:
    """Cuts of an operator that move least with the scratchpad to itself.

    For each number of stripes and groups of channels, a tile that does not fit is cut into as many partial sums as it
    needs. ``stop`` is polled.
    """
    share = min(MOST_TILES_ALONE, max(LEAST_TILES_ALONE, room.most_tiles // len(grid.height)))
    own = cut_out(grid, v, v + 1)
    found: list[tuple[int, int, Segment]] = []
    work = 0
    tried = ((COUNTS, (1,), share), (MORE_COUNTS, (1,), MOST_TILES_ALONE), (COUNTS, STRIPS, MOST_TILES_ALONE))
    for counts, strip_counts, most in tried:
        room = room._replace(most_tiles=most)
        for strips, stripes, pieces in product(strip_counts, counts, counts):
            if stop():
                break
            if stripes > own.height[0] or pieces > own.width[0] or strips > own.breadth[0]:
                continue
            for way in _fitting(own, Segment(0, 1, stripes, (pieces,), strips=strips), room):
                cost = cost_alone(own, way, room)
                if cost is not None:
                    work += cost[1]
                    found.append((*cost, way))
                    if cost[0] == 0:
                        return Alone(0, 1, (way,), 0, work).moved(v)
        if found:
            break
    return best_ways(v, v + 1, found, work)


def _fitting(grid: Grid, segment: Segment, room: Room) -> Iterator[Segment]:
    """The segment with the fewest partial sums that fit, and with twice as many; groups of channels within and outside.

    Without partial sums there is no use for twice as many.
    """
    depth, sums = int(grid.depth[segment.begin]), 1
    while True:
        needs = needs_of_middles(grid, replace(segment, sums=(sums,)), room)
        if needs is not None and needs[0] <= room.capacity_bytes:
            break
        if needs is None or sums >= depth or segment.tile_count * sums > room.most_tiles:
            return
        sums = min(2 * sums, depth)
    for count in dict.fromkeys((sums, min(2 * sums, depth) if sums > 1 else 1)):
        one = replace(segment, sums=(count,))
        yield one
        if segment.pieces[0] > 1 and segment.stripes > 1:
            yield replace(one, loop=GROUPS_OUTSIDE)
