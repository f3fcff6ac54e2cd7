"""An estimate of time and energy: simple, documented, and clearly an estimate.

The model
---------
Two engines, each doing one thing at a time, in the plan's order:

- **DMA**: a load, store or streamed tensor takes ``dma_latency + bytes / bandwidth`` seconds, at least
  ``min_transfer`` bytes of them.
- **Compute**: an operator takes ``macs / (macs_per_cycle x clock)`` seconds where its multiply-accumulates are known,
  otherwise ``bytes of its operands and results / (macs_per_cycle x clock)``, one byte a lane and cycle; a user's own
  time for the operator, where given, goes before both.

With ``overlap`` the engines run at once. A load waits for the DMA engine and for its space to be free, an operator
for its operands and for the space of its results, a store for the operator that made the tensor; space is free
when all that was done with it is done. What an operator streams is moved while it runs, so that it takes the longer
of the two. Without ``overlap`` everything happens one after the other.

Energy is ``bytes moved x energy_per_byte + macs x energy_per_mac``; operators without known MACs count none.

Not modelled: contention on the bus, refresh and row misses, banks, set-up of operators and of tiles, idle power.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Literal

from cosma.errors import InputError
from cosma.plan.instructions import Allocate, Execute, Free, Load, Store
from cosma.plan.timeline import passing_by, scratch_bytes
from cosma.units import align_up

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cosma.accelerator import Accelerator
    from cosma.plan import Plan


@dataclass(frozen=True, slots=True)
class Event:
    """Something an engine does."""

    #: ``dma`` or ``compute``.
    engine: Literal["dma", "compute"]
    #: ``load``, ``store``, ``stream`` or ``execute``.
    kind: Literal["load", "store", "stream", "execute"]
    #: Tensor or operator.
    name: str
    #: Seconds since the start, half-open.
    start_s: float
    end_s: float
    #: Bytes moved; 0 for an execution.
    size_bytes: int
    #: Index in the plan.
    instruction: int
    #: Of an execution, what it would take with everything at hand; the rest of its time it is held up by what it
    #: streams. 0 for a transfer.
    arithmetic_s: float = 0.0

    @property
    def held_s(self) -> float:
        """Of an execution, how long it is held up by what it streams."""
        return left_of(self.end_s - self.start_s, self.arithmetic_s)


def left_of(whole_s: float, *parts_s: float) -> float:
    """What parts leave of a time; a picosecond or less is rounding."""
    left = whole_s - sum(parts_s)
    return left if left > 1e-12 else 0.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimated time and energy of a plan."""

    #: By engine and time.
    events: tuple[Event, ...]
    #: Bytes taken from each point in time on: (seconds, bytes), ascending.
    occupancy: tuple[tuple[float, int], ...]
    #: Makespan, and how long each engine is busy. An operator keeps its engine busy while what it streams holds it up.
    total_s: float
    compute_s: float
    dma_s: float
    #: The makespan as the compute engine spends it: multiplying and adding; held up by what operators stream; with
    #: nothing to do, because loads or stores are not done. They sum to ``total_s``.
    arithmetic_s: float
    streaming_s: float
    waiting_s: float
    #: Joules; None where the accelerator states no energies.
    energy_j: float | None
    #: Operators without known MACs or a user's time, whose time was estimated from bytes.
    guessed: tuple[str, ...]


