"""Orders that need no search."""

from __future__ import annotations

from cosma.heuristics.orders import (
    depth_first_order,
    given_order,
    memory_greedy_order,
    peak_live_bytes,
    peak_minimising_order,
)
from tests.random_graphs import Shape, random_problem


def test_an_order_of_low_peak_is_ended_by_the_clock_with_the_best_of_the_others() -> None:
    better = 0
    for seed in range(20):
        problem = random_problem(seed, Shape(operators=12))
        others = [order(problem) for order in (given_order, depth_first_order, memory_greedy_order)]
        ended = peak_minimising_order(problem, lambda: True)
        assert ended in others
        assert peak_live_bytes(problem, ended) == min(peak_live_bytes(problem, order) for order in others)
        whole = peak_live_bytes(problem, peak_minimising_order(problem))
        assert whole <= peak_live_bytes(problem, ended)
        better += whole < peak_live_bytes(problem, ended)
    assert better
