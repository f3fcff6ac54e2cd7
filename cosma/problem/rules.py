"""The rules of the machine, in one place: what may stream, what a step needs, and what a transfer costs.

Engines call these functions or make tables from them. The validator and the brute force of the tests do not: they
judge by rules of their own.

Costs are non-compulsory bytes. A tensor *arrives* when it is loaded or streamed in. It *departs* when it leaves the
scratchpad, or is streamed out at birth, before its last use. A departure owes the arrival that must follow, and a store
unless an off-chip copy exists or is compulsory anyway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Container

    from cosma.arrays import Bools, Ints
    from cosma.problem.problem import Problem
    #: One tensor, several, or all.
    Tensors = int | slice | Ints

ALL = slice(None)


# -- what may stream --------------------------------------------------------------------------------------------------


def may_stream(problem: Problem, operator: int, tensor: int) -> bool:
    """Whether an operator may read an operand from off-chip, or write a result there, past the scratchpad."""
    return problem.streamable and (operator, tensor) not in problem.held


def may_stream_anything(problem: Problem) -> bool:
    """Whether some operator may stream something."""
    return problem.streamable


# -- what a transfer costs --------------------------------------------------------------------------------------------


def arrival_bytes(problem: Problem, tensors: Tensors = ALL) -> Ints:
    """Bytes of bringing each tensor in once, by load or by streaming."""
    return np.asarray(problem.size_bytes[tensors])


def first_arrival_is_compulsory(problem: Problem) -> Bools:
    """Tensors whose first arrival is part of the compulsory traffic: graph inputs and weights."""
    return problem.starts_off_chip


def store_bytes(problem: Problem, tensors: Tensors = ALL) -> Ints:
    """Bytes that the first store of each tensor adds to the compulsory traffic.

    None where an off-chip copy exists from the start, or is compulsory.
    """
    free = problem.starts_off_chip[tensors] | problem.must_store[tensors]
    return np.where(free, 0, problem.size_bytes[tensors]).astype(np.int64)


def departure_bytes(arrival: int, store: int, *, copied: bool, read_again: bool = True) -> int:
    """Bytes that a departure owes, of a tensor with these :func:`arrival_bytes` and :func:`store_bytes`.

    ``copied`` says whether an off-chip copy exists already. A result that is not ``read_again`` owes its store alone.
    """
    return (0 if copied else store) + (arrival if read_again else 0)


# -- what a step needs ------------------------------------------------------------------------------------------------


def streams_out_for_free(problem: Problem, operator: int, tensor: int, *, read_later: bool) -> bool:
    """Whether a result may go off-chip at birth without any cost: a graph output that nobody reads."""
    return not read_later and bool(problem.must_store[tensor]) and may_stream(problem, operator, tensor)


def best_takeovers(problem: Problem, operator: int, held: Container[int] | None = None) -> dict[int, int]:
    """Results that take over an operand each, so as to save most: result to operand.

    Only tensors in ``held`` lie in the scratchpad while the operator runs; without it, all. A takeover counts even
    where the operand is needed later: it may be stored first and loaded again. What is saved is the space of the
    results, so the largest come first, and one that finds its operands taken may make room among them (a matching of
    most weight by augmenting paths).
    """
    offers: dict[int, list[int]] = {}
    for result, operand in problem.pairs_of(operator):
        if held is None or (result in held and operand in held):
            offers.setdefault(result, []).append(operand)
    taken: dict[int, int] = {}

    def place(result: int, seen: set[int]) -> bool:
        for operand in offers[result]:
            if operand not in seen:
                seen.add(operand)
                if operand not in taken or place(taken[operand], seen):
                    taken[operand] = result
                    return True
        return False

    for result in sorted(offers, key=lambda r: (-int(problem.space_bytes[r]), r)):
        place(result, set())
    return {result: operand for operand, result in taken.items()}


def takeover_bytes(problem: Problem, operator: int, held: Container[int] | None = None) -> int:
    """Most bytes that results can save by taking over operands; see :func:`best_takeovers`."""
    return sum(int(problem.space_bytes[result]) for result in best_takeovers(problem, operator, held))


def working_set_bytes(problem: Problem, operator: int) -> int:
    """Space of all that an operator touches, less the best takeovers: what it needs where nothing may stream."""
    touched = [*problem.operands_of(operator).tolist(), *problem.results_of(operator).tolist()]
    return int(problem.space_bytes[touched].sum()) - takeover_bytes(problem, operator)


def need_bytes(problem: Problem, operator: int) -> int:
    """Least space with which an operator can run.

    It is all that it touches and may not stream, less the best takeovers among that.
    """
    touched = [*problem.operands_of(operator).tolist(), *problem.results_of(operator).tolist()]
    held = {t for t in touched if not may_stream(problem, operator, t)}
    return int(problem.space_bytes[sorted(held)].sum()) - takeover_bytes(problem, operator, held)
