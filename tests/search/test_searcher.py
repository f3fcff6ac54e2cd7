from __future__ import annotations

import pytest

from cosma import parallel as parallel_module
from cosma.problem import Decisions, noncompulsory_bytes, occupancy_bytes
from cosma.search import Searcher, search
from cosma.search import population as population_module
from cosma.search import searcher as searcher_module
from tests.brute_force import TooLargeError, brute_force
from tests.random_graphs import Shape, random_order, random_problem
from tests.search.test_kernels import LARGE, feasible


def is_topological(problem, order) -> bool:
    position = {v: i for i, v in enumerate(order)}
    return sorted(order) == list(range(problem.operator_count)) and all(
        position[int(u)] < position[v] for v in order for u in problem.predecessors_of(v)
    )


@pytest.mark.parametrize("seed", range(12))
def test_finds_valid_decisions_no_worse_than_the_starts(seed: int) -> None:
    problem = random_problem(seed, LARGE)
    if not feasible(problem):
        pytest.skip("no plan exists")
    starts = [list(range(problem.operator_count)), random_order(problem, seed)]
    first = Searcher(problem, starts).outcome
    found = search(problem, starts, effort=0.2, seed=seed)
    assert is_topological(problem, found.decisions.order)
    assert noncompulsory_bytes(problem, found.decisions) == found.noncompulsory_bytes
    assert int(occupancy_bytes(problem, found.decisions).max(initial=0)) <= problem.capacity_bytes
    assert found.noncompulsory_bytes <= first.noncompulsory_bytes


def test_reaches_the_optimum_of_nearly_every_small_instance() -> None:
    compared = equal = 0
    for seed in range(80):
        problem = random_problem(seed)
        if not feasible(problem):
            continue
        try:
            optimum = brute_force(problem, most_states=20_000).noncompulsory_bytes
        except TooLargeError:
            continue
        found = search(problem, effort=0.1, seed=1, lower_bound=optimum)
        assert found.noncompulsory_bytes >= optimum, seed
        compared += 1
        equal += found.noncompulsory_bytes == optimum
    assert compared > 40
    assert equal >= 0.9 * compared


def test_same_result_on_any_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(3, Shape(operators=60, most_units=12))
    results = []
    for cores in (1, 2, 4):
        monkeypatch.setattr(parallel_module, "core_count", lambda cores=cores: cores)
        results.append(search(problem, effort=0.3, seed=5))
    assert results[0] == results[1] == results[2]


def test_resumed_search_goes_on_where_it_was() -> None:
    problem = random_problem(4, LARGE)
    whole = Searcher(problem, seed=2)
    whole.run(0.6)
    parts = Searcher(problem, seed=2)
    for _ in range(6):
        parts.run(0.1)
    assert parts.outcome.decisions == whole.outcome.decisions
    assert parts.outcome.work_done == pytest.approx(whole.outcome.work_done, abs=0.15)


def test_stop_is_polled_and_improvements_are_reported() -> None:
    problem = random_problem(3, Shape(operators=60, most_units=12))
    seen: list[int] = []
    searcher = Searcher(problem, on_improvement=lambda decisions, traffic: seen.append(traffic))
    assert seen == [searcher.outcome.noncompulsory_bytes]
    calls = []

    def stop() -> bool:
        calls.append(1)
        return len(calls) > 3

    outcome = searcher.run(1000.0, stop)
    assert len(calls) <= 5
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == outcome.noncompulsory_bytes


def test_ends_where_the_lower_bound_is_met() -> None:
    problem = random_problem(3, Shape(operators=60, most_units=12))
    start = Searcher(problem).outcome
    found = search(problem, effort=1000.0, lower_bound=start.noncompulsory_bytes)
    assert found.exhausted
    assert found.work_done == 0


def test_given_decisions_are_kept_if_nothing_better_is_found() -> None:
    for seed in range(4):
        problem = random_problem(seed, LARGE)
        if not feasible(problem):
            continue
        good = search(problem, effort=0.2, seed=seed)
        again = Searcher(problem, [good.decisions]).outcome
        assert isinstance(good.decisions, Decisions)
        assert again.noncompulsory_bytes == good.noncompulsory_bytes


def test_chains_at_rest_are_followed_by_others_and_then_by_both(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[int, set[tuple[int, ...]]]] = []

    class Noted(population_module.Population):
        def __init__(self, net, starts, *, seed: int, number: int) -> None:
            begun.append((number, {tuple(order.tolist()) for order in starts}))
            super().__init__(net, starts, seed=seed, number=number)

    monkeypatch.setattr(searcher_module, "Population", Noted)
    problem = random_problem(8, Shape(operators=20, most_units=6))
    starts = [list(range(problem.operator_count)), random_order(problem, 1)]
    searcher = Searcher(problem, starts, seed=1)
    searcher.run(2.0)
    assert [number for number, _ in begun] == list(range(len(begun)))
    assert len(begun) >= 4
    # The third goes on from where the first two rested, the others begin from what was given.
    assert begun[0][1] == begun[1][1] == begun[3][1] != begun[2][1]
    assert noncompulsory_bytes(problem, searcher.outcome.decisions) == searcher.outcome.noncompulsory_bytes


def test_an_order_told_meanwhile_is_one_to_go_on_from() -> None:
    problem = random_problem(8, Shape(operators=20, most_units=6))
    good = search(problem, effort=0.5, seed=1)
    searcher = Searcher(problem, [random_order(problem, 7)], seed=2)
    adopted: list[int] = []
    searcher.run(0.01)
    assert searcher._population is not None
    searcher._population.adopt = lambda cost, order: adopted.append(cost)  # type: ignore[method-assign]
    searcher.offer(good.decisions)
    assert len(adopted) == 1
    assert searcher.outcome.noncompulsory_bytes <= good.noncompulsory_bytes
