"""Lay out off-chip memory: spilled tensors packed over their off-chip lifetimes, the rest one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.graph.join import pieces_of_outputs
from cosma.plan.off_chip import AREAS, Area, OffChip, off_chip_lifetimes
from cosma.plan.states import whole_states
from cosma.units import align_up

if TYPE_CHECKING:
    from cosma.plan import Plan

#: Units of packing work for the smallest area; about two seconds. Not measured.
PACKING_WORK = 300_000


def lay_out(plan: Plan) -> OffChip:
    """Give offsets to everything that a valid plan keeps off-chip, multiples of the alignment. Deterministic."""
    from cosma.packing import Buffer, minimise

    graph, alignment = plan.graph, plan.accelerator.alignment
    lifetimes = off_chip_lifetimes(graph, plan.instructions)
    buffers = [
        Buffer(name, start, end, graph.tensors[name].size_bytes) for name, (start, end) in lifetimes.items()
    ]
    spilled, bound = Area(0), 0
    if buffers:
        packed = minimise(buffers, alignment=alignment, work_limit=PACKING_WORK)
        size = max((packed.offsets[b.id] + b.size for b in buffers), default=0)
        spilled, bound = Area(size, {b.id: packed.offsets[b.id] for b in buffers}), min(packed.lower_bound, size)
    states = whole_states(graph)
    # What a graph output consists of lies in it, and a state where its next value does.
    elsewhere = {*pieces_of_outputs(graph.joins, graph.roots), *states.values()}
    areas = {}
    for area, kind in AREAS.items():
        offsets: dict[str, int] = {}
        end = 0
        for tensor in (*graph.roots.values(), *graph.tensors.values()):
            whole = tensor.region is None and tensor.rows is None
            if tensor.kind is kind and whole and tensor.name not in elsewhere:
                offsets[tensor.name] = align_up(end, alignment)
                end = offsets[tensor.name] + tensor.size_bytes
        offsets |= {before: offsets[after] for after, before in states.items() if after in offsets}
        areas[area] = Area(end, offsets)
    return OffChip(spilled, bound, areas)
