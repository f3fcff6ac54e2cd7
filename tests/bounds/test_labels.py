"""The label search against brute force: exact when wide, a bound when it must merge; kernels against plain Python."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from cosma.accelerator import Accelerator
from cosma.bounds import label_kernels, label_merge, label_rules, labels
from cosma.bounds.dual import Potential, no_potential
from cosma.bounds.labels import LabelSearch
from cosma.bounds.lifetimes import lifetimes_of
from cosma.bounds.potential import PriceProgram, potential_of
from cosma.bounds.rows import RowBuilder
from cosma.graph import Graph, Operator, Tensor, TensorKind
from cosma.problem import Problem, build_problem
from cosma.problem.precedence import reach_of
from tests.brute_force import TooLargeError, brute_force
from tests.random_graphs import Shape, random_problem

SHAPES = (Shape(operators=6), Shape(operators=7, inputs=1, weights=1, most_units=4))


def priced(problem: Problem) -> Potential:
    reach = reach_of(problem)
    lifetimes = lifetimes_of(problem, reach)
    builder = RowBuilder(problem, reach, lifetimes)
    rows = [row for v in builder.crowded() if (row := builder.build(v)) is not None]
    return potential_of(problem, PriceProgram(lifetimes, rows).solve(rounds=6))


def searched(problem: Problem, potential: Potential, upper: int | None, width: int) -> LabelSearch:
    search = LabelSearch(problem, potential, upper, width)
    last = 0.0
    for work in search.run():
        assert work > 0
        assert search.bound_bytes >= last
        last = search.bound_bytes
    return search


@cache
def solved(shape: Shape, seeds: range, *, positive: bool) -> tuple[tuple[Problem, int], ...]:
    """Instances with the decisions' part of their optimum."""
    return tuple(_solve(shape, seeds, positive))


def _solve(shape: Shape, seeds: range, positive: bool) -> Iterator[tuple[Problem, int]]:
    for seed in seeds:
        problem = random_problem(seed, shape)
        try:
            optimum = brute_force(problem, most_states=4000).noncompulsory_bytes
        except TooLargeError:
            continue
        if optimum is None:
            continue
        optimum -= problem.constant_noncompulsory_bytes
        if optimum or not positive:
            yield problem, optimum


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_a_wide_search_is_exact(shape: int) -> None:
    count = 0
    for problem, optimum in solved(SHAPES[shape], range(1000, 1120), positive=False):
        search = searched(problem, no_potential(problem), None, 512)
        assert search.proven
        assert search.bound_bytes == pytest.approx(optimum, abs=1e-2)
        assert search.order is not None
        fixed = brute_force(problem, order=search.order).noncompulsory_bytes
        assert fixed == optimum + problem.constant_noncompulsory_bytes
        count += 1
    assert count > 60


@pytest.mark.parametrize("width", [1, 2, 5, 64])
def test_a_narrow_search_is_a_bound_whatever_is_known(width: int) -> None:
    count = met = 0
    for problem, optimum in solved(SHAPES[0], range(2000, 2200), positive=True):
        potential = priced(problem)
        assert potential.total <= optimum + 1e-6
        for upper in (None, optimum, optimum + 1, 2 * optimum):
            search = searched(problem, potential, upper, width)
            assert search.bound_bytes <= optimum + 1e-6
            if upper is not None and search.proven:
                assert search.bound_bytes == pytest.approx(min(upper, optimum), abs=1e-2)
        count += 1
        met += search.bound_bytes > optimum - 1e-2
    assert count > 20
    assert met >= count * (0.4 if width < 5 else 0.8)


def test_an_operator_of_hundreds_of_operands_is_given_up() -> None:
    names = [f"t{i}" for i in range(300)]
    tensors = [Tensor("x", 64, TensorKind.INPUT), *(Tensor(name, 64, TensorKind.OUTPUT) for name in "yz")]
    tensors += [Tensor(name, 64, TensorKind.INTERMEDIATE) for name in names]
    sources = ["x", *names]
    operators = [Operator(f"make {name}", "Relu", (sources[i],), (name,)) for i, name in enumerate(names)]
    operators += [Operator(f"concat {name}", "Concat", tuple(names), (name,)) for name in ("y", "z")]
    problem = build_problem(Graph(tensors, operators), Accelerator(scratchpad=64 * 8, operands="streamable"))
    search = LabelSearch(problem, no_potential(problem), None, 512)
    # Each of the tensors beyond eight is written once and read by both.
    assert sum(1 for _ in search.run()) == 301
    assert not search.proven
    assert 0 < search.bound_bytes <= 3 * 64 * 300


def test_compiled_kernels_equal_their_python_source(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = (label_rules, label_kernels, label_merge, labels)
    cases = [problem for problem, _ in solved(SHAPES[1], range(3000, 3100), positive=True)][:12]
    assert len(cases) == 12
    fast = [progress(problem, width) for problem in cases for width in (3, 64)]
    replaced = set()
    for module in modules:
        for name, function in vars(module).copy().items():
            if hasattr(function, "py_func"):
                monkeypatch.setattr(module, name, function.py_func)
                replaced.add(name)
    assert {"expand", "merge", "next_cover", "dominates", "future_cost"} <= replaced
    with np.errstate(over="ignore"):
        slow = [progress(problem, width) for problem in cases for width in (3, 64)]
    assert fast == slow


def progress(problem: Problem, width: int) -> tuple[list[tuple[float, float]], tuple[int, ...] | None, bool]:
    """Work and bound after every layer, and what came out, by the kernels as they are bound now."""
    search = LabelSearch(problem, priced(problem), None, width)
    layers = [(work, search.bound_bytes) for work in search.run()]
    return layers, search.order, search.proven
