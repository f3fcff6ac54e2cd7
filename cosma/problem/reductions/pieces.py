"""A problem cut into parts that share no tensor: relaxations whose bounds add up.

With every tensor in one piece at most, what a plan moves of the tensors of one piece is none of what it moves of those
of another. So the bounds of all pieces add up. An operator may be in several pieces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.problem.reductions.part import Part, part_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cosma.arrays import Ints
    from cosma.problem.problem import Problem


def cut_into_pieces(
    problem: Problem, order: Sequence[int], most_operators: int, *, reach_out: bool = True
) -> list[Part]:
    """Cut a problem into pieces along an order of its operators.

    The order is cut into runs of consecutive operators. A tensor is at home where it is touched most often, and a piece
    has the tensors at home in one run, with every operator that touches one of them.

    Parameters
    ----------
    problem, order
        The instance, and an order under which tensors live briefly.
    most_operators
        Operators of a run, at most.
    reach_out
        Whether a piece has the operators of other runs, too, that touch its tensors: a better bound for more work.
    """
    count = max(1, -(-problem.operator_count // most_operators))
    piece_of = np.empty(problem.operator_count, dtype=np.int64)
    piece_of[np.asarray(order, dtype=np.int64)] = np.arange(problem.operator_count) * count // problem.operator_count
    home = _homes(problem, piece_of)
    pieces: list[Part] = []
    for tensors in _groups(home, count):
        touching = {v for t in tensors.tolist() for v in (int(problem.producer[t]), *problem.consumers_of(t).tolist())}
        operators = np.array(sorted(touching - {-1}), dtype=np.int64)
        if not reach_out:
            operators = operators[piece_of[operators] == len(pieces)]
        pieces.append(part_of(problem, operators, tensors))
    return pieces


def lift_bounds(whole: Problem, bounds_bytes: Iterable[int]) -> int:
    """A bound of the whole from one bound of each piece: their sum, and the constant part of the whole's traffic."""
    return sum(bounds_bytes) + whole.constant_noncompulsory_bytes


def _groups(group: Ints, count: int) -> list[Ints]:
    """Members of every group, ascending; a negative group is none."""
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(count + 1))
    return [order[bounds[k] : bounds[k + 1]] for k in range(count)]


def _homes(problem: Problem, piece_of: Ints) -> Ints:
    """The piece in which each tensor is touched most often, the earliest of several."""
    read = np.repeat(np.arange(problem.tensor_count), np.diff(problem.consumer_start))
    tensors = np.concatenate([np.flatnonzero(problem.producer >= 0), read])
    touching = np.concatenate([problem.producer[problem.producer >= 0], problem.consumer])
    count = int(piece_of.max(initial=0)) + 1
    pairs, touches = np.unique(tensors * count + piece_of[touching], return_counts=True)
    best = np.lexsort((pairs, -touches, pairs // count))
    _, first = np.unique((pairs // count)[best], return_index=True)
    home = np.full(problem.tensor_count, -1, dtype=np.int64)
    chosen = pairs[best[first]]
    home[chosen // count] = chosen % count
    return home
