"""A lower bound for every tiling along rows and channels: sets of rows of which some row must run first.

Take a set S of rows of one operator that needs all channels of its operands. When the first tile of S runs, everything
that all of S depends on has been computed. What of it S or its descendants still read is alive. At most the capacity
of these bytes is in the scratchpad; the rest was written off-chip and is read again. Let x be the share of each row of
each tensor that is ever written and read again. Each set gives one inequality. A linear program gives the least cost
that satisfies all. Taller stripes and channels cut in groups run the same rows in some order, so the bound holds for
them. Weights, workspaces and alignment are left out, which only weakens it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cosma.access import Box, NodeSite
from cosma.access.operator import OperatorAccess
from cosma.graph import Graph
from cosma.tiling.rows import RowGraph, build_rows, row_axis

Int64s = NDArray[np.int64]

#: Most inequalities of the program, the largest excess first; not measured.
MOST_SETS = 4000


@dataclass(frozen=True, slots=True)
class _Reads:
    """Rows ``[low[r], high[r])`` of a tensor that row r of an operator's result needs, whole in all other axes."""

    tensor: int
    low: Int64s
    high: Int64s


@dataclass(frozen=True, slots=True)
class _Set:
    """Rows of tensors that are alive when the first of a set of rows runs.

    Attributes
    ----------
    excess_bytes
        What of them does not fit.
    rows
        Tensor, and half-open interval of its rows.
    """

    excess_bytes: int
    rows: tuple[tuple[int, int, int], ...]


def stripe_bound(
    graph: Graph, sites: Mapping[str, NodeSite], capacity_bytes: int, stop: Callable[[], bool] = bool,
    *, free: Collection[str] = (),
) -> int:  # fmt: skip
    """Bytes beyond the compulsory that every plan moves, however rows and channels are cut; deterministic.

    Parameters
    ----------
    graph
        The untiled graph, fused or not.
    sites
        Nodes of the model by first result.
    capacity_bytes
        Room in the scratchpad.
    stop
        Polled between operators; once true, the answer rests on those looked at.
    free
        Tensors that take no room and are never moved: with the links of epilogues, the bound holds whatever is fused,
        as the parts of a fused tile can run one after the other.
    """
    if stop():
        return 0
    rows = build_rows(graph, sites)
    if free:
        sizes = [0 if name in free else size for name, size in zip(rows.tensor_names, rows.size_bytes, strict=True)]
        rows = replace(rows, size_bytes=np.array(sizes, dtype=np.int64))
    reads = [_reads_of(rows, v) for v in range(rows.operator_count)]
    sets: list[_Set] = []
    for v in range(rows.operator_count):
        if stop():
            break
        if _needs_all_channels(rows.access[v], rows):
            sets += _sets_of(rows, reads, v, capacity_bytes)
    sets.sort(key=lambda one: -one.excess_bytes)
    return _least_cost(rows, sets[:MOST_SETS]) if sets else 0


def _reads_of(rows: RowGraph, v: int) -> list[_Reads]:
    """Look up what every row of an operator needs, row by row: windows at the edges are shorter."""
    one = rows.access[v]
    shape = one.shapes.get(one.result, ())
    height = int(rows.height[v])
    axis = row_axis(len(shape))
    number = {name: i for i, name in enumerate(rows.tensor_names)}
    whole_rows: dict[str, list[tuple[int, int]]] = {name: [] for name in one.operator.inputs}
    for r in range(height):
        box: Box = (
            tuple((r, r + 1) if i == axis else (0, size) for i, size in enumerate(shape))
            if height > 1 else tuple((0, size) for size in shape)
        )  # fmt: skip
        found = one.reads(box)
        for name in whole_rows:
            whole_rows[name].append(_rows_read(found.get(name), one.shapes.get(name, ())))
    return [
        _Reads(number[name], np.array([a for a, _ in spans]), np.array([b for _, b in spans]))
        for name, spans in whole_rows.items()
    ]


