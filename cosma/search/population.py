"""A population of annealing chains that work on whole orders, with what they have found together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.parallel import run_all
from cosma.search.chain import HOT, MILD, PATIENCES, Chain
from cosma.search.crossover import Elite

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from cosma.evaluation.network import Network

#: Annealing chains. Their number is fixed, so that results do not depend on the number of cores.
CHAINS = 4


class Population:
    """Chains, and for each rule of replacement the best order pieced together from what they find.

    In every round, half of the chains go on from the best order at mild heat, and the others begin so hot that they
    forget where. The halves change places from round to round: what is found afresh is pieced together with what was
    known.

    Orders are arrays of search operators, ``int32[operators]``; costs are bytes without the problem's constant.

    Parameters
    ----------
    net
        Instance.
    starts
        Topological orders to begin from; chains take them in turn.
    seed
        Seed of the random numbers.
    """

    def __init__(self, net: Network, starts: Sequence[NDArray[np.int32]], *, seed: int) -> None:
        self._starts = starts
        self._chains = [Chain(net, starts[c % len(starts)], seed=seed, rank=c) for c in range(CHAINS)]
        self._elites = {patience: Elite(net, starts[0], patience=patience) for patience in PATIENCES}
        self._adopted: list[tuple[int, NDArray[np.int32]]] = []

    def begin_round(self, number: int) -> None:
        """Give every chain its start and its heat."""
        self._adopted = [self.best()]
        _, best = self._adopted[0]
        for c, chain in enumerate(self._chains):
            if (number + c) % 2:
                chain.heat = MILD
                chain.restart(best)
            else:
                chain.heat = HOT
                chain.restart(self._starts[(number * CHAINS + c) % len(self._starts)])

    def run(self, steps: int, begin: float, end: float) -> int:
        """Let every chain simulate so many steps between two shares of the round, and learn from each other.

        Returns the steps simulated in all.
        """
        run_all([lambda chain=chain: chain.run(steps, begin, end) for chain in self._chains])  # type: ignore[misc]
        learnt = sum(elite.learn(chain) for elite in self._elites.values() for chain in self._chains)
        return CHAINS * steps + learnt

    def adopt(self, cost: int, order: NDArray[np.int32]) -> None:
        """Take note of an order found elsewhere, if it is the best."""
        if cost < self.best()[0]:
            self._adopted = [(cost, order)]

    def found(self) -> list[tuple[int, NDArray[np.int32]]]:
        """Costs and orders known, the cheapest first.

        A chain carries decisions over from order to order: its best may cost less than the rule alone would.
        """
        found = [(elite.cost, elite.order) for elite in self._elites.values()]
        found += [(chain.best_cost, chain.best_order()) for chain in self._chains]
        return sorted([*found, *self._adopted], key=lambda pair: pair[0])

    def best(self) -> tuple[int, NDArray[np.int32]]:
        """Cost of the best order, and that order."""
        return self.found()[0]

    def elite(self) -> tuple[int, NDArray[np.int32]]:
        """Cost of the best order by a rule alone, and that order."""
        elite = min(self._elites.values(), key=lambda elite: elite.cost)
        return elite.cost, elite.order
