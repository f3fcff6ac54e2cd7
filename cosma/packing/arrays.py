"""Buffers as arrays, and the cheap way into the heuristics for loops that pack thousands of times."""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm
from typing import TYPE_CHECKING

import numpy as np

from cosma.packing.buffers import parts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.arrays import Ints
    from cosma.packing.buffers import Buffer, Forbidden


@dataclass(frozen=True, slots=True)
class Instance:
    """Buffers (and, last, forbidden ranges as fixed buffers) flattened for the kernels; `parts` is a row pointer."""

    lower: Ints
    upper: Ints
    low: Ints
    high: Ints
    owner: Ints
    parts: Ints
    begin: Ints
    end: Ints
    fixed: Ints
    align: Ints
    size: Ints
    hint: Ints
    count: int

    def pairs(self) -> int:
        """Count the pairs of parts that live at the same time, in time near linear in the parts."""
        some = self.lower < self.upper
        starts = np.sort(self.lower[some])
        begun = np.searchsorted(starts, self.upper[some], "left")
        same = np.searchsorted(starts, self.lower[some], "left")
        # Each pair once, from the part that starts first; those that start together are seen from either.
        total = int(np.sum(begun - same))
        together = np.unique(starts, return_counts=True)[1]
        return total - int(np.sum(together * (together + 1) // 2))


def flatten(buffers: Sequence[Buffer], alignment: int = 1, forbidden: Sequence[Forbidden] = ()) -> Instance:
    """Turn buffers into arrays; forbidden ranges become fixed buffers behind the last one."""
    begin = [buffer.lower for buffer in buffers]
    end = [buffer.upper for buffer in buffers]
    fixed = [-1 if buffer.offset is None else buffer.offset for buffer in buffers]
    size = [buffer.size for buffer in buffers]
    align = [alignment if buffer.alignment == 1 else lcm(alignment, buffer.alignment) for buffer in buffers]
    rows: list[Sequence[tuple[int, int, int, int]]] = [
        ((buffer.lower, buffer.upper, 0, buffer.size),)
        if buffer.size and not buffer.gaps
        else [(part.lower, part.upper, part.low, part.high) for part in parts_of(buffer)]
        for buffer in buffers
    ]
    begin_all, end_all = min(begin, default=0), max(end, default=1)
    for area in forbidden:
        lower = begin_all if area.lower is None else area.lower
        upper = end_all if area.upper is None else area.upper
        rows.append([(lower, upper, 0, area.high - area.low)])
        begin.append(lower)
        end.append(upper)
        fixed.append(area.low)
        size.append(0)
        align.append(1)
    pointer = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=pointer[1:])
    flat = np.array([part for row in rows for part in row], np.int64).reshape(-1, 4).T
    hinted = any(buffer.hint is not None for buffer in buffers)
    hint = [2**62 if buffer.hint is None else buffer.hint for buffer in buffers] + [0] * len(forbidden)

    def column(values: list[int]) -> Ints:
        return np.array(values, dtype=np.int64)

    return Instance(
        lower=flat[0].copy(),
        upper=flat[1].copy(),
        low=flat[2].copy(),
        high=flat[3].copy(),
        owner=np.repeat(np.arange(len(rows)), np.diff(pointer)).astype(np.int64),
        parts=pointer,
        begin=column(begin),
        end=column(end),
        fixed=column(fixed),
        align=column(align),
        size=column(size),
        hint=column(hint if hinted else []),
        count=len(buffers),
    )


def sections_of(lower: Ints, upper: Ints) -> tuple[Ints, Ints, int]:
    """Cut time where something starts after something else has ended; return first, end and number of sections.

    Two lives overlap exactly if their sections do.
    """
    if not lower.size:
        return lower, upper, 1
    times = np.concatenate((upper, lower))
    starts = np.concatenate((np.zeros(upper.size, np.bool_), np.ones(lower.size, np.bool_)))
    # Ends come before starts at the same time.
    order = np.lexsort((starts, times))
    starts = starts[order]
    fresh = starts.copy()
    fresh[1:] &= ~starts[:-1]
    section = np.empty(order.size, np.int64)
    section[order] = np.cumsum(fresh) - 1
    return section[upper.size :], section[: upper.size] + 1, int(fresh.sum())
