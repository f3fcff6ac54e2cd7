from __future__ import annotations

from itertools import pairwise

import numpy as np

from cosma.problem import Decisions, Instance, noncompulsory_bytes, touches_of
from cosma.problem.reductions import Section, join_sections, section_of
from cosma.problem.rules import store_bytes
from cosma.replacement import optimal_replacement
from tests.brute_force import brute_force
from tests.problem.reductions.optima import assert_is_a_plan, problems_with_optima, some_decisions
from tests.random_graphs import Shape, random_order


def sections_of(problem: Instance, order: list[int], seed: int, most: int = 4) -> list[Section]:
    """Cut an order at random steps."""
    rng = np.random.default_rng(seed)
    inner = sorted({int(step) for step in rng.integers(0, len(order), size=most - 1)} - {0})
    steps = [0, *inner, len(order)]
    touches = touches_of(problem, order)
    return [section_of(problem, order, touches, a, b) for a, b in pairwise(steps)]


def crossing_bytes(problem: Instance, sections: list[Section]) -> int:
    """What sections read that lies off-chip before them, and what they store for others, counted by hand."""
    total = 0
    for t in range(problem.tensor_count):
        producer = int(problem.producer[t])
        homes = [s for s in sections if producer in s.operators]
        readers = [s for s in sections if any(int(v) in s.operators for v in problem.consumers_of(t))]
        others = [s for s in readers if s not in homes]
        if producer < 0:
            total += (len(readers) - 1) * int(problem.size_bytes[t])
        elif others:
            total += len(others) * int(problem.size_bytes[t]) + int(store_bytes(problem, t))
    return total


def joined(problem: Instance, sections: list[Section], found: list[Decisions]) -> Decisions:
    """Join the decisions of sections, and check what they cost together."""
    decisions = join_sections(s.lift(d) for s, d in zip(sections, found, strict=True))
    inside = sum(noncompulsory_bytes(s.problem, d) for s, d in zip(sections, found, strict=True))
    assert (
        noncompulsory_bytes(problem, decisions)
        == problem.constant_noncompulsory_bytes + inside + crossing_bytes(problem, sections)
    )
    return decisions


def test_sections_join_to_a_schedule_of_the_whole() -> None:
    several = 0
    for seed, (problem, _) in enumerate(problems_with_optima(range(150), Shape(operators=7))):
        order = random_order(problem, seed)
        sections = sections_of(problem, order, seed)
        decisions = joined(problem, sections, [some_decisions(s.problem, seed, s.order) for s in sections])
        assert list(decisions.order) == order
        assert_is_a_plan(problem, decisions)
        several += len(sections) > 1
    assert several > 80


def test_the_best_of_each_section_is_no_better_than_the_optimum_of_the_order() -> None:
    compared = equal = 0
    for seed, (problem, _) in enumerate(problems_with_optima(range(150, 260))):
        order = random_order(problem, seed)
        optimum = brute_force(problem, order=order, most_states=20_000).noncompulsory_bytes
        assert optimum is not None
        sections = sections_of(problem, order, seed, 1 + seed % 3)
        found = [optimal_replacement(s.problem, s.order)[0] for s in sections]
        traffic = noncompulsory_bytes(problem, joined(problem, sections, found))
        assert traffic >= optimum
        if len(sections) == 1:
            assert traffic == optimum
        compared += 1
        equal += traffic == optimum
    assert compared > 60
    assert compared > equal
