"""Tensors cut into parts, where operators that select with constant indices read less than all of them.

A tensor is cut at the union of the boundaries of what its readers read. Its producer writes all the parts, a reader
lists the parts that it touches. Parts are tensors like any other: each has an address and a lifetime of its own, so
that what is read later can wait off-chip while the rest stays.

Cutting is a choice. It costs the producer its way to work in place, and parts are rounded up to the alignment one by
one. So whoever plans tries both graphs and keeps the better plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, product
from math import prod

from cosma.graph import Graph, Operator, Region, Tensor, TensorKind
from cosma.graph.dtypes import size_of, width_bits
from cosma.rewrite.lineage import Lineage, Rewritten
from cosma.rewrite.tile_modes import with_tile_modes
from cosma.units import align_up

#: Most parts of one tensor. Planning time grows with tensors; a state-space scan unrolled over 256 steps still fits.
MOST_PARTS = 256
#: Most room that parts may take together, against the whole, once each is rounded up to the alignment.
MOST_ROOM = 1.25
#: Least share of a tensor that its readers must leave unread, summed over them. The slices of DARTS and NASNet leave
#: out one row and one column, which saves next to nothing and would double the graphs to plan.
LEAST_UNREAD = 0.5


def cut_selections(graph: Graph, alignment: int = 1, *, least_unread: float = LEAST_UNREAD) -> Rewritten:
    """Cut every tensor of which some reader reads less than all; the graph itself where there is none.

    Modes of operators become modes on the parts that they touch.

    Parameters
    ----------
    graph
        The graph; tensors that are parts already stay as they are.
    alignment
        What addresses are a multiple of: decides whether small parts waste too much room.
    least_unread
        Share of a tensor that its readers must leave unread, summed over them, for it to be cut.
    """
    taken = set(graph.tensors) | set(graph.roots)
    parts: dict[str, tuple[Tensor, ...]] = {}
    for tensor in graph.tensors.values():
        regions = _parts_of(graph, tensor)
        if len(regions) < 2 or _unread(graph, tensor, regions) < least_unread:
            continue
        names = set(taken)
        made = tuple(part_of(tensor, region, names) for region in regions)
        room = sum(align_up(part.size_bytes, alignment) for part in made)
        if room <= align_up(tensor.size_bytes, alignment) * MOST_ROOM:
            parts[tensor.name] = made
            taken.update(part.name for part in made)
    if not parts:
        return Rewritten(graph, Lineage.identity(graph))
    tensors = [part for t in graph.tensors.values() for part in parts.get(t.name, (t,))]
    operators = [_rewrite(operator, parts) for operator in graph.operators]
    roots = [*graph.roots.values(), *(graph.tensors[name] for name in parts)]
    rewritten = graph.replace(tensors=tensors, operators=operators, roots=roots)
    if any(operator.modes for operator in graph.operators):
        rewritten = with_tile_modes(rewritten, graph)
    lineage = Lineage(
        Lineage.identity(graph).operators, parts={name: tuple(p.name for p in made) for name, made in parts.items()}
    )
    return Rewritten(rewritten, lineage)


def _parts_of(graph: Graph, tensor: Tensor) -> list[Region]:
    """Boxes to cut a tensor into, in row-major order; none where it stays whole."""
    shape = tensor.shape
    if shape is None or tensor.dtype is None or tensor.kind is TensorKind.WEIGHT or tensor.region is not None:
        return []
    if width_bits(tensor.dtype) < 8 or not tensor.size_bytes:
        return []
    boundaries = [{0, size} for size in shape]
    for name in graph.consumers(tensor.name):
        for region in graph.operator(name).reads:
            if region.root != tensor.name or not region.is_within(shape):
                continue
            for cuts, start, stop in zip(boundaries, region.start, region.stop, strict=True):
                cuts |= {start, stop}
    if prod(len(cuts) - 1 for cuts in boundaries) > MOST_PARTS:
        return []
    spans = [list(pairwise(sorted(cuts))) for cuts in boundaries]
    return [Region.of_box(tensor.name, box) for box in product(*spans)]


def _unread(graph: Graph, tensor: Tensor, parts: Sequence[Region]) -> float:
    """Share of a tensor that its readers would leave unread, summed over them."""
    count = sum(part.count for part in parts)
    left = 0
    for name in graph.consumers(tensor.name):
        wanted = [region for region in graph.operator(name).reads if region.root == tensor.name]
        if wanted:
            left += sum(part.count for part in parts if not any(part.overlap(region) for region in wanted))
    return left / count


def part_of(root: Tensor, region: Region, taken: set[str]) -> Tensor:
    """A part of a tensor, under a name of its own, which is taken then."""
    assert root.shape is not None
    assert root.dtype is not None
    name = region.label(root.shape)
    while name in taken:
        name += "'"
    taken.add(name)
    return replace(
        root, name=name, shape=region.shape, size_bytes=size_of(region.shape, root.dtype), region=region,
        state=None,
    )


def _rewrite(operator: Operator, parts: Mapping[str, Sequence[Tensor]]) -> Operator:
    inputs: list[str] = []
    for name in operator.inputs:
        wanted = [region for region in operator.reads if region.root == name]
        for part in parts.get(name, ()):
            assert part.region is not None
            if not wanted or any(part.region.overlap(region) for region in wanted):
                inputs.append(part.name)
        if name not in parts:
            inputs.append(name)
    outputs = [part for name in operator.outputs for part in (_names(parts[name]) if name in parts else (name,))]
    if tuple(inputs) == operator.inputs and tuple(outputs) == operator.outputs:
        return operator
    return replace(operator, inputs=tuple(inputs), outputs=tuple(outputs))


def _names(tensors: Sequence[Tensor]) -> tuple[str, ...]:
    return tuple(tensor.name for tensor in tensors)
