from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from cosma.evaluation.evaluate import cost_bytes, new_tape
from cosma.evaluation.network import build_network
from cosma.search.annealer import RULES, Annealer
from cosma.search.crossover import Elite, differing_ranges
from tests.evaluation.test_kernels import feasible
from tests.random_graphs import Shape, random_order, random_problem

WIDE = Shape(operators=60, most_units=12)


@pytest.mark.parametrize("seed", range(20))
def test_ranges_are_where_orders_differ_and_no_longer_than_need_be(seed: int) -> None:
    problem = random_problem(seed, WIDE)
    one, other = (np.array(random_order(problem, s), dtype=np.int32) for s in (seed, seed + 1))
    ranges = differing_ranges(one, other)
    inside = {step for first, beyond in ranges for step in range(first, beyond)}
    cuts = [k for k in range(len(one) + 1) if set(one[:k].tolist()) == set(other[:k].tolist())]
    assert all(one[step] == other[step] for step in range(len(one)) if step not in inside)
    assert [(a, b) for a, b in pairwise(cuts) if b - a > 1] == ranges


def test_an_order_has_no_ranges_with_itself() -> None:
    order = np.arange(12, dtype=np.int32)
    assert differing_ranges(order, order) == []
    assert differing_ranges(order, order[::-1].copy()) == [(0, 12)]


def test_what_two_walks_found_apart_comes_together() -> None:
    together = 0
    for seed in range(60):
        problem = random_problem(seed, WIDE)
        if not feasible(problem):
            continue
        net = build_network(problem).network
        start = np.arange(len(net.operand_start) - 1, dtype=np.int32)
        annealers = [Annealer(net, start, seed=seed, rank=rank) for rank in range(2)]
        for annealer in annealers:
            annealer.run(20_000, 0.0, 1.0)
        elite = Elite(net, start, patience=RULES[0][0])
        for annealer in annealers:
            before = elite.cost
            assert elite.learn(annealer) % len(start) == 0
            assert elite.cost <= before
        order = elite.order
        assert sorted(order.tolist()) == start.tolist()
        position = {int(v): step for step, v in enumerate(order)}
        for v in start.tolist():
            for u in net.predecessor[net.predecessor_start[v] : net.predecessor_start[v + 1]].tolist():
                assert position[u] < position[v]
        assert cost_bytes(new_tape(net, order, patience=RULES[0][0])) == elite.cost
        together += elite.cost < annealers[0].best_cost
    assert together > 3
