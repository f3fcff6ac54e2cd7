from __future__ import annotations

from cosma.evaluation.network import Network, build_network
from cosma.problem.reductions import contract_chains
from tests.brute_force import TooLargeError, brute_force
from tests.problem.reductions.optima import problems_with_optima, stationary_with_optima
from tests.random_graphs import Shape


def test_some_order_of_chains_keeps_the_optimum() -> None:
    contracted = 0
    for problem, optimum in problems_with_optima(range(300, 600), Shape()):
        contraction = build_network(problem)
        if len(contraction.members) == problem.operator_count:
            continue
        try:
            tied = min(
                brute_force(problem, order=contraction.expand(order), most_states=20_000).noncompulsory_bytes
                for order in all_orders(contraction.network)
            )
        except TooLargeError:
            continue
        assert tied == optimum
        contracted += 1
    assert contracted > 10


def test_nothing_is_contracted_where_operators_hold_some_of_what_they_touch() -> None:
    held = 0
    for problem, _ in stationary_with_optima(22, 20):
        if problem.held:
            assert contract_chains(problem) == tuple((v,) for v in range(problem.operator_count))
            held += 1
    assert held > 5


def all_orders(net: Network) -> list[list[int]]:
    n = len(net.predecessor_start) - 1
    before = [set(net.predecessor[net.predecessor_start[v] : net.predecessor_start[v + 1]].tolist()) for v in range(n)]
    found: list[list[int]] = []

    def extend(order: list[int]) -> None:
        if len(order) == n:
            found.append(list(order))
        for v in range(n):
            if v not in order and before[v] <= set(order):
                extend([*order, v])

    extend([])
    return found
