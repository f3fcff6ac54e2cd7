"""Modes changed one by one in a replay, against instances built anew."""

from __future__ import annotations

import numpy as np
import pytest

from cosma import Accelerator, Graph, Mode, Operator, Tensor
from cosma.accelerator.constraints import Constraints
from cosma.compiler.mode_replay import ModeReplay, in_modes
from cosma.compiler.modes import choose_modes, fitting_modes, mode_changes
from cosma.evaluation.evaluate import cost_bytes, new_tape
from cosma.evaluation.network import build_network
from cosma.graph.region import Region
from cosma.problem import build_problem
from cosma.problem.feasibility import infeasible
from tests.modes.instances import instances


def anew(graph: Graph, accelerator: Accelerator) -> int:
    """Bytes of the order given, of an instance of its own."""
    problem = build_problem(graph, accelerator)
    net = build_network(problem, contract=False).network
    return cost_bytes(new_tape(net, range(problem.operator_count))) + problem.constant_noncompulsory_bytes


@pytest.mark.parametrize("seed", range(4))
def test_a_replay_in_some_modes_is_that_of_their_instance(seed: int) -> None:
    checked = 0
    for number, (graph, accelerator) in enumerate(instances(40 + seed, 40, operators=7)):
        every = fitting_modes(graph, accelerator)
        if infeasible(build_problem(every, accelerator), every) is not None:
            continue
        rng = np.random.default_rng([seed, number])
        replay = ModeReplay(every, accelerator)
        replay.follow(range(len(every.operators)))
        chosen = [operator.modes[0] for operator in every.operators]
        for v, mode in enumerate(chosen):
            replay.put(v, mode)
        for _ in range(8):
            v = int(rng.integers(len(chosen)))
            chosen[v] = every.operators[v].modes[int(rng.integers(len(every.operators[v].modes)))]
            replay.put(v, chosen[v])
            names = [operator.name for operator in every.operators]
            made = in_modes(every, {name: (mode,) for name, mode in zip(names, chosen, strict=True)})
            if build_problem(made, accelerator).streamable:  # where nothing may stream the rule looks less far ahead
                assert replay.noncompulsory_bytes() == anew(made, accelerator)
                checked += 1
    assert checked > 100


def test_a_workspace_that_is_demanded_is_the_least_of_every_mode() -> None:
    tensors = [Tensor("x", 64, "input"), Tensor("a", 64), Tensor("y", 64, "output")]
    modes = (Mode("small", ("x",), 64), Mode("large", ("x", "a"), 512))
    graph = Graph(tensors, [Operator("f", "Foo", ("x",), ("a",), modes=modes), Operator("g", "Foo", ("a",), ("y",))])
    demands = Constraints(workspaces={"f": 256})
    accelerator = Accelerator(scratchpad=4096, operands="stationary", constraints=demands)
    replay = ModeReplay(graph, accelerator)
    for mode, space in ((modes[0], 256), (modes[1], 512)):
        replay.put(0, mode)
        problem = build_problem(in_modes(graph, {"f": (mode,), "g": ()}), accelerator)
        assert int(replay.net.space[replay.workspace[0]]) == int(problem.space_bytes[problem.workspace[0]]) == space


def test_all_tiles_of_an_operator_change_their_mode_together() -> None:
    modes = (Mode("keep"), Mode("stream", ("w",)))
    operators = [
        Operator(f"f{i}", "Foo", ("x",), (f"y{i}",), weights=("w",), modes=modes, tile=Region("f", (i,), (i + 1,)))
        for i in range(3)
    ]
    tensors = [Tensor("x", 64, "input"), Tensor("w", 64, "weight"), *(Tensor(f"y{i}", 64, "output") for i in range(3))]
    changes = list(mode_changes(Graph(tensors, operators)))
    assert [(0, modes[1]), (1, modes[1]), (2, modes[1])] in changes
    assert [(2, modes[0])] in changes


def test_modes_are_chosen_for_what_is_demanded() -> None:
    for graph, accelerator in instances(77, 10):
        every = fitting_modes(graph, accelerator)
        if infeasible(build_problem(every, accelerator), every) is None:
            made = choose_modes(every, accelerator)
            assert all(len(operator.modes) <= 1 for operator in made.operators)


def test_modes_are_changed_no_more_once_time_is_up() -> None:
    polled = 0

    def stop() -> bool:
        nonlocal polled
        polled += 1
        return True

    for graph, accelerator in instances(78, 20, operators=7):
        every = fitting_modes(graph, accelerator)
        if infeasible(build_problem(every, accelerator), every) is None:
            made = choose_modes(every, accelerator, stop)
            assert infeasible(build_problem(made, accelerator), made) is None
    assert 0 < polled <= 20
