"""Plans as CSV: one row an instruction, or one row a stay in the scratchpad. Sizes and addresses in bytes.

A name that a spreadsheet would take for a formula has an apostrophe before it; see :func:`cosma.text.csv_cell`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.export.names import named_plan
from cosma.export.off_chip import lay_out
from cosma.plan.instructions import Allocate, Execute, Free, Load, Store
from cosma.plan.off_chip import off_chip_lifetimes
from cosma.plan.timeline import scratch_bytes, timeline_of
from cosma.text import csv_lines

if TYPE_CHECKING:
    from cosma.plan import Plan


def instructions_csv(plan: Plan) -> str:
    """Write ``index,step,do,name,bytes,address,in_place_of,streamed``; streamed names are separated by spaces.

    A space or backslash within a name is written with a backslash before it in ``streamed``.
    """
    plan = named_plan(plan)
    rows: list[tuple[object, ...]] = [
        ("index", "step", "do", "name", "bytes", "address", "in_place_of", "streamed")
    ]
    step = 0
    for index, instruction in enumerate(plan.instructions):
        match instruction:
            case Load(name, address):
                rows.append((index, step, "load", name, plan.graph.tensors[name].size_bytes, address, "", ""))
            case Allocate(name, address, operand):
                size = plan.graph.tensors[name].size_bytes
                rows.append((index, step, "allocate", name, size, address, operand or "", ""))
            case Execute(name, streamed, workspace):
                scratch = scratch_bytes(plan.graph.operator(name), plan.accelerator) if workspace is not None else ""
                place = "" if workspace is None else workspace
                rows.append((index, step, "execute", name, scratch, place, "", " ".join(map(_escape, streamed))))
                step += 1
            case Store(name):
                size = plan.graph.tensors[name].size_bytes
                rows.append((index, max(0, step - 1), "store", name, size, "", "", ""))
            case Free(name):
                size = plan.graph.tensors[name].size_bytes
                rows.append((index, max(0, step - 1), "free", name, size, "", "", ""))
    return csv_lines(rows)


def stays_csv(plan: Plan) -> str:
    """Write ``tensor,bytes,space,address,start,end,origin,ending,in_place_of``; steps are half-open.

    A plan with parts of tensors has the columns ``root,region_start,region_stop`` as well, indices separated by spaces.
    """
    plan = named_plan(plan)
    cut = bool(plan.graph.roots)
    rows: list[tuple[object, ...]] = [
        ("tensor", "bytes", "space", "address", "start", "end", "origin", "ending", "in_place_of",
         *(("root", "region_start", "region_stop") if cut else ()))
    ]  # fmt: skip
    for stay in timeline_of(plan).stays:
        tensor = plan.graph.tensors[stay.tensor]
        size, region = tensor.size_bytes, tensor.region
        box: tuple[object, ...] = ("", "", "")
        if region is not None:
            box = (region.root, " ".join(map(str, region.start)), " ".join(map(str, region.stop)))
        rows.append(
            (
                stay.tensor, size, stay.space_bytes, stay.address, stay.start, stay.end, stay.origin, stay.ending,
                stay.in_place_of or "", *(box if cut else ()),
            )
        )  # fmt: skip
    return csv_lines(rows)


def off_chip_csv(plan: Plan) -> str:
    """Write ``area,tensor,bytes,offset,start,end``: where tensors lie off-chip, and when those that are spilled do.

    ``start`` and ``end`` are instructions, half-open. A plan without a layout gets one.
    """
    plan = named_plan(plan)
    layout = plan.off_chip if plan.off_chip is not None else lay_out(plan)
    sizes = {t.name: t.size_bytes for t in (*plan.graph.roots.values(), *plan.graph.tensors.values())}
    lifetimes = off_chip_lifetimes(plan.graph, plan.instructions)
    rows: list[tuple[object, ...]] = [("area", "tensor", "bytes", "offset", "start", "end")]
    for name, offset in layout.spilled.offsets.items():
        rows.append(("spilled", name, sizes[name], offset, *lifetimes.get(name, ("", ""))))
    for area, entry in layout.areas.items():
        rows += [(area, name, sizes[name], offset, "", "") for name, offset in entry.offsets.items()]
    return csv_lines(rows)


def _escape(name: str) -> str:
    return name.replace("\\", "\\\\").replace(" ", "\\ ")
