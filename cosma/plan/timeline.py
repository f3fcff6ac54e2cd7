"""A plan over time: who lies where from which step to which, and what crosses the chip's edge at each step.

Step ``i`` is the execution of the ``i``-th operator. Loads and allocations before an execution belong to its step,
stores and frees after it too. All intervals are half-open.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from cosma.accelerator import Weights
from cosma.plan.instructions import Allocate, Execute, Free, Load, Store
from cosma.units import align_up

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cosma.accelerator import Accelerator
    from cosma.graph import Operator
    from cosma.plan import Plan


class Origin(StrEnum):
    """How a tensor came to lie in the scratchpad."""

    PRODUCED = "produced"
    TAKEOVER = "in place"
    LOADED = "loaded"
    RELOADED = "loaded again"


class Ending(StrEnum):
    """How it left."""

    DONE = "done"  # no later use
    SPILLED = "spilled"  # it is read again later, from off-chip memory
    TAKEN = "taken over"  # an in-place result has its space
    STAYED = "stayed"  # it is still there at the end


@dataclass(frozen=True, slots=True)
class Stay:
    """One tensor at one address for some steps."""

    #: Its name.
    tensor: str
    #: It occupies ``[address, address + space_bytes)``; the space is its size rounded up to the alignment.
    address: int
    space_bytes: int
    #: Steps ``[start, end)``.
    start: int
    end: int
    #: How it came and how it left.
    origin: Origin
    ending: Ending
    #: Operand whose space it took over.
    in_place_of: str | None = None


@dataclass(frozen=True, slots=True)
class Transfer:
    """One crossing of the chip's edge."""

    #: What, and how much.
    tensor: str
    size_bytes: int
    #: ``load``, ``store``, ``stream in`` or ``stream out``.
    kind: Literal["load", "store", "stream in", "stream out"]
    #: When.
    step: int
    #: Whether no plan does without it: the first read of an input or weight, the first write of an output.
    compulsory: bool


@dataclass(frozen=True, slots=True)
class Step:
    """The execution of one operator."""

    #: Which.
    operator: str
    type: str
    #: Space taken while it runs; with an in-place takeover, operand and result count once.
    occupied_bytes: int
    #: Bytes beyond the compulsory ones by kind, and the compulsory ones of any kind.
    loaded: int
    stored: int
    streamed: int
    compulsory: int

    @property
    def noncompulsory(self) -> int:
        """Bytes beyond the compulsory ones."""
        return self.loaded + self.stored + self.streamed


@dataclass(frozen=True, slots=True)
class Timeline:
    """A plan over time."""

    #: In order of time.
    steps: tuple[Step, ...]
    stays: tuple[Stay, ...]
    transfers: tuple[Transfer, ...]
    #: Steps at which each tensor is read, ascending.
    uses: dict[str, tuple[int, ...]]
    #: Non-compulsory bytes by tensor, those above zero, largest first, ties by name.
    cost: dict[str, int]


@dataclass(slots=True)
class _Open:
    address: int
    start: int
    origin: Origin
    in_place_of: str | None = None


