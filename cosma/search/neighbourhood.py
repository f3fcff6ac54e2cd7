"""Large-neighbourhood search: subproblems of the best order where bytes are paid, solved again exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.evaluation.evaluate import new_tape
from cosma.evaluation.kernels import replay_all
from cosma.search.subproblem import Subproblem, SubproblemResult, needed_after, solve_subproblem, subproblem_network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.problem import Problem


class Neighbourhood:
    """Solves subproblems of an order again, keeping what lies in the scratchpad before and after.

    Under ``streamable`` it works on single operators: what is inside a chain may then be streamed.

    Parameters
    ----------
    seed
        Seed of the choice of subproblems and of the solver.
    subproblem_operators
        Operators in a subproblem; chains count once where they are contracted.
    """

    def __init__(self, problem: Problem, *, seed: int, subproblem_operators: int) -> None:
        self.contraction = subproblem_network(problem)
        self.seed = seed
        self.subproblem_operators = subproblem_operators
        self.tried: set[tuple[int, ...]] = set()
        self._rng = np.random.default_rng([seed, 0x57E7])

    def improve(self, order: Sequence[int], work_limit: float) -> tuple[int, ...] | None:
        """Pick a subproblem by the bytes paid there and solve it; returns a better order of operators, if it found one.

        Better means cheaper in the subproblem with all the rest unchanged, as exact replacement can have it; the greedy
        rule may not see it.
        """
        net = self.contraction.network
        contracted = self.contraction.contract(order)
        tape = new_tape(net, contracted)
        replay_all(net, tape, False)
        paid = np.cumsum(tape.step_cost)
        if int(tape.stride[0]) != 1 or len(contracted) < 2 or paid[-1] == 0:
            return None
        centre = int(np.searchsorted(paid, self._rng.integers(0, paid[-1]), side="right"))
        offset = int(self._rng.integers(0, self.subproblem_operators))
        begin = max(0, min(centre - offset, len(contracted) - self.subproblem_operators))
        end = min(len(contracted), begin + self.subproblem_operators)
        operators = tuple(contracted[begin:end].tolist())
        if operators in self.tried:
            return None
        self.tried.add(operators)
        after = needed_after(net, contracted.tolist(), end)
        ceiling = int(tape.step_cost[begin:end].sum())
        held = _held(tape.row[begin], int(tape.count[begin]))
        held_after = _held(tape.row[end], int(tape.count[end])) if end < len(contracted) else {}
        result = solve_subproblem(
            net,
            Subproblem(operators, held, after, held_after),
            work_limit=work_limit,
            seed=self.seed,
            ceiling=ceiling,
        )
        if not isinstance(result, SubproblemResult):
            return None
        contracted[begin:end] = result.order
        return self.contraction.expand(contracted.tolist())


def _held(row: np.ndarray, count: int) -> dict[int, bool]:
    return {int(code) >> 1: bool(code & 1) for code in row[:count].tolist()}
