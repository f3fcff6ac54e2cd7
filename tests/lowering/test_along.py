"""Plans made in one pass: valid, charged right, never below the optimum."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cosma.lowering.along import RULES, Steps, plan_along, run_steps, steps_of
from cosma.problem import noncompulsory_bytes, smallest_feasible_capacity
from cosma.validator import replay_instructions
from tests.lowering.plain_along import run_plainly
from tests.random_graphs import Shape, random_order, random_problem

LARGE = Shape(operators=40, inputs=4, weights=6, most_units=12)


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


def random_steps(seed: int) -> tuple[Steps, int]:
    """Steps of a random instance in a random order, and a capacity between what they need and what they fill."""
    problem = random_problem(seed, LARGE if seed % 2 else Shape())
    steps = steps_of(problem, random_order(problem, seed))
    if seed % 5 == 0:  # some take no room, but none that is overwritten by what takes room
        alone = np.setdiff1d(np.arange(problem.tensor_count), [steps.pair_result, steps.pair_operand])
        steps.space[alone[::3]] = 0
    least, rng = smallest_feasible_capacity(problem), random.Random(seed)
    if seed % 3 == 0:  # some operators add to what they read, in its place
        operands = np.diff(steps.operand_start)
        steps.added[:] = [rng.randrange(n + 1) for n in operands]
        steps.unfinished[:] = [rng.randrange(2) for _ in operands]
    return steps, round(least * rng.choice((0.8, 1.0, 1.0, 1.1, 1.3, 2.0)))


def test_the_kernel_does_what_plain_python_does() -> None:
    """Costs, addresses, takeovers and touches alike, whole or up to a limit."""
    whole = unfit = cleared = limited = taken = 0
    for seed in range(600):
        steps, capacity = random_steps(seed)
        count = len(steps.operand_start) - 1
        mixed = np.random.default_rng(seed).choice(RULES, count)
        for rule in (*(np.full(count, rule) for rule in RULES), mixed):
            favour = 4.0 ** np.random.default_rng(seed).integers(-2, 3, len(steps.size)) if rule is mixed else None
            found = run_steps(steps, capacity, rule, favour=favour)
            plain = run_plainly(steps, capacity, rule.tolist(), None, None if favour is None else favour.tolist())
            cleared += plain.cleared
            assert (found is not None) == plain.fits
            if found is None or found[1] is None:
                unfit += 1
                continue
            whole += 1
            taken += int((found[1][:, 3] >= 0).sum())
            assert found[0].tolist() == plain.cost
            assert found[1].tolist() == plain.arrivals
            limit = np.full(len(plain.cost), sum(plain.cost) // 2)
            cut = run_steps(steps, capacity, rule, limit, favour)
            given = None if favour is None else favour.tolist()
            plain = run_plainly(steps, capacity, rule.tolist(), limit.tolist(), given)
            assert cut is not None
            assert cut[0].tolist() == plain.cost
            assert (cut[1] is None) == (plain.arrivals is None)
            limited += cut[1] is None
    assert min(whole, unfit, cleared, limited, taken) > 20, (whole, unfit, cleared, limited, taken)
