"""Buffers as arrays, and the cheap way into the heuristics for loops that pack thousands of times."""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm
from typing import TYPE_CHECKING

import numpy as np

from cosma.packing.buffers import Part, parts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cosma.packing.buffers import Buffer, Forbidden

    Ints = NDArray[np.int64]


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

    @property
    def anchored(self) -> bool:
        """Whether every part starts at its buffer's own address, as in-place chains do."""
        return not bool(np.any(self.low[: int(self.parts[self.count])]))


def flatten(buffers: Sequence[Buffer], alignment: int = 1, forbidden: Sequence[Forbidden] = ()) -> Instance:
    """Turn buffers into arrays; forbidden ranges become fixed buffers behind the last one."""
    begin_all = min((buffer.lower for buffer in buffers), default=0)
    end_all = max((buffer.upper for buffer in buffers), default=1)
    rows = [parts_of(buffer) for buffer in buffers]
    begin = [buffer.lower for buffer in buffers]
    end = [buffer.upper for buffer in buffers]
    fixed = [-1 if buffer.offset is None else buffer.offset for buffer in buffers]
    size = [buffer.size for buffer in buffers]
    align = [lcm(alignment, buffer.alignment) for buffer in buffers]
    for area in forbidden:
        lower = begin_all if area.lower is None else area.lower
        upper = end_all if area.upper is None else area.upper
        rows.append([Part(lower, upper, 0, area.high - area.low)])
        begin.append(lower)
        end.append(upper)
        fixed.append(area.low)
        size.append(0)
        align.append(1)
    pointer = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=pointer[1:])
    flat = [part for row in rows for part in row]
    hinted = any(buffer.hint is not None for buffer in buffers)
    hint = [2**62 if buffer.hint is None else buffer.hint for buffer in buffers] + [0] * len(forbidden)

    def column(values: list[int]) -> Ints:
        return np.array(values, dtype=np.int64)

    return Instance(
        lower=column([part.lower for part in flat]),
        upper=column([part.upper for part in flat]),
        low=column([part.low for part in flat]),
        high=column([part.high for part in flat]),
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
