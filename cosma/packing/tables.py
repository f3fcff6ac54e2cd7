"""A packing problem as tables of 64-bit integers, which the complete search reads and writes.

One table per kind of thing, one row per attribute, named by the constants below: few arrays, because every array a
kernel takes is compiled again into its callers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cosma.arrays import Ints

BEYOND_ADDRESSES = (1 << 31) - 1
"""Higher than any address; states are saved as 32-bit numbers, so capacities stay below half of this."""

HEAD, REST, TAIL, UNDER, PLACED, STALE, OFFSET = range(7)
"""Rows of the buffer table that change; the first `SAVED` are kept per decision."""

FIRST, LAST, ALIGN, CEILING, CELL, BLOCK = range(7, 13)
"""Rows of the buffer table that are given; of `CELL` and `BLOCK`, the next column's entry is the end."""

BUFFER_ROWS = 13

FLOOR, CROSSING, TOP_ONE, TOP_TWO, TOP_OWNER, DIRTY = range(6)
"""Rows of the section table that change: skyline, buffers across its end, two earliest tops, whose the first is."""

ITEM, START, WALL = range(6, 9)
"""Rows of the section table that are given; the next column's entry is the end."""

SECTION_ROWS = 9

SAVED = 5
"""How many rows of either table are saved and restored."""

SECTION, BUFFER, LOW = 0, 0, 0
HEIGHT, HIGH = 1, 1
"""Rows of the other tables: cells (section, height), items (buffer, height), blocks and walls (low, high)."""

NODES, REMEMBERED, STEPS = range(3)
"""Entries of the tally: propagations, nodes cut by memory, buffers and sections looked at."""


class Shape(NamedTuple):
    """One packing problem in scaled units; buffers are sorted by their first section.

    ``buffers`` and ``sections`` have one column more than there are buffers and sections. ``cells`` lists each
    buffer's sections and its height there, ``items`` each section's buffers (the kernel reorders these). Row
    ``START`` of ``sections`` is the first buffer whose first section is this one or later. ``blocks`` lists per
    buffer, rising and apart, the addresses ``[low, high)`` it cannot have, with high a multiple of its
    alignment; ``walls`` lists per section, rising and apart, the forbidden ranges.
    """

    buffers: Ints
    sections: Ints
    cells: Ints
    items: Ints
    blocks: Ints
    walls: Ints

    @property
    def buffer_count(self) -> int:
        """How many buffers."""
        return int(self.buffers.shape[1]) - 1

    @property
    def section_count(self) -> int:
        """How many sections."""
        return int(self.sections.shape[1]) - 1
