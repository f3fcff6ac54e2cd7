"""Order and residency in one program, indexed by time, with addresses or without.

``at[v, i]`` says that operator ``v`` runs at step ``i``, ``inside[t, i]`` that tensor ``t`` is in the scratchpad
during step ``i``. Both exist only within the windows that precedence leaves. Without addresses the optimum is a
lower bound on every plan; with them it is COSMA's program: order, residency, load and store, and scratchpad
addresses without overlap. The families are explained in ``docs/formulations.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cosma.problem import Decisions, decisions_from_gaps, touches_of, with_takeovers
from cosma.problem.rules import (
    may_stream_anything,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cosma.arrays import Ints
    from cosma.problem import Problem, Residency
    from cosma.problem.precedence import Windows
    from cosma.solvers.model import Model

#: How addresses enter the program: not at all, by pairwise disjunctions (linear), or by intervals (CP-SAT).
Addresses = Literal["none", "linear", "intervals"]


@dataclass(frozen=True, slots=True, eq=False)
class Joint:
    """The program and how to read it. Missing keys are variables that windows rule out."""

    #: What it is about.
    problem: Problem
    windows: Windows
    model: Model
    #: ``(operator, step) -> variable``.
    at: Mapping[tuple[int, int], int]
    #: ``(tensor, step) -> variable``: in the scratchpad during the step.
    inside: Mapping[tuple[int, int], int]
    #: ``(tensor, step) -> variable``: loaded before the step or streamed in by it.
    read: Mapping[tuple[int, int], int]
    #: ``tensor -> variable``: written back although no graph output.
    stored: Mapping[int, int]
    #: ``(result, operand, step) -> variable``.
    takeover: Mapping[tuple[int, int, int], int]
    #: ``(tensor, step) -> variable`` in granules of ``unit`` bytes; empty without addresses.
    address: Mapping[tuple[int, int], int]
    #: Granule of sizes and addresses in bytes.
    unit: int

    def decisions(self, values: Ints) -> Decisions:
        """Read a solution as an order and residencies."""
        problem = self.problem
        order = [0] * problem.operator_count
        for (v, i), x in self.at.items():
            if values[x]:
                order[i] = v
        taken = {(u, i): r for (r, u, i), z in self.takeover.items() if values[z]}
        touches = touches_of(problem, order)
        keep = [True] * len(touches.step)
        alone = []
        for t in range(problem.tensor_count):
            first, last = int(touches.start[t]), int(touches.start[t + 1]) - 1
            if problem.space_bytes[t] == 0:
                continue
            for g in range(first, last + 1):
                begin = int(touches.step[g])
                if values[self.inside[t, begin]]:
                    alone.append(g)
                if g == last:
                    continue
                end = int(touches.step[g + 1])
                keep[g] = (
                    (t, begin) not in taken
                    and all(values[self.inside[t, i]] for i in range(begin, end + 1))
                    and not any(values[self.read[t, i]] for i in range(begin + 1, end + 1))
                )
        if may_stream_anything(problem):
            # A stay of one touch saves nothing unless nothing else touches the tensor.
            alone = [g for g in alone if self._only_touch(touches.start, g)]
        found = decisions_from_gaps(problem, order, keep, touches=touches, resident_touches=alone)
        return with_takeovers(problem, found, {r: u for (u, _), r in taken.items()})

    @staticmethod
    def _only_touch(start: Ints, touch: int) -> bool:
        t = int(start.searchsorted(touch, side="right")) - 1
        return bool(start[t + 1] - start[t] == 1)

    def values_of(self, decisions: Decisions, addresses: Mapping[Residency, int] | None = None) -> Ints:
        """Assignment that stands for decisions (a warm start); addresses in bytes where the model has them."""
        problem = self.problem
        values = self.model.lower.copy()
        position = {v: i for i, v in enumerate(decisions.order)}
        for v, i in position.items():
            values[self.at[v, i]] = 1
        for r in decisions.residencies:
            if problem.space_bytes[r.tensor] == 0:
                continue
            for i in range(r.start, r.end):
                values[self.inside[r.tensor, i]] = 1
                if addresses is not None and self.address:
                    values[self.address[r.tensor, i]] = addresses[r] // self.unit
            if r.loaded:
                values[self.read[r.tensor, r.start]] = 1
            if r.in_place_of is not None:
                values[self.takeover[r.tensor, r.in_place_of, r.start]] = 1
        for t in range(problem.tensor_count):
            if problem.space_bytes[t] == 0:
                continue
            for v in problem.consumers_of(t).tolist():
                i = position[v]
                if not values[self.inside[t, i]]:
                    values[self.read[t, i]] = 1
            if t in self.stored:
                born = position[int(problem.producer[t])]
                reads = any(values[x] for (u, _), x in self.read.items() if u == t)
                values[self.stored[t]] = reads or not values[self.inside[t, born]]
        return values


@dataclass(frozen=True, slots=True)
class JointConflict:
    """Residencies (and the takeovers and absences of takeovers among them) that leave no addresses together."""

    residencies: tuple[Residency, ...]
