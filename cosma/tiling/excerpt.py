"""Grids made from a grid: of some of its operators, and of all in another order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cosma.arrays import Ints
from cosma.tiling.grid import BY_EDGE, BY_OPERATOR, Grid, GridGraph


def in_order(graph: GridGraph, order: Sequence[int]) -> GridGraph:
    """The same network with its operators in another topological order."""
    grid, new = graph.grid, np.asarray(order, dtype=np.int64)
    place = np.argsort(new)

    def moved(start: Ints) -> tuple[Ints, Ints]:
        lengths = np.diff(start)[new]
        begins = np.concatenate(([0], np.cumsum(lengths)))
        return begins, np.arange(begins[-1]) + np.repeat(start[:-1][new] - begins[:-1], lengths)

    (start, edges), (result_start, results) = moved(grid.start), moved(grid.result_start)
    return graph._replace(
        access=tuple(graph.access[v] for v in order),
        axes=tuple(graph.axes[v] for v in order),
        grid=grid._replace(
            **{name: getattr(grid, name)[new] for name in BY_OPERATOR},
            **{name: getattr(grid, name)[edges] for name in ("operand", *BY_EDGE)},
            start=start,
            result_start=result_start,
            result=grid.result[results],
            maker=np.where(grid.maker >= 0, place[grid.maker], -1),
        ),
    )


def cut_out(grid: Grid, begin: int, end: int) -> Grid:
    """Operators, half-open, as a grid of their own: what others make lies off-chip, and tables stay shared."""
    edges = slice(int(grid.start[begin]), int(grid.start[end]))
    results = slice(int(grid.result_start[begin]), int(grid.result_start[end]))
    own = slice(begin, end)
    tensors, again = np.unique(np.concatenate((grid.operand[edges], grid.result[results])), return_inverse=True)
    made = (grid.maker[tensors] >= begin) & (grid.maker[tensors] < end)
    by_tensor = {
        name: getattr(grid, name)[tensors]
        for name in ("size", "rows", "channels", "columns", "is_weight", "stored", "place")
    }
    by_operator = {name: getattr(grid, name)[own] for name in BY_OPERATOR}
    by_edge = {name: getattr(grid, name)[edges] for name in BY_EDGE}
    return Grid(
        **by_tensor, **by_operator, **by_edge, low=grid.low, high=grid.high,
        clean=np.where(made, grid.clean[tensors], 1).astype(np.uint8),
        maker=np.where(made, grid.maker[tensors] - begin, -1),
        start=grid.start[begin : end + 1] - grid.start[begin], operand=again[: edges.stop - edges.start],
        result_start=grid.result_start[begin : end + 1] - grid.result_start[begin],
        result=again[edges.stop - edges.start :],
    )  # fmt: skip
