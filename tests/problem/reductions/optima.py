"""Small problems with their optima, and schedules of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from cosma.lowering import realise
from cosma.problem import (
    Decisions,
    Instance,
    Problem,
    build_problem,
    decisions_from_gaps,
    noncompulsory_bytes,
    occupancy_bytes,
    touches_of,
)
from cosma.validator import replay_instructions
from tests.brute_force import TooLargeError, brute_force
from tests.modes.instances import instances
from tests.random_graphs import Shape, random_order, random_problem

SMALL = Shape(operators=6)


def problems_with_optima(seeds: Iterable[int], shape: Shape = SMALL) -> Iterator[tuple[Instance, int]]:
    """Feasible problems in every mode that brute force can solve, each with its optimum."""
    for seed in seeds:
        yield from _with_optimum(random_problem(seed, shape))


def stationary_with_optima(seed: int, count: int) -> Iterator[tuple[Instance, int]]:
    """The same where each operator streams some of what it touches and may need scratch space."""
    for graph, accelerator in instances(seed, count):
        yield from _with_optimum(build_problem(graph, accelerator))


def _with_optimum(problem: Instance) -> Iterator[tuple[Instance, int]]:
    try:
        optimum = optimum_of(problem)
    except TooLargeError:
        return
    if optimum is not None:
        yield problem, optimum


def optimum_of(problem: Problem) -> int | None:
    """Least non-compulsory bytes of any plan, addresses aside; None where there is no plan."""
    return brute_force(problem, most_states=20_000).noncompulsory_bytes


def some_decisions(problem: Problem, seed: int, order: Iterable[int] | None = None) -> Decisions:
    """Decisions at random that hold each step within the capacity of a feasible problem."""
    order = list(random_order(problem, seed) if order is None else order)
    touches = touches_of(problem, order)
    draws = np.random.default_rng(seed).random(len(touches.step))
    for share in (0.9, 0.7, 0.5, 0.3, 0.1, 0.0):
        decisions = decisions_from_gaps(problem, order, draws < share, touches=touches)
        if fits(problem, decisions):
            return decisions
    raise AssertionError("with nothing kept between touches every step fits")


def fits(problem: Problem, decisions: Decisions) -> bool:
    """Whether each step is held within the capacity."""
    return int(occupancy_bytes(problem, decisions).max(initial=0)) <= problem.capacity_bytes


def assert_is_a_plan(instance: Instance, decisions: Decisions) -> None:
    """Decisions fit, and the validator counts for them what the instance does."""
    assert fits(instance, decisions)
    realised = realise(instance, decisions)
    report = replay_instructions(instance.graph, instance.accelerator, realised.instructions)
    assert report.valid, report.problems
    assert report.traffic.noncompulsory == noncompulsory_bytes(instance, realised.decisions)
    if realised.repairs == 0:
        assert report.traffic.noncompulsory == noncompulsory_bytes(instance, decisions)
