"""Plans as records: one dictionary a row, the same keys in each, so that a data frame takes them as they are."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal

import cosma.door as door
from cosma.errors import InputError
from cosma.plan.overheads import overheads_of
from cosma.plan.timeline import timeline_of

if TYPE_CHECKING:
    from cosma.plan import Plan

Table = Literal["steps", "tensors", "stays", "transfers", "bounds", "summary"]
TABLES: tuple[Table, ...] = ("steps", "tensors", "stays", "transfers", "bounds", "summary")


def to_records(plan: Plan, table: Table = "steps") -> list[dict[str, Any]]:
    """Rows of a table of a plan, as ``pandas.DataFrame`` takes them; sizes in bytes.

    Parameters
    ----------
    plan
        The plan.
    table
        ``steps``: the execution of each operator with the bytes it moves. ``tensors``: each tensor with what it costs.
        ``stays``: each residency with its address. ``transfers``: each crossing of the chip's edge. ``bounds``: what
        the certificate says of each scope. ``summary``: one row, so that the rows of many plans make a table.

    Raises
    ------
    InputError
        If there is no such table.
    """
    from cosma.plan.plan import Plan

    door.instance(plan, Plan, "the plan")
    if table not in TABLES:
        raise InputError(f"plan: no table {table!r}; choose one of {', '.join(TABLES)}")
    if table == "bounds":
        return _bounds(plan)
    if table == "summary":
        return [_summary(plan)]
    timeline = timeline_of(plan)
    if table == "steps":
        return [
            {"step": i, **asdict(step), "noncompulsory": step.noncompulsory} for i, step in enumerate(timeline.steps)
        ]
    if table == "stays":
        return [asdict(stay) | {"origin": str(stay.origin), "ending": str(stay.ending)} for stay in timeline.stays]
    if table == "transfers":
        return [asdict(transfer) for transfer in timeline.transfers]
    moved: dict[str, int] = {}
    for transfer in timeline.transfers:
        moved[transfer.tensor] = moved.get(transfer.tensor, 0) + transfer.size_bytes
    return [
        row | {"moved_bytes": moved.get(row["name"], 0), "noncompulsory_bytes": timeline.cost.get(row["name"], 0)}
        for row in plan.graph.to_records("tensors")
    ]


def _bounds(plan: Plan) -> list[dict[str, Any]]:
    certificate = plan.certificate
    scopes = [(one.scope, one.lower_bound, one.method) for one in certificate.bounds]
    return [
        {
            "scope": scope, "lower_bound": bound, "noncompulsory": certificate.noncompulsory,
            "gap": replace(certificate, lower_bound=bound).gap, "method": method, "claimed": certificate.claimed,
        }
        for scope, bound, method in scopes or [("graph", certificate.lower_bound, certificate.method)]
    ]  # fmt: skip


def _summary(plan: Plan) -> dict[str, Any]:
    traffic, beside = plan.traffic, overheads_of(plan)
    unclaimed = "certificate" in plan.not_claimed
    return {
        "model": plan.model_name,
        "model_sha256": plan.model_sha256,
        "accelerator": plan.accelerator.name,
        "scratchpad_bytes": plan.accelerator.scratchpad,
        "dtype": plan.dtype,
        "operators": beside.operators,
        "traffic_bytes": traffic.total,
        "compulsory_bytes": traffic.compulsory,
        "noncompulsory_bytes": traffic.noncompulsory,
        "loaded_bytes": traffic.loaded,
        "stored_bytes": traffic.stored,
        "streamed_bytes": traffic.streamed,
        "lower_bound_bytes": None if unclaimed else plan.certificate.lower_bound,
        "status": None if unclaimed else plan.certificate.status,
        "peak_bytes": plan.peak_bytes,
        "transfers": beside.transfers,
        "short_transfers": beside.short_transfers,
        "smallest_transfer_bytes": beside.smallest_bytes,
        "median_transfer_bytes": beside.median_bytes,
        "tiles": beside.tiles,
        "most_tiles_of_an_operator": beside.most_tiles,
        "computed_again_share": beside.again_share,
        "most_ranges_of_an_operand": beside.most_ranges,
        "instructions": beside.instructions,
        "code_bytes": beside.code_bytes,
        "strategy": plan.solver.get("strategy"),
        "seed": plan.solver.get("seed"),
    }
