from __future__ import annotations

import pytest

from cosma.joint import JointConflict, build_joint, solve_monolith
from cosma.lowering import try_realise
from cosma.problem import decisions_from_gaps, noncompulsory_bytes, occupancy_bytes
from cosma.replacement import ReplacementParameters, build_replacement, optimal_replacement, pack_order
from cosma.replacement.addresses import as_gaps, conflicting
from cosma.solvers import Status, load_profile, solve
from cosma.states import search_states
from cosma.validator import replay_instructions
from tests.exact.forced_order import random_forced_order
from tests.exact.packing import outcome, shape_of
from tests.planning import exact_run
from tests.random_graphs import random_problem


def test_a_forbidden_combination_does_not_come_back() -> None:
    """Forbid all that an optimal solution keeps: the next one differs, costs no less, and the old one is refused."""
    checked = 0
    for seed in range(36):
        problem = random_problem(seed)
        if solve(build_joint(problem).model, load_profile("cp-sat")).values is None:
            continue
        order = range(problem.operator_count)
        best, bound, _ = optimal_replacement(problem, order)
        kept = tuple(r for r in best.residencies if r.end > r.start + 1 and problem.size_bytes[r.tensor])
        if not kept:
            continue
        chained = tuple(
            r
            for r in best.residencies
            if r in kept or any(k.in_place_of == r.tensor and r.end == k.start + 1 for k in kept)
        )
        conflict = as_gaps(problem, best, chained)
        program = build_replacement(problem, order, forbidden=[conflict])
        result = solve(program.model, load_profile("cp-sat"))
        if result.values is not None:
            other = program.decisions(result.values)
            assert noncompulsory_bytes(problem, other) >= bound
            assert set(other.residencies) != set(best.residencies)
        joint = build_joint(problem, conflicts=[JointConflict(chained)])
        assert "address conflict" in joint.model.violations(joint.values_of(best))
        checked += 1
    assert checked >= 12


@pytest.mark.parametrize("seed", [70, 974, 3737])
def test_a_conflict_that_the_packing_engine_names_is_learnt(seed: int) -> None:
    """Relaxed optima without addresses: the learnt row leads to another replacement, which packs and moves the same."""
    problem = random_problem(seed, shape_of(12, 20))
    truth = search_states(problem, symmetric=False).cost_bytes
    found = search_states(problem)
    decisions, bound, _ = optimal_replacement(problem, found.order)
    assert noncompulsory_bytes(problem, decisions) == bound == truth == found.cost_bytes
    packed = pack_order(problem, found.order, first=decisions)
    assert packed.proven
    assert packed.realised is not None
    assert noncompulsory_bytes(problem, packed.realised.decisions) == bound
    report = replay_instructions(problem.graph, problem.accelerator, packed.realised.instructions)
    assert not report.violations
    if try_realise(problem, decisions, work_limit=ReplacementParameters().packing_units) is None:
        assert packed.rounds > 0
        involved = conflicting(problem, decisions)
        assert involved is not None
        assert len(involved) < len(decisions.residencies)
    exact = exact_run(problem, decisions_from_gaps(problem, range(problem.operator_count), lambda _: False))
    assert (exact.proven(), exact.noncompulsory_bytes) == (True, truth)


def test_some_relaxed_optimum_has_no_addresses() -> None:
    """At least one of these orders has a best replacement that cannot be packed, so conflicts are put to use."""
    assert any(
        outcome(random_problem(seed, shape_of(12, 20))).startswith("conflict") for seed in (70, 974, 3737)
    )


@pytest.mark.parametrize("seed", [35, 178, 183])
def test_conflicts_raise_the_bound_where_everything_fits_but_has_no_addresses(seed: int) -> None:
    """The optimum with addresses is above that without; layers with learnt conflicts and one program agree on it."""
    problem = random_forced_order(seed)
    order = range(problem.operator_count)
    everything = decisions_from_gaps(problem, order, lambda _: True)
    assert occupancy_bytes(problem, everything).max() <= problem.capacity_bytes
    assert noncompulsory_bytes(problem, everything) == 0
    assert try_realise(problem, everything, work_limit=ReplacementParameters().packing_units) is None
    packed = pack_order(problem, order, first=everything)
    assert packed.proven
    assert packed.rounds > 0
    layers = exact_run(problem, decisions_from_gaps(problem, order, lambda _: False), effort=4)
    _, whole = solve_monolith(problem, work_limit=20)
    assert whole.status is Status.OPTIMAL
    assert layers.noncompulsory_bytes == layers.bound_bytes == packed.bound_bytes == whole.objective == 32
    assert layers.bound_method == "joint program with learnt address conflicts"
    assert layers.best is not None
    report = replay_instructions(problem.graph, problem.accelerator, layers.best.instructions)
    assert not report.violations
