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
from cosma.problem.precedence import Windows, windows_of
from cosma.problem.rules import (
    arrival_bytes,
    first_arrival_is_compulsory,
    may_stream,
    may_stream_anything,
    store_bytes,
)
from cosma.solvers.model import ModelBuilder, NoOverlap, common_unit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from cosma.problem import Problem, Residency
    from cosma.solvers.model import Model

    Int64s = NDArray[np.int64]

#: How addresses enter the program: not at all, by pairwise disjunctions (linear), or by intervals (CP-SAT).
Addresses = Literal["none", "linear", "intervals"]


@dataclass(frozen=True, slots=True, eq=False)
class Joint:
    """The program and how to read it. Missing keys are variables that windows rule out.

    Attributes
    ----------
    problem, windows, model
        What it is about.
    at
        ``(operator, step) -> variable``.
    inside
        ``(tensor, step) -> variable``: in the scratchpad during the step.
    read
        ``(tensor, step) -> variable``: loaded before the step or streamed in by it.
    stored
        ``tensor -> variable``: written back although no graph output.
    takeover
        ``(result, operand, step) -> variable``.
    address
        ``(tensor, step) -> variable`` in granules of ``unit`` bytes; empty without addresses.
    unit
        Granule of sizes and addresses in bytes.
    """

    problem: Problem
    windows: Windows
    model: Model
    at: Mapping[tuple[int, int], int]
    inside: Mapping[tuple[int, int], int]
    read: Mapping[tuple[int, int], int]
    stored: Mapping[int, int]
    takeover: Mapping[tuple[int, int, int], int]
    address: Mapping[tuple[int, int], int]
    unit: int

    def decisions(self, values: Int64s) -> Decisions:
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
            if problem.size_bytes[t] == 0:
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
    def _only_touch(start: NDArray[np.int64], touch: int) -> bool:
        t = int(start.searchsorted(touch, side="right")) - 1
        return bool(start[t + 1] - start[t] == 1)

    def values_of(self, decisions: Decisions, addresses: Mapping[Residency, int] | None = None) -> Int64s:
        """Assignment that stands for decisions (a warm start); addresses in bytes where the model has them."""
        problem = self.problem
        values = self.model.lower.copy()
        position = {v: i for i, v in enumerate(decisions.order)}
        for v, i in position.items():
            values[self.at[v, i]] = 1
        for r in decisions.residencies:
            if problem.size_bytes[r.tensor] == 0:
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
            if problem.size_bytes[t] == 0:
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


def build_joint(
    problem: Problem,
    *,
    addresses: Addresses = "none",
    conflicts: Iterable[JointConflict] = (),
    together: Sequence[tuple[int, int]] = (),
    ordered: Sequence[tuple[int, int]] = (),
) -> Joint:
    """Build the program.

    Parameters
    ----------
    problem
        The instance.
    addresses
        How addresses enter.
    conflicts
        Residencies that may not all occur; rows ``address conflict``.
    together
        Pairs of operators of which the second may be assumed to run right after the first.
    ordered
        Pairs of operators of which the first may be assumed to run before the second, as
        :func:`~cosma.problem.symmetry.ordered_pairs` finds them. Windows shrink by them, so other orders have
        no assignment; see :func:`~cosma.problem.symmetry.arrange`.
    """
    return _Builder(problem, addresses, windows_of(problem, ordered)).build(tuple(conflicts), together, ordered)


