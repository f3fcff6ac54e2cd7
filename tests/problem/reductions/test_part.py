from __future__ import annotations

import numpy as np
import pytest

from cosma.problem import Instance
from cosma.problem.reductions import Part, part_of
from tests.problem.reductions.optima import optimum_of, problems_with_optima, stationary_with_optima
from tests.random_graphs import random_problem


def random_part(problem: Instance, seed: int) -> Part:
    """Some operators, and some of the tensors that they touch."""
    rng = np.random.default_rng(seed)
    operators = np.flatnonzero(rng.random(problem.operator_count) < 0.7)
    touched = {t for v in operators for t in (*problem.operands_of(v).tolist(), *problem.results_of(v).tolist())}
    tensors = np.array(sorted(t for t in touched if rng.random() < 0.8), dtype=np.int64)
    return part_of(problem, operators, tensors)


def test_the_optimum_of_a_part_lifts_to_a_bound_of_the_whole() -> None:
    compared = positive = 0
    for seed, (problem, optimum) in enumerate(problems_with_optima(range(200))):
        part = random_part(problem, seed)
        least = optimum_of(part.problem)
        assert least is not None, "a part needs no more room than the whole"
        assert part.lift_bound(least) <= optimum
        compared += 1
        positive += least > 0
    assert compared > 100
    assert positive > 15


def test_so_it_does_where_operators_hold_some_operands_and_scratch_space() -> None:
    compared = positive = 0
    for seed, (problem, optimum) in enumerate(stationary_with_optima(21, 120)):
        part = random_part(problem, seed)
        least = optimum_of(part.problem)
        assert least is not None
        assert part.lift_bound(least) <= optimum
        compared += 1
        positive += least > 0
    assert compared > 60
    assert positive > 10


def test_the_whole_is_a_part_of_itself() -> None:
    for problem, optimum in problems_with_optima(range(200, 230)):
        touched = (problem.producer >= 0) | (np.diff(problem.consumer_start) > 0)
        assert touched.all()
        part = part_of(problem, np.arange(problem.operator_count), np.arange(problem.tensor_count))
        least = optimum_of(part.problem)
        assert least is not None
        assert part.lift_bound(least) == optimum
        assert not isinstance(part.problem, Instance), "a part is no longer the graph's"


def test_a_tensor_that_no_operator_of_the_part_touches_is_refused() -> None:
    problem = random_problem(3)
    untouched = [t for t in range(problem.tensor_count) if 0 not in problem.consumers_of(t) and problem.producer[t]]
    with pytest.raises(ValueError, match="no operator touches"):
        part_of(problem, np.array([0]), np.array(untouched[:1]))
