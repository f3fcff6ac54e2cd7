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


def run_heuristics(
    instance: Instance, capacity: int, rounds: int, seed: int
) -> tuple[Ints, int, dict[str, int]]:
    """Run the first-fit heuristics; see `cosma.packing.firstfit.heuristics`."""
    from cosma.packing.firstfit import heuristics

    return heuristics(instance, capacity, rounds, seed)


def pack_arrays(
    lower: Ints, upper: Ints, size: Ints, capacity: int, *, alignment: int = 1, rounds: int = 64, seed: int = 0
) -> tuple[Ints, int]:
    """Pack plain buffers given as int64 arrays with heuristics only: the call for search loops.

    Parameters
    ----------
    lower, upper
        Lifetimes, half-open, in steps; `lower < upper` is not checked here.
    size
        Bytes, zero or more.
    capacity
        Bytes to stay within; the heuristics stop at the first packing that does.
    alignment
        Every address is a multiple of it.
    rounds
        Repaired orders tried after the fixed ones fail.
    seed
        Start of the generator behind the repairs.

    Returns
    -------
    (offsets, height)
        The lowest packing found; it fits when `height <= capacity`. A greater height proves nothing.
    """
    count = lower.size
    lower = np.ascontiguousarray(lower, np.int64)
    upper = np.ascontiguousarray(upper, np.int64)
    size = np.ascontiguousarray(size, np.int64)
    instance = Instance(
        lower, upper, np.zeros(count, np.int64), size, np.arange(count), np.arange(count + 1), lower, upper,
        np.full(count, -1, np.int64), np.full(count, alignment, np.int64), size, np.empty(0, np.int64), count,
    )  # fmt: skip
    offsets, height, _ = run_heuristics(instance, capacity, rounds, seed)
    return offsets, height
