from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cosma.accelerator import Accelerator, Operands
from cosma.errors import InfeasibleError, InputError
from cosma.graph import Graph, Operator, Tensor, TensorKind
from cosma.heuristics import EXISTING, ORDERS, Method, parse_method, peak_live_bytes, run_method
from cosma.heuristics.addresses import ADDRESS_POLICIES, FitArena, make_arena
from cosma.heuristics.replacement import REPLACEMENTS
from cosma.problem import (
    Problem,
    build_problem,
    check_feasible,
    decisions_from_gaps,
    noncompulsory_bytes,
    occupancy_bytes,
)
from cosma.validator import replay_instructions
from tests.random_graphs import problems


@pytest.mark.parametrize("name", ORDERS)
@settings(max_examples=80, deadline=None, derandomize=True)
@given(problem=problems())
def test_orders_are_topological(name: str, problem: Problem) -> None:
    order = ORDERS[name](problem)
    assert sorted(order) == list(range(problem.operator_count))
    position = {v: i for i, v in enumerate(order)}
    for v in order:
        assert all(position[int(u)] < position[v] for u in problem.predecessors_of(v))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(problems())
def test_peak_minimising_is_never_worse_and_peaks_are_occupancy(problem: Problem) -> None:
    peaks = {name: peak_live_bytes(problem, order(problem)) for name, order in ORDERS.items()}
    assert peaks["peak-minimising"] == min(peaks.values())
    if not problem.streamable:  # with everything kept, live bytes are occupancy
        order = ORDERS["given"](problem)
        everything = decisions_from_gaps(problem, order, lambda gap: True)
        assert peaks["given"] == int(occupancy_bytes(problem, everything).max(initial=0))


@pytest.mark.parametrize("addresses", ADDRESS_POLICIES)
@pytest.mark.parametrize("replacement", REPLACEMENTS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(problem=problems(), order=st.sampled_from(list(ORDERS)))
def test_every_composition_is_valid_in_every_mode(
    replacement: str, addresses: str, problem: Problem, order: str
) -> None:
    try:
        check_feasible(problem)
    except InfeasibleError:
        assume(False)
    realised = run_method(problem, Method(order, replacement, addresses))
    report = replay_instructions(problem.graph, problem.accelerator, realised.instructions)
    assert report.valid, report.violations[0]
    assert report.traffic.noncompulsory == noncompulsory_bytes(problem, realised.decisions)


def test_belady_keeps_what_is_needed_soonest() -> None:
    """Two inputs read in turn, room for one: LRU always drops the one that is needed next."""
    tensors = [Tensor(name, 64, TensorKind.INPUT) for name in "ab"]
    tensors += [Tensor(f"y{i}", 0, TensorKind.OUTPUT) for i in range(6)]
    graph = Graph(tensors, [Operator(f"o{i}", "Op", (name,), (f"y{i}",)) for i, name in enumerate("ababab")])
    problem = build_problem(graph, Accelerator(scratchpad=64))
    costs = {
        name: noncompulsory_bytes(problem, run_method(problem, Method("given", name, "first-fit")).decisions)
        for name in REPLACEMENTS
    }
    assert costs == {"lru": 3 * 64, "belady": 2 * 64, "cost-aware-belady": 2 * 64}


def test_a_fragmented_step_starts_over() -> None:
    """First-fit leaves 64-byte holes on both sides of a pinned operand, so its reader must be laid out anew."""
    graph = Graph(
        [
            Tensor("x", 0, TensorKind.INPUT),
            *(Tensor(n, 64) for n in "abc"),
            Tensor("z", 0),
            Tensor("d", 128),
            Tensor("y", 0, TensorKind.OUTPUT),
        ],
        [
            Operator("o1", "Op", ("x",), ("a", "b", "c")),
            Operator("o2", "Op", ("a", "c"), ("z",)),
            Operator("o3", "Op", ("b", "z"), ("d",)),
            Operator("o4", "Op", ("d",), ("y",)),
        ],
    )
    problem = build_problem(graph, Accelerator(scratchpad=192, operands=Operands.RESIDENT))
    for name, method in EXISTING.items():
        realised = run_method(problem, method)
        report = replay_instructions(graph, problem.accelerator, realised.instructions)
        assert report.valid, (name, report.violations)
        assert report.traffic.noncompulsory == 128  # b is stored and loaded again


def test_arenas_merge_holes_and_choose_by_policy() -> None:
    first, best = FitArena(100, best=False), FitArena(100, best=True)
    for arena, expected in ((first, 0), (best, 50)):
        assert [arena.allocate(30), arena.allocate(20), arena.allocate(10), arena.allocate(40)] == [0, 30, 50, 60]
        arena.free(0, 30)
        arena.free(50, 10)
        assert arena.allocate(10) == expected
        assert arena.allocate(31) is None
        assert arena.allocate(0) == 0
        arena.free(expected, 10)
        arena.free(30, 20)
        assert arena.allocate(60) == 0
    with pytest.raises(InputError, match="worst-fit"):
        make_arena("worst-fit", 10)


def test_methods_by_name() -> None:
    assert parse_method("given+lru+first-fit") == EXISTING["e1"]
    assert parse_method("auto") is None
    with pytest.raises(InputError, match="order 'random' is unknown"):
        parse_method("random+lru+first-fit")
