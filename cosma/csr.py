"""Rows of unequal length as two flat arrays: offsets and values (CSR)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cosma.arrays import Array, Int32s


def offsets(lengths: Sequence[int]) -> Int32s:
    """Where each row begins, and where the last one ends."""
    start = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=start[1:])
    return start


def csr(rows: Sequence[Iterable[int]]) -> tuple[Int32s, Int32s]:
    """Offsets and values of rows."""
    values = [list(row) for row in rows]
    return offsets([len(row) for row in values]), np.array([x for row in values for x in row], dtype=np.int32)


def rows_of(start: Array, values: Array) -> list[list[int]]:
    """Rows as lists of plain integers."""
    flat, bounds = values.tolist(), start.tolist()
    return [flat[a:b] for a, b in pairwise(bounds)]
