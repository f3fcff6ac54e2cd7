"""Where each operator may stand in an order, and when each tensor may be alive: earliest and latest steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cosma.problem import Problem


@dataclass(frozen=True, slots=True)
class Windows:
    """Positions over all topological orders (that keep further pairs in order); every bound is attained by some order.

    Attributes
    ----------
    earliest, latest
        First and last step (inclusive) of each operator.
    born, dies
        First step at which each tensor can be touched, and last step (inclusive) at which it can be.
    before
        Strict ancestors of each operator as a bit set.
    after
        Strict descendants of each operator as a bit set.
    """

    earliest: tuple[int, ...]
    latest: tuple[int, ...]
    born: tuple[int, ...]
    dies: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    def fixed(self, operator: int) -> bool:
        """Whether an operator is comparable with all others, so that its position never changes."""
        return self.earliest[operator] == self.latest[operator]


def windows_of(problem: Problem, ordered: Iterable[tuple[int, int]] = ()) -> Windows:
    """Count ancestors and descendants of every operator.

    Parameters
    ----------
    problem
        The instance.
    ordered
        Further pairs of operators of which the first runs before the second. Those whose first has the larger
        number are not made use of.
    """
    count = problem.operator_count
    before, after = [0] * count, [0] * count
    more: dict[int, list[int]] = {}
    less: dict[int, list[int]] = {}
    for u, v in ordered:
        if u < v:
            more.setdefault(v, []).append(u)
            less.setdefault(u, []).append(v)
    for v in range(count):  # operators are numbered in a topological order
        for u in (*problem.predecessors_of(v).tolist(), *more.get(v, ())):
            before[v] |= before[u] | 1 << u
    for v in range(count - 1, -1, -1):
        for w in (*problem.successors_of(v).tolist(), *less.get(v, ())):
            after[v] |= after[w] | 1 << w
    earliest = tuple(mask.bit_count() for mask in before)
    latest = tuple(count - 1 - mask.bit_count() for mask in after)
    born, dies = [], []
    for t in range(problem.tensor_count):
        touching = problem.consumers_of(t).tolist()
        if problem.producer[t] >= 0:
            touching = [int(problem.producer[t]), *touching]
        born.append(min((earliest[v] for v in touching), default=0))
        dies.append(max((latest[v] for v in touching), default=0))
    return Windows(earliest, latest, tuple(born), tuple(dies), tuple(before), tuple(after))
