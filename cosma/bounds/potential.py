"""Prices: how the cost of a gap is spread over the operators it could serve.

From the linear relaxation of the covering program come *prices* ``price[v, t]``: what the absence of tensor ``t``
at operator ``v`` is charged. In any stretch of a tensor's life the prices add up to one read at most (and over all its
stretches the excess to one store at most), so charging every absence its price never charges more than a plan
pays. Then each operator on its own costs at least its cheapest way of freeing what its row needs (a
small knapsack), and these minima add up, over all operators or over those still to run.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from ortools.linear_solver import pywraplp

from cosma.bounds.dual import Potential

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.bounds.lifetimes import Lifetime
    from cosma.bounds.rows import Absence, Row
    from cosma.problem import Problem

#: Factor by which prices are lowered, again and again, until they are feasible beyond rounding.
_SHRINK = 1 - 1e-7

#: Branchings in one knapsack, at most. Beyond them its relaxation serves.
_MOST_BRANCHINGS = 60


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of absences by row."""

    #: The covering program.
    lifetimes: dict[int, Lifetime]
    rows: Sequence[Row]
    #: One list per row: for its sure, then its loose tensors, a price per stretch.
    price: list[list[list[float]]]
    #: One list per row: for each takeover, a price per stretch of its operand being given up.
    given_up: list[list[list[float]]]


