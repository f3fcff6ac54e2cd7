"""All lower bounds behind one door: cheapest first, better with more work, never above the optimum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.bounds.pieces import PieceBounds
from cosma.bounds.whole import WholeBounds
from cosma.parameters.bounds import BoundParameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.bounds.bound import Bound
    from cosma.bounds.whole import Slices
    from cosma.problem import Problem

#: Nominal seconds in one unit of ``effort``.
SECONDS_PER_EFFORT = 5.0

DEFAULTS = BoundParameters()


class BoundEngine(WholeBounds):
    """The bounds of the whole network, and along a good order the sum of the bounds of its pieces.

    Parameters, and attributes besides the following, are those of :class:`WholeBounds`.

    Attributes
    ----------
    good_order
        Set from outside: an order with little traffic, along which a network is cut into pieces. Without one it is not.
    pieces_work
        Nominal seconds spent on pieces so far.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        upper_bound: int | None = None,
        parameters: BoundParameters = DEFAULTS,
    ) -> None:
        super().__init__(problem, seed=seed, upper_bound=upper_bound, parameters=parameters)
        self.good_order: Sequence[int] | None = None
        self.pieces_work = 0.0
        self._pieces_are_done = False
        self._pieces_value = 0
        self._piece_slices = self._pieces()

    @property
    def work_done(self) -> float:
        """Nominal seconds of work spent so far."""
        return self._whole_work + self.pieces_work

    def _next_slice(self) -> float:
        """Go on with the whole network or with its pieces, whichever has had less of its share of the work."""
        if not self._whole_is_done and not (self._pieces_have_a_turn() and self.settled):
            spent = self._next_whole_slice()
            if spent is not None:
                return spent
        spent = next(self._piece_slices, None) if self._may_cut() else None
        if spent is None:
            self._pieces_are_done = True
            self._exhausted = self._whole_is_done
            return 0.0
        self.pieces_work += spent
        return spent

    @property
    def untried(self) -> bool:
        """Whether pieces, which may close a wide gap, have not had work enough yet to be judged by."""
        wide = self.upper_bound is None or self._value < (1 - self.parameters.wide_gap) * self.upper_bound
        return (
            wide
            and self._may_cut()
            and not self._pieces_are_done
            and self.pieces_work < self.parameters.pieces_work_before_judgement
        )

    def _may_cut(self) -> bool:
        return self.good_order is not None and self.problem.operator_count > self.parameters.piece_sizes[0]

    def _pieces_have_a_turn(self) -> bool:
        if self._pieces_are_done or not self._may_cut():
            return False
        if self._pieces_value >= self._value:
            share = self.parameters.leading_share
        else:
            share = self.parameters.untried_share if self.untried else self.parameters.trailing_share
        return self.pieces_work < share * (self._whole_work - self.parameters.whole_work_before_pieces)

    def _pieces(self) -> Slices:
        """Add up the bounds of pieces, cut anew where a better order is known after two turns of each."""
        cut_along: Sequence[int] | None = None
        while cut_along != self.good_order and self.good_order is not None:
            cut_along = self.good_order
            tries = [
                PieceBounds(self.problem, cut_along, seed=self.seed, most_operators=size, parameters=self.parameters)
                for size in self.parameters.piece_sizes
            ]
            yield 1e-5 * self.problem.operator_count * len(tries)
            turn = 0
            while not all(pieces.exhausted for pieces in tries) and (turn == 0 or cut_along == self.good_order):
                turn += 2
                for pieces in tries:
                    while pieces.turn < turn and not pieces.exhausted:
                        spent = pieces.run(self.parameters.piece_slice, self._stop)
                        self._pieces_value = max(self._pieces_value, pieces.value_bytes)
                        value = pieces.value_bytes - self.problem.constant_noncompulsory_bytes
                        self._raise_to(value, pieces.method)
                        yield spent


def lower_bound(problem: Problem, effort: float = 1.0, *, seed: int = 0, upper_bound: int | None = None) -> Bound:
    """Bound the non-compulsory traffic of any valid plan from below, in one call.

    Parameters
    ----------
    problem
        The instance.
    effort
        Multiple of :data:`SECONDS_PER_EFFORT` nominal seconds of deterministic work.
    seed, upper_bound
        See :class:`BoundEngine`.
    """
    return BoundEngine(problem, seed=seed, upper_bound=upper_bound).run(effort * SECONDS_PER_EFFORT)
