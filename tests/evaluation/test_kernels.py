from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from cosma.evaluation.evaluate import cost_bytes, greedy_decisions, new_tape
from cosma.evaluation.kernels import replay_all, simulate
from cosma.evaluation.network import Network, build_network
from cosma.evaluation.tape import Tape, adopt
from cosma.problem import Problem, noncompulsory_bytes, occupancy_bytes
from cosma.problem.rules import working_set_bytes
from tests.brute_force import TooLargeError, brute_force
from tests.evaluation.plain_replay import replay_plainly
from tests.random_graphs import Shape, random_order, random_problem

LARGE = Shape(operators=40, inputs=4, weights=6, most_units=12)


@njit(cache=True)
def replay_and_adopt(net: Network, tape: Tape, settled: int) -> tuple[int, int]:
    """Replay from the start until the known state is met; returns that step and how much dearer the order is."""
    end, more, _, _ = simulate(net, tape, 0, settled, np.inf, False)
    adopt(tape, 0, end)
    return end, more


def feasible(problem: Problem) -> bool:
    return problem.streamable or all(
        working_set_bytes(problem, v) <= problem.capacity_bytes for v in range(problem.operator_count)
    )


@pytest.mark.parametrize("contract", [True, False])
@pytest.mark.parametrize("seed", range(40))
def test_kernel_agrees_with_the_plain_rule(seed: int, contract: bool) -> None:
    problem = random_problem(seed, LARGE)
    if not feasible(problem):
        pytest.skip("no plan exists")
    contraction = build_network(problem, contract=contract)
    net = contraction.network
    order = contraction.contract(random_order(problem, seed))
    tape = new_tape(net, order)
    replay_all(net, tape, True)
    plain = replay_plainly(net, order.tolist())
    assert tape.step_cost.tolist() == plain.step_cost
    assert int(tape.step_excess.sum()) == plain.excess
    consumers = np.repeat(np.arange(len(net.size)), np.diff(net.consumer_start))
    dropped = {(int(t), int(v)) for t, v, gone in zip(consumers, net.consumer, tape.dropped, strict=True) if gone}
    assert dropped == plain.dropped
    assert {t for t in range(len(net.size)) if tape.born[t] != 1} == plain.homeless
    assert {t for t in range(len(net.size)) if tape.born[t] == 2} == plain.late


@pytest.mark.parametrize("contract", [True, False])
def test_decisions_cost_what_the_replay_says_and_fit(contract: bool) -> None:
    spilled = 0
    for seed in range(150):
        problem = random_problem(seed, LARGE)
        if not feasible(problem):
            continue
        contraction = build_network(problem, contract=contract)
        tape = new_tape(contraction.network, contraction.contract(random_order(problem, seed)))
        decisions = greedy_decisions(problem, contraction, tape)
        traffic = cost_bytes(tape) + problem.constant_noncompulsory_bytes
        assert noncompulsory_bytes(problem, decisions) == traffic, seed
        assert int(occupancy_bytes(problem, decisions).max(initial=0)) <= problem.capacity_bytes, seed
        spilled += cost_bytes(tape) > 0
    assert spilled > 50


def test_greedy_is_never_below_the_optimum_of_its_order() -> None:
    compared = equal = 0
    for seed in range(150):
        problem = random_problem(seed)
        order = random_order(problem, seed)
        contraction = build_network(problem)
        if not feasible(problem):
            continue
        tape = new_tape(contraction.network, contraction.contract(order))
        try:
            optimum = brute_force(problem, order=contraction.expand(tape.order.tolist()), most_states=20_000)
        except TooLargeError:
            continue
        traffic = cost_bytes(tape) + problem.constant_noncompulsory_bytes
        assert optimum.noncompulsory_bytes is not None
        assert traffic >= optimum.noncompulsory_bytes, seed
        compared += 1
        equal += traffic == optimum.noncompulsory_bytes
    assert compared > 80
    assert equal > 0.6 * compared


def test_partial_replay_agrees_with_a_whole_one() -> None:
    """A replay from a checkpoint that meets the known state costs what a replay from the start costs."""
    met = 0
    for seed in range(30):
        problem = random_problem(seed, LARGE)
        if not feasible(problem):
            continue
        contraction = build_network(problem, contract=False)
        net = contraction.network
        tape = new_tape(net, contraction.contract(random_order(problem, seed)))
        n = len(tape.order)
        rng = np.random.default_rng(seed)
        for _ in range(20):
            i = int(rng.integers(0, n - 1))
            u, v = int(tape.order[i]), int(tape.order[i + 1])
            if u in net.predecessor[net.predecessor_start[v] : net.predecessor_start[v + 1]]:
                continue
            before = int(tape.step_cost.sum())
            tape.order[i], tape.order[i + 1] = v, u
            tape.position[u], tape.position[v] = i + 1, i
            end, more = replay_and_adopt(net, tape, i + 2)
            met += end < n
            assert int(tape.step_cost.sum()) == before + more
            assert replay_plainly(net, tape.order.tolist()).step_cost == tape.step_cost.tolist()
    assert met > 50
