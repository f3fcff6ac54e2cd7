from __future__ import annotations

from cosma.problem import noncompulsory_bytes
from cosma.problem.reductions import tightened
from tests.problem.reductions.optima import assert_is_a_plan, optimum_of, problems_with_optima, some_decisions


def test_schedules_with_less_room_are_schedules_with_more() -> None:
    compared = refused = dearer = 0
    for seed, (problem, optimum) in enumerate(problems_with_optima(range(500, 700))):
        share = (0.97, 0.8, 0.5)[seed % 3]
        tighter = tightened(problem, share)
        less = int(problem.capacity_bytes * share) // problem.alignment * problem.alignment
        least = optimum_of(problem.derived(capacity_bytes=less))
        if tighter is None:
            assert least is None
            refused += 1
            continue
        assert tighter.problem.capacity_bytes == less
        assert least is not None
        assert least >= optimum
        decisions = some_decisions(tighter.problem, seed)
        lifted = tighter.lift(decisions)
        assert noncompulsory_bytes(problem, lifted) == noncompulsory_bytes(tighter.problem, decisions)
        assert_is_a_plan(problem, lifted)
        compared += 1
        dearer += least > optimum
    assert compared > 50
    assert refused > 10
    assert dearer > 5
