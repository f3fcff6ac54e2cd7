"""Least peaks: against every order of small graphs, and against brute force over plans."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cosma.accelerator import Accelerator
from cosma.bounds import BoundEngine
from cosma.bounds.least_peak import LeastPeak, worth_of_excess
from cosma.bounds.lifetimes import lifetimes_of
from cosma.bounds.peak_search import PeakSearch
from cosma.bounds.segments import segments_of
from cosma.errors import InfeasibleError
from cosma.graph import Graph, Operator, Tensor, TensorKind
from cosma.parameters.bounds import PeakParameters
from cosma.problem import build_problem, check_feasible
from cosma.problem.precedence import reach_of
from tests.brute_force import TooLargeError, brute_force
from tests.random_graphs import Shape, random_problem

if TYPE_CHECKING:
    from cosma.bounds.segments import Segment
    from cosma.problem import Problem


def least_peak(problem: Problem, segment: Segment, tensors: list[int]) -> int:
    """The least peak of a segment over all its orders, by dynamic programming over all down-sets."""
    operators = range(segment.first, segment.end)
    count = len(operators)
    needs = [
        sum(1 << int(u) - segment.first for u in problem.predecessors_of(v) if int(u) >= segment.first)
        for v in operators
    ]
    touched = {t: sum(1 << v - segment.first for v in segment.touched[t]) for t in tensors}
    best: dict[int, int] = {0: 0}
    for done in range(1 << count):
        if done not in best:
            continue
        for i, v in enumerate(operators):
            after = done | 1 << i
            if after == done or needs[i] & ~done:
                continue
            alive, ended = 0, set()
            for t, mask in touched.items():
                begun = mask & after or t in segment.before
                if begun and (mask & ~done or t in segment.after):
                    alive += int(problem.space_bytes[t])
                    if mask >> i & 1 and not mask & ~after and t not in segment.after:
                        ended.add(t)
            taken = [int(problem.space_bytes[r]) for r, u in problem.pairs_of(v) if r in touched and u in ended]
            peak = max(best[done], alive - max(taken, default=0))
            best[after] = min(best.get(after, peak), peak)
    return best[(1 << count) - 1]


def peak_of(problem: Problem, segment: Segment, tensors: list[int], order: tuple[int, ...]) -> int:
    """The peak of one order without takeovers."""
    place = {v: i for i, v in enumerate(order)}
    held = np.zeros(len(order), dtype=np.int64)
    for t in tensors:
        touches = [place[v] for v in segment.touched[t]]
        first = 0 if t in segment.before else min(touches)
        last = len(order) - 1 if t in segment.after else max(touches)
        held[first : last + 1] += problem.space_bytes[t]
    return int(held.max())


@pytest.mark.parametrize("block", range(3))
def test_search_answers_at_the_least_peak_and_one_byte_below(block: int) -> None:
    asked = 0
    for seed in range(block * 60, block * 60 + 60):
        problem = random_problem(seed, Shape(operators=8))
        reach = reach_of(problem)
        for segment in segments_of(problem, reach, lifetimes_of(problem, reach)):
            tensors = list(segment.touched)
            if not tensors:
                continue
            least = least_peak(problem, segment, tensors)
            for most_bytes, possible in ((least, True), (least - 1, False)):
                for backwards in (False, True):
                    search = PeakSearch(problem, reach, segment, tensors, most_bytes, backwards=backwards)
                    assert all(work > 0 for work in search.run())
                    assert search.impossible != possible, f"seed {seed}"
                    assert (search.order is not None) == possible
            asked += 1
    assert asked > 40


def test_order_found_is_one_and_has_the_peak() -> None:
    found = 0
    for seed in range(200):
        problem = random_problem(seed, Shape(operators=9))
        reach = reach_of(problem)
        if len(problem.pair_result):
            continue
        for segment in segments_of(problem, reach, lifetimes_of(problem, reach)):
            tensors = list(segment.touched)
            least = least_peak(problem, segment, tensors)
            for backwards in (False, True):
                search = PeakSearch(problem, reach, segment, tensors, least, backwards=backwards)
                for _ in search.run():
                    pass
                assert search.order is not None
                assert sorted(search.order) == list(range(segment.first, segment.end))
                place = {v: i for i, v in enumerate(search.order)}
                for v, i in place.items():
                    assert all(place[u] < i for u in problem.predecessors_of(v).tolist() if u in place)
                assert peak_of(problem, segment, tensors, search.order) == least
                found += 1
    assert found > 50


def test_tables_grow_without_losing_a_state() -> None:
    """The same answer, and as much work but for the states, from tables that start too small."""
    problem = towers(6)
    reach = reach_of(problem)
    (segment,) = segments_of(problem, reach, lifetimes_of(problem, reach))
    tensors = list(segment.touched)
    answers = []
    for room in (1, 4096):
        parameters = PeakParameters(first_room=room)
        for most_bytes in range(64, 64 * 20, 64):
            search = PeakSearch(problem, reach, segment, tensors, most_bytes, parameters=parameters)
            answers.append((room, most_bytes, round(sum(search.run()), 12), search.impossible, search.order))
    half = len(answers) // 2
    assert [a[1:] for a in answers[:half]] == [a[1:] for a in answers[half:]]
    assert {a[3] for a in answers} == {True, False}


def towers(count: int) -> Problem:
    """Towers on one input of which each leaves one tensor for the join."""
    tensors = [Tensor("x", 64, TensorKind.INPUT), Tensor("y", 64, TensorKind.OUTPUT)]
    operators = []
    for i in range(count):
        tensors += [Tensor(f"wide{i}", 64 * (2 + i % 3)), Tensor(f"narrow{i}", 64)]
        operators.append(Operator(f"up{i}", "Conv", ("x",), (f"wide{i}",), covers=(f"wide{i}",)))
        operators.append(Operator(f"down{i}", "Conv", (f"wide{i}",), (f"narrow{i}",), covers=(f"narrow{i}",)))
    operators.append(Operator("join", "Conv", tuple(f"narrow{i}" for i in range(count)), ("y",), covers=("y",)))
    graph = Graph(tensors, operators, "towers")
    return build_problem(graph, Accelerator(scratchpad=1 << 20, operands="resident", in_place=False))


@pytest.mark.parametrize("most_units", [4096, 7])
def test_worth_of_excess_is_the_cheapest_cover(most_units: int) -> None:
    rng = np.random.default_rng(5)
    exact = 0
    for _ in range(300):
        count = int(rng.integers(1, 7))
        space = rng.integers(1, 9, count) * 64
        price = rng.integers(0, 20, count)
        excess, worth = worth_of_excess(space, price, most_units=most_units)
        for absent in range(0, int(space.sum()), 64):
            covers = [set_ for k in range(count + 1) for set_ in combinations(range(count), k)]
            cheapest = min(sum(price[list(set_)]) for set_ in covers if sum(space[list(set_)]) > absent)
            level = int(np.searchsorted(excess, absent, side="right")) - 1
            assert level < 0 or worth[level] <= cheapest
            exact += level >= 0 and worth[level] == cheapest
            assert most_units < 4096 or worth[level] == cheapest
    assert exact > 1000


def test_worth_of_excess_of_nothing() -> None:
    excess, worth = worth_of_excess(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    assert len(excess) == len(worth) == 0


def test_never_above_the_optimum_and_often_the_optimum() -> None:
    raised = met = positive = 0
    for seed in range(400):
        problem = random_problem(seed)
        try:
            check_feasible(problem)
            optimum = brute_force(problem).noncompulsory_bytes - problem.constant_noncompulsory_bytes
        except (InfeasibleError, TooLargeError):
            continue
        reach = reach_of(problem)
        peaks = LeastPeak(problem, reach, lifetimes_of(problem, reach))
        for _ in peaks.run():
            assert peaks.value_bytes <= optimum, f"seed {seed}"
        assert peaks.value_bytes <= optimum, f"seed {seed}"
        assert sorted(peaks.order or ()) == list(range(problem.operator_count))
        positive += optimum > 0
        raised += peaks.value_bytes > 0
        met += peaks.value_bytes == optimum > 0
    assert positive > 100
    assert raised > 80
    assert met > 25


def test_windows_add_up() -> None:
    """Two places at which one of two must go, in different segments: both are paid for."""
    tensors = [Tensor("x0", 64, TensorKind.INPUT), Tensor("x2", 64, TensorKind.OUTPUT)]
    operators = []
    for i in range(2):
        tensors += [Tensor(f"{name}{i}", 640) for name in "abcd"] + ([Tensor("x1", 64)] if i == 0 else [])
        for source, target in (("x", "a"), ("a", "b"), ("x", "c"), ("c", "d")):
            operators.append(
                Operator(f"{source}{target}{i}", "Conv", (f"{source}{i}",), (f"{target}{i}",), covers=(f"{target}{i}",))
            )
        operators.append(Operator(f"join{i}", "Conv", (f"b{i}", f"d{i}"), (f"x{i + 1}",), covers=(f"x{i + 1}",)))
    graph = Graph(tensors, operators, "two")
    problem = build_problem(graph, Accelerator(scratchpad=1408, operands="resident", in_place=False))
    reach = reach_of(problem)
    peaks = LeastPeak(problem, reach, lifetimes_of(problem, reach))
    for _ in peaks.run():
        pass
    assert peaks.value_bytes == 2 * 2 * 640 == brute_force(problem).noncompulsory_bytes
    assert BoundEngine(problem).run(1e3).value_bytes == 2 * 2 * 640
