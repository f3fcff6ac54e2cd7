"""The families of the joint program, but for addresses: order, residency, takeovers, capacity."""

from __future__ import annotations

from math import lcm
from typing import TYPE_CHECKING

from cosma.joint.program import Joint
from cosma.problem.rules import arrival_bytes, first_arrival_is_compulsory, may_stream, store_bytes
from cosma.solvers.model import ModelBuilder, common_unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.joint.program import Addresses, JointConflict
    from cosma.problem import Problem
    from cosma.problem.precedence import Windows


class JointBuilder:
    """Collects variables and rows, family by family; the attributes are those of :class:`Joint` and their inputs."""

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
        self.unit = common_unit([*self.space, problem.capacity_bytes, *self._places()])
        self.room = problem.capacity_bytes // self.unit
        self.limit = problem.address_limit_bytes // self.unit
        self.steps = range(problem.operator_count)
        self.tensors = [
            t
            for t in range(problem.tensor_count)
            if self.space[t] and (problem.producer[t] >= 0 or len(problem.consumers_of(t)))
        ]
        self.at: dict[tuple[int, int], int] = {}
        self.inside: dict[tuple[int, int], int] = {}
        self.read: dict[tuple[int, int], int] = {}
        self.stored: dict[int, int] = {}
        self.takeover: dict[tuple[int, int, int], int] = {}
        self.address: dict[tuple[int, int], int] = {}

    def _places(self) -> list[int]:
        """Ends of ranges, fixed addresses and alignments in bytes: addresses are counted in what divides them all."""
        places = self.problem.places
        if self.addresses == "none" or places is None:
            return []
        steps = [lcm(self.problem.alignment, step) for step in places.alignment.values()]
        return [*(end for window in places.windows for end in window), *places.address.values(), *steps]

    def add_program(self, together: Sequence[tuple[int, int]], ordered: Sequence[tuple[int, int]]) -> None:
        """Add all but addresses and their conflicts; see :func:`cosma.joint.build.build_joint`."""
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

    def finish(self) -> Joint:
        """Freeze what was added."""
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
        """Steps at which an operator may run."""
        return range(self.windows.earliest[v], self.windows.latest[v] + 1)

    def life(self, t: int) -> range:
        """Steps at which a tensor may be touched."""
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

    def add_conflict(self, conflict: JointConflict) -> None:
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
