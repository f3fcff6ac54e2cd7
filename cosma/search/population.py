"""A population of annealers that work on whole orders, and the best orders that they have found together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.parallel import run_all
from cosma.search.annealer import HOT, MILD, PATIENCES, Annealer
from cosma.search.crossover import Elite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.arrays import Int32s
    from cosma.evaluation.network import Network

#: Annealers. Their number is fixed, so that results do not depend on the number of cores.
ANNEALERS = 4


class Population:
    """Annealers, and for each rule of replacement the best order pieced together from their orders.

    In every round, half of the annealers go on from the best order at mild heat, and the others begin so hot that they
    forget where. The halves change places from round to round: what is found afresh is pieced together with what was
    known.

    Orders are arrays of search operators, ``int32[operators]``; costs are bytes without the problem's constant.

    Parameters
    ----------
    starts
        Topological orders to begin from; annealers take them in turn.
    """

    def __init__(self, net: Network, starts: Sequence[Int32s], *, seed: int, typical: float | None = None) -> None:
        self._starts = starts
        self._annealers = [
            Annealer(net, starts[c % len(starts)], seed=seed, rank=c, typical=typical) for c in range(ANNEALERS)
        ]
        self._elites = {patience: Elite(net, starts[0], patience=patience) for patience in PATIENCES}
        self._adopted: list[tuple[int, Int32s]] = []

    def begin_round(self, number: int) -> None:
        """Give every annealer its start and its heat."""
        self._adopted = [self.best()]
        _, best = self._adopted[0]
        for c, annealer in enumerate(self._annealers):
            if (number + c) % 2:
                annealer.heat = MILD
                annealer.restart(best)
            else:
                annealer.heat = HOT
                annealer.restart(self._starts[(number * ANNEALERS + c) % len(self._starts)])

    def run(self, steps: int, begin: float, end: float) -> int:
        """Let every annealer simulate so many steps between two shares of the round, and learn from each other.

        Returns the steps simulated in all.
        """
        run_all([lambda annealer=annealer: annealer.run(steps, begin, end) for annealer in self._annealers])  # type: ignore[misc]
        learnt = sum(elite.learn(annealer) for elite in self._elites.values() for annealer in self._annealers)
        return ANNEALERS * steps + learnt

    def adopt(self, cost: int, order: Int32s) -> None:
        """Take note of an order found elsewhere, if it is the best."""
        if cost < self.best()[0]:
            self._adopted = [(cost, order)]

    def found(self) -> list[tuple[int, Int32s]]:
        """Costs and orders known, the cheapest first.

        An annealer carries decisions over from order to order: its best may cost less than the rule alone would.
        """
        found = [(elite.cost, elite.order) for elite in self._elites.values()]
        found += [(annealer.best_cost, annealer.best_order()) for annealer in self._annealers]
        return sorted([*found, *self._adopted], key=lambda pair: pair[0])

    def best(self) -> tuple[int, Int32s]:
        """Cost of the best order, and that order."""
        return self.found()[0]

    def elite(self) -> tuple[int, Int32s]:
        """Cost of the best order by a rule alone, and that order."""
        elite = min(self._elites.values(), key=lambda elite: elite.cost)
        return elite.cost, elite.order
