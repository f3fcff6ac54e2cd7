"""A graph as the grids its operators can be cut on: rows, channels and columns of every tensor, as arrays.

Every tensor has up to three axes that may be cut, its *rows*, its *channels* and its *columns*; the others stay whole.
For each operand of an operator, tables say which of them a row, a channel or a column of the result reads. They are
exact where an operand's axis follows one axis of the result, and a superset otherwise: they guide a choice, and the
tiles made of it have the exact regions of :mod:`cosma.access`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from cosma.access import NodeSite
from cosma.access.operator import OperatorAccess, operator_access
from cosma.arrays import Bytes, Ints
from cosma.graph import Graph, Operator, TensorKind
from cosma.graph.in_place import may_overwrite
from cosma.tiling.axes import Axes, tensor_axes
from cosma.tiling.probe import Intervals, Touches, touches_of
from cosma.tiling.rows import int64s, starts_of

#: Longest axis that is cut: tables of access have an entry for each position.
LONGEST_AXIS = 1 << 16


class Grid(NamedTuple):
    """Operators, activations and weights by number; tables are CSR.

    Attributes
    ----------
    size, rows, channels, columns
        Bytes, extent of the row axis, of the channel axis and of the column axis of each tensor; 1 where it has none.
    is_weight
        1 where a tensor is a weight.
    clean, stored
        1 where a copy lies off-chip from the start; 1 where the first store is not compulsory.
    place
        For each tensor, the places of rows, channels and columns among its axes, from the outermost.
    maker
        Operator that yields each tensor, -1 for none.
    height, width, breadth, depth
        Rows, channels and columns into which each operator's result can be cut at the most, and partial sums.
    weight
        Weight bytes of each operator.
    selects
        1 where an operator reads a part of its operands although it is not cut; the others then read all.
    start, operand
        Tensors that each operator reads, weights included.
    row_source, row_table, channel_source, channel_table, column_source, column_table
        Beside ``operand``: what its rows, channels and columns follow, and where in ``low`` and ``high`` the table
        starts.
    read_by
        Beside ``operand``: which steps of a chain of partial sums read it.
    given_up
        Beside ``operand``: 1 where the result may be written over it.
    low, high
        Tables of intervals, half-open: of the operand, by row, channel or column of the result. Where a slice reads
        nothing, the interval is empty and lies where that of the slice before ends.
    result_start, result
        Tensors that each operator yields.
    """

    size: Ints
    rows: Ints
    channels: Ints
    columns: Ints
    is_weight: Bytes
    clean: Bytes
    stored: Bytes
    place: Ints
    maker: Ints
    height: Ints
    width: Ints
    breadth: Ints
    depth: Ints
    weight: Ints
    selects: Bytes
    start: Ints
    operand: Ints
    row_source: Ints
    row_table: Ints
    channel_source: Ints
    channel_table: Ints
    column_source: Ints
    column_table: Ints
    read_by: Ints
    given_up: Ints
    low: Ints
    high: Ints
    result_start: Ints
    result: Ints


#: Arrays of a grid by operator, and by operand of an operator beside the operand itself.
BY_OPERATOR = ("height", "width", "breadth", "depth", "weight", "selects")
BY_EDGE = (
    "row_source", "row_table", "channel_source", "channel_table", "column_source", "column_table", "read_by",
    "given_up",
)  # fmt: skip


class GridGraph(NamedTuple):
    """A grid with what its numbers stand for.

    Attributes
    ----------
    grid
        The arrays.
    access
        Access of each operator.
    axes
        Row axis, channel axis and column axis of each operator's result; -1 where it has none.
    """

    grid: Grid
    access: tuple[OperatorAccess, ...]
    axes: tuple[Axes, ...]


def build_grid(graph: Graph, sites: Mapping[str, NodeSite], known: Touches | None = None) -> GridGraph:
    """Look at every operator of a graph, at like ones once; linear in the graph and in the extents of its axes.

    ``known`` are operators that were looked at in another graph of the same network, to which those of this one are
    added.
    """
    known = {} if known is None else known
    access = tuple(operator_access(graph, sites, operator) for operator in graph.operators)
    tensors = list(graph.tensors.values())
    number = {tensor.name: i for i, tensor in enumerate(tensors)}
    axes_of: dict[str, Axes] = {}
    for name, own in tensor_axes(graph, access).items():
        shape = graph.tensors[name].shape
        row, channel, column = (axis if _extent(shape, axis) <= LONGEST_AXIS else -1 for axis in own)
        axes_of[name] = row, channel, column
    axes = list(axes_of.values())
    maker = np.full(len(tensors), -1, dtype=np.int64)
    for v, one in enumerate(access):
        maker[[number[name] for name in one.operator.outputs]] = v
    tables = _Tables()
    touches: list[list[tuple[int, ...]]] = []
    heights, widths, breadths, depths, weights = [], [], [], [], []
    for one in access:
        shape = one.shapes.get(one.result, ())
        own, allowed = axes[number[one.result]], one.cuts()
        extents = [shape[axis] if axis >= 0 and allowed[axis] else 1 for axis in own]
        depth = max(1, one.reduced())
        extents.append(depth if depth <= LONGEST_AXIS else 1)
        touched = touches_of(one, axes_of, extents, known)
        touches.append([
            (
                number[name],
                *(entry for source, found in touch.axes for entry in (source, tables.add(found))),
                touch.read_by,
                _is_given_up(graph, one.operator, name),
            )
            for name, touch in zip(dict.fromkeys(one.operator.operands), touched, strict=True)
        ])
        heights.append(extents[0])
        widths.append(extents[1])
        breadths.append(extents[2])
        depths.append(extents[3])
        weights.append(sum(graph.tensors[w].size_bytes for w in one.operator.weights))
    flat = [entry for row in touches for entry in row]
    results = [[number[name] for name in one.operator.outputs] for one in access]
    table = np.array(flat, dtype=np.int64).reshape(len(flat), 9)
    grid = Grid(
        size=int64s([t.size_bytes for t in tensors]),
        rows=int64s([_extent(t.shape, own[0]) for t, own in zip(tensors, axes, strict=True)]),
        channels=int64s([_extent(t.shape, own[1]) for t, own in zip(tensors, axes, strict=True)]),
        columns=int64s([_extent(t.shape, own[2]) for t, own in zip(tensors, axes, strict=True)]),
        is_weight=np.array([t.kind is TensorKind.WEIGHT for t in tensors], dtype=np.uint8),
        clean=np.array([t.kind in (TensorKind.INPUT, TensorKind.WEIGHT) for t in tensors], dtype=np.uint8),
        stored=np.array([t.kind is TensorKind.INTERMEDIATE for t in tensors], dtype=np.uint8),
        place=np.argsort(np.argsort(np.array(axes, dtype=np.int64), axis=1, kind="stable"), axis=1).astype(np.int64),
        maker=maker,
        height=int64s(heights),
        width=int64s(widths),
        breadth=int64s(breadths),
        depth=int64s(depths),
        weight=int64s(weights),
        selects=np.array([bool(one.operator.reads) for one in access], dtype=np.uint8),
        start=starts_of(touches),
        operand=table[:, 0].copy(),
        row_source=table[:, 1].copy(),
        row_table=table[:, 2].copy(),
        channel_source=table[:, 3].copy(),
        channel_table=table[:, 4].copy(),
        column_source=table[:, 5].copy(),
        column_table=table[:, 6].copy(),
        read_by=table[:, 7].copy(),
        given_up=table[:, 8].copy(),
        low=int64s(tables.low),
        high=int64s(tables.high),
        result_start=starts_of(results),
        result=int64s([t for row in results for t in row]),
    )
    return GridGraph(grid, access, tuple(axes[number[one.result]] for one in access))


def _is_given_up(graph: Graph, operator: Operator, operand: str) -> bool:
    """Whether a tile may be written over a part of the operand at the same place; pieces of joins lie elsewhere."""
    return not operator.joined and may_overwrite(operator, graph.tensors[operator.outputs[0]], graph.tensors[operand])


class _Tables:
    """Tables of intervals one behind another, equal ones once."""

    __slots__ = ("high", "known", "low")

    def __init__(self) -> None:
        self.low: list[int] = []
        self.high: list[int] = []
        self.known: dict[Intervals, int] = {}

    def add(self, table: Intervals | None) -> int:
        """Where a table starts; 0 for none."""
        if table is None:
            return 0
        if table not in self.known:
            self.known[table] = len(self.low)
            self.low += table[0]
            self.high += table[1]
        return self.known[table]


def _extent(shape: tuple[int, ...] | None, axis: int) -> int:
    return 1 if shape is None or axis < 0 else max(1, shape[axis])
