"""A graph as its rows: how many rows of each operand a row of each result needs.

An operator is cut along the *row axis* of its result: the second-to-last of feature maps, the tokens of sequences.
Windows are the same everywhere but at the edges, so that one look in the middle says what every row needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosma.access import Box, NodeSite
from cosma.access.operator import OperatorAccess, operator_access
from cosma.csr import offsets
from cosma.graph import Graph, TensorKind
from cosma.graph.semantics import is_elementwise

Int64s = NDArray[np.int64]
Bools = NDArray[np.bool_]


def row_axis(rank: int) -> int:
    """Axis of the rows of a result: rows of feature maps, tokens of sequences, the first axis of matrices."""
    return {4: 2, 3: 1, 5: 3}.get(rank, 0)


@dataclass(frozen=True, slots=True, eq=False)
class RowGraph:
    """Operators and activations with their rows, by number, as arrays."""

    #: Access of every operator.
    access: tuple[OperatorAccess, ...]
    #: Activations: inputs, intermediates and outputs.
    tensor_names: tuple[str, ...]
    #: Of each activation; an activation that has no rows has one.
    size_bytes: Int64s
    row_count: Int64s
    #: Graph inputs (a copy lies off-chip), graph outputs (a copy must).
    is_input: Bools
    is_output: Bools
    #: Rows of each operator's result; 1 where it cannot be cut along rows.
    height: Int64s
    #: Extent of the result's channel axis along which weights are cut with it; 1 where it cannot be cut.
    channels: Int64s
    #: Weights of each operator, and those of them that a cut along channels cuts too.
    weight_bytes: Int64s
    #: Whether a result may take over the space of an operand.
    in_place: Bools
    #: CSR: operands of each operator; rows between the needs of two rows of the result, rows that one needs. A stride
    #: of 0 says that every row needs all.
    start: Int64s
    tensor: Int64s
    stride: Int64s
    window: Int64s
    #: CSR: results of each operator.
    result_start: Int64s
    result: Int64s

    @property
    def operator_count(self) -> int:
        """Number of operators."""
        return len(self.access)


def build_rows(graph: Graph, sites: Mapping[str, NodeSite]) -> RowGraph:
    """Look at every operator's rows; linear in the graph."""
    names = [t.name for t in graph.tensors.values() if t.kind is not TensorKind.WEIGHT]
    number = {name: i for i, name in enumerate(names)}
    tensors = [graph.tensors[name] for name in names]
    access = tuple(operator_access(graph, sites, operator) for operator in graph.operators)
    operands: list[list[tuple[int, int, int]]] = []
    heights, channels, weights = [], [], []
    for one in access:
        allowed = one.cuts()
        shape = one.shapes.get(one.result, ())
        axis = row_axis(len(shape))
        cuttable = len(shape) > 1 and allowed[axis] and shape[axis] > 1
        heights.append(shape[axis] if cuttable else 1)
        operands.append(_operands(one, number, axis if cuttable else None))
        channel = channel_axis(one)
        channels.append(shape[channel] if channel is not None else 1)
        weights.append(sum(graph.tensors[w].size_bytes for w in one.operator.weights))
    rows = [
        1 if t.shape is None or len(t.shape) < 2 else max(1, t.shape[row_axis(len(t.shape))]) for t in tensors
    ]
    flat = [entry for row in operands for entry in row]
    results = [[number[name] for name in one.operator.outputs] for one in access]
    return RowGraph(
        access=access,
        tensor_names=tuple(names),
        size_bytes=int64s([t.size_bytes for t in tensors]),
        row_count=int64s(rows),
        is_input=np.array([t.kind is TensorKind.INPUT for t in tensors], dtype=np.bool_),
        is_output=np.array([t.kind is TensorKind.OUTPUT for t in tensors], dtype=np.bool_),
        height=int64s(heights),
        channels=int64s(channels),
        weight_bytes=int64s(weights),
        in_place=np.array([is_elementwise(one.operator) for one in access], dtype=np.bool_),
        start=starts_of(operands),
        tensor=int64s([t for t, _, _ in flat]),
        stride=int64s([a for _, a, _ in flat]),
        window=int64s([k for _, _, k in flat]),
        result_start=starts_of(results),
        result=int64s([t for row in results for t in row]),
    )


def _operands(one: OperatorAccess, number: Mapping[str, int], axis: int | None) -> list[tuple[int, int, int]]:
    """Operand, stride and window of each activation read; stride 0 where every row needs all of it."""
    inputs = one.operator.inputs
    if axis is None:
        return [(number[name], 0, 0) for name in inputs]
    shape = one.shapes[one.result]
    middle = (shape[axis] - 1) // 2

    def at(row: int) -> dict[str, Box]:
        return one.reads(tuple((row, row + 1) if i == axis else (0, size) for i, size in enumerate(shape)))

    here, next_ = at(middle), at(min(middle + 1, shape[axis] - 1))
    found = []
    for name in inputs:
        operand = one.shapes[name]
        rows = row_axis(len(operand))
        if name not in here or name not in next_ or len(operand) < 2:
            found.append((number[name], 0, 0))
            continue
        span, later = here[name][rows], next_[name][rows]
        stride = later[0] - span[0] if shape[axis] > 1 else 0
        found.append((number[name], stride, span[1] - span[0] if stride else 0))
    return found


def channel_axis(one: OperatorAccess) -> int | None:
    """Axis of the result that cuts the largest weight too; None where none does."""
    if not one.operator.weights:
        return None
    shape, allowed = one.shapes.get(one.result, ()), one.cuts()
    for axis in (1, len(shape) - 1) if len(shape) == 4 else (len(shape) - 1,):
        if axis < 0 or axis >= len(shape) or not allowed[axis] or shape[axis] < 2:
            continue
        box = tuple((0, 1) if i == axis else (0, size) for i, size in enumerate(shape))
        reads = one.reads(box)
        if any(reads[w] != tuple((0, s) for s in one.shapes[w]) for w in one.operator.weights if w in reads):
            return axis
    return None


def starts_of(rows: Sequence[Sequence[object]]) -> Int64s:
    """Where each row of a table begins, and where the last one ends."""
    return offsets([len(row) for row in rows]).astype(np.int64)


def int64s(values: Sequence[int]) -> Int64s:
    """Values as an array."""
    return np.array(values, dtype=np.int64)
