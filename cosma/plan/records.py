"""Plans as records: one dictionary a row, the same keys in each, so that a data frame takes them as they are."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal

import cosma.door as door
from cosma.errors import InputError
from cosma.plan.timeline import timeline_of

if TYPE_CHECKING:
    from cosma.plan import Plan

Table = Literal["steps", "tensors", "stays", "transfers", "bounds"]
TABLES: tuple[Table, ...] = ("steps", "tensors", "stays", "transfers", "bounds")


def to_records(plan: Plan, table: Table = "steps") -> list[dict[str, Any]]:
    """Rows of a table of a plan, as ``pandas.DataFrame`` takes them; sizes in bytes.

    Parameters
    ----------
    plan
        The plan.
    table
        ``steps``: the execution of each operator with the bytes it moves. ``tensors``: each tensor with what it costs.
        ``stays``: each residency with its address. ``transfers``: each crossing of the chip's edge. ``bounds``: what
        the certificate says of each scope.

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
