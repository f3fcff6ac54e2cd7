"""The arrays of some operators and some tensors, numbered anew: what reductions are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.csr import csr, offsets
from cosma.problem.precedence import bits

if TYPE_CHECKING:

    from cosma.arrays import Bools, Int32s, Ints
    from cosma.problem.problem import Problem


def select(problem: Problem, operators: Ints, tensors: Ints) -> Problem:
    """Keep some operators and some tensors of a problem, numbered in the order of the numbers given, which ascend.

    What the kept operators do not produce starts off-chip. An operator precedes another one if it does so in the whole,
    be it by way of operators that are left out. The constant part of the traffic is left out. Takes a bit set over the
    kept operators for each operator of the whole between the first and the last of them. Raises ValueError if no kept
    operator touches some kept tensor: its compulsory traffic would be counted and never happen.
    """
    operator_number = {v: i for i, v in enumerate(operators.tolist())}
    tensor_number = {t: i for i, t in enumerate(tensors.tolist())}
    producer = np.array([operator_number.get(v, -1) for v in problem.producer[tensors].tolist()], dtype=np.int32)

    def rows(start: Int32s, values: Int32s, of: Ints, number: dict[int, int]) -> tuple[Int32s, Int32s]:
        found = [[number[u] for u in values[start[x] : start[x + 1]].tolist() if u in number] for x in of.tolist()]
        return csr(found)

    def streams(start: Int32s, touched: Int32s, streams: Bools) -> Bools:
        at = np.array([i for v in operators.tolist() for i in range(start[v], start[v + 1])], dtype=np.int64)
        return streams[at[kept[touched[at]]]]

    kept = np.zeros(problem.tensor_count, dtype=np.bool_)
    kept[tensors] = True
    number = tensor_number
    pairs = [
        [(number[r], number[u]) for r, u in problem.pairs_of(v) if r in number and u in number]
        for v in operators.tolist()
    ]
    operand_start, operand = rows(problem.operand_start, problem.operand, operators, tensor_number)
    result_start, result = rows(problem.result_start, problem.result, operators, tensor_number)
    consumer_start, consumer = rows(problem.consumer_start, problem.consumer, tensors, operator_number)
    untouched = np.flatnonzero((producer < 0) & (np.diff(consumer_start) == 0))
    if len(untouched):
        raise ValueError(f"no operator touches {problem.tensor_names[int(tensors[untouched[0]])]!r}")
    predecessors = _predecessors(problem, operator_number)
    successors: list[list[int]] = [[] for _ in predecessors]
    for v, row in enumerate(predecessors):
        for u in row:
            successors[u].append(v)
    predecessor_start, predecessor = csr(predecessors)
    successor_start, successor = csr(successors)
    return problem.derived(
        operator_names=tuple(problem.operator_names[v] for v in operators.tolist()),
        tensor_names=tuple(problem.tensor_names[t] for t in tensors.tolist()),
        size_bytes=problem.size_bytes[tensors],
        space_bytes=problem.space_bytes[tensors],
        starts_off_chip=producer < 0,
        must_store=problem.must_store[tensors] & (producer >= 0),
        producer=producer,
        operand_start=operand_start,
        operand=operand,
        operand_streams=streams(problem.operand_start, problem.operand, problem.operand_streams),
        result_start=result_start,
        result=result,
        result_streams=streams(problem.result_start, problem.result, problem.result_streams),
        consumer_start=consumer_start,
        consumer=consumer,
        predecessor_start=predecessor_start,
        predecessor=predecessor,
        successor_start=successor_start,
        successor=successor,
        pair_start=offsets([len(row) for row in pairs]),
        pair_result=np.array([r for row in pairs for r, _ in row], dtype=np.int32),
        pair_operand=np.array([u for row in pairs for _, u in row], dtype=np.int32),
        constant_noncompulsory_bytes=0,
        places=None if problem.places is None else problem.places.of(tensor_number),
        kept=frozenset(tensor_number[t] for t in problem.kept if t in tensor_number),
        workspace={
            operator_number[v]: tensor_number[t]
            for v, t in problem.workspace.items()
            if v in operator_number and t in tensor_number
        },
        runs={
            operator_number[v]: tuple(
                tuple(tensor_number[t] for t in row) for row in rows if all(t in tensor_number for t in row)
            )
            for v, rows in problem.runs.items()
            if v in operator_number
        },
        homes={tensor_number[t]: place for t, place in problem.homes.items() if t in tensor_number},
    )


def _predecessors(problem: Problem, number: dict[int, int]) -> list[list[int]]:
    """By kept operator: the kept ones that precede it with none of them on the way between."""
    if not number:
        return []
    found: list[list[int]] = []
    first, last = min(number), max(number)
    nearest: list[int] = []  # by operator from the first on, as a bit set over the kept ones
    for v in range(first, last + 1):
        mask = 0
        for u in problem.predecessors_of(v).tolist():
            if u in number:
                mask |= 1 << number[u]
            elif u >= first:
                mask |= nearest[u - first]
        nearest.append(mask)
        if v in number:
            found.append(list(bits(mask)))
    return found
