"""Which operators come before and after which in every order, as bit sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.problem import Problem


@dataclass(frozen=True, slots=True)
class Reach:
    """Ancestors and descendants of every operator; bit ``u`` of a mask stands for operator ``u``.

    Attributes
    ----------
    before
        Strict ancestors by operator.
    after
        Strict descendants by operator.
    everything
        The mask of all operators.
    """

    before: list[int]
    after: list[int]
    everything: int

    def unordered(self, operator: int) -> int:
        """Operators that may run on either side of one."""
        return self.everything & ~(self.before[operator] | self.after[operator] | 1 << operator)

    def given(self, first: int, second: int) -> Reach:
        """The same for orders that run ``first`` before ``second``, as these two operators see it."""
        before, after = list(self.before), list(self.after)
        before[second] |= before[first] | 1 << first
        after[first] |= after[second] | 1 << second
        return Reach(before, after, self.everything)


def reach_of(problem: Problem) -> Reach:
    """Compute ancestors and descendants; memory is ``operators ** 2 / 4`` bytes."""
    count = problem.operator_count
    before = [0] * count
    after = [0] * count
    # Operators are numbered in a topological order.
    for v in range(count):
        mask = 0
        for u in problem.predecessors_of(v).tolist():
            mask |= before[u] | 1 << u
        before[v] = mask
    for v in range(count - 1, -1, -1):
        mask = 0
        for u in problem.successors_of(v).tolist():
            mask |= after[u] | 1 << u
        after[v] = mask
    return Reach(before, after, (1 << count) - 1)


def members(mask: int, count: int) -> NDArray[np.int64]:
    """Positions of the set bits of a mask over ``count`` operators, ascending."""
    return np.flatnonzero(flags(mask, count))


def flags(mask: int, count: int) -> NDArray[np.uint8]:
    """Spread a mask into one 0/1 value per operator. ``uint8[count]``."""
    raw = np.frombuffer(mask.to_bytes((count + 7) // 8 or 1, "little"), dtype=np.uint8)
    return np.unpackbits(raw, bitorder="little", count=count)
