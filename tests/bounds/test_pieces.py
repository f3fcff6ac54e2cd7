"""The bounds of pieces add up to no more than the true optimum of the whole."""

from __future__ import annotations

import pytest

from cosma.bounds.pieces import PieceBounds, cut_into_pieces
from cosma.errors import InfeasibleError
from cosma.problem import check_feasible
from cosma.problem.precedence import reach_of
from tests.brute_force import TooLargeError, brute_force
from tests.random_graphs import Shape, random_order, random_problem


@pytest.mark.parametrize("reach_out", [True, False])
@pytest.mark.parametrize("most_operators", [2, 3, 4])
def test_never_above_the_optimum(most_operators: int, reach_out: bool) -> None:
    compared = positive = 0
    for seed in range(150):
        problem = random_problem(seed, Shape(operators=6))
        try:
            check_feasible(problem)
            optimum = brute_force(problem, most_states=4000).noncompulsory_bytes
        except (InfeasibleError, TooLargeError):
            continue
        assert optimum is not None
        pieces = PieceBounds(
            problem, random_order(problem, seed), seed=seed, most_operators=most_operators, reach_out=reach_out
        )
        last = pieces.value_bytes
        for _ in range(3):
            pieces.run(0.5)
            assert last <= pieces.value_bytes <= optimum, f"seed {seed}"
            last = pieces.value_bytes
        compared += 1
        positive += last > problem.constant_noncompulsory_bytes
    assert compared > 80
    assert positive > 8


def test_every_tensor_is_in_one_piece_with_all_that_touch_it() -> None:
    problem = random_problem(5, Shape(operators=9))
    pieces = cut_into_pieces(problem, range(problem.operator_count), 4)
    assert len(pieces) == -(-problem.operator_count // 4) > 1
    touched = [t for t in range(problem.tensor_count) if problem.producer[t] >= 0 or len(problem.consumers_of(t))]
    assert sorted(t for piece in pieces for t in piece.tensors.tolist()) == touched
    for piece in pieces:
        for i, t in enumerate(piece.tensors.tolist()):
            assert piece.operators[piece.problem.consumers_of(i)].tolist() == problem.consumers_of(t).tolist()
            assert problem.producer[t] in (-1, *piece.operators[piece.problem.producer[[i]]])


def test_a_piece_keeps_the_order_that_others_impose() -> None:
    ordered = 0
    for seed in range(10):
        problem = random_problem(seed, Shape(operators=16))
        reach = reach_of(problem)
        for piece in cut_into_pieces(problem, range(problem.operator_count), 4):
            inside = reach_of(piece.problem)
            for i, v in enumerate(piece.operators.tolist()):
                before = [u for u in piece.operators.tolist() if reach.before[v] >> u & 1]
                assert [int(piece.operators[j]) for j in range(i) if inside.before[i] >> j & 1] == before
                direct = piece.problem.predecessors_of(i).tolist()
                ordered += len(set(before) - {int(piece.operators[j]) for j in direct})
    assert ordered > 20
