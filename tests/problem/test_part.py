from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cosma.bounds import BoundEngine
from cosma.problem import Problem, without_oversized
from tests.brute_force import TooLargeError, brute_force
from tests.random_graphs import Shape, random_problem

if TYPE_CHECKING:
    from collections.abc import Iterator


def tight_problems() -> Iterator[tuple[Problem, int]]:
    """Problems in which some tensors fit and others do not, each with its optimum."""
    for seed in range(400):
        problem = random_problem(seed, Shape(operators=6))
        if not problem.streamable:
            continue
        problem = replace(problem, capacity_bytes=int(np.median(problem.space_bytes)))
        oversized = problem.space_bytes > problem.capacity_bytes
        if not oversized.any() or oversized.all():
            continue
        try:
            optimum = brute_force(problem, most_states=20_000).noncompulsory_bytes
        except TooLargeError:
            continue
        assert optimum is not None
        yield problem, optimum


def test_what_oversized_tensors_cost_is_the_same_in_every_plan() -> None:
    compared = forced = 0
    for problem, optimum in tight_problems():
        rest = without_oversized(problem)
        assert brute_force(rest, most_states=20_000).noncompulsory_bytes == optimum
        assert (rest.space_bytes <= rest.capacity_bytes).all()
        assert rest.operator_names == problem.operator_names
        compared += 1
        forced += rest.constant_noncompulsory_bytes > problem.constant_noncompulsory_bytes
    assert compared > 60
    assert forced > compared / 2


def test_bounds_count_oversized_tensors_and_no_more() -> None:
    met = compared = 0
    for problem, optimum in tight_problems():
        engine = BoundEngine(problem)
        assert engine.bound.value_bytes == without_oversized(problem).constant_noncompulsory_bytes
        bound = engine.run(1.0).value_bytes
        assert bound <= optimum
        compared += 1
        met += bound == optimum
    assert compared > 60
    assert met > 0.8 * compared


def test_nothing_is_left_out_where_everything_fits() -> None:
    problem = random_problem(3)
    large = replace(problem, capacity_bytes=int(problem.space_bytes.sum()))
    assert without_oversized(large) is large
