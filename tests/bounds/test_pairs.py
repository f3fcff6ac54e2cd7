"""Rows for pairs of operators of which either may run first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.accelerator import Accelerator
from cosma.bounds.covering import CoveringProgram
from cosma.bounds.lifetimes import lifetimes_of
from cosma.bounds.rows import RowBuilder
from cosma.errors import InfeasibleError
from cosma.graph import Graph, Operator, Tensor, TensorKind
from cosma.problem import build_problem, check_feasible
from cosma.problem.precedence import reach_of
from tests.brute_force import TooLargeError, brute_force
from tests.random_graphs import random_problem

if TYPE_CHECKING:
    from cosma.bounds.rows import Either
    from cosma.problem import Problem


def programs(problem: Problem) -> tuple[list[Either], int, int]:
    """The pairs of a problem, and the covering program's value without and with them."""
    reach = reach_of(problem)
    lifetimes = lifetimes_of(problem, reach)
    builder = RowBuilder(problem, reach, lifetimes)
    built = (builder.build(operator) for operator in builder.crowded())
    rows = {row.operator: row for row in built if row is not None}
    pairs = builder.pairs(rows)
    without = CoveringProgram(lifetimes, rows.values()).solve(1.0).value_bytes
    return pairs, without, CoveringProgram(lifetimes, rows.values(), pairs).solve(1.0).value_bytes


def test_two_towers_that_do_not_fit_together() -> None:
    """Either tower's top must wait off-chip while the other is computed, though neither is forced to be the one."""
    graph = Graph(
        [
            Tensor("x", 64, TensorKind.INPUT),
            *(Tensor(name, 640) for name in ("a", "b", "c", "d")),
            Tensor("y", 64, TensorKind.OUTPUT),
        ],
        [
            Operator("left", "Conv", ("x",), ("a",), covers=("a",)),
            Operator("left top", "Conv", ("a",), ("b",), covers=("b",)),
            Operator("right", "Conv", ("x",), ("c",), covers=("c",)),
            Operator("right top", "Conv", ("c",), ("d",), covers=("d",)),
            Operator("join", "Conv", ("b", "d"), ("y",), covers=("y",)),
        ],
        "towers",
    )
    problem = build_problem(graph, Accelerator(scratchpad=1408, operands="resident", in_place=False))
    pairs, without, with_pairs = programs(problem)
    assert pairs
    assert without == 0
    assert with_pairs == brute_force(problem).noncompulsory_bytes == 2 * 640


def test_pairs_never_exceed_the_optimum_and_often_raise_the_bound() -> None:
    paired = raised = 0
    for seed in range(700):
        problem = random_problem(seed)
        try:
            check_feasible(problem)
            pairs, without, with_pairs = programs(problem)
            if not pairs:
                continue
            optimum = brute_force(problem).noncompulsory_bytes - problem.constant_noncompulsory_bytes
        except (InfeasibleError, TooLargeError):
            continue
        assert without <= with_pairs <= optimum
        paired += 1
        raised += with_pairs > without
    assert paired > 30
    assert raised > 10
