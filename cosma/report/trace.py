"""An estimate as a trace for Chrome's and Perfetto's viewers (the Trace Event format, JSON)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cosma.plan import Plan
    from cosma.plan.costs import Estimate

_THREADS = {"compute": 1, "dma": 2}


def trace_json(plan: Plan, estimate: Estimate) -> str:
    """Write a trace: a track of operators, one of transfers, a counter of occupied bytes; times in microseconds."""
    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": 1, "name": "process_name", "args": {"name": f"{plan.model_name} (estimate)"}},
        {"ph": "M", "pid": 1, "tid": 1, "name": "thread_name", "args": {"name": "operators"}},
        {"ph": "M", "pid": 1, "tid": 2, "name": "thread_name", "args": {"name": "DMA"}},
        {"ph": "M", "pid": 1, "tid": 1, "name": "thread_sort_index", "args": {"sort_index": 1}},
        {"ph": "M", "pid": 1, "tid": 2, "name": "thread_sort_index", "args": {"sort_index": 2}},
    ]
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
            record["name"] = f"{operator.type} {event.name}"
            record["args"] = {"operator": event.name, "type": operator.type, "instruction": event.instruction}
        else:
            record["name"] = f"{event.kind} {event.name}"
            record["args"] = {"tensor": event.name, "bytes": event.size_bytes, "instruction": event.instruction}
        events.append(record)
    for at, size in estimate.occupancy:
        events.append(
            {"ph": "C", "pid": 1, "name": "scratchpad", "ts": round(1e6 * at, 6), "args": {"occupied bytes": size}}
        )
    about = {
        "what": "estimate by cosma's cost model, not a measurement",
        "model": plan.model_name,
        "accelerator": plan.accelerator.describe(),
        "total_s": estimate.total_s,
        "energy_j": estimate.energy_j,
    }
    lines = ",\n".join(json.dumps(event, separators=(",", ":")) for event in events)
    return f'{{"displayTimeUnit":"ns","otherData":{json.dumps(about)},"traceEvents":[\n{lines}\n]}}\n'
