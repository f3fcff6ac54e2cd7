from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cosma.lowering import packing_loss, realise_in_sections
from cosma.parameters.lowering import LoweringParameters
from cosma.problem import Decisions, Problem, decisions_from_gaps, noncompulsory_bytes, occupancy_bytes, touches_of
from cosma.search import search
from cosma.validator import replay_instructions
from tests.random_graphs import Shape, problems, random_order, random_problem


@settings(max_examples=300, deadline=None, derandomize=True)
@given(problems(), st.integers(0, 2**16), st.integers(0, 2**31 - 1), st.integers(1, 4))
def test_sections_join_to_a_valid_plan(problem: Problem, seed: int, bits: int, section_steps: int) -> None:
    order = random_order(problem, seed)
    touches = touches_of(problem, order)
    keep = np.random.default_rng(bits).random(len(touches.step)) < 0.6
    decisions = decisions_from_gaps(problem, order, keep, touches=touches)
    assume(int(occupancy_bytes(problem, decisions).max(initial=0)) <= problem.capacity_bytes)
    few = LoweringParameters(section_steps=section_steps)
    realised = realise_in_sections(problem, decisions, parameters=few)
    assert realised is not None
    report = replay_instructions(problem.graph, problem.accelerator, realised.instructions)
    assert report.valid, report.problems
    assert report.traffic.noncompulsory == noncompulsory_bytes(problem, realised.decisions)
    assert realised.decisions.order == decisions.order


@pytest.mark.parametrize("seed", [2, 6, 9, 37])
def test_what_does_not_pack_is_cut(seed: int) -> None:
    """The decisions of search fill the scratchpad and do not pack; a cut leaves nothing in it between two steps."""
    problem = random_problem(seed, Shape(operators=80, inputs=3, weights=4, most_units=40))
    decisions = search(problem, effort=0.02).decisions
    whole = realise_in_sections(problem, decisions, parameters=LoweringParameters(as_is_units_per_step=1))
    cut = realise_in_sections(
        problem, decisions, parameters=LoweringParameters(section_steps=8, as_is_units_per_step=1)
    )
    assert whole is not None
    assert cut is not None
    assert empty_steps(cut.decisions) > empty_steps(whole.decisions)
    report = replay_instructions(problem.graph, problem.accelerator, cut.instructions)
    assert report.valid, report.problems
    assert report.traffic.noncompulsory == noncompulsory_bytes(problem, cut.decisions)


def empty_steps(decisions: Decisions) -> int:
    """Steps before which nothing lies in the scratchpad."""
    steps = range(1, len(decisions.order))
    return sum(not any(r.start < step < r.end for r in decisions.residencies) for step in steps)


def test_what_packs_as_it_is_loses_nothing() -> None:
    problem = random_problem(3, Shape(operators=8))
    decisions = decisions_from_gaps(problem, range(problem.operator_count), lambda _: False)
    realised = realise_in_sections(problem, decisions)
    assert realised is not None
    assert realised.repairs == 0
    assert noncompulsory_bytes(problem, realised.decisions) == noncompulsory_bytes(problem, decisions)
    assert packing_loss(problem, decisions, 1, 6) == pytest.approx(0.0)


def test_an_interrupt_ends_it() -> None:
    problem = random_problem(3, Shape(operators=8))
    decisions = decisions_from_gaps(problem, range(problem.operator_count), lambda _: False)
    assert realise_in_sections(problem, decisions, stop=lambda: True) is None
