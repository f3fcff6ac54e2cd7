"""Operators that groups of channels run through together: heads of an attention block, hidden units of two layers.

What lies between two of them then exists a group at a time. Such operators are found by what they read of each other,
and cut as moves least with the scratchpad to themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from cosma.clock import never
from cosma.tiling.alone import Alone, best_ways
from cosma.tiling.excerpt import cut_out
from cosma.tiling.grid import Grid
from cosma.tiling.layout import Room, cost_alone, needs_of_middles
from cosma.tiling.probe import BY_CHANNELS, BY_SUM
from cosma.tiling.repeats import likeness
from cosma.tiling.segments import GROUPS_OUTSIDE, GROUPS_WITHIN, Segment

#: Groups and stripes looked at; not measured.
GROUPS = (2, 3, 4, 5, 6, 8, 12, 16, 24, 32, 48, 64, 96)
STRIPES = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32)
#: Most operators of a run, and most tiles of one that is looked at: its share of all, within limits. With at least 64
#: tiles BERT-base at 256 KiB moved 8.8 MB, with 160 1.2 MB; the others are not measured.
LONGEST, LEAST_TILES_TOGETHER, MOST_TILES_TOGETHER = 24, 160, 1500
#: Most operators of a run that begins outside of all longer ones. A scan over 64 tokens has 330; more is not measured.
LONGEST_OF_ALL = 400
#: Numbers of groups tried for each run and number of stripes, from the least: of those with which tiles fit, and of
#: those with which some are cut further; not measured.
PLAIN_TRIED, CUT_TRIED = 4, 3
#: Share of the scratchpad that the middle tile of an operator may take: others can be larger, and lie apart. Two layers
#: of `results/tiles/einsums.csv` at 128 KiB moved 15.9 MB with 0.95, and 15.1 with 0.97 and five groups tried as well.
NEARLY_ALL = 0.97


def runs_together(
    grid: Grid, room: Room, most_work: int, stop: Callable[[], bool] = never, known: dict[bytes, Alone] | None = None
) -> list[Alone]:
    """Runs of operators that groups of channels may run through, with the ways in which they move least.

    Runs that are alike are looked at once, and once more with more tiles if none of their cuts fit. ``stop`` is polled;
    beyond ``most_work`` no new run is looked at.

    Parameters
    ----------
    known
        Runs that have been looked at in other orders of the operators, to which those of this one are added.
    """
    known = {} if known is None else known
    share, new = room.most_tiles / len(grid.height), dict[bytes, tuple[int, int]]()
    runs: list[tuple[bytes, int, int]] = []
    work = 0
    for begin, end in _candidates(grid):
        key = likeness(grid, begin, end)
        if key not in known:
            if work > most_work or stop():
                break
            limit = min(MOST_TILES_TOGETHER, max(LEAST_TILES_TOGETHER, int(share * (end - begin))))
            known[key] = _ways(grid, begin, end, room._replace(most_tiles=limit), stop)
            work += known[key].work
            new[key] = begin, end
        runs.append((key, begin, end))
    for key, (begin, end) in new.items():
        if known[key].ways or work > most_work or stop():
            continue
        limit = max(MOST_TILES_TOGETHER, int(share * (end - begin)))
        looked = known[key].work
        known[key] = _ways(grid, begin, end, room._replace(most_tiles=limit), stop)
        work += known[key].work
        known[key] = known[key]._replace(work=looked + known[key].work)
    # What took work was looked at here, and once.
    return [
        known[key].moved(begin)._replace(work=known[key].work if new.get(key) == (begin, end) else 0)
        for key, begin, end in runs if known[key].ways
    ]  # fmt: skip


class _Run(NamedTuple):
    """Operators from one on that groups of its channels can run through.

    Attributes
    ----------
    end
        The first operator that needs all groups, or the first that was not looked at.
    cut, summed
        Operators cut into groups, and those that take a step of their sum with each group.
    joined
        Whether any operator reads groups that another yields.
    """

    end: int
    cut: set[int]
    summed: set[int]
    joined: bool


def _run_from(grid: Grid, begin: int, most: int) -> _Run:
    """Follow groups of an operator's channels, through so many operators at the most.

    An operator that reads nothing of the run is cut too where a group of its channels reads a part of what it reads,
    such as its weights. It stays whole where a later operator of the run needs all that it yields.
    """
    cut, summed, joined, end = {begin}, set[int](), False, begin + 1
    apart = set[int]()  # cut, and no group that they yield is read as a group yet
    while end < min(len(grid.height), begin + most):
        groups, sums, rest = set[int](), set[int](), set[int]()
        for k in range(int(grid.start[end]), int(grid.start[end + 1])):
            u = int(grid.maker[grid.operand[k]])
            if u in cut and grid.channel_source[k] == BY_CHANNELS and grid.width[end] > 1:
                groups.add(u)
            elif u in cut and grid.channel_source[k] == BY_SUM:
                sums.add(u)
            elif u in cut or u in summed:
                rest.add(u)
        if groups and sums <= apart:
            rest, sums = rest | sums, set()
        if not rest <= apart - groups or (groups and sums):
            break
        cut -= rest
        apart -= rest | groups | sums
        if sums:
            summed.add(end)
        elif groups or (grid.width[end] > 1 and _selects(grid, end)):
            cut.add(end)
            apart |= set() if groups else {end}
        joined |= bool(groups or sums)
        end += 1
    return _Run(end, cut, summed, joined)


def _candidates(grid: Grid) -> list[tuple[int, int]]:
    """Operators, half-open, of which the later ones read what groups of channels of the earlier ones yield.

    A run ends before the first operator that needs all groups, and may end behind each one that sums over them.
    """
    found, covered = [], 0
    for begin in range(len(grid.height)):
        if grid.width[begin] < 2:
            continue
        run = _run_from(grid, begin, LONGEST if begin < covered else LONGEST_OF_ALL)
        if run.end - begin > LONGEST:
            covered = run.end
            ends = {run.end}
        else:
            ends = {run.end, *run.summed, *(v + 1 for v in run.summed)}
        found += [(begin, end) for end in sorted(ends) if run.joined and end - begin > 1]
    return found


def _selects(grid: Grid, v: int) -> bool:
    """Whether a group of an operator's channels reads a part of some operand, such as its weights."""
    return bool((grid.channel_source[grid.start[v] : grid.start[v + 1]] == BY_CHANNELS).any())


