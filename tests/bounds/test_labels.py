"""The label search against brute force: exact when wide, a bound when it must merge; kernels against plain Python."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from cosma.bounds import label_kernels
from cosma.bounds.labels import LabelSearch, Potential, label_data, no_potential
from cosma.bounds.lifetimes import lifetimes_of
from cosma.bounds.potential import PriceProgram, potential_of
from cosma.bounds.reach import reach_of
from cosma.bounds.rows import RowBuilder
from cosma.problem import Problem
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


def test_compiled_kernels_equal_their_python_source() -> None:
    names = [name for name, kernel in vars(label_kernels).items() if hasattr(kernel, "py_func")]
    compiled = {name: getattr(label_kernels, name) for name in names}
    checked = 0
    for problem, _ in solved(SHAPES[1], range(3000, 3100), positive=True):
        fast = first_layers(problem)
        try:
            for name in names:
                setattr(label_kernels, name, compiled[name].py_func)
            with np.errstate(over="ignore"):
                slow = first_layers(problem)
        finally:
            for name in names:
                setattr(label_kernels, name, compiled[name])
        assert fast == slow
        checked += 1
        if checked == 12:
            break
    assert checked == 12


def first_layers(problem: Problem) -> list[tuple[list[list[int]], list[int], list[float], float]]:
    """All labels of every layer, by the kernels as they are bound now."""
    potential = priced(problem)
    data = label_data(problem, potential)
    words, room = 2 * data.operator_words + 3 * data.tensor_words, 4096
    table = np.zeros((room, words), dtype=np.uint64)
    for v in range(problem.operator_count):
        if len(problem.predecessors_of(v)) == 0:
            table[0, data.operator_words] |= np.uint64(1 << v)
    cost, used = np.zeros(room, dtype=np.int64), np.zeros(room, dtype=np.int64)
    bound, rest = np.zeros(room), np.full(room, potential.total)
    pure = np.ones(room, dtype=np.bool_)
    chosen = np.zeros(1, dtype=np.int64)
    found = []
    for _ in range(problem.operator_count):
        new = [np.zeros_like(x) for x in (table, cost, bound, used, rest)]
        parent, by = np.zeros(room, dtype=np.int32), np.zeros(room, dtype=np.int32)
        alive, real = np.zeros(room, dtype=np.bool_), np.ones(room, dtype=np.bool_)
        heads, nexts = np.full(1024, -1, dtype=np.int64), np.zeros(room, dtype=np.int64)
        sizes = np.zeros(4, dtype=np.int64)
        lost = label_kernels.expand(
            data, table, cost, bound, used, rest, pure, chosen, 0, len(chosen), 1e18, 4096,
            *new, parent, by, alive, real, heads, nexts, sizes,
        )  # fmt: skip
        table, cost, bound, used, rest = new
        chosen = np.flatnonzero(alive[: sizes[0]])
        found.append((table[chosen].tolist(), cost[chosen].tolist(), bound[chosen].tolist(), float(lost)))
    return found
