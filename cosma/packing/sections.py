"""Turn buffers into the scaled, sectioned, independent problems the complete search works on.

Every step here keeps the answer: addresses are scaled by a common divisor; a section whose buffers are all
alive, at least as high, in a neighbouring section is dropped; the problem is cut where nothing lives across; a
buffer alive in every section of its component goes to the bottom.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd, lcm
from typing import TYPE_CHECKING

import numpy as np

from cosma.packing.buffers import parts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.arrays import Ints
    from cosma.packing.buffers import Buffer, Forbidden
    from cosma.packing.tables import Shape


_Rows = list[dict[int, int]]
_Walls = list[tuple[tuple[int, int], ...]]
_Piece = tuple[_Rows, _Walls, tuple[tuple[int, int], ...], int]


@dataclass(frozen=True, slots=True)
class Wall:
    """Addresses ``[low, high)`` in bytes taken in steps ``[lower, upper)`` by what cannot move."""

    lower: int
    upper: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Component:
    """An independent problem: the buffers (by index), their sections, and what was put at the bottom.

    ``cells[k]`` maps section to height in units for buffer ``members[k]``; ``bottom`` lists buffers already
    given an address, in units, and ``base`` is where the others start.
    """

    members: tuple[int, ...]
    cells: tuple[dict[int, int], ...]
    sections: int
    walls: tuple[tuple[tuple[int, int], ...], ...]
    bottom: tuple[tuple[int, int], ...]
    base: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A whole problem in units of `unit` bytes: its components and what the search needs per buffer."""

    unit: int
    capacity: int
    components: tuple[Component, ...]
    align: tuple[int, ...]
    sizes: tuple[int, ...]
    blocks: tuple[tuple[tuple[int, int], ...], ...]
    capacity_bytes: int


def supports(buffers: Sequence[Buffer]) -> str | None:
    """Say why the complete search cannot take these buffers, or ``None`` when it can."""
    for buffer in buffers:
        if buffer.offset is None and any(part.low for part in parts_of(buffer)):
            return f"buffer {buffer.id!r} has a gap whose occupied window does not start at its own address"
    return None


def walls_of(buffers: Sequence[Buffer], forbidden: Sequence[Forbidden]) -> list[Wall]:
    """List what cannot move: fixed buffers, part by part, and forbidden ranges."""
    begin = min((buffer.lower for buffer in buffers), default=0)
    end = max((buffer.upper for buffer in buffers), default=1)
    walls = [
        Wall(part.lower, part.upper, buffer.offset + part.low, buffer.offset + part.high)
        for buffer in buffers
        if buffer.offset is not None
        for part in parts_of(buffer)
    ]
    for area in forbidden:
        walls.append(
            Wall(
                begin if area.lower is None else area.lower,
                end if area.upper is None else area.upper,
                area.low,
                area.high,
            )
        )
    return walls


