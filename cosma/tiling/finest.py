"""The room that the finest tiles take: where a search for capacities can begin."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

from cosma.access import NodeSite
from cosma.access.operator import OperatorAccess, operator_access
from cosma.graph.dtypes import size_of
from cosma.tiling.rows import channel_axis, row_axis
from cosma.units import align_up

if TYPE_CHECKING:
    from cosma.accelerator import Accelerator
    from cosma.access import Box
    from cosma.graph import Graph


def finest_need(graph: Graph, sites: Mapping[str, NodeSite], accelerator: Accelerator) -> int:
    """Bytes that the largest operator takes when one row of one channel runs at a time; at least one unit of alignment.

    An estimate from a tile in the middle. Tiles that hold a little more may be needed where parts are shared.
    """
    keeps = accelerator.weights == "scratchpad"
    return max(
        (_need(operator_access(graph, sites, operator), graph, accelerator.alignment, keeps=keeps)
         for operator in graph.operators),
        default=accelerator.alignment,
    )  # fmt: skip


def _need(one: OperatorAccess, graph: Graph, align: int, *, keeps: bool) -> int:
    operator = one.operator
    held = [*operator.inputs, *(operator.weights if keeps else ())]
    box = _middle(one)
    reads = {} if box is None else one.reads(box)
    need = 0
    for name in held:
        tensor, part = graph.tensors[name], reads.get(name)
        if part is None and box is not None and name in one.shapes:
            continue  # this tile reads nothing of it
        if part is None or tensor.dtype is None or tensor.shape is None:
            need += align_up(tensor.size_bytes, align)
        else:
            whole = part == tuple((0, size) for size in tensor.shape)
            size = tensor.size_bytes if whole else size_of(tuple(b - a for a, b in part), tensor.dtype)
            need += align_up(size, align)
    for name in operator.outputs:
        tensor = graph.tensors[name]
        shape = tensor.shape
        if box is None or shape is None or shape != one.shapes.get(one.result):
            need += align_up(tensor.size_bytes, align)
        else:
            need += align_up(-(-tensor.size_bytes * prod(b - a for a, b in box) // max(1, prod(shape))), align)
    return max(align, need)


def _middle(one: OperatorAccess) -> Box | None:
    """One row of one channel in the middle of the result; None where it cannot be cut."""
    shape, allowed = one.shapes.get(one.result), one.cuts()
    if shape is None or not any(allowed):
        return None
    axes = {row_axis(len(shape)), channel_axis(one)} - {None}
    return tuple(
        ((size - 1) // 2, (size - 1) // 2 + 1) if axis in axes and allowed[axis] and size > 0 else (0, size)
        for axis, size in enumerate(shape)
    )
