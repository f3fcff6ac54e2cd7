from __future__ import annotations

from cosma.problem.rules import may_stream_anything
from cosma.search.subproblem import (
    Subproblem,
    SubproblemResult,
    Unsolved,
    needed_after,
    solve_subproblem,
    subproblem_network,
)
from tests.brute_force import TooLargeError, brute_force
from tests.evaluation.test_kernels import feasible
from tests.random_graphs import random_problem


def test_a_subproblem_over_everything_is_the_optimum() -> None:
    compared = 0
    for seed in range(60):
        problem = random_problem(seed)
        if not feasible(problem):
            continue
        try:
            optimum = brute_force(problem, most_states=20_000).noncompulsory_bytes
        except TooLargeError:
            continue
        net = subproblem_network(problem).network
        operators = tuple(range(len(net.pair_result)))
        found = solve_subproblem(net, Subproblem(operators, {}, frozenset()), work_limit=20.0)
        assert isinstance(found, SubproblemResult)
        assert found.proven
        assert found.cost + problem.constant_noncompulsory_bytes == optimum, seed
        compared += 1
    assert compared > 30


def test_costs_of_two_halves_are_at_least_the_optimum_and_often_meet_it() -> None:
    compared = equal = 0
    for seed in range(60, 110):
        problem = random_problem(seed)
        if not feasible(problem):
            continue
        net = subproblem_network(problem).network
        order = list(range(len(net.pair_result)))
        if len(order) < 4:
            continue
        half = len(order) // 2
        try:
            optimum = brute_force(problem, most_states=20_000).noncompulsory_bytes
        except TooLargeError:
            continue
        first = solve_subproblem(
            net, Subproblem(tuple(order[:half]), {}, needed_after(net, order, half)), work_limit=20.0
        )
        assert isinstance(first, SubproblemResult)
        second = solve_subproblem(net, Subproblem(tuple(order[half:]), first.held, frozenset()), work_limit=20.0)
        assert isinstance(second, SubproblemResult)
        total = first.cost + second.cost + problem.constant_noncompulsory_bytes
        assert total >= optimum, seed
        compared += 1
        equal += total == optimum
    assert compared > 20
    assert equal > compared // 3


def test_says_when_nothing_is_below_the_ceiling() -> None:
    problem = random_problem(1)
    net = subproblem_network(problem).network
    subproblem = Subproblem(tuple(range(len(net.pair_result))), {}, frozenset())
    best = solve_subproblem(net, subproblem, work_limit=20.0)
    assert isinstance(best, SubproblemResult)
    assert solve_subproblem(net, subproblem, work_limit=20.0, ceiling=best.cost) is Unsolved.NONE_EXISTS
    again = solve_subproblem(net, subproblem, work_limit=20.0, ceiling=best.cost + 1)
    assert isinstance(again, SubproblemResult)
    assert again.cost == best.cost
    assert solve_subproblem(net, subproblem, work_limit=0.0) is Unsolved.LIMIT


def test_what_is_off_chip_before_has_its_read_and_its_store_paid() -> None:
    with_stores = 0
    for seed in range(40):
        problem = random_problem(seed)
        if not feasible(problem) or may_stream_anything(problem):
            continue
        net = subproblem_network(problem).network
        for v in range(len(net.pair_result)):
            alone = solve_subproblem(net, Subproblem((v,), {}, frozenset()), work_limit=20.0)
            assert isinstance(alone, SubproblemResult)
            assert (alone.cost, alone.bound) == (0, 0), (seed, v)
            read = net.operand[net.operand_start[v] : net.operand_start[v + 1]]
            with_stores += bool(net.store[read].any())
    assert with_stores > 20
