"""What must run before what: ancestors and descendants of operators as bit sets, and the steps that they leave.

Bit ``u`` of a mask stands for operator ``u``. Operators are numbered in a topological order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.csr import rows_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cosma.arrays import Bytes, Ints
    from cosma.problem.problem import Problem


def ancestors(predecessors: Iterable[Iterable[int]]) -> list[int]:
    """Strict ancestors of every operator, out of its direct predecessors, which have smaller numbers."""
    before: list[int] = []
    for row in predecessors:
        mask = 0
        for u in row:
            mask |= before[u] | 1 << u
        before.append(mask)
    return before


def descendants(successors: Sequence[Iterable[int]]) -> list[int]:
    """Strict descendants of every operator, out of its direct successors, which have larger numbers."""
    after = [0] * len(successors)
    for v in range(len(successors) - 1, -1, -1):
        mask = 0
        for w in successors[v]:
            mask |= after[w] | 1 << w
        after[v] = mask
    return after


@dataclass(frozen=True, slots=True)
class Reach:
    """Ancestors and descendants of every operator."""

    #: Strict ancestors by operator.
    before: list[int]
    #: Strict descendants by operator.
    after: list[int]
    #: The mask of all operators.
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


def reach_of(problem: Problem, ordered: Iterable[tuple[int, int]] = ()) -> Reach:
    """Compute ancestors and descendants; memory is ``operators ** 2 / 4`` bytes.

    ``ordered`` are further pairs of operators of which the first runs before the second; those whose first operator has
    the larger number are ignored.
    """
    count = problem.operator_count
    above = rows_of(problem.predecessor_start, problem.predecessor)
    below = rows_of(problem.successor_start, problem.successor)
    for u, v in ordered:
        if u < v:
            above[v].append(u)
            below[u].append(v)
    return Reach(ancestors(above), descendants(below), (1 << count) - 1)


@dataclass(frozen=True, slots=True)
class Windows:
    """Positions over all topological orders (that keep further pairs in order); every bound is attained by some order.

    Attributes
    ----------
    earliest, latest
        First and last step (inclusive) of each operator.
    born, dies
        First step at which each tensor can be touched, and last step (inclusive) at which it can be.
    before, after
        Strict ancestors and strict descendants of each operator.
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
    """Count ancestors and descendants of every operator; parameters are those of :func:`reach_of`."""
    reach = reach_of(problem, ordered)
    count = problem.operator_count
    earliest = tuple(mask.bit_count() for mask in reach.before)
    latest = tuple(count - 1 - mask.bit_count() for mask in reach.after)
    born, dies = [], []
    for t in range(problem.tensor_count):
        touching = problem.consumers_of(t).tolist()
        if problem.producer[t] >= 0:
            touching = [int(problem.producer[t]), *touching]
        born.append(min((earliest[v] for v in touching), default=0))
        dies.append(max((latest[v] for v in touching), default=0))
    return Windows(earliest, latest, tuple(born), tuple(dies), tuple(reach.before), tuple(reach.after))


def bits(mask: int) -> Iterator[int]:
    """Positions of the set bits of a mask, ascending; takes time for those that are set, however long it is."""
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def members(mask: int, count: int) -> Ints:
    """Positions of the set bits of a mask over ``count`` operators, ascending."""
    return np.flatnonzero(flags(mask, count))


def flags(mask: int, count: int) -> Bytes:
    """Spread a mask into one 0/1 value per operator. ``uint8[count]``."""
    raw = np.frombuffer(mask.to_bytes((count + 7) // 8 or 1, "little"), dtype=np.uint8)
    return np.unpackbits(raw, bitorder="little", count=count)
