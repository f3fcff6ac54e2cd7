"""No bound may exceed the true optimum: every engine against brute force on small random instances."""

from __future__ import annotations

import pytest

from cosma.bounds import BoundEngine, lower_bound
from cosma.errors import InfeasibleError
from cosma.parameters.bounds import BoundParameters
from tests.brute_force import TooLargeError, brute_force
from tests.random_graphs import Shape, random_order, random_problem

SHAPES = {
    "mixed": Shape(operators=6),
    "coarse": Shape(operators=6, most_units=3, ragged=False),
    "narrow": Shape(operators=6, inputs=1, weights=2),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("block", range(4))
def test_never_above_the_optimum(shape: str, block: int) -> None:
    compared = positive = met = 0
    for seed in range(block * 60, block * 60 + 60):
        problem = random_problem(seed, SHAPES[shape])
        try:
            engine = BoundEngine(problem, seed=seed)
        except InfeasibleError:
            continue
        try:
            optimum = brute_force(problem, most_states=4000).noncompulsory_bytes
        except TooLargeError:
            continue
        assert optimum is not None
        last = problem.constant_noncompulsory_bytes
        while True:
            bound = engine.run(0.01)
            assert last <= bound.value_bytes <= optimum, f"seed {seed}"
            last = bound.value_bytes
            if bound.exhausted:
                break
        compared += 1
        positive += optimum > problem.constant_noncompulsory_bytes
        met += bound.value_bytes == optimum
    assert compared > 30
    assert positive > 0
    assert met > compared * 0.8


@pytest.mark.parametrize("block", range(4))
def test_never_above_the_optimum_with_pieces(block: int) -> None:
    # Wider label searches would prove instances of this size before they are cut.
    parameters = BoundParameters(piece_sizes=(3, 2), whole_work_before_pieces=0.0, first_width=1, most_width=1)
    compared = cut = 0
    for seed in range(1000 + block * 60, 1060 + block * 60):
        problem = random_problem(seed, SHAPES["mixed"])
        try:
            engine = BoundEngine(problem, seed=seed, parameters=parameters)
            optimum = brute_force(problem, most_states=4000).noncompulsory_bytes
        except (InfeasibleError, TooLargeError):
            continue
        assert optimum is not None
        # The order is changed under way, as search would: the network is cut anew.
        engine.good_order = random_order(problem, seed)
        for turn in range(1000):
            bound = engine.run(0.01)
            assert bound.value_bytes <= optimum, f"seed {seed}"
            if turn == 5:
                engine.good_order = random_order(problem, seed + 1)
            if bound.exhausted:
                break
        assert bound.exhausted
        compared += 1
        cut += engine.pieces_work > 0
    assert compared > 30
    assert cut > compared / 4


def test_one_call_equals_many_slices() -> None:
    for seed in (3, 17, 29, 31, 57):
        problem = random_problem(seed, SHAPES["mixed"])
        try:
            whole = lower_bound(problem, effort=4)
        except InfeasibleError:
            continue
        engine = BoundEngine(problem)
        for _ in range(10_000):
            bound = engine.run(0.002)
            if bound.exhausted:
                break
        assert bound == whole
