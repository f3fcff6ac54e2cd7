"""What each operator of a plan moves, computes and waits for: rows for spreadsheets, and one row for the whole plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cosma.plan.costs import left_of
from cosma.plan.records import to_records
from cosma.plan.tiles import untiled_name
from cosma.plan.timeline import timeline_of
from cosma.text import csv_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cosma.accelerator import Accelerator
    from cosma.plan import Plan
    from cosma.plan.costs import Estimate


@dataclass(frozen=True, slots=True)
class OperatorCost:
    """One step of a plan."""

    #: Which.
    step: int
    operator: str
    type: str
    #: The operator it is a tile of; its own name otherwise.
    of: str
    #: Loads and stores of the step, and what the operator streams.
    off_chip_read_bytes: int
    off_chip_written_bytes: int
    #: Operands and results that lie in the scratchpad, each once.
    scratchpad_read_bytes: int
    scratchpad_written_bytes: int
    #: Part of the off-chip bytes that no plan would have to move.
    noncompulsory_bytes: int
    #: Space taken in the scratchpad while it runs.
    scratchpad_bytes: int
    #: Multiply-accumulates, where known.
    macs: int | None
    #: When it runs.
    start_s: float
    end_s: float
    #: What it computes; how long what it streams holds it up; how long the compute engine had nothing to do before.
    arithmetic_s: float
    streaming_s: float
    waiting_s: float
    #: The largest of the three: ``arithmetic``, ``streaming`` or ``waiting`` (for loads and stores).
    bound_by: str


def operator_costs(plan: Plan, estimate: Estimate, macs: Mapping[str, int] | None = None) -> tuple[OperatorCost, ...]:
    """List what each operator costs, in the order of the schedule.

    Parameters
    ----------
    plan
        A valid plan.
    estimate
        Of this plan.
    macs
        Multiply-accumulates by operator; those of the plan's graph by default.
    """
    timeline = timeline_of(plan)
    read, written = [0] * len(timeline.steps), [0] * len(timeline.steps)
    streamed_by: list[set[str]] = [set() for _ in timeline.steps]
    for transfer in timeline.transfers:
        if transfer.step < len(read):
            column = read if transfer.kind in ("load", "stream in") else written
            column[transfer.step] += transfer.size_bytes
            if transfer.kind.startswith("stream"):
                streamed_by[transfer.step].add(transfer.tensor)
    runs = {event.name: event for event in estimate.events if event.kind == "execute"}
    streams: dict[int, float] = {}  # when the first stream of an execution begins
    for event in estimate.events:
        if event.kind == "stream":
            streams[event.instruction] = min(streams.get(event.instruction, event.start_s), event.start_s)
    rows = []
    free = 0.0
    for i, step in enumerate(timeline.steps):
        operator, run = plan.graph.operator(step.operator), runs[step.operator]
        # Where nothing overlaps, an operator's streams come before it.
        begin = min(run.start_s, streams.get(run.instruction, run.start_s))
        held = left_of(run.end_s, begin, run.arithmetic_s)
        waited = left_of(begin, free)
        free = run.end_s
        sizes = {t: plan.graph.tensors[t].size_bytes for t in (*operator.operands, *operator.outputs)}
        here = {t: size for t, size in sizes.items() if t not in streamed_by[i]}
        causes = {"arithmetic": run.arithmetic_s, "streaming": held, "waiting": waited}
        rows.append(
            OperatorCost(
                step=i,
                operator=step.operator,
                type=step.type,
                of=untiled_name(operator),
                off_chip_read_bytes=read[i],
                off_chip_written_bytes=written[i],
                scratchpad_read_bytes=sum(here.get(t, 0) for t in operator.operands),
                scratchpad_written_bytes=sum(here.get(t, 0) for t in operator.outputs),
                noncompulsory_bytes=step.noncompulsory,
                scratchpad_bytes=step.occupied_bytes,
                macs=operator.macs if macs is None else macs.get(step.operator, operator.macs),
                start_s=run.start_s,
                end_s=run.end_s,
                arithmetic_s=run.arithmetic_s,
                streaming_s=held,
                waiting_s=waited,
                bound_by=max(causes, key=lambda name: causes[name]),
            )
        )
    return tuple(rows)


def operators_csv(
    plan: Plan, estimate: Estimate, accelerator: Accelerator, macs: Mapping[str, int] | None = None
) -> str:
    """Write a row for each operator: bytes by memory, multiply-accumulates, time, what bounds it.

    Cycles stand beside seconds where the accelerator states a clock; ``utilisation`` is multiply-accumulates done over
    those that the operator's whole time had room for.
    """
    clock, per_cycle = accelerator.clock_hz, accelerator.macs_per_cycle
    header = [
        "step", "operator", "of", "type", "off_chip_read_bytes", "off_chip_written_bytes", "noncompulsory_bytes",
        "scratchpad_read_bytes", "scratchpad_written_bytes", "scratchpad_in_use_bytes", "scratchpad_in_use_share",
        "macs", "cycles", "arithmetic_cycles", "streaming_cycles", "waiting_cycles", "seconds", "share_of_time",
        "utilisation", "bound_by",
    ]  # fmt: skip
    rows: list[list[object]] = [list(header)]
    for cost in operator_costs(plan, estimate, macs):
        spent = cost.arithmetic_s + cost.streaming_s + cost.waiting_s
        times = (spent, cost.arithmetic_s, cost.streaming_s, cost.waiting_s)
        cycles: list[object] = ["" if not clock else round(value * clock) for value in times]
        room = spent * (clock or 0.0) * (per_cycle or 0.0)
        rows.append(
            [
                cost.step, cost.operator, cost.of, cost.type, cost.off_chip_read_bytes, cost.off_chip_written_bytes,
                cost.noncompulsory_bytes, cost.scratchpad_read_bytes, cost.scratchpad_written_bytes,
                cost.scratchpad_bytes, _ratio(cost.scratchpad_bytes, plan.accelerator.capacity_bytes),
                "" if cost.macs is None else cost.macs, *cycles, f"{spent:.9g}", _ratio(spent, estimate.total_s),
                "" if cost.macs is None or not room else _ratio(cost.macs, room), cost.bound_by,
            ]
        )  # fmt: skip
    return csv_lines(rows)


def summary_csv(plan: Plan, estimate: Estimate, accelerator: Accelerator, macs: Mapping[str, int] | None = None) -> str:
    """Write a header and one row for the whole plan, to be appended to a file that tracks regressions."""
    known = [o.macs if macs is None else macs.get(o.name, o.macs) for o in plan.graph.operators]
    done = sum(value for value in known if value is not None)
    clock, (row,) = accelerator.clock_hz, to_records(plan, "summary")
    row |= {
        "accelerator": accelerator.name,
        "computed_again_share": f"{row['computed_again_share']:.6g}",
        "macs": done,
        "operators_timed_by_bytes": len(estimate.guessed),
        "cycles": round(estimate.total_s * clock) if clock else None,
        "seconds": f"{estimate.total_s:.9g}",
        "arithmetic_seconds": f"{estimate.arithmetic_s:.9g}",
        "streaming_seconds": f"{estimate.streaming_s:.9g}",
        "waiting_seconds": f"{estimate.waiting_s:.9g}",
        "energy_joules": None if estimate.energy_j is None else f"{estimate.energy_j:.9g}",
    }
    return csv_lines([row, row.values()])


def _ratio(part: float, whole: float) -> str:
    return f"{part / whole:.6g}" if whole else "0"
