"""The bounds of pieces add up to no more than the true optimum of the whole."""

from __future__ import annotations

import pytest

from cosma.bounds.pieces import PieceBounds
from cosma.errors import InfeasibleError
from cosma.problem import check_feasible
from tests.brute_force import TooLargeError, brute_force
from tests.random_graphs import Shape, random_order, random_problem


@pytest.mark.parametrize("reach_out", [True, False])
@pytest.mark.parametrize("most_operators", [2, 3, 4])
def test_never_above_the_optimum(most_operators: int, reach_out: bool) -> None:
    compared = positive = 0
    for seed in range(150):
        problem = random_problem(seed, Shape(operators=6))
        try:
            check_feasible(problem)
            optimum = brute_force(problem, most_states=4000).noncompulsory_bytes
        except (InfeasibleError, TooLargeError):
            continue
        assert optimum is not None
        pieces = PieceBounds(
            problem, random_order(problem, seed), seed=seed, most_operators=most_operators, reach_out=reach_out
        )
        last = pieces.value_bytes
        for _ in range(3):
            pieces.run(0.5)
            assert last <= pieces.value_bytes <= optimum, f"seed {seed}"
            last = pieces.value_bytes
        compared += 1
        positive += last > problem.constant_noncompulsory_bytes
    assert compared > 80
    assert positive > 8