class PriceProgram:
    """The linear relaxation of the covering program, tightened by knapsack cover inequalities.

    If the tensors of a set ``A`` are all absent, the others must still free ``need - space(A)``; so they satisfy
    the row with that right-hand side and no coefficient above it, whatever ``A`` is (Carr, Fleischer, Leung,
    Phillips: "Strengthening integrality gaps for capacitated network design and covering problems", SODA 2000).
    """

    def __init__(self, lifetimes: dict[int, Lifetime], rows: Sequence[Row]) -> None:
        self.lifetimes = lifetimes
        self.rows = rows
        self.solver = pywraplp.Solver.CreateSolver("GLOP")
        self._infinity = self.solver.infinity()
        self._objective = self.solver.Objective()
        self._objective.SetMinimization()
        self._gaps: dict[tuple[int, int], pywraplp.Variable] = {}
        self._stores: dict[int, pywraplp.Variable] = {}
        #: Per row: (variable, space) of what frees space, without the loose part.
        self._items: list[list[tuple[pywraplp.Variable, int]]] = []
        self._loose: list[pywraplp.Variable | None] = []
        self._links: list[list[list[pywraplp.Constraint]]] = []
        self._given: list[list[list[pywraplp.Constraint]]] = []
        self._known: set[tuple[int, tuple[int, ...]]] = set()
        self.items = 0
        for row in rows:
            self._add(row)
        for r in range(len(rows)):
            self._cut(r, ())

    def solve(self, rounds: int) -> Prices:
        """Solve, adding violated cover inequalities between solves (GLOP, deterministic); read prices off the duals."""
        solved = self.solver.Solve() == pywraplp.Solver.OPTIMAL
        for _ in range(rounds):
            if not solved or not self._separate():
                break
            solved = self.solver.Solve() == pywraplp.Solver.OPTIMAL

        def dual(constraint: pywraplp.Constraint) -> float:
            return max(0.0, constraint.dual_value()) if solved else 0.0

        return Prices(
            self.lifetimes,
            self.rows,
            [[[dual(c) for c in own] for own in row] for row in self._links],
            [[[dual(c) for c in own] for own in row] for row in self._given],
        )

    def _separate(self) -> bool:
        # Values first: adding a constraint invalidates them.
        solution = [[variable.solution_value() for variable, _ in items] for items in self._items]
        part = [loose.solution_value() if loose is not None else 0.0 for loose in self._loose]
        found = False
        for r, (row, values) in enumerate(zip(self.rows, solution, strict=True)):
            for threshold in (0.999, 0.6, 0.3):
                full = tuple(i for i, value in enumerate(values) if value > threshold)
                need = row.need_bytes - sum(self._items[r][i][1] for i in full)
                if need <= 0 or (r, full) in self._known:
                    continue
                left = sum(
                    min(space, need) * value
                    for i, ((_, space), value) in enumerate(zip(self._items[r], values, strict=True))
                    if i not in full
                )
                left += part[r] * row.need_bytes
                if left < need * (1 - 1e-4):
                    self._cut(r, full)
                    found = True
        return found

    def _cut(self, r: int, full: tuple[int, ...]) -> None:
        self._known.add((r, full))
        row = self.rows[r]
        need = row.need_bytes - sum(self._items[r][i][1] for i in full)
        cover = self.solver.Constraint(1, self._infinity)
        for i, (variable, space) in enumerate(self._items[r]):
            if i not in full:
                cover.SetCoefficient(variable, min(space, need) / need)
        loose = self._loose[r]
        if loose is not None:
            cover.SetCoefficient(loose, row.need_bytes / need)

    def _gap(self, tensor: int, stretch: int) -> pywraplp.Variable:
        if (tensor, stretch) not in self._gaps:
            life = self.lifetimes[tensor]
            variable = self.solver.NumVar(0, self._infinity, "")
            self._objective.SetCoefficient(variable, float(life.read_bytes))
            self._gaps[tensor, stretch] = variable
            if life.store_bytes:
                if tensor not in self._stores:
                    self._stores[tensor] = self.solver.NumVar(0, self._infinity, "")
                    self._objective.SetCoefficient(self._stores[tensor], float(life.store_bytes))
                link = self.solver.Constraint(0, self._infinity)
                link.SetCoefficient(self._stores[tensor], 1)
                link.SetCoefficient(variable, -1)
        return self._gaps[tensor, stretch]

    def _absent(self, absence: Absence) -> tuple[pywraplp.Variable, list[pywraplp.Constraint]]:
        variable = self.solver.NumVar(0, 1, "")
        links = []
        for first, last in absence.stretches:
            link = self.solver.Constraint(0, self._infinity)
            link.SetCoefficient(variable, -1)
            for stretch in range(first, last + 1):
                link.SetCoefficient(self._gap(absence.tensor, stretch), 1)
            links.append(link)
        return variable, links

    def _add(self, row: Row) -> None:
        variables: dict[Absence, pywraplp.Variable] = {}
        items: list[tuple[pywraplp.Variable, int]] = []
        self._links.append([])
        self._given.append([])
        part = loose = None
        if row.loose:
            part = self.solver.NumVar(0, row.loose_bytes / row.need_bytes, "")
            loose = self.solver.Constraint(0, self._infinity)
            loose.SetCoefficient(part, -1)
        self._loose.append(part)
        for i, (absence, space) in enumerate(row.absences + row.loose):
            variable, own = self._absent(absence)
            variables[absence] = variable
            self._links[-1].append(own)
            if i < len(row.absences):
                items.append((variable, space))
            elif loose is not None:
                loose.SetCoefficient(variable, space / row.need_bytes)
        one = self.solver.Constraint(-self._infinity, 1) if row.credits else None
        for credit in row.credits:
            taken = self.solver.NumVar(0, 1, "")
            if one is not None:
                one.SetCoefficient(taken, 1)
            items.append((taken, credit.space_bytes))
            for other in (credit.result, credit.operand):
                if other is not None:
                    either = self.solver.Constraint(-self._infinity, 1)
                    either.SetCoefficient(taken, 1)
                    either.SetCoefficient(variables[other], 1)
            self._given[-1].append([])
            if credit.given_up is not None:
                variable, own = self._absent(credit.given_up)
                after = self.solver.Constraint(0, self._infinity)
                after.SetCoefficient(variable, 1)
                after.SetCoefficient(taken, -1)
                self._given[-1][-1] = own
        self._items.append(items)
        self.items += len(items) + len(row.loose)


