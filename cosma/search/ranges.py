"""Annealing for long orders: annealers work on ranges of one order that do not overlap, and their orders are joined.

Annealers that each anneal the whole order repeat one another's work; that pays where there is work enough for every
operator many times over. Beyond some thousands of operators it is better spent once: each annealer reorders the steps
of its own range, the orders of all ranges are joined, and the next round moves the borders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.parallel import run_all
from cosma.search.annealer import Annealer, Heat

if TYPE_CHECKING:

    from cosma.arrays import Int32s
    from cosma.evaluation.network import Network


class Ranges:
    """Annealers side by side along one order.

    Parameters
    ----------
    order
        Topological order of search operators to start from.
    count
        How many annealers. They all go by the first rule, so that their costs mean the same.
    """

    def __init__(self, net: Network, order: Int32s, *, seed: int, count: int, typical: float | None = None) -> None:
        self.steps = len(order)
        self.annealers = [
            Annealer(net, order, seed=seed, rank=rank, rule=0, typical=typical) for rank in range(count)
        ]
        self._judge = Annealer(net, order, seed=seed, rank=count, rule=0)

    def begin_round(self, number: int, order: Int32s, heat: Heat) -> None:
        """Divide an order among the annealers; in every other round the borders lie half a range earlier."""
        count, back = len(self.annealers), number % 2 / 2
        inner = [round(self.steps * (k - back) / count) for k in range(1, count)]
        cuts = [0, *inner, self.steps]
        for annealer, first, beyond in zip(self.annealers, cuts, cuts[1:], strict=False):
            annealer.restart(order)
            annealer.span = (first, beyond)
            annealer.heat = heat

    def run(self, steps: int, begin: float, end: float) -> int:
        """Let every annealer simulate so many steps between two shares of the round; returns how many in all."""
        run_all([lambda annealer=annealer: annealer.run(steps, begin, end) for annealer in self.annealers])  # type: ignore[misc]
        return steps * len(self.annealers)

    def joined(self) -> tuple[Int32s, int]:
        """The best order of each range, joined, and its cost in bytes without the problem's constant."""
        order = np.concatenate([annealer.best_order()[slice(*annealer.span)] for annealer in self.annealers])
        self._judge.restart(order)
        return order, self._judge.best_cost