class _Simulation:
    def __init__(
        self, plan: Plan, accelerator: Accelerator, macs: Mapping[str, int], times_s: Mapping[str, float]
    ) -> None:
        bandwidth = accelerator.bandwidth_bytes_per_s
        if not bandwidth:
            raise InputError(
                "a time axis needs the accelerator's off-chip bandwidth (bandwidth_bytes_per_s), which is not stated"
            )
        self.plan, self.accelerator, self.macs, self.times_s = plan, accelerator, macs, times_s
        self.bandwidth = bandwidth
        self.latency = accelerator.dma_latency_s or 0.0
        self.rate = (accelerator.macs_per_cycle or 0.0) * (accelerator.clock_hz or 0.0)
        self.events: list[Event] = []
        self.guessed: list[str] = []
        self.free_at = {"dma": 0.0, "compute": 0.0}
        self.ready: dict[str, float] = {}  # when a tensor's bytes in the scratchpad are there
        self.stored: dict[str, float] = {}  # when its off-chip copy is there
        self.last: dict[str, float] = {}  # when the last thing done with its space is done
        self.address: dict[str, int] = {}
        self.released: list[tuple[int, int, float]] = []  # space given up: [start, end) and when
        self.changes: list[tuple[float, int]] = []

    def run(self) -> None:
        taken: dict[str, str | None] = {}
        for index, instruction in enumerate(self.plan.instructions):
            match instruction:
                case Load(name, address):
                    begin = max(self.place(name, address), self.stored.get(name, 0.0))
                    end = self.move("load", name, begin, index)
                    self.ready[name] = self.last[name] = end
                case Allocate(name, address, operand):
                    taken[name] = operand
                    if operand is None:
                        self.ready[name] = self.place(name, address)
                    else:
                        self.address[name] = address
                        self.ready[name] = 0.0
                case Execute(name, streamed, workspace):
                    ready = 0.0 if workspace is None else self.take(workspace, self.scratch(name))
                    end = self.execute(name, streamed, taken, index, ready)
                    if workspace is not None:
                        self.give_up(workspace, self.scratch(name), end)
                    taken = {}
                case Store(name):
                    end = self.move("store", name, self.ready.get(name, 0.0), index)
                    self.stored[name] = end
                    self.last[name] = max(self.last.get(name, 0.0), end)
                case Free(name):
                    self.release(name)

    def place(self, name: str, address: int) -> float:
        """Take space; returns when it is free. Space counts as taken from then on."""
        self.address[name] = address
        self.last[name] = begin = self.take(address, self.space(name))
        return begin

    def scratch(self, operator: str) -> int:
        """Bytes of an operator's scratch space."""
        return scratch_bytes(self.plan.graph.operator(operator), self.plan.accelerator)

    def take(self, address: int, space_bytes: int) -> float:
        """Take an address range; returns when it is free."""
        end = address + space_bytes
        begin = 0.0
        kept = []
        for low, high, at in self.released:
            if low < end and address < high:
                begin = max(begin, at)
                if low < address:
                    kept.append((low, address, at))
                if end < high:
                    kept.append((end, high, at))
            else:
                kept.append((low, high, at))
        self.released = kept
        self.changes.append((begin, space_bytes))
        return begin

    def give_up(self, address: int, space_bytes: int, at: float) -> None:
        """Give up an address range that was taken, from a time on."""
        self.released.append((address, address + space_bytes, at))
        self.changes.append((at, -space_bytes))

    def release(self, name: str, keep: int = 0) -> None:
        """Give up a tensor's space beyond its first ``keep`` bytes; they belong to its successor."""
        if name not in self.address:
            return
        start, at = self.address.pop(name), self.last.pop(name, 0.0)
        if self.space(name) > keep:
            self.released.append((start + keep, start + self.space(name), at))
            self.changes.append((at, keep - self.space(name)))

    def space(self, name: str) -> int:
        return align_up(self.plan.graph.tensors[name].size_bytes, self.plan.accelerator.alignment)

    def start(self, engine: str, earliest: float) -> float:
        if not self.accelerator.overlap:
            return max(earliest, *self.free_at.values())
        return max(earliest, self.free_at[engine])

    def move(self, kind: Literal["load", "store", "stream"], name: str, earliest: float, index: int) -> float:
        size = self.plan.graph.tensors[name].size_bytes
        begin = self.start("dma", earliest)
        if size == 0:
            return begin
        end = begin + self.latency + max(size, self.accelerator.min_transfer) / self.bandwidth
        self.free_at["dma"] = end
        self.events.append(Event("dma", kind, name, begin, end, size, index))
        return end

    def compute_time(self, name: str) -> float:
        if name in self.times_s:
            return self.times_s[name]
        if not self.rate:
            raise InputError(
                f"no time for operator {name!r}: the accelerator does not state both clock_hz and macs_per_cycle, and "
                "no time of the operator's own is given"
            )
        if name in self.macs:
            return self.macs[name] / self.rate
        self.guessed.append(name)
        operator = self.plan.graph.operator(name)
        tensors = self.plan.graph.tensors
        return sum(tensors[t].size_bytes for t in (*operator.operands, *operator.outputs)) / self.rate

    def execute(
        self, name: str, streamed: tuple[str, ...], taken: dict[str, str | None], index: int, ready: float
    ) -> float:
        """Run an operator once its workspace is ready; returns when it ends."""
        operator = self.plan.graph.operator(name)
        through = passing_by(operator, streamed, self.plan.accelerator)
        earliest = ready
        for tensor in (*operator.operands, *operator.outputs):
            if tensor in through:
                if tensor not in operator.outputs:
                    earliest = max(earliest, self.stored.get(tensor, 0.0))
            else:
                earliest = max(earliest, self.ready.get(tensor, 0.0))
        # What is overwritten may still be on its way off-chip.
        earliest = max((earliest, *(self.last.get(operand, 0.0) for operand in taken.values() if operand is not None)))
        needed = self.compute_time(name)
        if self.accelerator.overlap:
            begin = max(earliest, self.free_at["compute"], self.free_at["dma"] if through else 0.0)
            end = begin + needed
            for tensor in through:
                end = max(end, self.move("stream", tensor, begin, index))
        else:
            begin = self.start("compute", earliest)
            for tensor in through:
                begin = max(begin, self.move("stream", tensor, begin, index))
            end = begin + needed
        self.events.append(Event("compute", "execute", name, begin, end, 0, index, needed))
        self.free_at["compute"] = end
        for tensor in (*operator.operands, *operator.outputs):
            self.last[tensor] = max(self.last.get(tensor, 0.0), end)
        for tensor in operator.outputs:
            if tensor in through:
                self.stored[tensor] = end
            else:
                self.ready[tensor] = end
        for result, operand in taken.items():
            if operand is not None:
                self.release(operand, keep=self.space(result))
        return end


