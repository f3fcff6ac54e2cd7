"""The covering program: the cheapest set of gaps that satisfies every row.

A 0/1 program. ``dropped[t, k]`` says that tensor ``t`` is absent somewhere in stretch ``k`` of its life (cost: one
read), ``stored[t]`` that it is written back before its time (cost: one store). It is a relaxation of the whole
problem, and equal to it where the order is forced.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING

from ortools.sat.python import cp_model

from cosma.cp_sat import new_solver, next_integer, solve, work_done

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cosma.bounds.lifetimes import Lifetime
    from cosma.bounds.rows import Absence, Either, Row, Stretch


@dataclass(frozen=True, slots=True)
class CoveringResult:
    """A bound on the program, whether it is its optimum, and the deterministic time spent (seconds)."""

    value_bytes: int
    proven: bool
    work: float


class CoveringProgram:
    """The covering program over some rows, for CP-SAT.

    Parameters
    ----------
    lifetimes
        Tensors by number.
    rows
        What must be freed while which operator runs.
    pairs
        Alternatives: of each, one side's rows hold.
    """

    def __init__(
        self, lifetimes: dict[int, Lifetime], rows: Iterable[Row], pairs: Iterable[Either] = ()
    ) -> None:
        self.lifetimes = lifetimes
        self.model = cp_model.CpModel()
        self._dropped: dict[tuple[int, int], cp_model.IntVar] = {}
        self._stored: dict[int, cp_model.IntVar] = {}
        self._absent: dict[Absence, cp_model.IntVar] = {}
        self._cost: list[tuple[cp_model.IntVar, int]] = []
        for row in rows:
            self._add(row)
        for pair in pairs:
            first = self.model.new_bool_var("")
            for side, condition in ((pair.first, first), (pair.second, first.Not())):
                for row in side:
                    self._add(row, condition)
        self.granule = gcd(*(cost for _, cost in self._cost), 0) or 1
        self.model.minimize(sum(variable * (cost // self.granule) for variable, cost in self._cost))

    def solve(self, limit: float, *, seed: int = 0, stop: Callable[[], bool] | None = None) -> CoveringResult:
        """Bound the program from below within a deterministic time (seconds), on one thread."""
        solver = new_solver(seed=seed, work_limit=limit)
        solver.parameters.linearization_level = 2
        status, _ = solve(solver, self.model, stop)
        if status in (cp_model.INFEASIBLE, cp_model.MODEL_INVALID):
            raise AssertionError("everything may be absent, so the covering program has a solution")
        proven = status == cp_model.OPTIMAL
        bound = solver.objective_value if proven else solver.best_objective_bound
        return CoveringResult(max(0, next_integer(bound)) * self.granule, proven, work_done(solver))

    def _add(self, row: Row, condition: cp_model.LiteralT | None = None) -> None:
        terms: list[tuple[cp_model.IntVar, int]] = [(self._absence(a), space) for a, space in row.absences]
        taken: list[cp_model.IntVar] = []
        for credit in row.credits:
            variable = self.model.new_bool_var("")
            for absence in (credit.result, credit.operand):
                if absence is not None:
                    self.model.add_implication(variable, self._absence(absence).Not())
            if credit.given_up is not None:
                self.model.add_implication(variable, self._absence(credit.given_up))
            taken.append(variable)
            terms.append((variable, credit.space_bytes))
        if len(taken) > 1:
            self.model.add_at_most_one(taken)
        unit = gcd(row.need_bytes, row.loose_bytes, *(space for _, space in terms))
        unit = gcd(unit, *(space for _, space in row.loose))
        left = sum(variable * (space // unit) for variable, space in terms)
        if row.loose:
            loose = sum(self._absence(a) * (space // unit) for a, space in row.loose)
            freed = self.model.new_int_var(0, row.loose_bytes // unit, "")
            self.model.add(freed <= loose)
            left = left + freed
        covered = self.model.add(left >= row.need_bytes // unit)
        if condition is not None:
            covered.only_enforce_if(condition)

    def _absence(self, absence: Absence) -> cp_model.IntVar:
        known = self._absent.get(absence)
        if known is not None:
            return known
        if len(absence.stretches) == 1 and absence.stretches[0][0] == absence.stretches[0][1]:
            variable = self._gap(absence.tensor, absence.stretches[0][0])
        else:
            variable = self.model.new_bool_var("")
            for stretch in absence.stretches:
                self._imply(variable, absence.tensor, stretch)
        self._absent[absence] = variable
        return variable

    def _imply(self, variable: cp_model.IntVar, tensor: int, stretch: Stretch) -> None:
        gaps: Sequence[cp_model.IntVar] = [self._gap(tensor, k) for k in range(stretch[0], stretch[1] + 1)]
        self.model.add_bool_or([variable.Not(), *gaps])

    def _gap(self, tensor: int, stretch: int) -> cp_model.IntVar:
        key = (tensor, stretch)
        if key not in self._dropped:
            life = self.lifetimes[tensor]
            variable = self.model.new_bool_var("")
            self._dropped[key] = variable
            self._cost.append((variable, life.read_bytes))
            if life.store_bytes:
                if tensor not in self._stored:
                    self._stored[tensor] = self.model.new_bool_var("")
                    self._cost.append((self._stored[tensor], life.store_bytes))
                self.model.add_implication(variable, self._stored[tensor])
        return self._dropped[key]
