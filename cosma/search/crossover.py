"""Crossover of orders: where two orders have run the same operators so far, the ranges between are exchanged.

Walks over the same network find good orders for different parts of it. Between two steps at which two orders have run
the same set of operators, either one's range is a valid continuation for the other, so what one walk found there
can be tried in the other alone: with ``k`` such ranges, two orders hold ``2**k``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.search.annealer import RULES, Annealer

if TYPE_CHECKING:

    from cosma.arrays import Int32s, Ints
    from cosma.evaluation.network import Network
    from cosma.evaluation.tape import Tape


def differing_ranges(order: Int32s, other: Int32s) -> list[tuple[int, int]]:
    """Shortest ranges ``[first, beyond)`` in which two permutations run the same operators, but not in the same order.

    Ranges are ascending and disjoint; outside them the orders agree.
    """
    n = len(order)
    position = np.empty(n, dtype=np.int64)
    position[other] = np.arange(n)
    # The first k of one order are the first k of the other exactly where the latest of them there is number k - 1.
    cuts = np.flatnonzero(np.maximum.accumulate(position[order]) == np.arange(n)) + 1
    first = np.concatenate([[0], cuts[:-1]])
    return [(int(a), int(b)) for a, b in zip(first, cuts, strict=True) if b - a > 1]


class Elite:
    """The best order known by one rule of replacement, pieced together from the orders of all annealers.

    Parameters
    ----------
    order
        Topological order of search operators to begin with.
    patience
        Power of the waiting time in the rule's score, as one of the annealers goes by.
    """

    def __init__(self, net: Network, order: Int32s, *, patience: float) -> None:
        rule = [known for known, _, _ in RULES].index(patience)
        self._judge = Annealer(net, order, seed=0, rank=0, rule=rule)

    @property
    def cost(self) -> int:
        """Bytes that the order costs, without the problem's constant."""
        return self._judge.best_cost

    @property
    def order(self) -> Int32s:
        """The order."""
        return self._judge.best_order()

    def learn(self, annealer: Annealer) -> int:
        """Take from an annealer's order whatever makes this one better; returns the steps simulated.

        Ranges that are cheaper in the annealer's order are tried one by one, then the annealer's best order.
        """
        simulated = 0
        if annealer.best_cost < self.cost:
            simulated += self._try(annealer.best_order())
        tape, known = annealer.tape, self._judge.tape
        theirs, ours = _prefix_sums(tape), _prefix_sums(known)
        order = tape.order.copy()
        for first, beyond in differing_ranges(self.order, order):
            if tuple(theirs[:, beyond] - theirs[:, first]) < tuple(ours[:, beyond] - ours[:, first]):
                trial = self.order
                trial[first:beyond] = order[first:beyond]
                simulated += self._try(trial)
        return simulated

    def _try(self, order: Int32s) -> int:
        judge = self._judge
        before, total = judge.best_order(), judge.walk.total.copy()
        judge.restart(order)
        if tuple(judge.walk.total[2:]) >= tuple(total[2:]):
            judge.restart(before)
            return 2 * len(order)
        return len(order)


def _prefix_sums(tape: Tape) -> Ints:
    """Bytes paid, and bytes above the capacity, before each step: shape (2, steps + 1)."""
    sums = np.zeros((2, len(tape.order) + 1), dtype=np.int64)
    np.cumsum(tape.step_cost, out=sums[0, 1:])
    np.cumsum(tape.step_excess, out=sums[1, 1:])
    return sums
