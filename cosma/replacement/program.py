"""Replacement for a fixed order: which tensors stay in the scratchpad between which of their uses.

One 0/1 variable per gap between consecutive touches of a tensor, one capacity row per step that could
overflow. Gaps that touch no such step are kept for nothing, so they get no variable. The families are explained
in ``docs/formulations.md``; sizes are counted in the greatest unit that divides them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.intervals import sums_over
from cosma.problem import Decisions, decisions_from_gaps, touches_of, with_takeovers
from cosma.problem.rules import arrival_bytes, may_stream, store_bytes
from cosma.solvers.model import ModelBuilder, common_unit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cosma.arrays import Ints
    from cosma.problem import Problem, Touches
    from cosma.solvers.model import Model


@dataclass(frozen=True, slots=True, eq=False)
class Replacement:
    """The program and how to read it."""

    #: What it is about.
    problem: Problem
    order: tuple[int, ...]
    touches: Touches
    #: The program; its optimum is the least non-compulsory traffic of this order without addresses.
    model: Model
    #: Variable of each gap, -1 where the gap is kept in any case. ``int64[touches]``; see ``Touches``.
    keep: Ints
    #: Variable of each touch that may be resident by itself (dead results), -1 for none.
    alone: Ints
    #: Dead results that have space in any case.
    always_alone: tuple[int, ...]
    #: Variable of each (result, operand) that is a choice; other results take over what they can.
    takeover: Mapping[tuple[int, int], int]

    def decisions(self, values: Ints) -> Decisions:
        """Read a solution of the model as residencies."""
        keep = np.where(self.keep >= 0, values[self.keep] > 0, True) if len(values) else self.keep < 0
        alone = [g for g in np.flatnonzero(self.alone >= 0).tolist() if values[self.alone[g]] > 0]
        alone += self.always_alone
        relaxed = decisions_from_gaps(
            self.problem, self.order, keep, touches=self.touches, resident_touches=alone
        )
        decided = {result for result, _ in self.takeover}
        chosen = {r: u for (r, u), z in self.takeover.items() if values[z] > 0}
        for r in relaxed.residencies:
            if r.in_place_of is not None and r.tensor not in decided:
                chosen[r.tensor] = r.in_place_of
        return with_takeovers(self.problem, relaxed, chosen)

    def values_of(self, decisions: Decisions) -> Ints:
        """Assignment of the model's variables that stands for decisions in this order (a warm start)."""
        values = self.model.lower.copy()
        covered: dict[int, list[tuple[int, int]]] = {}
        for r in decisions.residencies:
            covered.setdefault(r.tensor, []).append((r.start, r.end))
        start, step = self.touches.start, self.touches.step
        for g in np.flatnonzero(self.keep >= 0).tolist():
            t = int(np.searchsorted(start, g, side="right")) - 1
            values[self.keep[g]] = any(s <= step[g] and step[g + 1] < e for s, e in covered.get(t, ()))
        for g in np.flatnonzero(self.alone >= 0).tolist():
            t = int(np.searchsorted(start, g, side="right")) - 1
            values[self.alone[g]] = any(s <= step[g] < e for s, e in covered.get(t, ()))
        for r in decisions.residencies:
            if r.in_place_of is not None and (r.tensor, r.in_place_of) in self.takeover:
                values[self.takeover[r.tensor, r.in_place_of]] = 1
        self._derive(values)
        return values

    def _derive(self, values: Ints) -> None:
        """Set what follows from the choices: presence at touches and write-backs, at their least values."""
        model = self.model
        for family in model.rows:
            if family.name not in ("presence", "store once"):
                continue
            for i in range(family.begin, family.end):
                row = slice(int(model.row_start[i]), int(model.row_start[i + 1]))
                columns, coefficients = model.row_column[row], model.row_value[row]
                # The derived variable comes first and has coefficient one.
                rest = int(coefficients[1:] @ values[columns[1:]])
                values[columns[0]] = max(int(values[columns[0]]), int(model.row_lower[i]) - rest)


def build_replacement(problem: Problem, order: Sequence[int], *, forbidden: Iterable[Conflict] = ()) -> Replacement:
    """Build the program for an order.

    Parameters
    ----------
    forbidden
        Sets of gaps (all kept) and takeovers (all made) for which no addresses exist together; each becomes
        a row ``address conflict``.
    """
    return _Builder(problem, order, tuple(forbidden)).build()


