from __future__ import annotations

from cosma.problem import noncompulsory_bytes
from cosma.replacement import optimal_replacement
from cosma.search.neighbourhood import Neighbourhood
from tests.evaluation.test_kernels import feasible
from tests.random_graphs import Shape, random_order, random_problem
from tests.search.test_searcher import is_topological

MEDIUM = Shape(operators=16, most_units=12)


def test_a_better_subproblem_is_a_better_plan() -> None:
    improved = 0
    for seed in range(12):
        problem = random_problem(seed, MEDIUM)
        if not feasible(problem):
            continue
        neighbourhood = Neighbourhood(problem, seed=seed, subproblem_operators=14)
        order = tuple(random_order(problem, seed))
        before = neighbourhood.contraction.expand(neighbourhood.contraction.contract(order).tolist())
        better = neighbourhood.improve(order, 0.3)
        if better is None:
            continue
        assert is_topological(problem, better)
        old, _, _ = optimal_replacement(problem, before)
        new, _, _ = optimal_replacement(problem, better)
        improved += noncompulsory_bytes(problem, new) < noncompulsory_bytes(problem, old)
    assert improved > 1


def test_same_seed_same_subproblem() -> None:
    problem = random_problem(3, MEDIUM)
    order = random_order(problem, 0)
    first, second = (Neighbourhood(problem, seed=1, subproblem_operators=14) for _ in range(2))
    assert first.improve(order, 0.3) == second.improve(order, 0.3)
