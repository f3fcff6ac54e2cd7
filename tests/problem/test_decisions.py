from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cosma.accelerator import Accelerator, Operands
from cosma.lowering.emit import emit
from cosma.problem import (
    Decisions,
    Problem,
    Residency,
    build_problem,
    decisions_from_gaps,
    noncompulsory_bytes,
    occupancy_bytes,
    touches_of,
)
from cosma.validator import Verdict, replay_instructions
from tests.planning import diamond
from tests.random_graphs import problems, random_order

PLACELESS = {Verdict.OVERLAP, Verdict.OUT_OF_BOUNDS, Verdict.IN_PLACE_MISPLACED}


def test_touches_and_gaps_by_hand() -> None:
    problem = build_problem(diamond(), Accelerator(scratchpad=512, operands=Operands.RESIDENT))
    order = (0, 2, 1, 3, 4)
    touches = touches_of(problem, order)
    assert touches.of(1).tolist() == [0, 1, 2]  # a: produced, read by right, read by left
    everything = decisions_from_gaps(problem, order, lambda gap: True)
    assert everything.residencies == (
        Residency(0, 0, 1, True),
        Residency(1, 0, 3, False),
        Residency(3, 1, 4, False),
        Residency(2, 2, 5, False, in_place_of=1),
        Residency(4, 3, 5, False),
        Residency(5, 4, 5, False, in_place_of=2),
    )
    assert occupancy_bytes(problem, everything).tolist() == [192, 192, 192, 320, 256]
    assert noncompulsory_bytes(problem, everything) == 32


def test_streamed_touches_have_no_residency() -> None:
    problem = build_problem(diamond(), Accelerator(scratchpad=512))
    nothing = decisions_from_gaps(problem, range(5), lambda gap: False)
    assert nothing == Decisions((0, 1, 2, 3, 4), ())
    # a written and read twice, b and d written and read, c written and read; w twice
    assert noncompulsory_bytes(problem, nothing) == 3 * 128 + 2 * 128 + 2 * 64 + 2 * 128 + 32


def test_takeovers_can_be_chosen() -> None:
    problem = build_problem(diamond(), Accelerator(scratchpad=512))
    chosen = decisions_from_gaps(problem, range(5), lambda gap: True, takeovers={5: 4}, resident_touches=[10])
    assert {r.tensor: r.in_place_of for r in chosen.residencies if r.in_place_of is not None} == {5: 4}


@settings(max_examples=300, deadline=None, derandomize=True)
@given(problems(), st.integers(0, 2**16), st.integers(0, 2**31 - 1))
def test_counts_agree_with_replay(problem: Problem, seed: int, bits: int) -> None:
    order = random_order(problem, seed)
    touches = touches_of(problem, order)
    keep = np.random.default_rng(bits).random(len(touches.step)) < 0.6
    decisions = decisions_from_gaps(problem, order, keep, touches=touches)
    report = replay_instructions(
        problem.graph, problem.accelerator, emit(problem, decisions, [0] * len(decisions.residencies))
    )
    assert {v.verdict for v in report.violations} <= PLACELESS  # no addresses were given
    assert report.traffic.noncompulsory == noncompulsory_bytes(problem, decisions)
    assert report.peak_bytes == int(occupancy_bytes(problem, decisions).max(initial=0))