@dataclass(frozen=True, slots=True)
class Conflict:
    """Choices of one order that leave no addresses: not all of them may hold at once."""

    #: Gaps, by number.
    kept: tuple[int, ...]
    #: Touches resident by themselves, by number.
    resident: tuple[int, ...] = ()
    #: (result, operand) pairs taken over in place.
    taken: tuple[tuple[int, int], ...] = ()
    #: Pairs that could have been taken over in place and were not.
    apart: tuple[tuple[int, int], ...] = ()


class _Builder:
    def __init__(self, problem: Problem, order: Sequence[int], conflicts: tuple[Conflict, ...]) -> None:
        self.problem = problem
        self.order = tuple(int(v) for v in order)
        self.conflicts = conflicts
        self.touches = touches_of(problem, self.order)
        self.out = ModelBuilder("replacement")
        self.start = self.touches.start.tolist()
        self.step = self.touches.step.tolist()
        self.space = problem.space_bytes.tolist()
        self.arrival = arrival_bytes(problem).tolist()
        self.store = store_bytes(problem).tolist()
        self.unit = common_unit([*self.space, problem.capacity_bytes])
        self.keep = np.full(len(self.step), -1, dtype=np.int64)
        self.alone = np.full(len(self.step), -1, dtype=np.int64)
        self.takeover: dict[tuple[int, int], int] = {}
        self.always_alone: list[int] = []
        # Per step: variables with their space, and the space that is taken in any case.
        self.terms: dict[int, list[tuple[int, int]]] = {}
        self.fixed = [0] * len(self.order)

    def build(self) -> Replacement:
        binding = self._overflowing_steps()
        self._add_gaps(binding)
        self._add_takeovers(binding)
        self._add_capacity(binding)
        for conflict in self.conflicts:
            self._add_conflict(conflict)
        return Replacement(
            self.problem,
            self.order,
            self.touches,
            self.out.build(),
            self.keep,
            self.alone,
            tuple(self.always_alone),
            self.takeover,
        )

    def _overflowing_steps(self) -> list[bool]:
        """Steps that exceed the capacity if everything is kept and nothing is taken over."""
        start, step = self.touches.start, self.touches.step
        touched = np.flatnonzero(start[:-1] < start[1:])
        first, last = step[start[touched]], step[start[touched + 1] - 1]
        held = sums_over(first, last + 1, self.problem.space_bytes[touched], len(self.order))
        return [bool(over) for over in held > self.problem.capacity_bytes]

    def _add_gaps(self, binding: list[bool]) -> None:
        problem, out = self.problem, self.out
        binds_before = np.concatenate([[0], np.cumsum(binding)]).tolist()
        needed = {g for conflict in self.conflicts for g in (*conflict.kept, *conflict.resident)}
        for t in range(problem.tensor_count):
            first, last = self.start[t], self.start[t + 1] - 1
            produced = problem.producer[t] >= 0
            if self.space[t] == 0:
                continue
            stored = -1
            for g in range(first, last):
                begin, end = self.step[g], self.step[g + 1]
                if binds_before[end + 1] == binds_before[begin] and g not in needed:
                    continue
                self.keep[g] = out.variable("keep")
                out.constant(self.arrival[t])
                out.cost(int(self.keep[g]), -self.arrival[t])
                if self.store[t]:
                    if stored < 0:
                        stored = out.variable("stored")
                        out.cost(stored, self.store[t])
                    out.row("store once", (stored, int(self.keep[g])), (1, 1), lower=1)
                for i in range(begin + 1, end):
                    self._occupy(i, int(self.keep[g]), t)
            if produced and first == last and self.store[t] and self._may_stream(first, t):
                if binding[self.step[first]]:
                    self.alone[first] = out.variable("alone")
                    out.constant(self.store[t])
                    out.cost(int(self.alone[first]), -self.store[t])
                else:
                    self.always_alone.append(first)
            for g in range(first, last + 1):
                self._add_touch(t, g, first, last)
        out.constant(problem.constant_noncompulsory_bytes)

    def _add_touch(self, t: int, g: int, first: int, last: int) -> None:
        """Space at a touch: always where it may not stream, else if a gap beside it is kept."""
        i = self.step[g]
        if not self._may_stream(g, t):
            self.fixed[i] += self.space[t]
            return
        beside = [int(self.keep[k]) for k in (g - 1, g) if first <= k < last]
        if self.alone[g] >= 0:
            self._occupy(i, int(self.alone[g]), t)
        elif -1 in beside:
            self.fixed[i] += self.space[t]
        elif len(beside) == 1:
            self._occupy(i, beside[0], t)
        elif beside:
            present = self.out.variable("present")
            for k in beside:
                self.out.row("presence", (present, k), (1, -1), lower=0)
            self._occupy(i, present, t)

    def _may_stream(self, touch: int, tensor: int) -> bool:
        return may_stream(self.problem, self.order[self.step[touch]], tensor)

    def _occupy(self, step: int, variable: int, tensor: int) -> None:
        self.terms.setdefault(step, []).append((variable, self.space[tensor]))

    def _add_takeovers(self, binding: list[bool]) -> None:
        position = {v: i for i, v in enumerate(self.order)}
        needed = {pair for conflict in self.conflicts for pair in (*conflict.taken, *conflict.apart)}
        for v in self.order:
            pairs = self.problem.pairs_of(v)
            i = position[v]
            wanted = any(pair in needed for pair in pairs)
            if not pairs or not (binding[i] or wanted):
                continue
            # Where operands must be resident, one that dies here can be taken over whatever is kept.
            dying = [r for r, u in pairs if self._touch_at(u, i) == self.start[u + 1] - 1]
            if dying and not wanted and not any(may_stream(self.problem, v, t) for pair in pairs for t in pair):
                self.fixed[i] -= self.space[dying[0]]
            else:
                self._add_choices(i, pairs)

    def _add_choices(self, i: int, pairs: list[tuple[int, int]]) -> None:
        out = self.out
        chosen: list[int] = []
        for result, operand in pairs:
            g = self._touch_at(operand, i)
            first, last = self.start[operand], self.start[operand + 1] - 1
            operand_streams = may_stream(self.problem, self.order[i], operand)
            if operand_streams and g == first:
                continue  # first use of an input or weight: it comes from off-chip and has no space to hand over
            if g < last and self.keep[g] < 0:
                continue  # kept in any case, so it never dies here
            z = out.variable("takeover")
            self.takeover[result, operand] = z
            chosen.append(z)
            if g < last:
                out.row("takeover ends operand", (z, int(self.keep[g])), (1, 1), upper=1)
            if operand_streams and self.keep[g - 1] >= 0:
                out.implies("takeover finds operand", z, int(self.keep[g - 1]))
            if may_stream(self.problem, self.order[i], result):
                born = self.start[result]
                here = int(self.alone[born]) if self.alone[born] >= 0 else int(self.keep[born])
                if born == self.start[result + 1] - 1 and self.alone[born] < 0:
                    out.row("takeover finds result", (z,), (1,), upper=0)  # the result streams out
                elif here >= 0:
                    out.implies("takeover finds result", z, here)
            self.terms.setdefault(i, []).append((z, -self.space[result]))
        if len(chosen) > 1:
            out.row("one takeover", chosen, [1] * len(chosen), upper=1)

    def _touch_at(self, tensor: int, step: int) -> int:
        row = range(self.start[tensor], self.start[tensor + 1])
        return next(g for g in row if self.step[g] == step)

    def _add_capacity(self, binding: list[bool]) -> None:
        room = self.problem.capacity_bytes
        for i, must in enumerate(binding):
            terms = self.terms.get(i, [])
            if must and (terms or self.fixed[i] > room):
                columns = [variable for variable, _ in terms]
                values = [space // self.unit for _, space in terms]
                self.out.row("capacity", columns, values, upper=(room - self.fixed[i]) // self.unit)

    def _add_conflict(self, conflict: Conflict) -> None:
        columns = [int(self.keep[g]) for g in conflict.kept]
        columns += [int(self.alone[g]) for g in conflict.resident if self.alone[g] >= 0]
        values = [1] * len(columns)
        bound = len(columns) - 1
        for pair in conflict.taken:
            columns.append(self.takeover[pair])
            values.append(1)
            bound += 1
        for pair in conflict.apart:
            if pair in self.takeover:
                columns.append(self.takeover[pair])
                values.append(-1)
        self.out.row("address conflict", columns, values, upper=bound)
