from __future__ import annotations

from cosma.exact import optimal_replacement
from cosma.exact.addresses import as_gaps, as_joint
from cosma.formulation import build_joint, build_replacement
from cosma.problem import noncompulsory_bytes
from cosma.solvers import load_profile, solve
from tests.random_graphs import random_problem


def test_a_forbidden_combination_does_not_come_back() -> None:
    """Forbid all that an optimal solution keeps: the next one differs, costs no less, and the old one is refused."""
    checked = 0
    for seed in range(60):
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
        joint = build_joint(problem, conflicts=[as_joint(chained)])
        assert "address conflict" in joint.model.violations(joint.values_of(best))
        checked += 1
    assert checked >= 20
