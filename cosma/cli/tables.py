"""Plans as tables and records, the same numbers in both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cosma.cli.output import make_table, share
from cosma.units import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.cli.safe_table import SafeTable
    from cosma.plan import Plan
    from cosma.plan.off_chip import OffChip

#: Rows of the table of costly tensors.
COSTLIEST = 5
#: What a record says of traffic and of a certificate.
TRAFFIC = ("total", "compulsory", "noncompulsory", "loaded", "stored", "streamed")
CERTIFICATE = ("status", "lower_bound", "gap", "method")


def _off_chip(layout: OffChip) -> dict[str, Any]:
    sizes = {name: area.size_bytes for name, area in layout.areas.items()}
    return {"spilled": layout.spilled.size_bytes, "lower_bound": layout.lower_bound, **sizes}


def plan_summary(plan: Plan) -> dict[str, Any]:
    """A plan's numbers as a record; sizes in bytes."""
    from dataclasses import asdict

    from cosma.accelerator import PLANNING_FIELDS
    from cosma.plan.overheads import overheads_of
    from cosma.plan.timeline import timeline_of
    from cosma.report.facts import costliest

    accelerator, beside = plan.accelerator, overheads_of(plan)
    return {
        "model": plan.model_name,
        "sha256": plan.model_sha256,
        "accelerator": {
            "name": accelerator.name,
            **{name: getattr(accelerator, name) for name in ("scratchpad", *PLANNING_FIELDS)},
            **({"reserved_ranges": accelerator.reserved_ranges} if accelerator.reserved_ranges else {}),
        },
        **({"constraints": accelerator.constraints.to_record()} if accelerator.constraints else {}),
        **({"off_chip": _off_chip(plan.off_chip)} if plan.off_chip is not None else {}),
        "dtype": plan.dtype,
        "operators": len(plan.graph.operators),
        "tensors": len(plan.graph.tensors),
        "instructions": len(plan.instructions),
        "overheads": asdict(beside) | {"code_bytes": beside.code_bytes},
        "traffic": {name: getattr(plan.traffic, name) for name in TRAFFIC},
        "peak": plan.peak_bytes,
        "certificate": {name: getattr(plan.certificate, name) for name in CERTIFICATE},
        "solver": plan.solver,
        "costliest": [
            {"tensor": tensor.name, "noncompulsory": cost}
            for tensor, cost in costliest(plan, timeline_of(plan), COSTLIEST)
        ],
    }


def plan_tables(
    plan: Plan, *, existing: Sequence[tuple[str, str, str]] = (), verbose: bool = True
) -> list[SafeTable]:
    """A plan as tables that are read at a glance.

    Parameters
    ----------
    existing
        Rows on other methods, shown below the traffic.
    verbose
        Whether to name the method of the bound, not only what it assumes.
    """
    from cosma.plan.overheads import overhead_rows, overheads_of
    from cosma.plan.timeline import timeline_of
    from cosma.report.facts import CUT_SHORT, among_which, costliest

    among = f", among {among_which(plan)}" if plan.traffic.noncompulsory else ""
    traffic, certificate, capacity = plan.traffic, plan.certificate, plan.accelerator.capacity_bytes
    table = make_table(f"{plan.model_name} on {plan.accelerator.describe()}", ("", "", ""), right=(1,))
    activations = sum(1 for t in plan.graph.tensors.values() if t.kind != "weight")
    beside = overheads_of(plan)
    rows = [
        ("operators", f"{beside.operators:,}", ""),
        ("tensors", f"{len(plan.graph.tensors):,}", f"{activations:,} activations"),
        ("capacity", format_size(capacity), f"{capacity} B"),
        ("peak", format_size(plan.peak_bytes), f"{share(plan.peak_bytes, capacity)} of capacity"),
        ("traffic", format_size(traffic.total), f"{traffic.total} B"),
        ("  compulsory", format_size(traffic.compulsory), f"{traffic.compulsory} B"),
        (
            "  non-compulsory",
            format_size(traffic.noncompulsory),
            f"{traffic.noncompulsory} B, {share(traffic.noncompulsory, traffic.total)} of the traffic",
        ),
        (
            "  loaded / stored / streamed",
            "",
            " / ".join(format_size(x) for x in (traffic.loaded, traffic.stored, traffic.streamed)),
        ),
        *existing,
        *overhead_rows(beside, plan.accelerator),
        ("lower bound", format_size(certificate.lower_bound), certificate.method if verbose else _scope(plan)),
        *(
            ("  of any tiling", format_size(scoped.lower_bound), scoped.method if verbose else "whatever is cut")
            for scoped in certificate.bounds
            if scoped.scope == "tilings" and (verbose or scoped.lower_bound != certificate.lower_bound)
        ),
        ("status", certificate.status, f"gap {100 * certificate.gap:.1f} %{among}"),
    ]
    if plan.stopped_by is not None:
        rows.append(("cut short", plan.stopped_by, f"{CUT_SHORT[plan.stopped_by]}; the plan is not reproducible"))
    if plan.dtype is not None:
        rows.insert(0, ("counted as", plan.dtype, "every floating-point tensor"))
    for row in rows:
        table.add_row(*row)
    tables = [table]
    costly = costliest(plan, timeline_of(plan), COSTLIEST)
    if costly:
        columns = ("tensor", "size", "non-compulsory", "share")
        worst = make_table("Tensors that cost most beyond the compulsory", columns, right=(1, 2, 3))
        for tensor, cost in costly:
            size = format_size(tensor.size_bytes)
            worst.add_row(tensor.name, size, format_size(cost), share(cost, traffic.noncompulsory))
        tables.append(worst)
    return tables


def _scope(plan: Plan) -> str:
    """What a bound holds for, without the method that found it."""
    from cosma.report.facts import among_which

    assumed = plan.certificate.method.partition("; assumes ")[2]
    if among_which(plan) == "plans of any tiling":
        assumed = assumed.replace("these tiles alone", "any tiling")
    return f"for plans with {assumed}" if assumed else ""
