from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cosma.accelerator import Accelerator
from cosma.compiler import run_compile
from cosma.frontend import load_onnx
from cosma.graph import Graph, Operator, Tensor, TensorKind
from cosma.lowering import lift, lift_order, lift_realised, realise
from cosma.plan.instructions import Allocate, Execute, Free, Instruction, Load, Store
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
from cosma.problem.rules import working_set_bytes
from cosma.validator import ReplayReport, replay_instructions
from tests.planning import diamond
from tests.random_graphs import problems, random_order

ZOO = Path(__file__).parents[2] / "models" / "zoo"


def rank(report: ReplayReport) -> tuple[int, int, int]:
    return report.traffic.total, report.transfers, report.peak_bytes


def replayed(problem: Problem, instructions: tuple[Instruction, ...]) -> ReplayReport:
    return replay_instructions(problem.graph, problem.accelerator, instructions)


def some_decisions(problem: Problem, seed: int, bits: int) -> Decisions | None:
    """Random decisions that respect the capacity, or None."""
    order = random_order(problem, seed)
    touches = touches_of(problem, order)
    generator = np.random.default_rng(bits)
    keep = generator.random(len(touches.step)) < 0.6
    alone = set(np.flatnonzero(generator.random(len(touches.step)) < 0.5).tolist())
    while True:
        decisions = decisions_from_gaps(problem, order, keep, touches=touches, resident_touches=alone)
        if int(occupancy_bytes(problem, decisions).max(initial=0)) <= problem.capacity_bytes:
            return decisions
        if alone:
            alone.pop()
        elif not keep.any():
            return None
        else:
            keep[np.flatnonzero(keep)[0]] = False


@settings(max_examples=400, deadline=None, derandomize=True)
@given(problems(), st.integers(0, 2**16), st.integers(0, 2**31 - 1))
def test_lifting_undoes_emission(problem: Problem, seed: int, bits: int) -> None:
    decisions = some_decisions(problem, seed, bits)
    assume(decisions is not None)
    assert decisions is not None
    realised = realise(problem, decisions)
    lifted = lift_realised(problem, realised.instructions)
    assert lifted == dataclasses.replace(realised, repairs=0, work_units=0)
    assert lift(problem, realised.instructions) == realised.decisions
    assert lift_order(problem, realised.instructions) == decisions.order
    assert noncompulsory_bytes(problem, lifted.decisions) == noncompulsory_bytes(problem, realised.decisions)


def disturb(problem: Problem, instructions: tuple[Instruction, ...], bits: int) -> tuple[Instruction, ...]:
    """Make a valid plan clumsier, one random change after the other, each kept where the plan stays valid."""
    generator = np.random.default_rng(bits)
    found = list(instructions)
    for _ in range(60):
        changed = list(found)
        i = int(generator.integers(len(changed)))
        match changed[i], int(generator.integers(3)):
            case Free(), 0:
                del changed[i]  # never freed
            case Free(), _:
                changed.insert(min(len(changed), i + 1 + int(generator.integers(8))), changed.pop(i))  # freed late
            case Load(), _:
                changed.insert(max(0, i - int(generator.integers(1, 8))), changed.pop(i))  # loaded early
            case Store() as store, 0:
                changed.insert(i, store)  # stored twice
            case Store(), _:
                changed.insert(min(len(changed), i + int(generator.integers(1, 8))), changed.pop(i))  # stored late
            case Execute(operator, streamed), 0:
                row = problem.graph.operator(operator).inputs
                more = tuple(dict.fromkeys((*streamed, row[int(generator.integers(len(row)))])))
                changed[i] = Execute(operator, more)  # streamed although it is in the scratchpad
            case Execute(operator), _:  # loaded for nothing
                name = problem.tensor_names[int(generator.integers(problem.tensor_count))]
                changed[i:i] = [Load(name, 0), Free(name)]
            case Allocate(tensor, address, operand), _ if operand is None:
                changed[i] = Allocate(tensor, address + problem.accelerator.alignment)  # moved
            case _:
                continue
        if replayed(problem, tuple(changed)).valid:
            found = changed
    return tuple(found)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(problems(), st.integers(0, 2**16), st.integers(0, 2**31 - 1))
def test_lifted_plans_of_others_are_no_worse(problem: Problem, seed: int, bits: int) -> None:
    decisions = some_decisions(problem, seed, bits)
    assume(decisions is not None)
    assert decisions is not None
    theirs = disturb(problem, realise(problem, decisions).instructions, bits)
    before = replayed(problem, theirs)
    assert before.valid
    lifted = lift_realised(problem, theirs)
    after = replayed(problem, lifted.instructions)
    assert after.valid, after.violations[0]
    assert rank(after) <= rank(before)
    assert after.peak_bytes <= before.peak_bytes
    assert after.transfers <= before.transfers
    assert noncompulsory_bytes(problem, lifted.decisions) == after.traffic.noncompulsory
    assert int(occupancy_bytes(problem, lifted.decisions).max(initial=0)) <= problem.capacity_bytes


