"""Chains of operators that lose nothing by running back to back: exact, for orders.

``u -> v`` contracts where ``v`` reads nothing but the one result of ``u``, nobody else reads it, both results
have the same size, and ``v`` needs no more space right after ``u`` than ``u`` itself just needed. Take any plan
that runs ``v`` later and move ``v`` to right after ``u``: everything kept across ``u`` fits across ``v``, and
from there on the result of ``v`` can be wherever the result of ``u`` was, at the same cost. The steps in between
lose nothing, and the step where ``v`` ran is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.problem.rules import may_stream_anything

if TYPE_CHECKING:
    from cosma.problem.problem import Problem


def contract_chains(problem: Problem) -> tuple[tuple[int, ...], ...]:
    """Group operators into maximal chains that may run back to back in some optimal plan.

    Returns
    -------
    tuple of tuples
        Every operator once; groups sorted by their first operator, members in execution order.
    """
    if problem.held:
        # The proof above lets any result and operand stream, or none.
        return tuple((v,) for v in range(problem.operator_count))
    follower: dict[int, int] = {}
    followed: set[int] = set()
    for v in range(problem.operator_count):
        u = _contractible_into(problem, v)
        if u is not None:
            follower[u] = v
            followed.add(v)
    groups = []
    for head in range(problem.operator_count):
        if head in followed:
            continue
        row = [head]
        while row[-1] in follower:
            row.append(follower[row[-1]])
        groups.append(tuple(row))
    return tuple(groups)


def _contractible_into(problem: Problem, v: int) -> int | None:
    """The operator that ``v`` may directly follow in some optimal plan, where that is certain."""
    operands, results = problem.operands_of(v).tolist(), problem.results_of(v).tolist()
    if len(operands) != 1 or len(results) != 1:
        return None
    between, result = operands[0], results[0]
    u = int(problem.producer[between])
    if u < 0 or problem.must_store[between] or len(problem.consumers_of(between)) != 1:
        return None
    if len(problem.predecessors_of(v)) > 1 or len(problem.successors_of(u)) > 1:
        return None  # further operators are to run before or after one of them
    if len(problem.results_of(u)) != 1 or problem.size_bytes[between] != problem.size_bytes[result]:
        return None
    if problem.size_bytes[result] == 0 or not len(problem.consumers_of(result)) + int(problem.must_store[result]):
        return None
    if problem.pairs_of(v):
        return u
    if may_stream_anything(problem) or problem.pairs_of(u):
        return None
    freed = sum(int(problem.space_bytes[t]) for t in problem.operands_of(u) if _dies_with(problem, int(t)))
    return u if freed >= int(problem.space_bytes[result]) else None


def _dies_with(problem: Problem, tensor: int) -> bool:
    return len(problem.consumers_of(tensor)) == 1
