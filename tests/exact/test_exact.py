from __future__ import annotations

import pytest
from hypothesis import given, settings

from cosma.clock import Clock
from cosma.compiler.result import stopped_by
from cosma.errors import InfeasibleError
from cosma.joint.monolith import solve_monolith
from cosma.lowering import realise
from cosma.parameters.compiler import CompileParameters, ExactParameters
from cosma.parameters.states import StatesParameters
from cosma.problem import Decisions, Problem, check_feasible, decisions_from_gaps, noncompulsory_bytes
from cosma.replacement import ReplacementParameters, optimal_replacement
from cosma.solvers import load_profile
from cosma.solvers.profile import NODES_PER_SECOND, work_units
from cosma.states import search_states
from cosma.validator import replay_instructions
from tests.brute_force import TooLargeError, brute_force
from tests.planning import exact_run
from tests.random_graphs import TINY, Shape, problems, random_order, random_problem


def nothing_kept(problem: Problem) -> Decisions:
    return decisions_from_gaps(problem, range(problem.operator_count), lambda _: False)


def feasible(problem: Problem) -> bool:
    try:
        check_feasible(problem)
    except InfeasibleError:
        return False
    return True


def check_states(problem: Problem) -> None:
    try:
        truth = brute_force(problem, most_states=20_000).noncompulsory_bytes
    except TooLargeError:
        return
    assert (truth is not None) == feasible(problem)
    if truth is None:
        return
    found = search_states(problem)
    assert found.complete
    assert found.cost_bytes == found.bound_bytes == truth
    decisions, bound, proven = optimal_replacement(problem, found.order)
    assert proven
    assert noncompulsory_bytes(problem, decisions) == bound == truth
    # Another seed may find another order, of the same traffic.
    assert search_states(problem, seed=5).cost_bytes == truth
    # At the optimum as a ceiling nothing better exists; just above it the optimum is found again.
    at = search_states(problem, ceiling_bytes=truth)
    assert (at.complete, at.cost_bytes, at.bound_bytes) == (True, None, truth)
    assert search_states(problem, ceiling_bytes=truth + 1).cost_bytes == truth
    for most_states in (1, 4, 9):
        assert search_states(problem, most_states=most_states).bound_bytes <= truth


@pytest.mark.parametrize("block", range(6))
def test_states_agree_with_the_machine_search(block: int) -> None:
    for seed in range(50 * block, 50 * block + 50):
        check_states(random_problem(seed))


@given(problem=problems(Shape(operators=5)))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_states_agree_with_the_machine_search_shrinking(problem: Problem) -> None:
    check_states(problem)


def test_the_machine_search_loses_nothing_by_its_short_cuts() -> None:
    for seed in range(60):
        problem = random_problem(seed, TINY)
        fast, slow = brute_force(problem), brute_force(problem, prune=False)
        assert fast.noncompulsory_bytes == slow.noncompulsory_bytes


@pytest.mark.parametrize("block", range(4))
def test_plans_are_proven_and_replay(block: int) -> None:
    for seed in range(20 * block, 20 * block + 20):
        problem = random_problem(seed)
        if not feasible(problem):
            continue
        truth = brute_force(problem).noncompulsory_bytes
        run = exact_run(problem, nothing_kept(problem), effort=2)
        assert run.best is not None
        report = replay_instructions(problem.graph, problem.accelerator, run.best.instructions)
        assert not report.violations
        assert report.traffic.noncompulsory == run.noncompulsory_bytes == truth
        assert (run.certificate().status, stopped_by(run), run.bound_bytes) == ("optimal", "proof", truth)


@pytest.mark.parametrize("back_end", ["cp-sat", "highs"])
def test_one_program_with_addresses_agrees(back_end: str) -> None:
    checked = 0
    for seed in range(20):
        problem = random_problem(seed, TINY)
        if not feasible(problem):
            continue
        try:
            truth = brute_force(problem, addresses=True, most_states=2000).noncompulsory_bytes
        except TooLargeError:
            continue
        start = realise(problem, nothing_kept(problem))
        plan, result = solve_monolith(problem, profile=load_profile(back_end), start=start)
        assert result.objective == truth
        assert plan is not None
        report = replay_instructions(problem.graph, problem.accelerator, plan.instructions)
        assert not report.violations
        assert report.traffic.noncompulsory == truth
        assert exact_run(problem, nothing_kept(problem), effort=2).noncompulsory_bytes == truth
        checked += 1
    assert checked >= 10


def test_a_run_that_stops_early_returns_its_best_plan() -> None:
    problem = next(
        p for p in map(random_problem, range(100)) if feasible(p) and noncompulsory_bytes(p, nothing_kept(p)) > 0
    )
    run = exact_run(problem, nothing_kept(problem), clock=Clock(asked_to_stop=lambda: True))
    assert stopped_by(run) == "interrupt"
    assert run.bound_bytes <= run.noncompulsory_bytes


def test_replacement_takes_a_hint_and_stays_optimal() -> None:
    for seed in range(40):
        problem = random_problem(seed)
        if not feasible(problem):
            continue
        order = random_order(problem, seed)
        best, bound, proven = optimal_replacement(problem, order)
        again, same, still = optimal_replacement(problem, order, hint=best)
        assert (bound, proven) == (same, still)
        assert noncompulsory_bytes(problem, again) == noncompulsory_bytes(problem, best) == bound


def test_what_cannot_run_is_refused_with_a_reason() -> None:
    problem = next(p for p in map(random_problem, range(200)) if not feasible(p))
    with pytest.raises(InfeasibleError, match="does not fit"):
        optimal_replacement(problem, range(problem.operator_count))
    with pytest.raises(InfeasibleError, match="does not fit"):
        solve_monolith(problem)


@pytest.mark.parametrize("most_terms", [0, 400_000])
def test_bounds_step_in_where_states_end_early(most_terms: int) -> None:
    """With no states to spend, bounds find order and proof; without replacement programs nothing wrong is claimed."""
    parameters = CompileParameters(
        exact=ExactParameters(first_states=0),
        states=StatesParameters(states_per_second=0, most_operators=1),
        replacement=ReplacementParameters(most_terms=most_terms),
    )
    methods = set()
    proven = 0
    for seed in range(16):
        problem = random_problem(seed)
        if not feasible(problem):
            continue
        truth = brute_force(problem).noncompulsory_bytes
        run = exact_run(problem, nothing_kept(problem), effort=2, parameters=parameters)
        assert truth is not None
        assert run.best is not None
        assert run.bound_bytes <= truth <= run.noncompulsory_bytes
        report = replay_instructions(problem.graph, problem.accelerator, run.best.instructions)
        assert not report.violations
        assert report.traffic.noncompulsory == run.noncompulsory_bytes
        methods.add(run.bound_method.split(",")[0])
        proven += run.proven()
    assert methods & {"label search", "forced liveness"}
    assert proven > 6


@pytest.mark.parametrize("back_end", ["highs", "cbc"])
def test_another_back_end_may_do_the_programs(back_end: str) -> None:
    """Its work is counted in nodes, so it gets as many for a second of effort as it can use."""
    profile = load_profile(back_end)
    assert work_units(profile, 2.0) == 2 * NODES_PER_SECOND
    assert work_units(load_profile("cp-sat"), 2.0) == 2.0
    checked = 0
    for seed in range(20):
        problem = random_problem(seed)
        truth = brute_force(problem).noncompulsory_bytes
        if not truth:
            continue
        run = exact_run(problem, nothing_kept(problem), effort=2, profile=profile)
        assert (run.proven(), run.noncompulsory_bytes) == (True, truth)
        checked += 1
    assert checked >= 3
