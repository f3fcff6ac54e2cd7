"""Plans made in one pass: valid, charged right, never below the optimum."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cosma.lowering.along import RULES, plan_along
from cosma.problem import noncompulsory_bytes, smallest_feasible_capacity
from cosma.validator import replay_instructions
from tests.random_graphs import random_order, random_problem


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 100_000), rule=st.sampled_from(RULES))
def test_plans_are_valid_and_cost_what_replay_says(seed: int, rule: int) -> None:
    problem = random_problem(seed)
    if smallest_feasible_capacity(problem) > problem.capacity_bytes:
        return
    found = plan_along(problem, random_order(problem, seed), rule)
    if found is None:
        return
    report = replay_instructions(problem.graph, problem.accelerator, found.instructions)
    assert report.valid, report.violations
    assert report.traffic.noncompulsory == noncompulsory_bytes(problem, found.decisions)