class _Builder:
    def __init__(self, problem: Problem, addresses: Addresses, windows: Windows) -> None:
        self.problem = problem
        self.addresses = addresses
        self.windows = windows
        self.out = ModelBuilder("joint" if addresses == "none" else f"joint with {addresses} addresses")
        self.size = problem.size_bytes.tolist()
        self.space = problem.space_bytes.tolist()
        self.arrival = arrival_bytes(problem).tolist()
        self.store = store_bytes(problem).tolist()
        self.first_is_compulsory = first_arrival_is_compulsory(problem).tolist()
        self.unit = common_unit([*self.space, problem.capacity_bytes])
        self.room = problem.capacity_bytes // self.unit
        self.steps = range(problem.operator_count)
        self.tensors = [
            t
            for t in range(problem.tensor_count)
            if self.size[t] and (problem.producer[t] >= 0 or len(problem.consumers_of(t)))
        ]
        self.at: dict[tuple[int, int], int] = {}
        self.inside: dict[tuple[int, int], int] = {}
        self.read: dict[tuple[int, int], int] = {}
        self.stored: dict[int, int] = {}
        self.takeover: dict[tuple[int, int, int], int] = {}
        self.address: dict[tuple[int, int], int] = {}

    def build(
        self,
        conflicts: tuple[JointConflict, ...],
        together: Sequence[tuple[int, int]],
        ordered: Sequence[tuple[int, int]],
    ) -> Joint:
        self._add_order()
        for u, v in together:
            self._add_together(u, v)
        for u, v in ordered:
            self._add_precedence("symmetric branches", u, v)
        for t in self.tensors:
            self._add_tensor(t)
        for v in self.steps:
            self._add_takeovers(v)
        self._add_capacity()
        if self.addresses == "linear":
            self._add_linear_addresses()
        elif self.addresses == "intervals":
            self._add_interval_addresses()
        for conflict in conflicts:
            self._add_conflict(conflict)
        self.out.constant(self.problem.constant_noncompulsory_bytes)
        return Joint(
            self.problem,
            self.windows,
            self.out.build(),
            self.at,
            self.inside,
            self.read,
            self.stored,
            self.takeover,
            self.address,
            self.unit,
        )

    # -- order --------------------------------------------------------------------------------------------

    def window(self, v: int) -> range:
        return range(self.windows.earliest[v], self.windows.latest[v] + 1)

    def life(self, t: int) -> range:
        return range(self.windows.born[t], self.windows.dies[t] + 1)

    def _add_order(self) -> None:
        out = self.out
        by_step: list[list[int]] = [[] for _ in self.steps]
        for v in self.steps:
            for i in self.window(v):
                self.at[v, i] = out.variable("at", lower=int(self.windows.fixed(v)))
                by_step[i].append(self.at[v, i])
        for v in self.steps:
            row = [self.at[v, i] for i in self.window(v)]
            out.row("each operator once", row, [1] * len(row), lower=1, upper=1)
        for row in by_step:
            out.row("one operator per step", row, [1] * len(row), lower=1, upper=1)
        for v in self.steps:
            for u in self.problem.predecessors_of(v).tolist():
                self._add_precedence("precedence", u, v)

    def _add_precedence(self, family: str, u: int, v: int) -> None:
        """At each step ``v`` has run only if ``u`` had run before it."""
        for i in self.window(v):
            if i > self.windows.latest[u]:
                break
            done = [self.at[v, j] for j in range(self.windows.earliest[v], i + 1)]
            ready = [self.at[u, j] for j in range(self.windows.earliest[u], i)]
            self.out.row(family, done + ready, [1] * len(done) + [-1] * len(ready), upper=0)

    def _add_together(self, u: int, v: int) -> None:
        for i in range(self.windows.earliest[u], self.windows.latest[v] + 1):
            first, second = self.at.get((u, i)), self.at.get((v, i + 1))
            pair = [(x, c) for x, c in ((first, 1), (second, -1)) if x is not None]
            if pair:
                self.out.row("chain", [x for x, _ in pair], [c for _, c in pair], lower=0, upper=0)

    # -- residency and traffic ----------------------------------------------------------------------------

    def _birth(self, t: int, i: int) -> int | None:
        return self.at.get((int(self.problem.producer[t]), i))

    def _add_tensor(self, t: int) -> None:
        out, problem = self.out, self.problem
        for i in self.life(t):
            # What is larger than the scratchpad is never inside.
            self.inside[t, i] = out.variable("inside", upper=int(self.space[t] <= problem.capacity_bytes))
            self.read[t, i] = out.variable("read")
            out.cost(self.read[t, i], self.arrival[t])
        if self.first_is_compulsory[t]:
            out.constant(-self.arrival[t])
        if self.store[t]:
            self.stored[t] = out.variable("stored")
            out.cost(self.stored[t], self.store[t])
        for i in self.life(t):
            self._add_tensor_step(t, i)

    def _add_tensor_step(self, t: int, i: int) -> None:
        out, problem = self.out, self.problem
        inside, read = self.inside[t, i], self.read[t, i]
        birth = self._birth(t, i)
        users = [v for v in problem.consumers_of(t).tolist() if (v, i) in self.at]
        streaming = [self.at[v, i] for v in users if may_stream(problem, v, t)]
        holding = [self.at[v, i] for v in users if not may_stream(problem, v, t)]
        produced = problem.producer[t] >= 0
        before = self.inside.get((t, i - 1))
        # Loaded when it was not there and is not born.
        origin = [x for x in (before, birth) if x is not None]
        out.row("load", [read, inside, *origin], [1, -1, *[1] * len(origin)], lower=0)
        if streaming:
            out.row("streamed read", [read, inside, *streaming], [1, 1, *[-1] * len(streaming)], lower=0)
        if birth is not None and not may_stream(problem, int(problem.producer[t]), t):
            holding.append(birth)
        elif birth is not None and t in self.stored:
            out.row("streamed write", [self.stored[t], inside, birth], [1, 1, -1], lower=0)
        if holding:
            out.row("operands inside", [inside, *holding], [1, *[-1] * len(holding)], lower=0)
        if t in self.stored:
            out.implies("store before read", read, self.stored[t])
        if produced:
            p = int(problem.producer[t])
            if i < self.windows.latest[p]:
                ready = [self.at[p, j] for j in range(self.windows.earliest[p], i + 1)]
                out.row("born", [inside, *ready], [1, *[-1] * len(ready)], upper=0)
                if i > self.windows.earliest[p]:
                    out.row("read after birth", [read, *ready[:-1]], [1, *[-1] * (len(ready) - 1)], upper=0)
                else:
                    out.row("read after birth", [read], [1], upper=0)
        # A tensor nobody will touch any more is gone.
        rest = [self.at[v, j] for v in problem.consumers_of(t).tolist() for j in self.window(v) if j >= i]
        if birth is not None:
            rest.append(birth)
        if i > min((self.windows.earliest[v] for v in problem.consumers_of(t).tolist()), default=-1):
            out.row("liveness", [inside, *rest], [1, *[-1] * len(rest)], upper=0)

    def _add_takeovers(self, v: int) -> None:
        out = self.out
        pairs = self.problem.pairs_of(v)
        for i in self.window(v) if pairs else ():
            chosen = []
            for result, operand in pairs:
                z = out.variable("takeover")
                self.takeover[result, operand, i] = z
                chosen.append(z)
                out.implies("takeover finds operand", z, self.inside[operand, i])
                if may_stream(self.problem, v, result):
                    out.implies("takeover finds result", z, self.inside[result, i])
                if (operand, i + 1) in self.inside:
                    after = (self.read[operand, i + 1], z, self.inside[operand, i + 1])
                    out.row("takeover ends operand", after, (1, -1, -1), lower=-1)
            out.row("one takeover", [*chosen, self.at[v, i]], [*[1] * len(chosen), -1], upper=0)

    def _add_capacity(self) -> None:
        terms: list[list[tuple[int, int]]] = [[] for _ in self.steps]
        for (t, i), variable in self.inside.items():
            terms[i].append((variable, self.space[t] // self.unit))
        for row in terms:
            if sum(space for _, space in row) <= self.room:
                row.clear()
        for (r, _, i), variable in self.takeover.items():
            if terms[i]:
                terms[i].append((variable, -(self.space[r] // self.unit)))
        for row in terms:
            if row:
                self.out.row("capacity", [x for x, _ in row], [c for _, c in row], upper=self.room)

    def _add_conflict(self, conflict: JointConflict) -> None:
        """Not all of these stays at once: a longer stay would do no better, a shorter or broken one is another."""
        columns: list[int] = []
        values: list[int] = []
        bound = -1
        there = {(r.tensor, r.start, r.end) for r in conflict.residencies}
        for r in conflict.residencies:
            for i in range(r.start, r.end):
                columns.append(self.inside[r.tensor, i])
                values.append(1)
                bound += 1
                if i > r.start:
                    columns.append(self.read[r.tensor, i])
                    values.append(-1)
            if r.in_place_of is not None:
                columns.append(self.takeover[r.tensor, r.in_place_of, r.start])
                values.append(1)
                bound += 1
                continue
            for (result, operand, i), z in self.takeover.items():
                # Standing apart is part of the conflict: sharing an operand's space would be another shape.
                if result == r.tensor and i == r.start and any((operand, s, i + 1) in there for s in range(i + 1)):
                    columns.append(z)
                    values.append(-1)
        self.out.row("address conflict", columns, values, upper=bound)

    # -- addresses ----------------------------------------------------------------------------------------

    def _add_address_variables(self) -> None:
        for t, i in self.inside:
            if self.space[t] <= self.problem.capacity_bytes:
                self.address[t, i] = self.out.variable("address", 0, self.room - self.space[t] // self.unit)

    def _add_linear_addresses(self) -> None:
        out, room = self.out, self.room
        self._add_address_variables()
        for (t, i), here in self.address.items():
            before = self.address.get((t, i - 1))
            if before is None:
                continue
            switches = (self.inside[t, i], self.inside[t, i - 1], self.read[t, i])
            for sign in (1, -1):
                # |here - before| <= room * (2 - inside - inside before + read)
                out.row("address stays", (here, before, *switches), (sign, -sign, room, room, -room), upper=2 * room)
        for (r, u, i), z in self.takeover.items():
            for sign in (1, -1) if (u, i) in self.address else ():
                columns = (self.address[r, i], self.address[u, i], z)
                out.row("takeover address", columns, (sign, -sign, room), upper=room)
        by_step: dict[int, list[int]] = {}
        for t, i in self.address:
            by_step.setdefault(i, []).append(t)
        shared: dict[tuple[int, int, int], int] = {}
        for (r, u, i), z in self.takeover.items():
            shared[min(r, u), max(r, u), i] = z
        for i, row in by_step.items():
            for k, t in enumerate(row):
                for u in row[k + 1 :]:
                    self._add_disjunction(t, u, i, shared.get((min(t, u), max(t, u), i)))

    def _add_disjunction(self, t: int, u: int, i: int, shared: int | None) -> None:
        out, room = self.out, self.room
        below, above = out.variable("below"), out.variable("below")
        for low, high, side in ((t, u, below), (u, t, above)):
            space = self.space[low] // self.unit
            # address(low) + space <= address(high) where ``side``; no address exceeds the room
            columns = (self.address[low, i], self.address[high, i], side)
            out.row("no overlap", columns, (1, -1, room), upper=room - space)
        either = [below, above, self.inside[t, i], self.inside[u, i]]
        coefficients = [1, 1, -1, -1]
        if shared is not None:
            either.append(shared)
            coefficients.append(1)
        out.row("one below the other", either, coefficients, lower=-1)

    def _add_interval_addresses(self) -> None:
        out = self.out
        self._add_address_variables()
        for (t, i), here in self.address.items():
            before = self.address.get((t, i - 1))
            if before is None:
                continue
            carried = out.variable("carried")
            switches = (carried, self.inside[t, i], self.inside[t, i - 1], self.read[t, i])
            out.row("carried", switches, (1, -1, -1, 1), lower=-1)
            out.row("address stays", (here, before), (1, -1), lower=0, upper=0, enforced_by=carried)
        overlaid: dict[tuple[int, int], list[int]] = {}
        for (r, u, i), z in self.takeover.items():
            if (u, i) not in self.address:
                continue
            columns = (self.address[r, i], self.address[u, i])
            out.row("takeover address", columns, (1, -1), lower=0, upper=0, enforced_by=z)
            overlaid.setdefault((r, i), []).append(z)
        groups: dict[int, list[tuple[int, int, int]]] = {}
        for t, i in self.address:
            inside = present = self.inside[t, i]
            if (t, i) in overlaid:
                # While an operator runs, its result lies within the operand that it takes over.
                present = out.variable("apart")
                zs = overlaid[t, i]
                out.row("apart", [present, inside, *zs], [1, -1, *[1] * len(zs)], lower=0, upper=0)
            groups.setdefault(i, []).append((self.address[t, i], self.space[t] // self.unit, present))
        for i in sorted(groups):
            starts, sizes, presents = zip(*groups[i], strict=True)
            out.forbid_overlap(NoOverlap(starts, sizes, presents))
