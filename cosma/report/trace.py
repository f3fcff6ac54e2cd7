"""An estimate as a trace for Chrome's and Perfetto's viewers (the Trace Event format, JSON)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cosma.plan.tiles import fused_groups, root_name, untiled_name

if TYPE_CHECKING:
    from cosma.plan import Plan
    from cosma.plan.costs import Estimate

_THREADS = {"compute": 1, "dma": 2}


def trace_json(plan: Plan, estimate: Estimate) -> str:
    """Write a trace: a track of operators, one of transfers, a counter of occupied bytes; times in microseconds."""
    groups = plan.graph.is_tiled
    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": f"{plan.model_name} (estimate)"}},
        {"ph": "M", "pid": 1, "tid": 1, "name": "thread_name", "args": {"name": "operators"}},
        {"ph": "M", "pid": 1, "tid": 2, "name": "thread_name", "args": {"name": "DMA"}},
        {"ph": "M", "pid": 1, "tid": 1, "name": "thread_sort_index", "args": {"sort_index": 1}},
        {"ph": "M", "pid": 1, "tid": 2, "name": "thread_sort_index", "args": {"sort_index": 2}},
    ]
    if groups:
        events.append({"ph": "M", "pid": 1, "tid": 3, "name": "thread_name", "args": {"name": "fused groups"}})
        events.append({"ph": "M", "pid": 1, "tid": 3, "name": "thread_sort_index", "args": {"sort_index": 0}})
    for event in estimate.events:
        start = round(1e6 * event.start_s, 6)
        record: dict[str, Any] = {
            "ph": "X",
            "pid": 1,
            "tid": _THREADS[event.engine],
            "ts": start,
            "dur": round(1e6 * event.end_s - start, 6),
            "cat": event.kind,
        }
        if event.kind == "execute":
            operator = plan.graph.operator(event.name)
            # Viewers colour by name: tiles of one operator share a colour.
            record["name"] = f"{operator.type} {untiled_name(operator)}"
            record["args"] = {"operator": event.name, "type": operator.type, "instruction": event.instruction}
            if operator.tile is not None:
                box = operator.tile.box
                record["args"] |= {"of": operator.tile.root, "tile": [list(axis) for axis in box]}
            record["args"]["arithmetic us"] = round(1e6 * event.arithmetic_s, 6)
            record["args"]["held up by streaming us"] = round(
                1e6 * max(0.0, event.end_s - event.start_s - event.arithmetic_s), 6
            )
        else:
            record["name"] = f"{event.kind} {root_name(plan.graph.tensors[event.name])}"
            record["args"] = {"tensor": event.name, "bytes": event.size_bytes, "instruction": event.instruction}
        events.append(record)
    for at, size in estimate.occupancy:
        events.append(
            {"ph": "C", "pid": 1, "name": "scratchpad", "ts": round(1e6 * at, 6), "args": {"occupied bytes": size}}
        )
    for name, start, end in _groups(plan, estimate):
        ts = round(1e6 * start, 6)
        events.append(
            {"ph": "X", "pid": 1, "tid": 3, "ts": ts, "dur": round(1e6 * end - ts, 6), "cat": "group", "name": name}
        )
    about = {
        "what": "estimate by cosma's cost model, not a measurement",
        "model": plan.model_name,
        "accelerator": plan.accelerator.describe(),
        "total_s": estimate.total_s,
        "arithmetic_s": estimate.arithmetic_s,
        "streaming_s": estimate.streaming_s,
        "waiting_s": estimate.waiting_s,
        "energy_j": estimate.energy_j,
    }
    lines = ",\n".join(json.dumps(event, separators=(",", ":")) for event in events)
    return f'{{"displayTimeUnit":"ns","otherData":{json.dumps(about)},"traceEvents":[\n{lines}\n]}}\n'


def _groups(plan: Plan, estimate: Estimate) -> list[tuple[str, float, float]]:
    """Stretches in which tiles of several operators take turns: name, start and end in seconds."""
    if not plan.graph.is_tiled:
        return []
    schedule = plan.schedule
    runs = {event.name: event for event in estimate.events if event.kind == "execute"}
    return [
        (
            f"{group.operators[0]} .. {group.operators[-1]} ({len(group.operators)} operators, {group.tiles} tiles)",
            runs[schedule[group.start]].start_s,
            runs[schedule[group.end - 1]].end_s,
        )
        for group in fused_groups(plan.graph, schedule)
    ]
