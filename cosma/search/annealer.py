"""One annealer: an order under change, its own random numbers, its own temperature."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cosma.evaluation.evaluate import new_tape
from cosma.evaluation.kernels import replay_all
from cosma.search.annealing import Walk, anneal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.arrays import Int32s, Ints
    from cosma.evaluation.network import Network

#: Cumulative shares of shifts and hoists among the moves, the rest are sinks; then the share of shifts that take a
#: block. With half of the shifts by blocks, orders for fourteen open cells were 4 % cheaper (docs/searching.md).
MOVES = np.array([0.5, 0.75, 0.4])

#: One rule per annealer, in turn: no rule is best on every network (docs/searching.md). A rule has three numbers:
#: the power of the waiting time in the score of an eviction candidate; how many steps before a changed range a replay
#: may start; and the weight of a byte above the capacity during one step, which tells orders of equal traffic apart.
RULES = ((1.0, 16, 0.002), (1.5, 4, 0.02), (1.0, 32, 0.03), (2.0, 16, 0.02))

#: The powers above, each once.
PATIENCES = tuple(sorted({patience for patience, _, _ in RULES}))


class Heat(NamedTuple):
    """Temperatures at which a round of annealing starts and ends, in units of the typical tensor."""

    start: float
    end: float


#: Hot: annealing forgets where it started. Mild: most of the start stays (docs/searching.md).
HOT, MILD = Heat(1.0, 0.02), Heat(0.3, 0.005)


class Annealer:
    """Anneals over orders in slices.

    Parameters
    ----------
    order
        Topological order of search operators to start from.
    seed, rank
        Seed of the random numbers, and the number of this annealer among its siblings.
    rule
        Which of `RULES` to go by; by default siblings take turns.
    typical
        Size of the tensors that matter, in bytes, where those of the instance do not say it; see `typical_bytes`.
    """

    def __init__(
        self,
        net: Network,
        order: Sequence[int] | Int32s,
        *,
        seed: int,
        rank: int,
        rule: int | None = None,
        typical: float | None = None,
    ) -> None:
        self.net = net
        self.rank = rank
        self.patience, self.reach, self.guide = RULES[(rank if rule is None else rule) % len(RULES)]
        self.tape = new_tape(net, order, patience=self.patience)
        n = len(self.tape.order)
        self.walk = Walk(
            np.array([np.random.default_rng([seed, rank]).integers(1, 2**63)], dtype=np.uint64),
            np.zeros(4, dtype=np.int64),
            self.tape.order.copy(),
            np.zeros(n + 1, dtype=np.int64),
            np.zeros(n, dtype=np.int32),
            np.zeros(n, dtype=np.int32),
            np.zeros(n + 1, dtype=np.float64),
        )
        self.unit = typical_bytes(net.size) if typical is None else typical
        self.heat = HOT
        self.span = (0, n)
        self._reset()

    @property
    def best_cost(self) -> int:
        """Bytes of the best order of this annealer, without the problem's constant."""
        return int(self.walk.total[2])

    def best_order(self) -> Int32s:
        """The best order of this annealer."""
        return self.walk.best.copy()

    def restart(self, order: Int32s) -> None:
        """Go on from another order; the best order so far is forgotten."""
        self.tape.order[:] = order
        cost, _ = replay_all(self.net, self.tape, False)
        if cost < 0:
            self.tape = new_tape(self.net, order, patience=self.patience)
        self._reset()

    def run(self, steps: int, begin: float, end: float) -> None:
        """Anneal for a number of simulated steps, between two fractions of the round's cooling."""
        hot, cold = (max(0.1, self.unit * temperature) for temperature in self.heat)
        anneal(
            self.net,
            self.tape,
            self.walk,
            steps,
            hot * (cold / hot) ** begin,
            hot * (cold / hot) ** end,
            self.guide,
            self.reach,
            MOVES,
            *self.span,
        )

    def _reset(self) -> None:
        cost, excess = int(self.tape.step_cost.sum()), int(self.tape.step_excess.sum())
        self.walk.total[:] = (cost, excess, cost, excess)
        self.walk.best[:] = self.tape.order


def typical_bytes(sizes: Ints) -> float:
    """Median size of the tensors that matter: those of at least a hundredth of the largest."""
    largest = int(sizes.max(initial=1))
    return float(np.median(sizes[sizes * 100 >= largest])) if len(sizes) else 1.0
