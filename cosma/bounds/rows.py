"""Forced liveness: what must be absent from the scratchpad while an operator runs, whatever the order.

For operator ``v`` every order puts a down-set before it that holds all its ancestors and none of its
descendants. Tensors alive across ``v`` for every such set count in full; of the others, at least the minimum
cut over the operators unordered with ``v`` is alive. What that and ``v``'s own operands and results take beyond
the capacity must be absent: one covering row per operator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.bounds.flow import minimum_cut
from cosma.parameters.bounds import RowParameters
from cosma.problem.precedence import flags, members
from cosma.problem.rules import may_stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cosma.bounds.lifetimes import Lifetime
    from cosma.problem import Problem
    from cosma.problem.precedence import Reach

#: Stretches ``[first, last]`` (both included), one of which has a gap without the tensor.
Stretch = tuple[int, int]

DEFAULTS = RowParameters()


@dataclass(frozen=True, slots=True)
class Absence:
    """A tensor is not in the scratchpad: each of these stretches has a gap in its residency."""

    tensor: int
    stretches: tuple[Stretch, ...]


@dataclass(frozen=True, slots=True)
class Credit:
    """A result takes over an operand: both are present, and the operand is absent after the operator."""

    space_bytes: int
    result: Absence | None
    operand: Absence | None
    given_up: Absence | None


@dataclass(frozen=True, slots=True)
class Row:
    """While an operator runs, absences and takeovers together free at least ``need_bytes``."""

    #: The operator.
    operator: int
    #: Bytes that must be freed. Positive.
    need_bytes: int
    #: Tensors alive in every order (or touched by the operator), each with the space its absence frees.
    absences: tuple[tuple[Absence, int], ...]
    #: Tensors alive in some orders only; together they count for ``loose_bytes`` at most.
    loose: tuple[tuple[Absence, int], ...]
    loose_bytes: int
    #: Takeovers, one at most.
    credits: tuple[Credit, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """Two operators of which either may run first: the rows of one order or those of the other hold."""

    first: tuple[Row, ...]
    second: tuple[Row, ...]


class RowBuilder:
    """Builds rows operator by operator, so that the caller can stop or window the work.

    Parameters
    ----------
    problem, reach, lifetimes
        The instance and what is known of all its orders.
    """

    def __init__(
        self,
        problem: Problem,
        reach: Reach,
        lifetimes: dict[int, Lifetime],
        parameters: RowParameters = DEFAULTS,
    ) -> None:
        self.problem = problem
        self.parameters = parameters
        self.reach = reach
        self.lifetimes = lifetimes
        self.work = 0.0
        self._sure: dict[int, list[int]] = {}
        self._loose: dict[int, list[int]] = {}

    def crowded(self) -> list[int]:
        """Operators at which the capacity can bind in some order, the most crowded first."""
        problem, count = self.problem, self.problem.operator_count
        most = np.zeros(count, dtype=np.int64)
        for v in range(count):
            touched = self._touched(v, self.reach)
            most[v] = sum(space for space, _ in touched)
        alive = np.ones(count, dtype=np.int64)
        for life in self.lifetimes.values():
            if life.possible:
                where = flags(life.possible, count).view(bool)
                most[where] += life.space_bytes
                alive[where] += 1
        self.work += len(self.lifetimes) * count / self.parameters.cells_per_second
        over = np.flatnonzero(most > problem.capacity_bytes)
        # Where thousands of tensors may be alive at each of thousands of operators, the most crowded must do.
        over = over[np.argsort(-most[over], kind="stable")]
        over = over[np.cumsum(alive[over]) <= self.parameters.most_members]
        chosen = np.zeros(count, dtype=bool)
        chosen[over] = True
        wanted = sum(1 << int(v) for v in over)
        self._sure = {int(v): [] for v in over}
        self._loose = {int(v): [] for v in over}
        for life in self.lifetimes.values():
            possible = life.possible & wanted
            if possible:
                sure = life.sure & wanted
                for v in members(sure, count).tolist():
                    self._sure[v].append(life.tensor)
                loose = possible & ~sure
                if loose:
                    for v in members(loose, count).tolist():
                        self._loose[v].append(life.tensor)
                self.work += possible.bit_count() / self.parameters.members_per_second
        return [int(v) for v in over]

    def build(self, operator: int, given: Reach | None = None) -> Row | None:
        """Return the row of one of the crowded operators, or None if the capacity does not bind there.

        With ``given``, the row holds for the orders that this describes.
        """
        problem, reach = self.problem, given or self.reach
        need = -problem.capacity_bytes
        absences: list[tuple[Absence, int]] = []
        for space, absence in self._touched(operator, reach):
            need += space
            if absence is not None:
                absences.append((absence, space))
        sure, loose = self._sure[operator], self._loose[operator]
        if given is not None:
            unborn = given.after[operator]
            loose = [t for t in loose if self.lifetimes[t].producer < 0 or not unborn >> self.lifetimes[t].producer & 1]
            now_sure = {t for t in loose if self._surely_alive(self.lifetimes[t], operator, given)}
            sure, loose = sure + sorted(now_sure), [t for t in loose if t not in now_sure]
        for t in sure:
            life = self.lifetimes[t]
            need += life.space_bytes
            absences.append((Absence(t, (life.stretches(reach, operator),)), life.space_bytes))
        most = need + sum(self.lifetimes[t].space_bytes for t in loose)
        self.work += (len(sure) + len(loose)) / self.parameters.members_per_second
        if most <= 0:
            return None
        loose_bytes = self._least_alive(operator, loose, reach) if loose else 0
        need += loose_bytes
        if need <= 0:
            return None
        return Row(
            operator,
            need,
            tuple(absences),
            tuple(
                (Absence(t, (self.lifetimes[t].stretches(reach, operator),)), self.lifetimes[t].space_bytes)
                for t in loose
            )
            if loose_bytes
            else (),
            loose_bytes,
            tuple(self._credits(operator, reach)),
        )

    def pairs(self, rows: dict[int, Row]) -> list[Either]:
        """Rows for pairs of unordered operators that cannot hold each other's results while they run.

        Whichever runs first, its results, or what is made of them, wait while the other runs: two alternatives, where
        each operator by itself is free to assume that it runs first. ``rows`` are the rows that always hold.
        """
        problem, capacity = self.problem, self.problem.capacity_bytes
        made, whole = {}, {}
        for v in self._sure:
            made[v] = sum(int(problem.space_bytes[t]) for t in problem.results_of(v) if len(problem.consumers_of(t)))
            whole[v] = made[v] + sum(int(problem.space_bytes[t]) for t in problem.operands_of(v))
        large = sorted((v for v in made if made[v]), key=lambda v: (-made[v] - whole[v], v))
        large = large[: self.parameters.most_in_pairs]
        found: list[Either] = []
        for i, v in enumerate(large):
            for w in large[i + 1 :]:
                if len(found) == self.parameters.most_pairs:
                    return found
                unordered = self.reach.unordered(v) >> w & 1
                if not unordered or made[v] + whole[w] <= capacity or made[w] + whole[v] <= capacity:
                    continue
                first, second = self._rows_given(v, w, rows), self._rows_given(w, v, rows)
                if first and second:
                    found.append(Either(first, second))
        return found

    def _rows_given(self, first: int, second: int, rows: dict[int, Row]) -> tuple[Row, ...]:
        """Rows that need more than the ones that always hold, if ``first`` runs before ``second``."""
        given = self.reach.given(first, second)
        built = (self.build(operator, given) for operator in (first, second))
        return tuple(
            row for row in built if row is not None
            if row.operator not in rows or row.need_bytes > rows[row.operator].need_bytes
        )  # fmt: skip

    def _surely_alive(self, life: Lifetime, operator: int, reach: Reach) -> bool:
        """Whether a tensor that an operator does not touch is born and still to be read then, in these orders."""
        before = reach.before[operator]
        born = before >> life.producer & 1 if life.producer >= 0 else before & life.consumer_mask
        return bool(born and reach.after[operator] & life.consumer_mask)

    def _touched(self, operator: int, reach: Reach) -> Iterator[tuple[int, Absence | None]]:
        """Operands and results that take space: (space, how it can be absent while the operator runs).

        Under ``streamable`` a tensor whose absence may cost nothing (nothing surely before or after) is left out.
        """
        problem = self.problem
        for t in problem.operands_of(operator).tolist() + problem.results_of(operator).tolist():
            space = int(problem.space_bytes[t])
            if space == 0:
                continue
            if not may_stream(problem, operator, t):
                yield space, None
                continue
            absence = self._absence_when_touched(operator, t, reach)
            if absence is not None:
                yield space, absence

    def _absence_when_touched(self, operator: int, tensor: int, reach: Reach) -> Absence | None:
        life = self.lifetimes.get(tensor)
        if life is None:
            return None
        if life.producer == operator:
            return Absence(tensor, ((0, 0),))
        before, after = self._sides(life, operator, reach)
        stretches = tuple(s for s in (before, after) if s is not None)
        return Absence(tensor, stretches) if stretches else None

    def _sides(self, life: Lifetime, operator: int, reach: Reach) -> tuple[Stretch | None, Stretch | None]:
        """Stretches just before and just after a consumer, where a touch there is sure."""
        others_before = life.producer >= 0 or bool(reach.before[operator] & life.consumer_mask)
        others_after = bool(reach.after[operator] & life.consumer_mask)
        if operator in life.chain:
            at = life.chain.index(operator)
            sides: tuple[Stretch, Stretch] = ((at, at), (at + 1, at + 1))
        else:
            sides = (life.stretches(reach, operator),) * 2
        return sides[0] if others_before else None, sides[1] if others_after else None

    def _credits(self, operator: int, reach: Reach) -> Iterator[Credit]:
        """Takeovers that save space which the row counts.

        Under ``streamable`` a row leaves out tensors that may be absent for nothing. If the operand is one, the row
        counts the result alone, and the space they share is no smaller; if the result is one, nothing is saved.
        """
        problem = self.problem
        for result, operand in problem.pairs_of(operator):
            absent_result = absent_operand = given_up = None
            if may_stream(problem, operator, result):
                absent_result = self._absence_when_touched(operator, result, reach)
                if absent_result is None:
                    continue
            if may_stream(problem, operator, operand):
                absent_operand = self._absence_when_touched(operator, operand, reach)
                if absent_operand is None:
                    continue
            life = self.lifetimes.get(operand)
            if life is not None:
                after = self._sides(life, operator, reach)[1]
                given_up = Absence(operand, (after,)) if after is not None else None
            yield Credit(int(problem.space_bytes[result]), absent_result, absent_operand, given_up)

    def _least_alive(self, operator: int, loose: list[int], reach: Reach) -> int:
        """Least space of loose tensors alive across an operator, over all down-sets: a minimum cut."""
        problem = self.problem
        before, after = reach.before[operator], reach.after[operator]
        free = members(reach.unordered(operator), problem.operator_count).tolist()
        node = {u: i + 2 for i, u in enumerate(free)}  # 0 source: before; 1 sink: after
        count = len(free) + 2
        unit = int(np.gcd.reduce(problem.space_bytes[loose]))
        arcs: list[tuple[int, int, int]] = []
        infinite = sum(self.lifetimes[t].space_bytes for t in loose) // unit + 1
        for u in free:
            for p in problem.predecessors_of(u).tolist():
                if p in node:
                    arcs.append((node[u], node[p], infinite))
        for t in loose:
            life = self.lifetimes[t]
            begin, end = count, 1
            count += 1
            if life.producer >= 0:
                begin = 0 if before >> life.producer & 1 else node[life.producer]
            elif before & life.consumer_mask:
                begin = 0
            else:
                arcs.extend((node[c], begin, infinite) for c in life.consumers if c in node)
            if not after & life.consumer_mask:
                end = count
                count += 1
                arcs.extend((end, node[c], infinite) for c in life.consumers if c in node)
            arcs.append((begin, end, life.space_bytes // unit))
        self.work += 3e-4 + len(arcs) / self.parameters.arcs_per_second
        return minimum_cut(count, arcs) * unit


def disjoint_rows(rows: list[Row], lifetimes: dict[int, Lifetime]) -> int:
    """A first bound, in bytes: least costs of rows that share no tensor, chosen greedily from the dearest on."""
    priced = sorted(((_least_cost(row, lifetimes), row) for row in rows), key=lambda pair: (-pair[0], pair[1].operator))
    taken: set[int] = set()
    total = 0
    for cost, row in priced:
        tensors = _tensors(row)
        if cost > 0 and taken.isdisjoint(tensors):
            taken |= tensors
            total += cost
    return total


def _tensors(row: Row) -> set[int]:
    found = {absence.tensor for absence, _ in row.absences + row.loose}
    return found | {credit.given_up.tensor for credit in row.credits if credit.given_up is not None}


def _least_cost(row: Row, lifetimes: dict[int, Lifetime]) -> int:
    """Fractional cover of one row: each absence costs one gap, takeovers come free, rounded up."""
    left = row.need_bytes - max((credit.space_bytes for credit in row.credits), default=0)
    cost = 0.0
    prices = []
    for absence, space in row.absences + row.loose:
        life = lifetimes[absence.tensor]
        prices.append(((life.read_bytes + life.store_bytes) / space, space))
    for price, space in sorted(prices):
        if left <= 0:
            break
        cost += price * min(space, left)
        left -= space
    # Prices are ratios of whole numbers; a thousandth of a byte is far beyond their rounding.
    return max(0, -int(-(cost - 1e-3) // 1))