def potential_of(problem: Problem, prices: Prices) -> Potential:
    """Make prices feasible beyond rounding, and price every operator by itself."""
    loads = _loads(prices)
    by_tensor: dict[int, list[int]] = {}
    for i, load in enumerate(loads):
        by_tensor.setdefault(load[0], []).append(i)
    scale: dict[int, float] = {}
    share = np.zeros(problem.tensor_count)
    for t, own in by_tensor.items():
        life = prices.lifetimes[t]
        stretches = np.zeros(len(life.chain) + 1)
        for i in own:
            stretches[loads[i][2] : loads[i][3] + 1] += loads[i][4]
        factor = 1.0
        while np.maximum(0.0, stretches * factor - life.read_bytes).sum() > life.store_bytes * (1 - 1e-12):
            factor *= _SHRINK
            if factor < 0.5:
                factor = min(factor, float(life.read_bytes / max(stretches.max(), 1e-300)) * _SHRINK)
                break
        scale[t] = factor
        share[t] = np.maximum(0.0, stretches * factor - life.read_bytes).sum()
    operator = np.zeros(problem.operator_count)
    for r, row in enumerate(prices.rows):
        operator[row.operator] = _row_value(prices, r, scale)
    return Potential(
        float(operator.sum()),
        operator,
        [(t, v, first, last, amount * scale[t]) for t, v, first, last, amount in loads],
        share,
        {t: prices.lifetimes[t].chain for t in by_tensor},
    )


def _loads(prices: Prices) -> list[tuple[int, int, int, int, float]]:
    found = []
    for r, row in enumerate(prices.rows):
        for (absence, _), own in zip(row.absences + row.loose, prices.price[r], strict=True):
            for (first, last), amount in zip(absence.stretches, own, strict=True):
                if amount > 0:
                    found.append((absence.tensor, row.operator, first, last, amount))
        for credit, own in zip(row.credits, prices.given_up[r], strict=True):
            if credit.given_up is not None:
                for (first, last), amount in zip(credit.given_up.stretches, own, strict=True):
                    if amount > 0:
                        found.append((credit.given_up.tensor, row.operator, first, last, amount))
    return found


def _row_value(prices: Prices, index: int, scale: dict[int, float]) -> float:
    """Least total price of what frees enough at one operator: a fractional knapsack for each takeover."""
    row = prices.rows[index]
    items = [
        (sum(own) * scale.get(absence.tensor, 1.0), space, i >= len(row.absences), absence)
        for i, ((absence, space), own) in enumerate(zip(row.absences + row.loose, prices.price[index], strict=True))
    ]
    items.sort(key=lambda item: item[0] / item[1])
    best = _knapsack(items, row.need_bytes, row.loose_bytes, ())
    for credit, own in zip(row.credits, prices.given_up[index], strict=True):
        extra = sum(own) * (scale.get(credit.given_up.tensor, 1.0) if credit.given_up is not None else 0.0)
        best = min(
            best,
            extra
            + _knapsack(items, row.need_bytes - credit.space_bytes, row.loose_bytes, (credit.result, credit.operand)),
        )
    return best


def _knapsack(
    items: list[tuple[float, int, bool, Absence]], need: int, loose: int, barred: tuple[Absence | None, ...]
) -> float:
    """Minimum knapsack over items sorted by price per byte, or a bound below it after many branchings.

    Sure items are taken or not; loose ones, which come in parts, give ``loose`` bytes at most.
    """
    if need <= 0:
        return 0.0
    usable = [item for item in items if item[3] not in barred]
    # Best first: branch on the item that the relaxation takes in part, without it or with all of it.
    best = float("inf")
    counter = 0

    def relax(out: frozenset[int], fixed: frozenset[int]) -> tuple[float, int]:
        left, cost, spare = need, 0.0, loose
        for i in fixed:
            left -= usable[i][1]
            cost += usable[i][0]
        for i, (price, space, is_loose, _) in enumerate(usable):
            if left <= 0:
                break
            if i in out or i in fixed:
                continue
            used = min(space, left, spare) if is_loose else min(space, left)
            spare -= used if is_loose else 0
            cost += price * used / space
            left -= used
            if used < space and not is_loose and left <= 0:
                return cost, i
        return (cost, -1) if left <= 0 else (float("inf"), -1)

    value, split = relax(frozenset(), frozenset())
    nodes = [(value, counter, frozenset[int](), frozenset[int](), split)]
    while nodes:
        value, _, out, fixed, split = heapq.heappop(nodes)
        if split < 0 or value >= best or counter > _MOST_BRANCHINGS:
            return value
        for more_out, more_in in ((out | {split}, fixed), (out, fixed | {split})):
            counter += 1
            value, part = relax(more_out, more_in)
            if value < best:
                heapq.heappush(nodes, (value, counter, more_out, more_in, part))
    return best