@dataclass(slots=True)
class _Reader:
    """Goes through a plan's instructions once."""

    plan: Plan
    uses: dict[str, tuple[int, ...]]
    open: dict[str, _Open] = field(default_factory=dict)
    stays: list[Stay] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    occupied: list[int] = field(default_factory=list)
    operators: list[str] = field(default_factory=list)
    read: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)

    def go(self) -> None:
        for instruction in self.plan.instructions:
            step = len(self.operators)
            match instruction:
                case Load(name, address):
                    origin = Origin.RELOADED if name in self.seen else Origin.LOADED
                    self.open[name] = _Open(address, step, origin)
                    self.seen.add(name)
                    self.move(name, "load", step)
                case Allocate(name, address, operand):
                    origin = Origin.PRODUCED if operand is None else Origin.TAKEOVER
                    self.open[name] = _Open(address, step, origin, operand)
                    self.seen.add(name)
                case Execute(name, streamed, workspace):
                    self.execute(name, streamed, workspace, step)
                case Store(name):
                    self.move(name, "store", max(0, step - 1))
                case Free(name):
                    if name in self.open:
                        self.close(name, step)
        for name in list(self.open):
            self.close(name, len(self.operators), at_end=True)

    def execute(self, name: str, streamed: tuple[str, ...], workspace: int | None, step: int) -> None:
        operator = self.plan.graph.operator(name)
        scratch = 0 if workspace is None else scratch_bytes(operator, self.plan.accelerator)
        for tensor in passing_by(operator, streamed, self.plan.accelerator):
            out = tensor in operator.outputs
            self.seen.add(tensor)
            self.move(tensor, "stream out" if out else "stream in", step)
        taken = [o.in_place_of for t, o in self.open.items() if o.in_place_of is not None and t in operator.outputs]
        takers = sum(self.space(t) for t in operator.outputs if t in self.open and self.open[t].in_place_of is not None)
        self.occupied.append(sum(self.space(tensor) for tensor in self.open) - takers + scratch)
        self.operators.append(name)
        for operand in taken:
            if operand in self.open:
                self.close(operand, step + 1, taken=True)

    def close(self, name: str, end: int, *, taken: bool = False, at_end: bool = False) -> None:
        begun = self.open.pop(name)
        needed = any(use >= end for use in self.uses.get(name, ()))
        ending = Ending.TAKEN if taken else Ending.STAYED if at_end else Ending.SPILLED if needed else Ending.DONE
        self.stays.append(
            Stay(name, begun.address, self.space(name), begun.start, end, begun.origin, ending, begun.in_place_of)
        )

    def move(self, name: str, kind: Literal["load", "store", "stream in", "stream out"], step: int) -> None:
        tensor = self.plan.graph.tensors[name]
        if kind in ("load", "stream in"):
            compulsory = tensor.starts_off_chip and name not in self.read
            self.read.add(name)
        else:
            compulsory = tensor.kind == "output" and name not in self.written
            self.written.add(name)
        self.transfers.append(Transfer(name, tensor.size_bytes, kind, step, compulsory))

    def space(self, name: str) -> int:
        return align_up(self.plan.graph.tensors[name].size_bytes, self.plan.accelerator.alignment)


def passing_by(operator: Operator, streamed: Iterable[str], accelerator: Accelerator) -> tuple[str, ...]:
    """Tensors that pass the scratchpad by in an execution: those streamed, and weights where all of them stream."""
    weights = operator.weights if accelerator.weights == Weights.STREAM else ()
    return tuple(dict.fromkeys((*streamed, *weights)))


def scratch_bytes(operator: Operator, accelerator: Accelerator) -> int:
    """Space that an operator's workspace takes, rounded up to the alignment."""
    forced = dict(accelerator.constraints.workspaces).get(operator.name, 0)
    return align_up(max([forced, *(mode.workspace_bytes for mode in operator.modes)]), accelerator.alignment)


def timeline_of(plan: Plan) -> Timeline:
    """Read a plan's instructions as stays, transfers and steps.

    The plan is taken at its word; whether it is valid is for :func:`cosma.replay` to say.
    """
    position = {name: i for i, name in enumerate(plan.schedule)}
    uses = {
        name: tuple(sorted(position[consumer] for consumer in plan.graph.consumers(name) if consumer in position))
        for name in plan.graph.tensors
    }
    reader = _Reader(plan, uses)
    reader.go()
    moved: list[dict[str, int]] = [
        {"loaded": 0, "stored": 0, "streamed": 0, "compulsory": 0} for _ in reader.operators
    ]
    cost: dict[str, int] = {}
    for t in reader.transfers:
        if t.step >= len(moved):
            continue
        if t.compulsory:
            moved[t.step]["compulsory"] += t.size_bytes
            continue
        moved[t.step][{"load": "loaded", "store": "stored"}.get(t.kind, "streamed")] += t.size_bytes
        if t.size_bytes:
            cost[t.tensor] = cost.get(t.tensor, 0) + t.size_bytes
    steps = tuple(
        Step(name, plan.graph.operator(name).type, occupied, **row)
        for name, occupied, row in zip(reader.operators, reader.occupied, moved, strict=True)
    )
    return Timeline(
        steps,
        tuple(sorted(reader.stays, key=lambda s: (s.start, s.address, s.tensor))),
        tuple(reader.transfers),
        uses,
        dict(sorted(cost.items(), key=lambda item: (-item[1], item[0]))),
    )
