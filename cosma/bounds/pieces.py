"""Bounds of a network from pieces of it: every piece is a problem of its own, and their bounds add up.

Take any set of operators and any set of tensors, and look only at the steps of a plan that run those operators and at
the bytes that those tensors hold. What is left is a plan of the *piece*: what it moves of those tensors is no more than
what the whole plan does, and it holds no more. A tensor that the piece does not produce comes from off-chip in the
piece, where its first read counts as compulsory; a result whose readers lie outside is one that nobody reads. So the
least non-compulsory traffic of a piece is a lower bound on what any plan of the whole pays for the piece's tensors, and
with every tensor in one piece at most, the bounds of all pieces add up. Operators may be in several: a
piece may have all that touch its tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.bounds.whole import WholeBounds
from cosma.clock import never
from cosma.parameters.bounds import BoundParameters
from cosma.problem import part_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from cosma.problem import Problem


DEFAULTS = BoundParameters()


@dataclass(frozen=True, slots=True)
class Piece:
    """Some operators and tensors of a problem as a problem of its own.

    Attributes
    ----------
    problem
        The piece; names, graph and accelerator are the whole's.
    operators, tensors
        Numbers in the whole, ascending, by number in the piece.
    """

    problem: Problem
    operators: NDArray[np.int64]
    tensors: NDArray[np.int64]


def cut_into_pieces(
    problem: Problem, order: Sequence[int], most_operators: int, *, reach_out: bool = True
) -> list[Piece]:
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
    pieces: list[Piece] = []
    for tensors in _groups(home, count):
        touching = {v for t in tensors.tolist() for v in (int(problem.producer[t]), *problem.consumers_of(t).tolist())}
        operators = np.array(sorted(touching - {-1}), dtype=np.int64)
        if not reach_out:
            operators = operators[piece_of[operators] == len(pieces)]
        pieces.append(Piece(part_of(problem, operators, tensors), operators, tensors))
    return pieces


def _groups(group: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
    """Members of every group, ascending; a negative group is none."""
    order = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[order], np.arange(count + 1))
    return [order[bounds[k] : bounds[k + 1]] for k in range(count)]


def _homes(problem: Problem, piece_of: NDArray[np.int64]) -> NDArray[np.int64]:
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


class PieceBounds:
    """The sum of the bounds of all pieces; like `WholeBounds`, it grows with the work given.

    The bound is a function of the problem, the order, the seed and the portions of work asked for.

    Parameters
    ----------
    problem, order
        The instance, and an order to cut it along; a good one keeps tensors within pieces.
    seed
        Seed of the solvers used.
    most_operators, reach_out
        See :func:`cut_into_pieces`.
    parameters
        Tuning parameters of the bounds of each piece.

    Attributes
    ----------
    turn
        How often every piece has been worked on.
    """

    def __init__(
        self, problem: Problem, order: Sequence[int], *, seed: int = 0, most_operators: int = DEFAULTS.piece_sizes[0],
        reach_out: bool = True, parameters: BoundParameters = DEFAULTS,
    ) -> None:  # fmt: skip
        self.problem = problem
        self.parameters = parameters
        self.turn = 0
        self._engines = []
        rank = np.empty(problem.operator_count, dtype=np.int64)
        rank[np.asarray(order, dtype=np.int64)] = np.arange(problem.operator_count)
        for piece in cut_into_pieces(problem, order, most_operators, reach_out=reach_out):
            upper = _upper_bytes(piece.problem, np.argsort(rank[piece.operators]))
            self._engines.append(WholeBounds(piece.problem, seed=seed, upper_bound=upper, parameters=parameters))
        self._next = 0

    @property
    def value_bytes(self) -> int:
        """The bound on the whole's non-compulsory traffic so far."""
        total = sum(engine.bound.value_bytes for engine in self._engines)
        return total + self.problem.constant_noncompulsory_bytes

    @property
    def method(self) -> str:
        """How the bound came to be."""
        return f"sum over {len(self._engines)} pieces"

    @property
    def exhausted(self) -> bool:
        """Whether no piece's bound can be raised by more work."""
        return all(engine.bound.exhausted for engine in self._engines)

    def run(self, work: float, stop: Callable[[], bool] = never) -> float:
        """Raise the bounds of pieces in turn, each a little further; returns the nominal seconds spent.

        Parameters
        ----------
        work
            Nominal seconds, overrun by one piece at most.
        stop
            Polled between slices; return True to end early (the result then depends on when).
        """
        spent = 0.0
        while spent < work and not self.exhausted and not stop():
            engine = self._engines[self._next]
            if not engine.bound.exhausted:
                before = engine.work_done
                engine.run(self.parameters.first_work_per_piece * 2**self.turn, stop)
                spent += engine.work_done - before
            self._next += 1
            if self._next == len(self._engines):
                self._next = 0
                self.turn += 1
        return spent


def _upper_bytes(problem: Problem, order: NDArray[np.int64]) -> int:
    """Traffic of a piece by the greedy rule, addresses aside: some plan of the piece pays that."""
    from cosma.evaluation.evaluate import cost_bytes, new_tape
    from cosma.evaluation.network import build_network

    contraction = build_network(problem)
    tape = new_tape(contraction.network, contraction.contract(order.tolist()))
    return cost_bytes(tape)
