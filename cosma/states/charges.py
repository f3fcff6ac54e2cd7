"""What any completion still has to pay, by operator: the part of a bound that a search over states can use.

While operator ``v`` runs, tensors made by its ancestors for its descendants are alive, whatever the order. If
they and what ``v`` touches exceed the capacity, some of them are given up. Each row takes the cheapest (a
fractional knapsack) and keeps its tensors to itself, so the costs of rows add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.problem.liveness import alive_untouched
from cosma.problem.precedence import bits, reach_of
from cosma.problem.rules import (
    arrival_bytes,
    departure_bytes,
    first_arrival_is_compulsory,
    may_stream,
    store_bytes,
    streams_out_for_free,
    takeover_bytes,
)

if TYPE_CHECKING:
    from cosma.problem import Problem
    from cosma.problem.precedence import Reach


@dataclass(frozen=True, slots=True)
class Charge:
    """At least ``cost_bytes`` are paid by ``tensors`` (a bit set) until ``operator`` has run."""

    operator: int
    tensors: int
    cost_bytes: int


def charges_of(problem: Problem) -> list[Charge]:
    """Collect rows over disjoint tensors, dear ones first. Deterministic."""
    count = problem.operator_count
    readers = [sum(1 << v for v in problem.consumers_of(t).tolist()) for t in range(problem.tensor_count)]
    owed = [
        departure_bytes(arrival, store, copied=False, read_again=bool(read_by))
        for arrival, store, read_by in zip(
            arrival_bytes(problem).tolist(), store_bytes(problem).tolist(), readers, strict=True
        )
    ]
    # Until their first read, the absence of these costs nothing.
    free_to_leave = set(np.flatnonzero(first_arrival_is_compulsory(problem)).tolist())
    across = _alive_across(problem, reach_of(problem))
    wanted: list[tuple[int, int, int, list[int]]] = []
    for v in range(count):
        need, candidates = _deficit(problem, across[v], v, readers)
        if need > 0:
            cost = _cheapest(problem, need, candidates, owed, free_to_leave)
            if cost > 0:
                wanted.append((-cost, v, need, candidates))
    taken: set[int] = set()
    found: list[Charge] = []
    for _, v, need, candidates in sorted(wanted):
        # Tensors that another row charges already may be gone for nothing, as far as this row knows.
        left = need - sum(int(problem.space_bytes[t]) for t in candidates if t in taken)
        own = [t for t in candidates if t not in taken]
        cost = _cheapest(problem, left, own, owed, free_to_leave) if left > 0 else 0
        if cost > 0:
            taken.update(own)
            found.append(Charge(v, sum(1 << t for t in own), cost))
    return found


def _alive_across(problem: Problem, reach: Reach) -> list[list[int]]:
    """Tensors that every order makes before and reads after each operator, by operator, in ascending order."""
    found: list[list[int]] = [[] for _ in range(problem.operator_count)]
    for t in range(problem.tensor_count):
        producer = int(problem.producer[t])
        if producer < 0 or not problem.size_bytes[t]:
            continue
        sure, _ = alive_untouched(producer, problem.consumers_of(t).tolist(), reach)
        for v in bits(sure):
            found[v].append(t)
    return found


def _deficit(problem: Problem, across: list[int], v: int, readers: list[int]) -> tuple[int, list[int]]:
    """Bytes that must be elsewhere while ``v`` runs, and the tensors whose absence could provide them."""
    touched = {*problem.operands_of(v).tolist(), *problem.results_of(v).tolist()}
    need = sum(int(problem.space_bytes[t]) for t in across) - problem.capacity_bytes
    held = {
        t
        for t in touched
        if problem.producer[t] != v or not streams_out_for_free(problem, v, t, read_later=bool(readers[t]))
    }
    may_leave = {t for t in held if problem.size_bytes[t] and may_stream(problem, v, t)}
    need += sum(int(problem.space_bytes[t]) for t in held) - takeover_bytes(problem, v)
    return need, sorted({*across, *may_leave})


def _cheapest(problem: Problem, need: int, candidates: list[int], owed: list[int], free_to_leave: set[int]) -> int:
    """Least cost of ``need`` bytes of absence, rounded down; tensors may be taken in part."""
    priced = []
    for t in candidates:
        space = int(problem.space_bytes[t])
        if t in free_to_leave:
            need -= space
        else:
            priced.append((owed[t] / space, space, owed[t]))
    total = 0.0
    for _, space, cost in sorted(priced):
        if need <= 0:
            break
        total += cost * min(1.0, need / space)
        need -= space
    return int(total)
