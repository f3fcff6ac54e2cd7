from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from cosma.accelerator import Accelerator, Operands, Weights
from cosma.errors import InfeasibleError
from cosma.graph import Graph, Mode, Operator, Tensor, TensorKind
from cosma.problem import build_problem, check_feasible, smallest_feasible_capacity
from cosma.problem.rules import working_set_bytes
from tests.planning import diamond
from tests.random_graphs import instances


def test_numbers_and_neighbours() -> None:
    problem = build_problem(diamond(), Accelerator(scratchpad=1000, alignment=48))
    assert problem.tensor_names == ("x", "a", "b", "c", "d", "y")  # weights stream past
    assert problem.space_bytes.tolist() == [96, 144, 144, 96, 144, 144]
    assert problem.capacity_bytes == 960
    assert problem.predecessors_of(4).tolist() == [1, 3]
    assert problem.successors_of(0).tolist() == [1, 2]
    assert problem.pairs_of(4) == [(5, 2), (5, 4)]
    assert problem.pairs_of(2) == []
    assert problem.constant_noncompulsory_bytes == 32  # w is read by two operators


def test_kept_weights_are_tensors() -> None:
    problem = build_problem(diamond(), Accelerator(scratchpad=1000, weights=Weights.SCRATCHPAD))
    assert "w" in problem.tensor_names
    assert problem.constant_noncompulsory_bytes == 0
    assert problem.starts_off_chip.tolist() == [True, True, False, False, False, False, False]


def test_working_sets_count_the_best_takeover() -> None:
    problem = build_problem(diamond(), Accelerator(scratchpad=1000, operands=Operands.RESIDENT))
    assert [working_set_bytes(problem, v) for v in range(5)] == [192, 128, 192, 192, 256]
    assert smallest_feasible_capacity(problem) == 256
    off = build_problem(diamond(), Accelerator(scratchpad=1000, operands=Operands.RESIDENT, in_place=False))
    assert smallest_feasible_capacity(off) == 384


def test_what_does_not_fit_is_explained() -> None:
    accelerator = Accelerator(scratchpad=256, reserved=64, operands=Operands.RESIDENT, in_place=False)
    with pytest.raises(InfeasibleError) as caught:
        check_feasible(build_problem(diamond(), accelerator))
    message = str(caught.value)
    for part in ("'join' (Add)", "384 bytes", "192 bytes", "b (128 B)", "scratchpad = 448", "streamable",
                 "in_place = true"):  # fmt: skip
        assert part in message
    assert "--" not in message
    error = caught.value
    assert (error.operator, error.operator_type, error.needed_bytes) == ("join", "Add", 384)
    assert (error.available_bytes, error.smallest_capacity_bytes) == (192, 384)
    assert [(r.setting, r.value, r.smallest_scratchpad_bytes, r.enough) for r in error.remedies] == [
        ("scratchpad", 448, 448, True), ("operands", "streamable", 128, True), ("in_place", True, 320, False),
        ("fusion", "epilogue", 384, False),
    ]  # fmt: skip
    copy = pickle.loads(pickle.dumps(error))  # our own, as between processes
    assert (str(copy), copy.remedies, copy.operator) == (message, error.remedies, "join")
    assert caught.value.exit_code == 3
    check_feasible(build_problem(diamond(), accelerator.replace(scratchpad=448)))


def test_tensors_nobody_touches_are_left_out() -> None:
    graph = Graph(
        [Tensor("idle", 9, TensorKind.INPUT), Tensor("x", 8, TensorKind.INPUT), Tensor("y", 8, TensorKind.OUTPUT)],
        [Operator("r", "Relu", ("x",), ("y",))],
    )
    assert build_problem(graph, Accelerator(scratchpad=64)).tensor_names == ("x", "y")


@settings(max_examples=80, deadline=None, derandomize=True)
@given(instances())
def test_arrays_agree_with_the_graph(instance: tuple[Graph, Accelerator]) -> None:
    problem = build_problem(*instance)
    graph = problem.graph
    for v, operator in enumerate(graph.operators):
        kept = operator.operands if instance[1].weights == Weights.SCRATCHPAD else operator.inputs
        assert [problem.tensor_names[t] for t in problem.operands_of(v)] == list(kept)
        assert [problem.tensor_names[t] for t in problem.results_of(v)] == list(operator.outputs)
        assert {problem.operator_names[u] for u in problem.predecessors_of(v)} == set(graph.predecessors(operator.name))
        assert {problem.operator_names[u] for u in problem.successors_of(v)} == set(graph.successors(operator.name))
    for t, name in enumerate(problem.tensor_names):
        assert [problem.operator_names[v] for v in problem.consumers_of(t)] == list(graph.consumers(name))
    assert np.all(problem.space_bytes % instance[1].alignment == 0)
    assert np.all(problem.space_bytes >= problem.size_bytes)


def test_touches_that_may_stream_stand_beside_what_is_touched() -> None:
    mode = Mode("some", ("x", "b"), 32)
    graph = Graph(
        [Tensor("x", 64, "input"), Tensor("y", 64, "input"), Tensor("a", 64, "output"), Tensor("b", 64, "output")],
        [Operator("v", "Op", ["x", "y"], ["a", "b"], modes=[mode])],
    )
    found = {}
    for operands in ("resident", "streamable", "stationary"):
        problem = build_problem(graph, Accelerator(scratchpad=512, operands=operands))
        found[operands] = (problem.operand_streams.tolist(), problem.result_streams.tolist(), problem.streamable)
        assert problem.held == frozenset({(0, 1), (0, 2), (0, 4)} if operands == "stationary" else ())
    assert found["resident"] == ([False, False], [False, False], False)
    assert found["streamable"] == ([True, True], [True, True], True)
    # The last result stands for the workspace, which lies in the scratchpad.
    assert found["stationary"] == ([True, False], [False, True, False], True)


def test_an_instance_is_that_of_its_graph() -> None:
    problem = build_problem(diamond(), Accelerator(scratchpad=512))
    with pytest.raises(ValueError, match="are not the accelerator's"):
        replace(problem, capacity_bytes=64)
    with pytest.raises(ValueError, match="operators are not those of graph"):
        replace(problem, operator_names=problem.operator_names[:-1])
    assert type(problem.derived(capacity_bytes=64)).__name__ == "Problem"
