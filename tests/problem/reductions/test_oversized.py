from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cosma.bounds import BoundEngine
from cosma.problem import Instance, build_problem, noncompulsory_bytes
from cosma.problem.reductions import without_oversized
from cosma.replacement import optimal_replacement
from tests.brute_force import TooLargeError, brute_force
from tests.problem.reductions.optima import assert_is_a_plan, optimum_of, some_decisions
from tests.random_graphs import Shape, random_instance, random_problem


def tight_problems() -> Iterator[tuple[Instance, int]]:
    """Problems in which some tensors fit and others do not, each with its optimum."""
    for seed in range(400):
        graph, accelerator = random_instance(seed, Shape(operators=6))
        if accelerator.operands != "streamable":
            continue
        space = build_problem(graph, accelerator).space_bytes
        capacity = max(int(np.median(space)), 1)
        problem = build_problem(graph, accelerator.replace(scratchpad=capacity, reserved=0))
        oversized = problem.space_bytes > problem.capacity_bytes
        if not oversized.any() or oversized.all():
            continue
        try:
            optimum = optimum_of(problem)
        except TooLargeError:
            continue
        assert optimum is not None
        yield problem, optimum


def test_what_oversized_tensors_cost_is_the_same_in_every_plan() -> None:
    compared = forced = 0
    for problem, optimum in tight_problems():
        reduced = without_oversized(problem)
        rest = reduced.problem
        least = optimum_of(rest)
        assert least is not None
        assert reduced.lift_bound(least) == optimum
        assert (rest.space_bytes <= rest.capacity_bytes).all()
        assert rest.operator_names == problem.operator_names
        assert [problem.tensor_names[t] for t in reduced.tensors] == list(rest.tensor_names)
        compared += 1
        forced += rest.constant_noncompulsory_bytes > problem.constant_noncompulsory_bytes
    assert compared > 60
    assert forced > compared / 2


def test_schedules_of_the_rest_are_schedules_of_the_whole_at_the_same_traffic() -> None:
    compared = 0
    for seed, (problem, optimum) in enumerate(tight_problems()):
        reduced = without_oversized(problem)
        best, _, proven = optimal_replacement(reduced.problem, brute_force(reduced.problem, most_states=20_000).order)
        assert proven
        assert noncompulsory_bytes(problem, reduced.lift(best)) == optimum
        for decisions in (best, some_decisions(reduced.problem, seed)):
            lifted = reduced.lift(decisions)
            assert noncompulsory_bytes(problem, lifted) == noncompulsory_bytes(reduced.problem, decisions)
            assert_is_a_plan(problem, lifted)
        compared += 1
    assert compared > 60


def test_bounds_count_oversized_tensors_and_no_more() -> None:
    met = compared = 0
    for problem, optimum in tight_problems():
        engine = BoundEngine(problem)
        assert engine.bound.value_bytes == without_oversized(problem).problem.constant_noncompulsory_bytes
        bound = engine.run(1.0).value_bytes
        assert bound <= optimum
        compared += 1
        met += bound == optimum
    assert compared > 60
    assert met > 0.8 * compared


def test_nothing_is_left_out_where_everything_fits() -> None:
    problem = random_problem(3)
    large = problem.derived(capacity_bytes=int(problem.space_bytes.sum()))
    assert without_oversized(large).problem is large
