"""Better orders in one pass: valid, charged right, never worse than they began, the same again."""

from __future__ import annotations

import pytest

from cosma.lowering.along import RULES, plan_along
from cosma.problem import Problem, noncompulsory_bytes
from cosma.search.one_pass import better_in_one_pass
from cosma.validator import replay_instructions
from tests.random_graphs import Shape, random_order, random_problem
from tests.search.test_searcher import is_topological

LARGE = Shape(operators=40, inputs=4, weights=6, most_units=12)
EFFORT = 0.02


def paying() -> list[tuple[Problem, tuple[int, ...], int]]:
    """Random instances and orders along which a plan in one pass pays, with the bytes."""
    found = []
    for seed in range(150):
        problem = random_problem(seed, LARGE)
        order = tuple(random_order(problem, seed))
        plan = plan_along(problem, order, *RULES)
        if plan is not None and (paid := noncompulsory_bytes(problem, plan.decisions)):
            found.append((problem, order, paid))
    return found


def test_plans_are_valid_and_move_less() -> None:
    less = first = last = 0
    cases = paying()
    for seed, (problem, order, paid) in enumerate(cases):
        made = better_in_one_pass(problem, order, EFFORT, seed)
        assert made is not None
        cost_bytes, plan = made
        report = replay_instructions(problem.graph, problem.accelerator, plan.instructions)
        assert report.valid, report.violations
        assert report.traffic.noncompulsory == cost_bytes <= paid
        assert is_topological(problem, plan.decisions.order)
        less += cost_bytes < paid
        first, last = first + paid, last + cost_bytes
    assert less > 0.8 * len(cases) > 40
    assert last < 0.6 * first, "well below what the order given moves"


def test_the_least_that_is_reported_is_what_the_plan_moves() -> None:
    for problem, order, paid in paying()[:30]:
        heard: list[tuple[int, float]] = []
        made = better_in_one_pass(problem, order, EFFORT, report=lambda *one, to=heard: to.append(one))
        assert made is not None
        assert [cost for cost, _ in heard] == sorted((cost for cost, _ in heard), reverse=True)
        assert ([cost + problem.constant_noncompulsory_bytes for cost, _ in heard] or [paid])[-1] == made[0]
        assert all(0 <= share < 1 for _, share in heard)


def test_same_seed_same_plan() -> None:
    problem, order, _ = paying()[0]
    first, again = (better_in_one_pass(problem, order, EFFORT, seed=3) for _ in range(2))
    assert first == again


def test_a_stop_keeps_the_plan_to_begin_with() -> None:
    problem, order, paid = paying()[0]
    stopped = better_in_one_pass(problem, order, 1.0, stop=lambda: True)
    assert stopped is not None
    assert stopped[0] == paid
    assert stopped[1].decisions.order == order


def test_what_fits_in_no_pass_gives_no_plan() -> None:
    problem, order, _ = paying()[0]
    small = problem.accelerator.replace(scratchpad=problem.accelerator.alignment)
    from cosma.problem import build_problem

    assert better_in_one_pass(build_problem(problem.graph, small), order, EFFORT) is None


@pytest.mark.parametrize("seed", range(3))
def test_seeds_differ_and_none_is_worse(seed: int) -> None:
    for problem, order, paid in paying()[:10]:
        made = better_in_one_pass(problem, order, EFFORT, seed)
        assert made is not None
        assert made[0] <= paid