def estimate(
    plan: Plan,
    accelerator: Accelerator | None = None,
    *,
    macs: Mapping[str, int] | None = None,
    times_s: Mapping[str, float] | None = None,
) -> Estimate:
    """Estimate a plan's time and energy by the model above; deterministic.

    Raises InputError if a number the model needs is missing, or ``times_s`` names no operator of the plan.

    Parameters
    ----------
    plan
        A valid plan.
    accelerator
        Whose bandwidth, clock and energies to take; the plan's own, which a plan file does not hold, by default.
    macs
        Multiply-accumulates by operator; those of the plan's graph by default.
    times_s
        Seconds by operator, where they are known better.
    """
    accelerator = accelerator if accelerator is not None else plan.accelerator
    known = {o.name: o.macs for o in plan.graph.operators if o.macs is not None} | dict(macs or {})
    unknown = sorted(set(times_s or {}) - {o.name for o in plan.graph.operators})
    if unknown:
        raise InputError(f"times are given for {len(unknown)} operators the plan does not have, such as {unknown[0]!r}")
    simulation = _Simulation(plan, accelerator, known, dict(times_s or {}))
    simulation.run()
    events = tuple(sorted(simulation.events, key=lambda e: (e.engine, e.start_s, e.end_s, e.instruction)))
    moved = sum(event.size_bytes for event in events)
    per_byte, per_mac = accelerator.energy_pj_per_byte, accelerator.energy_pj_per_mac
    energy: float | None = None
    if per_byte is not None:
        done = sum(known.get(o.name, 0) for o in plan.graph.operators)
        energy = 1e-12 * (moved * per_byte + done * (per_mac or 0.0))
    total = max((event.end_s for event in events), default=0.0)
    if not isfinite(total):
        raise InputError("the estimated time is not finite: a clock, a rate or the bandwidth is too low")
    compute = sum(e.end_s - e.start_s for e in events if e.engine == "compute")
    arithmetic = sum(e.arithmetic_s for e in events)
    if accelerator.overlap:
        streaming = sum(e.held_s for e in events if e.kind == "execute")
    else:
        streaming = sum(e.end_s - e.start_s for e in events if e.kind == "stream")
    return Estimate(
        events=events,
        occupancy=_levels(simulation.changes),
        total_s=total,
        compute_s=compute,
        dma_s=sum(e.end_s - e.start_s for e in events if e.engine == "dma"),
        arithmetic_s=arithmetic,
        streaming_s=streaming,
        waiting_s=left_of(total, arithmetic, streaming),
        energy_j=energy,
        guessed=tuple(simulation.guessed),
    )


def _levels(changes: list[tuple[float, int]]) -> tuple[tuple[float, int], ...]:
    """Sum changes up over time; at one instant, what leaves goes first."""
    levels: list[tuple[float, int]] = []
    level = 0
    for at, change in sorted(changes):
        level += change
        if levels and levels[-1][0] == at:
            levels[-1] = (at, level)
        else:
            levels.append((at, level))
    return tuple(levels)


def read_times(path: Path | str) -> dict[str, float]:
    """Read a CSV of time per operator: a header ``operator,seconds`` (or ``,milliseconds``, ``,microseconds``).

    Raises InputError if the header or a row is not of that form, a time is negative, or an operator comes twice.
    """
    import csv
    import io
    import math

    from cosma.files import read_bytes

    factor = {"seconds": 1.0, "milliseconds": 1e-3, "microseconds": 1e-6}
    rows = list(csv.reader(io.StringIO(read_bytes(path, "costs").decode("utf-8-sig", "replace"))))
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if len(header) != 2 or header[0] != "operator" or header[1] not in factor:
        raise InputError(f"costs {path}: the first line must be 'operator,seconds' (or milliseconds, microseconds)")
    times: dict[str, float] = {}
    for number, row in enumerate(rows[1:], 2):
        if not row:
            continue
        try:
            name, text = row
            value = float(text) * factor[header[1]]
        except ValueError:
            raise InputError(f"costs {path}, line {number}: {','.join(row)!r} is no operator and number") from None
        if not math.isfinite(value) or value < 0:
            raise InputError(f"costs {path}, line {number}: the time of {name!r} must be at least 0, not {text}")
        if name in times:
            raise InputError(f"costs {path}, line {number}: operator {name!r} comes twice")
        times[name] = value
    return times
