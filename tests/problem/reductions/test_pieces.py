from __future__ import annotations

from cosma.problem.precedence import reach_of
from cosma.problem.reductions import cut_into_pieces, lift_bounds
from tests.problem.reductions.optima import optimum_of, problems_with_optima
from tests.random_graphs import Shape, random_order, random_problem


def test_optima_of_pieces_add_up_to_no_more_than_the_optimum() -> None:
    compared = positive = reached = 0
    for seed, (problem, optimum) in enumerate(problems_with_optima(range(150))):
        pieces = cut_into_pieces(problem, random_order(problem, seed), 2 + seed % 3, reach_out=bool(seed % 2))
        optima = [optimum_of(piece.problem) for piece in pieces]
        assert None not in optima, "a piece needs no more room than the whole"
        bound = lift_bounds(problem, [value for value in optima if value is not None])
        assert bound <= optimum
        compared += 1
        positive += bound > problem.constant_noncompulsory_bytes
        reached += problem.constant_noncompulsory_bytes < bound == optimum
    assert compared > 80
    assert positive > 10
    assert reached > 3


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