def test_a_clumsy_plan_by_hand() -> None:
    graph = Graph(
        [
            Tensor("x", 64, TensorKind.INPUT),
            Tensor("z", 64, TensorKind.INPUT),
            Tensor("w", 64, TensorKind.WEIGHT),
            Tensor("a", 64),
            Tensor("b", 64),
            Tensor("y", 64, TensorKind.OUTPUT),
        ],
        [
            Operator("o0", "Conv", ("x",), ("a",), ("w",)),
            Operator("o1", "Relu", ("a",), ("b",)),
            Operator("o2", "Sum", ("b", "a", "z"), ("y",)),
        ],
    )
    problem = build_problem(graph, Accelerator(scratchpad=512, in_place=True))
    x, z, a, b, y = (problem.tensor_names.index(name) for name in "xzaby")
    plan: tuple[Instruction, ...] = (
        Load("w", 448),  # weights stream past the scratchpad: of no use
        Load("z", 0),  # long before it is read
        Load("x", 64),
        Allocate("a", 128),
        Execute("o0"),
        Store("a"),
        Store("a"),  # again
        Allocate("b", 128, "a"),
        Execute("o1"),
        Load("a", 192),
        Free("x"),  # late
        Allocate("y", 256),
        Execute("o2", ("a",)),  # though it is there
        Store("y"),
    )
    assert replayed(problem, plan).valid
    assert lift(problem, plan) == Decisions(
        (0, 1, 2),
        (
            Residency(x, 0, 1, True),
            Residency(a, 0, 2, False),
            Residency(b, 1, 3, False, a),
            *sorted((Residency(z, 2, 3, True), Residency(a, 2, 3, True), Residency(y, 2, 3, False)),
                    key=lambda r: r.tensor),
        ),
    )  # fmt: skip
    before, after = replayed(problem, plan), replayed(problem, lift_realised(problem, plan).instructions)
    assert after.valid
    assert before.traffic.total - after.traffic.total == 64 * 3  # w's load, the second store, a read twice
    assert after.peak_bytes < before.peak_bytes


def test_takeovers_of_nothing_are_none() -> None:
    graph = Graph(
        [Tensor("x", 64, TensorKind.INPUT), Tensor("y", 0, TensorKind.OUTPUT)],
        [Operator("o", "Relu", ("x",), ("y",))],
    )
    problem = build_problem(graph, Accelerator(scratchpad=128))
    plan = (Load("x", 0), Allocate("y", 0, "x"), Execute("o"), Store("y"))
    assert replayed(problem, plan).valid
    lifted = lift_realised(problem, plan)
    assert all(r.in_place_of is None for r in lifted.decisions.residencies)
    assert replayed(problem, lifted.instructions).valid


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ((Execute("stem"), Execute("stem")), "'stem' executes twice"),
        ((Execute("stem"), Execute("leaf")), "'leaf' executes, but is not in the network"),
        ((Execute("stem"),), "'left' never executes"),
    ],
)
def test_what_is_no_order(plan: tuple[Instruction, ...], message: str) -> None:
    problem = build_problem(diamond(), Accelerator(scratchpad=512))
    for function in (lift, lift_order, lift_realised):
        with pytest.raises(ValueError, match=message):
            function(problem, plan)


@pytest.mark.parametrize("mode", [{}, {"operands": "resident", "weights": "scratchpad", "in_place": False}])
@pytest.mark.parametrize("name", ["mobilenet_v2_224", "randwire_small_ws_1", "train_resnet20_b8"])
def test_zoo_plans_lift_to_their_traffic(name: str, mode: dict[str, object]) -> None:
    path = ZOO / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    graph = load_onnx(path).graph
    problem = build_problem(graph, Accelerator(scratchpad="1GiB", **mode))
    needed = max(working_set_bytes(problem, v) for v in range(problem.operator_count))
    plan = run_compile(graph, Accelerator(scratchpad=needed * 5 // 4, **mode), strategy="existing").plan
    problem = build_problem(graph, plan.accelerator)
    lifted = lift(problem, plan.instructions)
    assert noncompulsory_bytes(problem, lifted) == plan.traffic.noncompulsory
    assert int(occupancy_bytes(problem, lifted).max()) <= plan.peak_bytes
