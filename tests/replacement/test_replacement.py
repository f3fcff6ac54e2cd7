from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosma.problem import Problem, noncompulsory_bytes, occupancy_bytes
from cosma.replacement import build_replacement
from cosma.solvers import Status, load_profile, solve
from tests.brute_force import brute_force
from tests.random_graphs import problems, random_order, random_problem


def check(problem: Problem, order: list[int], back_end: str) -> None:
    """The program, its solution read back, and the machine search agree."""
    truth = brute_force(problem, order=order).noncompulsory_bytes
    replacement = build_replacement(problem, order)
    result = solve(replacement.model, load_profile(back_end))
    assert result.status is (Status.INFEASIBLE if truth is None else Status.OPTIMAL)
    assert result.objective == truth
    if truth is None:
        return
    decisions = replacement.decisions(result.values)
    assert noncompulsory_bytes(problem, decisions) == truth
    assert occupancy_bytes(problem, decisions).max() <= problem.capacity_bytes
    again = replacement.values_of(decisions)
    assert replacement.model.violations(again) == []
    assert replacement.model.value(again) == truth


@pytest.mark.parametrize("block", range(6))
def test_agrees_with_the_machine_search(block: int) -> None:
    for seed in range(40 * block, 40 * block + 40):
        problem = random_problem(seed)
        check(problem, random_order(problem, seed), "cp-sat")


@given(problem=problems(), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_agrees_with_the_machine_search_shrinking(problem: Problem, seed: int) -> None:
    check(problem, random_order(problem, seed), "cp-sat")


@pytest.mark.parametrize("back_end", ["highs", "scip", "cbc"])
def test_other_back_ends_agree(back_end: str) -> None:
    for seed in range(0 if back_end != "cbc" else 10, 30):
        problem = random_problem(seed)
        check(problem, random_order(problem, seed), back_end)


def test_steps_that_cannot_overflow_get_no_rows() -> None:
    for seed in range(50):
        problem = random_problem(seed)
        if int(problem.space_bytes.sum()) <= problem.capacity_bytes:
            model = build_replacement(problem, range(problem.operator_count)).model
            assert model.row_count == model.variable_count == 0
            return
    pytest.fail("no ample instance among the seeds")
