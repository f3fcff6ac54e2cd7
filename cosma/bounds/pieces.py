"""Bounds of a network from pieces of it: every piece is a problem of its own, and their bounds add up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.bounds.whole import WholeBounds
from cosma.clock import never
from cosma.parameters.bounds import BoundParameters
from cosma.problem.reductions import cut_into_pieces, lift_bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cosma.problem import Problem


DEFAULTS = BoundParameters()


class PieceBounds:
    """The sum of the bounds of all pieces; like `WholeBounds`, it grows with the work given.

    The bound is a function of the problem, the order, the seed and the portions of work asked for.

    Parameters
    ----------
    problem, order
        The instance, and an order to cut it along; a good one keeps tensors within pieces.
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
        from cosma.evaluation.evaluate import greedy_bytes

        self.problem = problem
        self.parameters = parameters
        self.turn = 0
        self._engines = []
        rank = np.empty(problem.operator_count, dtype=np.int64)
        rank[np.asarray(order, dtype=np.int64)] = np.arange(problem.operator_count)
        for piece in cut_into_pieces(problem, order, most_operators, reach_out=reach_out):
            # Some schedule of the piece has the traffic of the greedy rule.
            upper = greedy_bytes(piece.problem, np.argsort(rank[piece.operators]).tolist())
            self._engines.append(WholeBounds(piece.problem, seed=seed, upper_bound=upper, parameters=parameters))
        self._next = 0

    @property
    def value_bytes(self) -> int:
        """The bound on the whole's non-compulsory traffic so far."""
        return lift_bounds(self.problem, (engine.bound.value_bytes for engine in self._engines))

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
