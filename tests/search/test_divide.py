from __future__ import annotations

import pytest

from cosma.accelerator import Accelerator
from cosma.graph import Graph, Operator, Tensor, TensorKind
from cosma.parameters.search import DivideParameters
from cosma.problem import Problem, build_problem, noncompulsory_bytes, occupancy_bytes
from cosma.replacement import ReplacementParameters
from cosma.search import divide
from tests.brute_force import TooLargeError, brute_force
from tests.evaluation.test_kernels import LARGE, feasible
from tests.random_graphs import Shape, random_problem


def diamonds(count: int, capacity: int) -> Problem:
    """Diamonds in a row: the operator that joins each is comparable with all others."""
    tensors = [Tensor("t0", 64, TensorKind.INPUT)]
    operators = []
    last = "t0"
    for k in range(count):
        kind = TensorKind.OUTPUT if k == count - 1 else TensorKind.INTERMEDIATE
        tensors += [Tensor(f"a{k}", 128), Tensor(f"b{k}", 64), Tensor(f"c{k}", 256), Tensor(f"t{k + 1}", 64, kind)]
        operators += [
            Operator(f"left{k}", "Conv", (last,), (f"a{k}",)),
            Operator(f"right{k}", "Conv", (last,), (f"c{k}",)),
            Operator(f"shrink{k}", "Conv", (f"c{k}",), (f"b{k}",)),
            Operator(f"join{k}", "Concat", (f"a{k}", f"b{k}", last), (f"t{k + 1}",)),
        ]
        last = f"t{k + 1}"
    accelerator = Accelerator(scratchpad=capacity, alignment=64, operands="resident", in_place=False)
    return build_problem(Graph(tensors, operators, "diamonds"), accelerator)


def test_exact_parts_give_the_optimum_of_the_whole() -> None:
    for capacity in (320, 384, 448):
        small = diamonds(2, capacity)
        found = divide(small, parameters=DivideParameters(most_operators=4))
        assert found.exact, found.parts
        assert len(found.parts) == 2
        assert found.noncompulsory_bytes == brute_force(small).noncompulsory_bytes
    longer = divide(diamonds(6, 320), parameters=DivideParameters(most_operators=4))
    assert longer.exact
    # The input of each diamond has to leave: the graph's input at the price of a read, the others with a store.
    assert longer.noncompulsory_bytes == 64 + 5 * 128


def test_exact_means_optimal_on_random_instances() -> None:
    exact = 0
    for seed in range(40):
        problem = random_problem(seed)
        if not feasible(problem):
            continue
        found = divide(problem, parameters=DivideParameters(most_operators=3))
        assert noncompulsory_bytes(problem, found.decisions) == found.noncompulsory_bytes
        try:
            optimum = brute_force(problem, most_states=20_000).noncompulsory_bytes
        except TooLargeError:
            continue
        assert found.noncompulsory_bytes >= optimum
        if found.exact:
            exact += 1
            assert found.noncompulsory_bytes == optimum, seed
    assert exact > 5


def test_heuristic_parts_say_so_and_plans_are_valid() -> None:
    inexact = 0
    for seed in range(4):
        problem = random_problem(seed, Shape(operators=30, most_units=12))
        if not feasible(problem):
            continue
        found = divide(problem, effort=2.0, parameters=DivideParameters(most_operators=8))
        assert int(occupancy_bytes(problem, found.decisions).max(initial=0)) <= problem.capacity_bytes
        assert found.parts[0].start == 0
        assert found.parts[-1].end == problem.operator_count
        assert all(part.exact == (not part.reason) for part in found.parts)
        assert found == divide(problem, effort=2.0, parameters=DivideParameters(most_operators=8))
        inexact += not found.exact
    assert inexact > 0


def test_stop_leaves_the_rest_as_given() -> None:
    problem = random_problem(0, LARGE)
    found = divide(problem, list(range(problem.operator_count)), stop=lambda: True)
    assert not found.exact
    assert {part.reason for part in found.parts} == {"stopped"}
    assert sorted(found.decisions.order) == list(range(problem.operator_count))


def test_large_replacements_are_left_to_the_greedy_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit no program is built, the plan still fits, and nothing is called exact."""
    problem = diamonds(6, 320)
    best = divide(problem, parameters=DivideParameters(most_operators=4))
    few = ReplacementParameters(most_terms=10)
    monkeypatch.setattr("cosma.replacement.optimal_replacement", None)  # must not be called
    found = divide(problem, parameters=DivideParameters(most_operators=4), replacement=few)
    assert found.noncompulsory_bytes == noncompulsory_bytes(problem, found.decisions) >= best.noncompulsory_bytes
    assert occupancy_bytes(problem, found.decisions).max() <= problem.capacity_bytes
    assert not found.exact
