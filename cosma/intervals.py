"""Sums over half-open intervals of steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from cosma.arrays import Ints


def sums_over(begin: ArrayLike, end: ArrayLike, amount: ArrayLike, steps: int) -> Ints:
    """Add up at each step the amounts of the intervals ``[begin, end)`` that it lies in. ``int64[steps]``."""
    change = np.zeros(steps + 1, dtype=np.int64)
    np.add.at(change, np.asarray(begin, dtype=np.int64), amount)
    np.subtract.at(change, np.asarray(end, dtype=np.int64), amount)
    return np.cumsum(change)[:-1]
