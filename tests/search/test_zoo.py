"""What the kernels say about orders of real networks, against the decisions made of them."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from cosma.accelerator import Accelerator
from cosma.evaluation.evaluate import cost_bytes, greedy_decisions, new_tape
from cosma.evaluation.kernels import replay_all
from cosma.evaluation.network import Network, build_network
from cosma.frontend import load_onnx
from cosma.problem import build_problem, noncompulsory_bytes, occupancy_bytes
from cosma.problem.rules import working_set_bytes
from cosma.search.annealer import PATIENCES

ZOO = Path(__file__).parents[2] / "models" / "zoo"
#: Chains, in-place pairs, scalars beside large tensors, and steps where several tensors must make room at once.
NETWORKS = (
    "train_resnet20_b8",
    "enas_micro_cifar",
    "lstm_bi2_s64",
    "unet_256",
    "zoo_squeezenet",
    "randwire_small_er_1",
)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
def test_greedy_decisions_fit_and_cost_what_the_replay_says(name: str, share: float) -> None:
    graph = load_onnx(ZOO / f"{name}.onnx").graph
    largest = build_problem(graph, Accelerator(scratchpad=1 << 40))
    largest_bytes = max(working_set_bytes(largest, v) for v in range(largest.operator_count))
    problem = build_problem(graph, Accelerator(scratchpad=int(largest_bytes * share)))
    contraction = build_network(problem)
    rng = random.Random(name)
    for _ in range(4):
        order = np.array(_random_order(contraction.network, rng), dtype=np.int32)
        for patience in PATIENCES:
            tape = new_tape(contraction.network, order, patience=patience)
            cost, _ = replay_all(contraction.network, tape, False)
            assert cost == cost_bytes(tape)
            decisions = greedy_decisions(problem, contraction, tape)
            assert int(occupancy_bytes(problem, decisions).max()) <= problem.capacity_bytes
            assert noncompulsory_bytes(problem, decisions) == cost + problem.constant_noncompulsory_bytes


def _random_order(net: Network, rng: random.Random) -> list[int]:
    """A topological order of search operators that mostly goes deep first."""
    count = len(net.chain_cost)
    waiting = np.diff(net.predecessor_start)
    ready = [v for v in range(count) if waiting[v] == 0]
    order: list[int] = []
    while ready:
        v = ready.pop(rng.randrange(max(0, len(ready) - 4), len(ready)))
        order.append(v)
        for w in net.successor[net.successor_start[v] : net.successor_start[v + 1]].tolist():
            waiting[w] -= 1
            if waiting[w] == 0:
                ready.append(w)
    return order
