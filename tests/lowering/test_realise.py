from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cosma.accelerator import Accelerator, Operands
from cosma.graph import Graph, Operator, Tensor, TensorKind
from cosma.lowering import realise, slots_of, try_realise
from cosma.lowering.choices import GapForm
from cosma.packing import Gap
from cosma.parameters.lowering import LoweringParameters
from cosma.problem import (
    Decisions,
    Problem,
    build_problem,
    decisions_from_gaps,
    noncompulsory_bytes,
    occupancy_bytes,
    touches_of,
)
from cosma.validator import replay_instructions
from tests.planning import diamond
from tests.random_graphs import problems, random_order

LIMIT = LoweringParameters().packing_units


def test_a_chain_is_one_buffer_that_shrinks() -> None:
    graph = Graph(
        [Tensor("x", 256, TensorKind.INPUT), Tensor("a", 256), Tensor("b", 64), Tensor("y", 64, TensorKind.OUTPUT)],
        [
            Operator("o1", "Relu", ("x",), ("a",)),
            Operator("o2", "Cast", ("a",), ("b",)),
            Operator("o3", "Relu", ("b",), ("y",)),
        ],
    )
    problem = build_problem(graph, Accelerator(scratchpad=256, operands=Operands.RESIDENT))
    slots = slots_of(problem, decisions_from_gaps(problem, range(3), lambda gap: True))
    (buffer,) = slots.buffers
    assert (buffer.lower, buffer.upper, buffer.size, buffer.gaps) == (0, 3, 256, (Gap(2, 3, (0, 64)),))
    assert slots.members == ((0, 1, 2, 3),)


def fits(problem: Problem, seed: int, bits: int) -> Decisions | None:
    """Random decisions that respect the capacity, or None."""
    order = random_order(problem, seed)
    touches = touches_of(problem, order)
    keep = np.random.default_rng(bits).random(len(touches.step)) < 0.5
    while True:
        decisions = decisions_from_gaps(problem, order, keep, touches=touches)
        if int(occupancy_bytes(problem, decisions).max(initial=0)) <= problem.capacity_bytes:
            return decisions
        if not keep.any():
            return None
        keep[np.flatnonzero(keep)[0]] = False


@settings(max_examples=300, deadline=None, derandomize=True)
@given(problems(), st.integers(0, 2**16), st.integers(0, 2**31 - 1))
def test_decisions_become_valid_plans(problem: Problem, seed: int, bits: int) -> None:
    decisions = fits(problem, seed, bits)
    assume(decisions is not None)
    assert decisions is not None
    realised = realise(problem, decisions)
    report = replay_instructions(problem.graph, problem.accelerator, realised.instructions)
    assert report.valid, report.violations[0]
    assert report.traffic.noncompulsory == noncompulsory_bytes(problem, realised.decisions)
    assert (realised.repairs == 0) == (realised.decisions == decisions)


#: (granules, first step, one past the last): five granules are live at most, and no packing into five exists.
TANGLE = ((4, 0, 2), (3, 2, 3), (3, 5, 6), (2, 3, 6), (2, 4, 5), (1, 0, 4), (1, 2, 5), (1, 3, 4))


def tangle(copies: int = 1) -> Graph:
    """A chain of operators that produce and read tensors with the lifetimes of :data:`TANGLE`, over and over."""
    steps = 6 * copies
    lives = [(size, first + 6 * n, end + 6 * n) for n in range(copies) for size, first, end in TANGLE]
    links = ["x", *(f"z{i}" for i in range(steps - 1)), "y"]
    kinds = [TensorKind.INPUT, *[TensorKind.INTERMEDIATE] * (steps - 1), TensorKind.OUTPUT]
    tensors = [Tensor(name, 0, kind) for name, kind in zip(links, kinds, strict=True)]
    tensors += [Tensor(f"t{i}", 64 * size) for i, (size, _, _) in enumerate(lives)]
    operators = []
    for step in range(steps):
        read = [f"t{i}" for i, (_, first, end) in enumerate(lives) if end - 1 == step and first < step]
        born = [f"t{i}" for i, (_, first, _) in enumerate(lives) if first == step]
        operators.append(Operator(f"o{step}", "Op", (links[step], *read), (links[step + 1], *born)))
    return Graph(tensors, operators)


def test_fragmentation_is_repaired() -> None:
    problem = build_problem(tangle(), Accelerator(scratchpad=5 * 64, operands=Operands.RESIDENT))
    decisions = decisions_from_gaps(problem, range(6), lambda gap: True)
    assert int(occupancy_bytes(problem, decisions).max()) == 5 * 64
    assert noncompulsory_bytes(problem, decisions) == 0
    assert try_realise(problem, decisions) is None
    realised = realise(problem, decisions)
    report = replay_instructions(problem.graph, problem.accelerator, realised.instructions)
    assert report.valid
    assert realised.repairs == 1
    assert report.traffic.noncompulsory == 2 * 64  # the smallest tensor is stored and loaded again


@pytest.mark.parametrize(("work_limit", "most"), [(LIMIT, 6), (20, 30)])
def test_many_places_are_repaired(work_limit: int, most: int) -> None:
    copies = 6
    problem = build_problem(tangle(copies), Accelerator(scratchpad=5 * 64, operands=Operands.RESIDENT))
    decisions = decisions_from_gaps(problem, range(6 * copies), lambda gap: True)
    realised = realise(problem, decisions, work_limit=work_limit)
    report = replay_instructions(problem.graph, problem.accelerator, realised.instructions)
    assert report.valid
    assert copies <= realised.repairs <= most
    assert copies * 2 * 64 <= report.traffic.noncompulsory == noncompulsory_bytes(problem, realised.decisions)
    if work_limit == LIMIT:
        assert report.traffic.noncompulsory == copies * 2 * 64  # each place loses its smallest tensor, no more
    assert realise(problem, decisions, work_limit=work_limit) == realised


@settings(max_examples=100, deadline=None, derandomize=True)
@given(problems(), st.integers(0, 2**16), st.integers(0, 2**31 - 1))
def test_gap_form_is_lossless(problem: Problem, seed: int, bits: int) -> None:
    order = random_order(problem, seed)
    keep = np.random.default_rng(bits).random(len(touches_of(problem, order).step)) < 0.5
    decisions = decisions_from_gaps(problem, order, keep)
    assert GapForm.of(problem, decisions).decisions(problem) == decisions


def test_the_diamond_fits_where_it_should() -> None:
    problem = build_problem(diamond(), Accelerator(scratchpad=320, operands=Operands.RESIDENT))
    decisions = decisions_from_gaps(problem, (0, 2, 1, 3, 4), lambda gap: True)
    realised = try_realise(problem, decisions)
    assert realised is not None
    assert replay_instructions(problem.graph, problem.accelerator, realised.instructions).traffic.noncompulsory == 32