def _ways(grid: Grid, begin: int, end: int, room: Room, stop: Callable[[], bool]) -> Alone:
    """Cuts of a run that move least with the scratchpad to itself."""
    own = cut_out(grid, begin, end)
    found: list[tuple[int, int, Segment]] = []
    work = 0
    tallest = int(own.height.max())
    for stripes in STRIPES:
        if stripes > tallest or stop():
            break
        plain: list[Segment] = []
        cut: list[Segment] = []
        for groups in GROUPS:
            way = _fitting(own, stripes, groups, room)
            if way is not None:
                (plain if _is_plain(way) else cut).append(way)
            if len(plain) == PLAIN_TRIED:
                break  # with more groups, tiles are smaller
        for way in (*plain, *cut[:CUT_TRIED]):
            for loop in (GROUPS_OUTSIDE, GROUPS_WITHIN)[: 1 if stripes == 1 else 2]:
                cost = cost_alone(own, replace(way, loop=loop), room)
                if cost is not None:
                    work += cost[1]
                    found.append((*cost, replace(way, loop=loop)))
                    if cost[0] == 0:
                        return Alone(0, end - begin, (found[-1][2],), 0, work).moved(begin)
    return best_ways(begin, end, found, work)


def _is_plain(way: Segment) -> bool:
    """Whether no operator is cut into more than the groups that run through all."""
    return all(n in (1, max(way.pieces)) for n in (*way.pieces, *way.sums))


def _fitting(grid: Grid, stripes: int, groups: int, room: Room) -> Segment | None:
    """A run in so many stripes and groups, with as many more cuts as tiles need to fit; None where they never do."""
    segment = _cut(grid, stripes, groups)
    most = int(room.capacity_bytes * NEARLY_ALL)
    while segment is not None:
        needs = needs_of_middles(grid, segment, room)
        if needs is None:
            return None
        over = np.flatnonzero(needs > most)
        if not len(over):
            break
        pieces, sums = list(segment.pieces), list(segment.sums)
        for k in over.tolist():
            # What takes a step with each group is cut along its own channels, the others into more steps.
            counts, extent = (pieces, grid.width) if segment.sums[k] == groups else (sums, grid.depth)
            if counts[k] >= extent[k]:
                return None
            counts[k] = min(int(extent[k]), max(counts[k] + 1, -(-counts[k] * int(needs[k]) // most)))
        segment = replace(segment, pieces=tuple(pieces), sums=tuple(sums))
    return segment


def _cut(grid: Grid, stripes: int, groups: int) -> Segment | None:
    """A run with as many groups of channels in each operator that can be cut so; None where too few operators can."""
    count, run = len(grid.height), _run_from(grid, 0, len(grid.height))
    if any(grid.width[v] < groups for v in run.cut) or any(grid.depth[v] < groups for v in run.summed):
        return None
    pieces = [groups if v in run.cut else 1 for v in range(count)]
    sums = [groups if v in run.summed else 1 for v in range(count)]
    return Segment(0, count, stripes, tuple(pieces), loop=GROUPS_OUTSIDE, sums=tuple(sums))
