"""Families of a program indexed by time: the order of operators, what lies in the scratchpad, and what that costs.

``at[v, i]`` says that operator ``v`` runs at step ``i``, ``inside[t, i]`` that tensor ``t`` is in the scratchpad
during step ``i``. Variables exist only within the windows that precedence leaves. The families are explained in
``docs/formulations.md``. Callers add what is theirs: addresses and learnt conflicts to the joint program, the state
before and after to a subproblem of an order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cosma.solvers.model import ModelBuilder, common_unit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedTensor:
    """A tensor that takes space."""

    #: Its name among the keys of variables.
    number: int
    #: Bytes it takes.
    space_bytes: int
    #: What a read costs, and what its store adds; zero where an off-chip copy costs nothing.
    read_bytes: int
    store_bytes: int
    #: Operators that touch it; -1 where it comes from before.
    producer: int
    readers: Sequence[int]
    #: Those of them that may stream it.
    streamed_by: frozenset[int]
    #: Steps at which it may be inside.
    life: range
    #: Whether it is inside before the first step.
    held: bool = False
    #: Whether it may be inside although no operator is left to touch it.
    lives_on: bool = False


class TimeIndexed:
    """Collects variables and rows, family by family.

    Parameters
    ----------
    further_bytes
        What the unit must divide besides spaces and the capacity.

    Attributes
    ----------
    out
        The program.
    unit, room
        Granule of sizes in bytes, and the capacity in granules.
    at, inside, read, stored, takeover
        Variables: ``(operator, step)``, ``(tensor, step)`` twice, ``tensor``, ``(result, operand, step)``.
    """

    def __init__(
        self,
        name: str,
        *,
        earliest: Sequence[int],
        latest: Sequence[int],
        predecessors: Sequence[Iterable[int]],
        tensors: Sequence[TimedTensor],
        capacity_bytes: int,
        further_bytes: Iterable[int] = (),
    ) -> None:
        self.out = ModelBuilder(name)
        self.earliest = earliest
        self.latest = latest
        self.predecessors = predecessors
        self.tensors = {tensor.number: tensor for tensor in tensors}
        self.capacity_bytes = capacity_bytes
        self.unit = common_unit([*(tensor.space_bytes for tensor in tensors), capacity_bytes, *further_bytes])
        self.room = capacity_bytes // self.unit
        self.steps = range(len(earliest))
        self.at: dict[tuple[int, int], int] = {}
        self.inside: dict[tuple[int, int], int] = {}
        self.read: dict[tuple[int, int], int] = {}
        self.stored: dict[int, int] = {}
        self.takeover: dict[tuple[int, int, int], int] = {}

    def space(self, t: int) -> int:
        """Granules that a tensor takes."""
        return self.tensors[t].space_bytes // self.unit

    # -- order --------------------------------------------------------------------------------------------

    def window(self, v: int) -> range:
        """Steps at which an operator may run."""
        return range(self.earliest[v], self.latest[v] + 1)

    def add_order(self) -> None:
        """Add one step per operator, one operator per step, and precedence."""
        out = self.out
        by_step: list[list[int]] = [[] for _ in self.steps]
        for v in self.steps:
            for i in self.window(v):
                self.at[v, i] = out.variable("at", lower=int(self.earliest[v] == self.latest[v]))
                by_step[i].append(self.at[v, i])
        for v in self.steps:
            row = [self.at[v, i] for i in self.window(v)]
            out.row("each operator once", row, [1] * len(row), lower=1, upper=1)
        for row in by_step:
            out.row("one operator per step", row, [1] * len(row), lower=1, upper=1)
        for v in self.steps:
            for u in self.predecessors[v]:
                self.add_precedence("precedence", u, v)

    def add_precedence(self, family: str, u: int, v: int) -> None:
        """At each step ``v`` has run only if ``u`` had run before it."""
        for i in self.window(v):
            if i > self.latest[u]:
                break
            done, ready = self._run_by(v, i), self._run_by(u, i - 1)
            self.out.row(family, done + ready, [1] * len(done) + [-1] * len(ready), upper=0)

    def _run_by(self, v: int, i: int) -> list[int]:
        """Variables of which one is set where an operator has run by the end of a step."""
        return [self.at[v, j] for j in range(self.earliest[v], i + 1)]

    # -- residency and traffic ----------------------------------------------------------------------------

    def add_tensor(self, t: int) -> None:
        """Add presence, reads and the store of a tensor, and their costs."""
        out, tensor = self.out, self.tensors[t]
        for i in tensor.life:
            # What is larger than the scratchpad is never inside.
            self.inside[t, i] = out.variable("inside", upper=int(tensor.space_bytes <= self.capacity_bytes))
            self.read[t, i] = out.variable("read")
            out.cost(self.read[t, i], tensor.read_bytes)
        if tensor.store_bytes:
            self.stored[t] = out.variable("stored")
            out.cost(self.stored[t], tensor.store_bytes)
        for i in tensor.life:
            self._add_transfers(tensor, i)
            self._add_limits(tensor, i)

    def _add_transfers(self, tensor: TimedTensor, i: int) -> None:
        """What a step moves of a tensor, and what must be inside."""
        out, t = self.out, tensor.number
        inside, read = self.inside[t, i], self.read[t, i]
        birth = self.at.get((tensor.producer, i))
        users = [v for v in tensor.readers if (v, i) in self.at]
        streaming = [self.at[v, i] for v in users if v in tensor.streamed_by]
        holding = [self.at[v, i] for v in users if v not in tensor.streamed_by]
        before = self.inside.get((t, i - 1))
        if before is not None or not tensor.held:
            # Loaded when it was not there and is not born.
            origin = [x for x in (before, birth) if x is not None]
            out.row("load", [read, inside, *origin], [1, -1, *[1] * len(origin)], lower=0)
        if streaming:
            out.row("streamed read", [read, inside, *streaming], [1, 1, *[-1] * len(streaming)], lower=0)
        if birth is not None and tensor.producer not in tensor.streamed_by:
            holding.append(birth)
        elif birth is not None and t in self.stored:
            out.row("streamed write", [self.stored[t], inside, birth], [1, 1, -1], lower=0)
        if holding:
            out.row("operands inside", [inside, *holding], [1, *[-1] * len(holding)], lower=0)
        if t in self.stored:
            out.implies("store before read", read, self.stored[t])

    def _add_limits(self, tensor: TimedTensor, i: int) -> None:
        """A tensor is neither inside nor read before its birth, and gone once nobody will touch it any more."""
        out, producer = self.out, tensor.producer
        inside, read = self.inside[tensor.number, i], self.read[tensor.number, i]
        if producer >= 0 and i < self.latest[producer]:
            born = self._run_by(producer, i)
            out.row("born", [inside, *born], [1, *[-1] * len(born)], upper=0)
            # At its earliest step nothing was born before it.
            earlier = born[:-1]
            out.row("read after birth", [read, *earlier], [1, *[-1] * len(earlier)], upper=0)
        if tensor.lives_on or i <= min((self.earliest[v] for v in tensor.readers), default=-1):
            return
        rest = [self.at[v, j] for v in tensor.readers for j in self.window(v) if j >= i]
        if (producer, i) in self.at:
            rest.append(self.at[producer, i])
        out.row("liveness", [inside, *rest], [1, *[-1] * len(rest)], upper=0)

    def add_takeovers(self, v: int, pairs: Sequence[tuple[int, int]]) -> None:
        """Let an operator write a result in the place of an operand: ``(result, operand)``, at most one of them."""
        out = self.out
        for i in self.window(v) if pairs else ():
            chosen = []
            for result, operand in pairs:
                z = out.variable("takeover")
                self.takeover[result, operand, i] = z
                chosen.append(z)
                out.implies("takeover finds operand", z, self.inside[operand, i])
                if v in self.tensors[result].streamed_by:
                    out.implies("takeover finds result", z, self.inside[result, i])
                if (operand, i + 1) in self.inside:
                    after = (self.read[operand, i + 1], z, self.inside[operand, i + 1])
                    out.row("takeover ends operand", after, (1, -1, -1), lower=-1)
            out.row("one takeover", [*chosen, self.at[v, i]], [*[1] * len(chosen), -1], upper=0)

    def add_capacity(self) -> None:
        """Bound the space taken at every step that could overflow."""
        terms: dict[int, list[tuple[int, int]]] = {}
        for (t, i), variable in self.inside.items():
            terms.setdefault(i, []).append((variable, self.space(t)))
        crowded = {i: row for i, row in sorted(terms.items()) if sum(space for _, space in row) > self.room}
        for (r, _, i), variable in self.takeover.items():
            if i in crowded:
                crowded[i].append((variable, -self.space(r)))
        for row in crowded.values():
            self.out.row("capacity", [x for x, _ in row], [c for _, c in row], upper=self.room)