def layout(
    buffers: Sequence[Buffer], capacity: int, alignment: int = 1, forbidden: Sequence[Forbidden] = ()
) -> Layout:
    """Scale, section and split; fixed buffers and those without bytes take no part in the components."""
    walls = [
        replace(wall, high=min(wall.high, capacity))
        for wall in walls_of(buffers, forbidden)
        if wall.low < capacity
    ]
    align = [lcm(alignment, buffer.alignment) for buffer in buffers]
    free = [k for k, buffer in enumerate(buffers) if buffer.offset is None and parts_of(buffer)]
    unit = _unit(buffers, free, align, walls)
    blocks = tuple(
        _blocks(buffers[k], align[k], walls, unit) if buffers[k].offset is None else ()
        for k in range(len(buffers))
    )
    scaled = tuple(max(1, step // unit) if step % unit == 0 else 1 for step in align)
    sections, wall_rows = _sections(buffers, free, walls, unit)
    whole = [
        buffer.size // unit
        if scaled[k] == 1 and buffer.size % unit == 0 and _tallest(buffer) == buffer.size
        else 0
        for k, buffer in enumerate(buffers)
    ]
    components = _components(sections, wall_rows, whole)
    return Layout(
        unit=unit,
        capacity=-(-capacity // unit),
        components=tuple(components),
        align=scaled,
        sizes=tuple(buffer.size for buffer in buffers),
        blocks=blocks,
        capacity_bytes=capacity,
    )


def _unit(buffers: Sequence[Buffer], free: list[int], align: list[int], walls: list[Wall]) -> int:
    """Find the coarsest grid that every settled packing lies on.

    Addresses are sums of heights and ends of walls, rounded up to alignments. If all heights and ends are
    multiples of g and every alignment divides g or is a multiple of it, so are all addresses; and all are
    multiples of the common divisor of the alignments.
    """
    edges = 0
    for k in free:
        for part in parts_of(buffers[k]):
            edges = gcd(edges, part.high)
    for wall in walls:
        edges = gcd(edges, wall.high)
    distinct = {align[k] for k in free}
    coarse = edges
    while odd := [step for step in sorted(distinct) if coarse % step and step % coarse]:
        coarse = gcd(coarse, odd[0])
    return max(coarse, gcd(*distinct), 1)


def _tallest(buffer: Buffer) -> int:
    return max((part.high for part in parts_of(buffer)), default=0)


def _blocks(buffer: Buffer, align: int, walls: list[Wall], unit: int) -> tuple[tuple[int, int], ...]:
    """List the addresses, in units, that walls rule out for a buffer: exact, though its height is rounded."""
    ranges: list[tuple[int, int]] = []
    for part in parts_of(buffer):
        for wall in walls:
            if part.lower < wall.upper and wall.lower < part.upper:
                low = max(0, (wall.low - part.high) // unit + 1)
                high = -(-(wall.high - part.low) // unit)
                step = max(1, align // unit)
                high = -(-high // step) * step
                if low < high:
                    ranges.append((low, high))
    return _merge(ranges)


def _merge(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def _sections(
    buffers: Sequence[Buffer], free: list[int], walls: list[Wall], unit: int
) -> tuple[list[dict[int, int]], list[tuple[tuple[int, int], ...]]]:
    """Cut time into sections and drop the ones a neighbour dominates; heights are rounded up to units."""
    starting: dict[int, list[tuple[int, int]]] = {}
    ending: dict[int, list[int]] = {}
    for k in free:
        for part in parts_of(buffers[k]):
            starting.setdefault(part.lower, []).append((k, -(-part.high // unit)))
            ending.setdefault(part.upper, []).append(k)
    times = sorted({*starting, *ending, *(wall.lower for wall in walls), *(wall.upper for wall in walls)})
    kept: list[dict[int, int]] = []
    kept_walls: list[tuple[tuple[int, int], ...]] = []
    live: dict[int, int] = {}
    for time in times:
        for k in ending.get(time, ()):
            del live[k]
        live.update(starting.get(time, ()))
        if not live:
            continue
        here = _merge([
            (-(-wall.low // unit), -(-wall.high // unit)) for wall in walls if wall.lower <= time < wall.upper
        ])  # fmt: skip
        while kept and _within(kept[-1], kept_walls[-1], live, here):
            kept.pop()
            kept_walls.pop()
        if kept and _within(live, here, kept[-1], kept_walls[-1]):
            continue
        kept.append(dict(live))
        kept_walls.append(here)
    return kept, kept_walls


def _within(
    small: dict[int, int],
    small_walls: tuple[tuple[int, int], ...],
    large: dict[int, int],
    large_walls: tuple[tuple[int, int], ...],
) -> bool:
    if len(small) > len(large) or (small_walls and small_walls != large_walls):
        return False
    return all(large.get(k, 0) >= height for k, height in small.items())


def _components(
    sections: list[dict[int, int]], walls: list[tuple[tuple[int, int], ...]], whole: list[int]
) -> list[Component]:
    """Cut where nothing lives across, and put what lives throughout a component at its bottom, repeatedly.

    `whole` is a buffer's size in units, or 0 when that is no whole number, when it is never occupied whole or
    when its alignment is coarser.
    """
    done: list[Component] = []
    todo: list[_Piece] = [(sections, walls, (), 0)] if sections else []
    while todo:
        rows, wall_rows, bottom, base = todo.pop()
        pieces = _cut(rows)
        if len(pieces) > 1:
            for n, (a, b) in enumerate(pieces):
                todo.append((rows[a:b], wall_rows[a:b], bottom if n == 0 else (), base))
            continue
        full = _everywhere(rows, wall_rows, whole)
        if not full:
            done.append(_component(rows, wall_rows, bottom, base))
            continue
        rows = [dict(row) for row in rows]
        for k in full:
            bottom = (*bottom, (k, base))
            base += rows[0][k]
            for row in rows:
                del row[k]
        rows = _prune(rows)
        if rows:
            todo.append((rows, [()] * len(rows), bottom, base))
        else:
            done.append(Component((), (), 0, (), bottom, base))
    return done


def _prune(rows: list[dict[int, int]]) -> list[dict[int, int]]:
    kept: list[dict[int, int]] = []
    for row in rows:
        if not row:
            continue
        while kept and _within(kept[-1], (), row, ()):
            kept.pop()
        if not (kept and _within(row, (), kept[-1], ())):
            kept.append(row)
    return kept


def _cut(rows: list[dict[int, int]]) -> list[tuple[int, int]]:
    """Return the section ranges between which no buffer lives across."""
    last: dict[int, int] = {}
    for s, row in enumerate(rows):
        for k in row:
            last[k] = s
    pieces: list[tuple[int, int]] = []
    begin = reach = 0
    for s, row in enumerate(rows):
        if s > reach and s > begin:
            pieces.append((begin, s))
            begin = s
        reach = max(reach, *(last[k] for k in row))
    pieces.append((begin, len(rows)))
    return pieces


def _everywhere(rows: _Rows, walls: _Walls, whole: list[int]) -> list[int]:
    """Buffers that fill their whole size in all sections, when everything can be shifted over them.

    Any packing stays one when such a buffer moves to the bottom and what was below it moves up by its size;
    walls and coarser alignments would be in the way.
    """
    if any(walls) or not all(whole[k] for row in rows for k in row):
        return []
    return sorted(k for k in rows[0] if all(row.get(k) == whole[k] for row in rows))


def _component(
    rows: list[dict[int, int]],
    walls: list[tuple[tuple[int, int], ...]],
    bottom: tuple[tuple[int, int], ...],
    base: int,
) -> Component:
    cells: dict[int, dict[int, int]] = {}
    for s, row in enumerate(rows):
        for k, height in row.items():
            cells.setdefault(k, {})[s] = height
    members = sorted(cells, key=lambda k: (min(cells[k]), max(cells[k]), k))
    return Component(tuple(members), tuple(cells[k] for k in members), len(rows), tuple(walls), bottom, base)


def shape_of(problem: Layout, component: Component) -> Shape:
    """Flatten a component into the kernel's tables."""
    from cosma.packing.tables import (
        ALIGN,
        BLOCK,
        BUFFER_ROWS,
        CEILING,
        CELL,
        FIRST,
        ITEM,
        LAST,
        SECTION_ROWS,
        START,
        WALL,
        Shape,
    )

    items: list[list[tuple[int, int]]] = [[] for _ in range(component.sections)]
    for k, cells in enumerate(component.cells):
        for s, height in cells.items():
            items[s].append((k, height))
    blocks = [problem.blocks[k] for k in component.members]
    buffers = np.zeros((BUFFER_ROWS, len(component.members) + 1), np.int64)
    sections = np.zeros((SECTION_ROWS, component.sections + 1), np.int64)
    buffers[FIRST, :-1] = [min(cells) for cells in component.cells]
    buffers[LAST, :-1] = [max(cells) for cells in component.cells]
    buffers[ALIGN, :-1] = [problem.align[k] for k in component.members]
    buffers[CEILING, :-1] = [
        (problem.capacity_bytes - problem.sizes[k]) // problem.unit - component.base for k in component.members
    ]
    buffers[CELL, 1:] = np.cumsum([len(cells) for cells in component.cells])
    buffers[BLOCK, 1:] = np.cumsum([len(row) for row in blocks])
    sections[ITEM, 1:] = np.cumsum([len(row) for row in items])
    sections[START] = np.searchsorted(buffers[FIRST, :-1], np.arange(component.sections + 1))
    sections[WALL, 1:] = np.cumsum([len(row) for row in component.walls])
    return Shape(
        buffers,
        sections,
        cells=_pairs([pair for cells in component.cells for pair in cells.items()]),
        items=_pairs([pair for row in items for pair in row]),
        blocks=_pairs([pair for row in blocks for pair in row]),
        walls=_pairs([pair for row in component.walls for pair in row]),
    )


def _pairs(pairs: list[tuple[int, int]]) -> Ints:
    return np.ascontiguousarray(np.array(pairs, np.int64).reshape(-1, 2).T)
