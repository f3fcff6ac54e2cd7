"""Axes by rule: the rows of a result by its rank, and the channels that cut an operator's weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cosma.access.operator import OperatorAccess
from cosma.arrays import Ints
from cosma.csr import offsets


def row_axis(rank: int) -> int:
    """Axis of the rows of a result: rows of feature maps, tokens of sequences, the first axis of matrices."""
    return {4: 2, 3: 1, 5: 3}.get(rank, 0)


def channel_axis(one: OperatorAccess) -> int | None:
    """Axis of the result that cuts the largest weight too; None where none does."""
    return next(iter(channel_axes(one)), None)


def channel_axes(one: OperatorAccess) -> list[int]:
    """Axes of the result that cut a weight too, the likeliest first; none where only unlikely ones do."""
    if not one.operator.weights:
        return []
    shape, allowed = one.shapes.get(one.result, ()), one.cuts()
    likely: tuple[int, ...] = (1, 3) if len(shape) == 4 else (len(shape) - 1,)
    found = []
    for axis in (*likely, *(a for a in range(len(shape)) if a not in likely)):
        if axis < 0 or not allowed[axis] or shape[axis] < 2:
            continue
        box = tuple((0, 1) if i == axis else (0, size) for i, size in enumerate(shape))
        reads = one.reads(box)
        if any(reads[w] != tuple((0, s) for s in one.shapes[w]) for w in one.operator.weights if w in reads):
            found.append(axis)
    # Of a product with a weight in front, channels may be any axis.
    return found if one.reduced() > 1 or (found and found[0] in likely) else []


def starts_of(rows: Sequence[Sequence[object]]) -> Ints:
    """Where each row of a table begins, and where the last one ends."""
    return offsets([len(row) for row in rows]).astype(np.int64)


def int64s(values: Sequence[int]) -> Ints:
    """Values as an array."""
    return np.array(values, dtype=np.int64)
