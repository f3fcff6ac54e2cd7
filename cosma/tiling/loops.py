"""Closed forms for matrix products: loops over tiles, what lies in the scratchpad meanwhile, and what is moved.

Sizes are in bytes, extents in elements. What a turn of a loop keeps is not counted, so an order that goes back and
forth moves somewhat less than is said here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

#: Most tiles of one operator. A tile costs the planner about a millisecond.
MOST_TILES = 1500
#: Counts up to which every one is tried, and the ratio of those tried beyond.
EVERY_COUNT, RATIO = 24, 1.25
#: Least elements of a step along an axis summed over. Parts are rounded up to the alignment; shorter steps waste it.
LEAST_STEP = 8


@dataclass(frozen=True, slots=True)
class Extents:
    """One product."""

    #: Of the result.
    rows: int
    columns: int
    #: Extent of the axis summed over.
    reduced: int
    #: Bytes of an element.
    width: int = 1
    #: Whether it can be summed by steps.
    by_steps: bool = True


@dataclass(frozen=True, slots=True)
class Loops:
    """Tiles of one product."""

    #: Estimate of what is moved.
    moved_bytes: int
    #: How many tiles along them.
    rows: int
    columns: int
    #: Elements of a step of the sum; 0 for the whole sum at once.
    step: int
    #: Whether rows are gone through within columns.
    columns_outside: bool
    #: Steps of all tiles.
    tiles: int


@dataclass(frozen=True, slots=True)
class PairLoops:
    """Tiles of two products, the second of what the first yields, which is never moved."""

    #: Estimate of what is moved.
    moved_bytes: int
    #: Tiles along the rows of both.
    rows: int
    #: Tiles along the columns of the first, the axis that the second sums over.
    middle: int
    #: Elements of a step of the first sum; 0 for the whole sum at once.
    step: int
    #: Tiles along the columns of the second.
    columns: int
    #: Steps of all tiles.
    tiles: int


def counts(size: int) -> Iterator[int]:
    """Numbers of tiles worth trying along an axis."""
    count = 1
    while count <= size:
        yield count
        count = max(count + 1, int(count * RATIO)) if count >= EVERY_COUNT else count + 1


def single_loops(one: Extents, capacity: int) -> Loops | None:
    """Find the tiles of one product that move least; None where none fit."""
    best: Loops | None = None
    w, first, second = one.width, one.rows * one.reduced * one.width, one.reduced * one.columns * one.width
    result = one.rows * one.columns * w
    for rows in counts(one.rows):
        m = ceil(one.rows / rows)
        for columns in counts(one.columns):
            n = ceil(one.columns / columns)
            if rows * columns > MOST_TILES or m * n * w >= capacity:
                continue
            across, down = first + second * (rows if columns > 1 else 1), second + first * (columns if rows > 1 else 1)
            if (m * one.reduced + m * n + one.reduced * n) * w <= capacity:
                found = Loops(min(across, down) + result, rows, columns, 0, down < across, rows * columns)
            else:
                step = (capacity // w - m * n) // (m + n)
                if not one.by_steps or step < min(LEAST_STEP, one.reduced):
                    continue
                steps = ceil(one.reduced / step)
                if rows * columns * steps > MOST_TILES:
                    continue
                step = ceil(one.reduced / steps)
                moved = first * columns + second * rows + result
                found = Loops(moved, rows, columns, step, columns > rows, rows * columns * steps)
            if best is None or (found.moved_bytes, found.tiles) < (best.moved_bytes, best.tiles):
                best = found
    return best


def pair_loops(up: Extents, down: Extents, capacity: int) -> PairLoops | None:
    """Find the tiles of two products in a row that move least; None where none fit.

    The first's operand and the second's result lie in the scratchpad as panels of rows, or pass step by step; then the
    first is read, and the partial sums of the second are moved, once for each tile of what lies between.
    """
    best: PairLoops | None = None
    w, between = up.width, up.columns
    given, result = up.rows * up.reduced * w, down.rows * down.columns * w
    weights = (up.reduced * between + between * down.columns) * w
    for rows in counts(up.rows):
        m = ceil(up.rows / rows)
        for middle in counts(between):
            h = ceil(between / middle)
            if rows * middle > MOST_TILES or m * h * w >= capacity:
                continue
            for panel in (True, False):
                for resident in (True, False):
                    panels = (up.reduced if panel else 0) + (down.columns if resident else 0)
                    room = capacity // w - m * (h + panels)
                    step, columns = room // (h + (0 if panel else m)), room // (h + (0 if resident else m))
                    if step < min(LEAST_STEP, up.reduced) or columns < min(LEAST_STEP, down.columns):
                        continue
                    steps, across = ceil(up.reduced / step), ceil(down.columns / columns)
                    if steps > 1 and not up.by_steps:
                        continue
                    tiles = rows * middle * (steps + across)
                    if tiles > 2 * MOST_TILES:
                        continue
                    moved = given * (1 if panel or middle == 1 else middle) + weights * rows
                    moved += result * (1 if resident else 2 * middle - 1)
                    if best is None or (moved, tiles) < (best.moved_bytes, best.tiles):
                        step = 0 if steps == 1 else ceil(up.reduced / steps)
                        best = PairLoops(moved, rows, middle, step, across, tiles)
    return best