def _rows_read(box: Box | None, shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows of a tensor that a box holds whole; none where it holds a piece of each."""
    if box is None:
        return (0, 0)
    if len(shape) < 2:
        return (0, 1) if box == tuple((0, size) for size in shape) else (0, 0)
    axis = row_axis(len(shape))
    complete = all(span == (0, size) for i, (span, size) in enumerate(zip(box, shape, strict=True)) if i != axis)
    return box[axis] if complete else (0, 0)


def _needs_all_channels(one: OperatorAccess, rows: RowGraph) -> bool:
    """Whether each channel of the result needs its operands' rows whole, as convolutions over all channels do."""
    shape = one.shapes.get(one.result, ())
    allowed = one.cuts()
    if not one.chain:
        return True
    channel = 1 if len(shape) == 4 else len(shape) - 1
    axis = row_axis(len(shape))
    if len(shape) < 2 or channel == axis:
        return False
    if not allowed[channel]:
        return True
    everything = one.reads(tuple((0, size) for size in shape))
    box = tuple((0, 1) if i == channel else (0, size) for i, size in enumerate(shape))
    narrow = one.reads(box)
    return all(narrow.get(name) == everything.get(name) for name in one.operator.inputs)


def _sets_of(rows: RowGraph, reads: list[list[_Reads]], v: int, capacity: int) -> list[_Set]:
    """Sets of consecutive rows of one operator, lengths doubling and half overlapping, that do not fit."""
    height = int(rows.height[v])
    above = _ancestors(rows, reads, v)
    below = _descendants(rows, reads, v)
    found = []
    length = 1
    while True:
        for begin in range(0, max(1, height - length // 2), max(1, length // 2)):
            end = min(begin + length, height)
            alive = _alive(rows, reads, v, begin, end, above, below)
            size = sum((b - a) * (int(rows.size_bytes[t]) // int(rows.row_count[t])) for t, a, b in alive)
            if size > capacity:
                found.append(_Set(size - capacity, tuple(alive)))
        if length >= height:
            return found
        length *= 2


def _ancestors(rows: RowGraph, reads: list[list[_Reads]], v: int) -> dict[int, tuple[Int64s, Int64s]]:
    """Rows of each operator's result that each row of v depends on, as intervals; an interval that has gaps is cut."""
    height = int(rows.height[v])
    found: dict[int, tuple[Int64s, Int64s]] = {v: (np.arange(height), np.arange(height) + 1)}
    maker = _makers(rows)
    for u in range(v, -1, -1):
        if u not in found:
            continue
        low, high = found[u]
        for one in reads[u]:
            w = int(maker[one.tensor])
            if w < 0:
                continue
            # Rows of u that a row of v needs, [low, high): the rows of the operand between the first and the last.
            some = high > low
            a = np.where(some, one.low[np.minimum(low, len(one.low) - 1)], 0)
            b = np.where(some, one.high[np.maximum(high - 1, 0)], 0)
            a, b = _without_gaps(one, low, high, a, b)
            if int(rows.height[w]) == 1:
                touched = b > a
                a, b = np.zeros_like(a), touched.astype(np.int64)
            before = found.get(w)
            found[w] = (a, b) if before is None else _joined(before, (a, b))
    return found


def _without_gaps(
    one: _Reads, low: Int64s, high: Int64s, a: Int64s, b: Int64s
) -> tuple[Int64s, Int64s]:
    """Keep the interval only where the rows of neighbours touch; else what the first row needs."""
    gap = np.zeros(len(one.low) + 1, dtype=np.int64)
    np.cumsum(one.high[:-1] < one.low[1:], out=gap[1 : len(one.low)])
    gap[-1] = gap[-2] if len(one.low) > 1 else 0
    last = np.maximum(high - 1, 0)
    broken = gap[np.minimum(last, len(one.low) - 1)] > gap[np.minimum(low, len(one.low) - 1)]
    first_high = one.high[np.minimum(low, len(one.low) - 1)]
    return a, np.where(broken, first_high, b)


def _joined(one: tuple[Int64s, Int64s], other: tuple[Int64s, Int64s]) -> tuple[Int64s, Int64s]:
    """Union of two intervals for each row where they touch; the longer where they do not."""
    touch = (one[0] <= other[1]) & (other[0] <= one[1])
    longer = (one[1] - one[0]) >= (other[1] - other[0])
    empty_one, empty_other = one[1] <= one[0], other[1] <= other[0]
    low = np.where(touch, np.minimum(one[0], other[0]), np.where(longer, one[0], other[0]))
    high = np.where(touch, np.maximum(one[1], other[1]), np.where(longer, one[1], other[1]))
    low, high = np.where(empty_one, other[0], low), np.where(empty_one, other[1], high)
    return np.where(empty_other, one[0], low), np.where(empty_other, one[1], high)


def _descendants(rows: RowGraph, reads: list[list[_Reads]], v: int) -> dict[int, tuple[Int64s, Int64s]]:
    """For each operator below v, the rows of v that each of its rows depends on, as intervals."""
    height = int(rows.height[v])
    found: dict[int, tuple[Int64s, Int64s]] = {v: (np.arange(height), np.arange(height) + 1)}
    maker = _makers(rows)
    for u in range(v + 1, rows.operator_count):
        for one in reads[u]:
            w = int(maker[one.tensor])
            if w not in found:
                continue
            low, high = found[w]
            span = len(low)
            first = np.minimum(one.low, span - 1) if int(rows.height[w]) > 1 else np.zeros_like(one.low)
            last = np.clip(one.high - 1, 0, span - 1) if int(rows.height[w]) > 1 else np.zeros_like(one.high)
            some = one.high > one.low
            # One row of the operand is enough to depend on what it depends on.
            a, b = np.where(some, low[first], 0), np.where(some, high[last], 0)
            a = np.where(some & (low[first] >= high[first]), low[last], a)
            held = found.get(u)
            found[u] = (a, b) if held is None else _joined(held, (a, b))
    return found


def _makers(rows: RowGraph) -> Int64s:
    maker = np.full(len(rows.size_bytes), -1, dtype=np.int64)
    for v in range(rows.operator_count):
        maker[rows.result[rows.result_start[v] : rows.result_start[v + 1]]] = v
    return maker


def _alive(
    rows: RowGraph, reads: list[list[_Reads]], v: int, begin: int, end: int,
    above: dict[int, tuple[Int64s, Int64s]], below: dict[int, tuple[Int64s, Int64s]],
) -> list[tuple[int, int, int]]:  # fmt: skip
    """Rows of tensors that all rows ``[begin, end)`` of v depend on and that these rows or their descendants read."""
    common: dict[int, tuple[int, int]] = {}
    for u, (low, high) in above.items():
        if u == v:
            continue
        a, b = int(low[begin:end].max()), int(high[begin:end].min())
        if a < b:
            common[u] = (a, b)
    wanted: dict[int, list[tuple[int, int]]] = {}
    for u, (low, high) in below.items():
        # Rows of u that depend on some row of the set.
        hit = np.flatnonzero((low < end) & (high > begin) & (low < high))
        if len(hit) == 0:
            continue
        for one in reads[u]:
            spans = [(int(one.low[r]), int(one.high[r])) for r in hit if one.high[r] > one.low[r]]
            wanted.setdefault(one.tensor, []).extend(spans)
    maker = _makers(rows)
    found = []
    for t, spans in wanted.items():
        w = int(maker[t])
        if w not in common:
            continue
        a, b = common[w] if int(rows.height[w]) > 1 else (0, int(rows.row_count[t]))
        found += [(t, max(a, p), min(b, q)) for p, q in _union(spans) if max(a, p) < min(b, q)]
    return found


def _union(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for a, b in sorted(spans):
        if merged and a <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(b, merged[-1][1]))
        else:
            merged.append((a, b))
    return merged


def _least_cost(rows: RowGraph, sets: list[_Set]) -> int:
    """Solve the program: least bytes written and read again that leave room in every set."""
    from ortools.linear_solver import pywraplp

    solver = pywraplp.Solver.CreateSolver("GLOP")
    # Row sums y[t][q] of the share off-chip, so that an interval has two terms.
    sums: dict[int, list[object]] = {}
    objective = solver.Objective()
    for t in sorted({t for one in sets for t, _, _ in one.rows}):
        count = int(rows.row_count[t])
        size = int(rows.size_bytes[t]) // count
        price = 1 if rows.is_output[t] else 2
        variables: list[object] = [None]
        for _ in range(count):
            variables.append(solver.NumVar(0, solver.infinity(), ""))
        for q in range(1, count + 1):
            step = solver.Constraint(0, size)
            step.SetCoefficient(variables[q], 1)
            if q > 1:
                step.SetCoefficient(variables[q - 1], -1)
        objective.SetCoefficient(variables[count], price)
        sums[t] = variables
    for one in sets:
        row = solver.Constraint(one.excess_bytes, solver.infinity())
        terms: dict[tuple[int, int], int] = {}
        for t, a, b in one.rows:
            terms[t, b] = terms.get((t, b), 0) + 1
            terms[t, a] = terms.get((t, a), 0) - 1
        for (t, q), coefficient in terms.items():
            if q > 0 and coefficient:
                row.SetCoefficient(sums[t][q], coefficient)
    objective.SetMinimization()
    if solver.Solve() != pywraplp.Solver.OPTIMAL:
        return 0
    # A floor for rounding: a bound may be too low, never too high.
    return max(0, int(objective.Value() * (1 - 1e-6)) - 1)
