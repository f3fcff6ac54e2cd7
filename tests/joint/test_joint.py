from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from cosma.joint import build_joint
from cosma.joint.program import Addresses
from cosma.problem import Problem, noncompulsory_bytes, occupancy_bytes
from cosma.problem.precedence import windows_of
from cosma.solvers import load_profile, solve
from tests.brute_force import TooLargeError, brute_force
from tests.random_graphs import TINY, random_problem


def check(problem: Problem, addresses: Addresses, back_end: str) -> bool:
    try:
        truth = brute_force(problem, addresses=addresses != "none", most_states=2000).noncompulsory_bytes
    except TooLargeError:
        return False
    joint = build_joint(problem, addresses=addresses)
    result = solve(joint.model, load_profile(back_end))
    assert result.objective == truth, result.message
    if truth is not None:
        decisions = joint.decisions(result.values)
        assert noncompulsory_bytes(problem, decisions) == truth
        assert occupancy_bytes(problem, decisions).max() <= problem.capacity_bytes
        if addresses == "none":
            again = joint.values_of(decisions)
            assert joint.model.violations(again) == []
            assert joint.model.value(again) == truth
    return True


@pytest.mark.parametrize("block", range(4))
def test_order_and_residency_agree_with_the_machine_search(block: int) -> None:
    assert all(check(random_problem(seed), "none", "cp-sat") for seed in range(25 * block, 25 * block + 25))


@pytest.mark.parametrize("back_end", ["highs", "cbc"])
def test_other_back_ends_agree(back_end: str) -> None:
    assert all(check(random_problem(seed), "none", back_end) for seed in range(12))


@pytest.mark.parametrize(
    ("addresses", "back_end"), [("intervals", "cp-sat"), ("linear", "cp-sat"), ("linear", "highs")]
)
def test_addresses_agree_with_the_machine_search(addresses: Addresses, back_end: str) -> None:
    checked = sum(check(random_problem(seed, TINY), addresses, back_end) for seed in range(25))
    assert checked >= 20


def test_windows_are_attained_by_some_order() -> None:
    for seed in range(60):
        problem = random_problem(seed, TINY)
        count = problem.operator_count
        orders = [
            order
            for order in permutations(range(count))
            if all(order.index(u) < order.index(v) for v in range(count) for u in problem.predecessors_of(v).tolist())
        ]
        windows = windows_of(problem)
        for v in range(count):
            positions = [order.index(v) for order in orders]
            assert (min(positions), max(positions)) == (windows.earliest[v], windows.latest[v])


def test_a_violated_family_is_named() -> None:
    problem = random_problem(3)
    joint = build_joint(problem)
    assert "each operator once" in joint.model.violations(np.zeros(joint.model.variable_count, dtype=np.int64))
