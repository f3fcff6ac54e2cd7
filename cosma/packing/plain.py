"""Plain buffers given as arrays, packed by heuristics alone: the call for loops that pack thousands of times."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.packing.arrays import Instance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


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
    from cosma.packing.firstfit import heuristics

    count = lower.size
    lower = np.ascontiguousarray(lower, np.int64)
    upper = np.ascontiguousarray(upper, np.int64)
    size = np.ascontiguousarray(size, np.int64)
    instance = Instance(
        lower, upper, np.zeros(count, np.int64), size, np.arange(count), np.arange(count + 1), lower, upper,
        np.full(count, -1, np.int64), np.full(count, alignment, np.int64), size, np.empty(0, np.int64), count,
    )  # fmt: skip
    offsets, height, _ = heuristics(instance, capacity, rounds, seed)
    return offsets, height
