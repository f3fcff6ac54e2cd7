"""Row sets: what a load of selected rows brings, and a table that holds nothing but them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.errors import PlanInvalidError
from cosma.execute.elements import size_bytes, to_array, to_bytes
from cosma.execute.memory import POISON

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cosma.arrays import Array, Bytes
    from cosma.frontend.gathered import RowSet
    from cosma.frontend.values import Value
    Key = tuple[Any, ...]


def select_rows(rows: RowSet, table: Array, content: Callable[[Value], Array]) -> Bytes:
    """Bytes of a row set: the selected elements of the table, in the order of the indices."""
    try:
        return to_bytes(np.ascontiguousarray(table[_key(rows, content)]), rows.table.element)
    except IndexError as error:
        raise PlanInvalidError(f"the indices of {rows.name!r} leave the table {rows.table.root!r}: {error}") from error


def table_of_rows(rows: RowSet, data: Bytes, content: Callable[[Value], Array]) -> Bytes:
    """Bytes of a table that holds the row set where it belongs and poison everywhere else."""
    element, name = rows.table.element, rows.table.root
    poison = np.full(size_bytes(element, rows.table.shape), POISON, np.uint8)
    table = to_array(poison, element, rows.table.shape, name)
    key = _key(rows, content)
    table[key] = to_array(data, element, table[key].shape, name)
    return to_bytes(table, element)


def _key(rows: RowSet, content: Callable[[Value], Array]) -> Key:
    """Selection as NumPy writes it."""
    arrays = [None if index is None else content(index) for index in rows.indices]
    axis, shape = rows.axis, rows.table.shape
    index = arrays[0]
    assert index is not None
    match rows.kind:
        case "take":
            return (*(slice(None),) * axis, index)
        case "elements":
            grid: list[Array] = list(np.indices(index.shape, sparse=True))
            grid[axis] = index
            return tuple(grid)
        case "nd":
            outer: Sequence[Array] = np.indices(index.shape[:axis], sparse=True)
            spread = [batch.reshape(batch.shape + (1,) * (index.ndim - 1 - axis)) for batch in outer]
            return (*spread, *np.moveaxis(index, -1, 0))
        case "slice":
            return _slices(shape, arrays)
        case "first":
            return (slice(0, rows.shape[0]),)


def _slices(shape: tuple[int, ...], arrays: Sequence[Array | None]) -> Key:
    """ONNX's Slice: starts, ends, axes, steps."""
    starts, ends, axes, steps = (*arrays, None, None)[:4]
    assert starts is not None
    assert ends is not None
    slices = [slice(None)] * len(shape)
    order = range(len(starts)) if axes is None else axes.tolist()
    for i, axis in enumerate(order):
        size, step = shape[axis], 1 if steps is None else int(steps[i])
        start, stop, _ = slice(int(starts[i]), int(ends[i]), step).indices(size)
        slices[axis] = slice(start, stop if stop >= 0 else None, step)
    return tuple(slices)
