"""Operators cut into tiles: a graph of tiles over parts of tensors.

A tensor is cut at the union of its producer's and its readers' boundaries, so that parts are exact: a halo row that two
tiles read is a part of its own, and keeping it is nothing but residency. Nothing is computed twice. Work and memory
are linear in tiles and in what they touch.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from math import prod

from cosma.access import Box, NodeSite, whole
from cosma.access.boxes import box_shape, hull
from cosma.access.operator import OperatorAccess, SumStep, can_be_cut, operator_access
from cosma.errors import InputError
from cosma.graph import Accumulation, Graph, Operator, Region, Tensor, TensorKind
from cosma.graph.join import pieces_of_outputs
from cosma.rewrite.lineage import Lineage, Rewritten
from cosma.rewrite.parts import part_of
from cosma.rewrite.tile_modes import with_tile_modes
from cosma.rewrite.tiling import Piece, TileKey, Tiling, tile_key


@dataclass(frozen=True, slots=True)
class _Tile:
    """One tile before names are given: its operator, its region, what it reads, and its place in a chain of sums."""

    access: OperatorAccess
    box: Box
    reads: Mapping[str, Box]
    step: SumStep | None = None
    position: int = 0
    steps: int = 1


def tile(graph: Graph, sites: Mapping[str, NodeSite], tiling: Tiling) -> Rewritten:
    """Cut operators into tiles and tensors into the parts that tiles touch.

    The graph is fused or not; none of its operators is a tile already. Operators come depth first by tiles: those that
    a tile needs stand right before it. Where operators have modes, so have tiles. Raises InputError if an operator is
    unknown, or cannot be cut along an axis.
    """
    cut = tiling.operators
    for name in cut:
        if not any(name == operator.name for operator in graph.operators):
            raise InputError(f"tiling: the graph has no operator {name!r}")
    if not cut:
        return Rewritten(graph, Lineage.identity(graph))
    place = {key: i for i, key in enumerate(tiling.order)}
    tiles = [
        one for operator in graph.operators for one in _tiles_of(operator_access(graph, sites, operator), tiling, place)
    ]
    grids = _grids(graph, tiles)
    parts = {name: grid for name, grid in grids.items() if grid.count > 1}
    taken = set(graph.tensors)
    tensors = {
        tensor.name: tuple(
            part_of(tensor, Region.of_box(tensor.name, box), taken) for box in parts[tensor.name].boxes()
        ) if tensor.name in parts else (tensor,)
        for tensor in graph.tensors.values()
    }
    cut_up = {part.name: part for held in tensors.values() for part in held}
    sums: dict[str, Tensor] = {}
    made = [_operator(one, graph, tensors, parts, cut_up, sums) for one in tiles]
    order = _order(graph, tiling, tiles, made)
    roots = [*graph.roots.values(), *(_root(graph, name) for name in parts)]
    joins = [join.cut({name: tensors[name] for name in join.tensors if name in parts}) for join in graph.joins.values()]
    known = [*cut_up.values(), *sums.values()]
    rewritten = graph.replace(tensors=known, operators=[made[i] for i in order], roots=roots, joins=joins)
    if any(operator.modes for operator in graph.operators):
        rewritten = with_tile_modes(rewritten, graph)
    lineage = Lineage(
        {made[i].name: (tiles[i].access.operator.name,) for i in order},
        parts={name: tuple(part.name for part in tensors[name]) for name in parts},
    )
    return Rewritten(rewritten, lineage)


def _root(graph: Graph, name: str) -> Tensor:
    """A tensor that was cut, of the kind it has in the model: pieces of an output are stored, and none themselves."""
    tensor = graph.tensors[name]
    is_piece = tensor.kind is TensorKind.OUTPUT and name in pieces_of_outputs(graph.joins, graph.roots)
    return replace(tensor, kind=TensorKind.INTERMEDIATE) if is_piece else tensor


def _tiles_of(access: OperatorAccess, tiling: Tiling, place: Mapping[TileKey, int]) -> list[_Tile]:
    shape = access.shapes.get(access.result)
    name = access.operator.name
    if shape is None or name not in tiling.operators:
        all_read = {t: whole(s) for t, s in access.shapes.items() if t in access.operator.operands}
        for root in {region.root for region in access.operator.reads} & all_read.keys():
            all_read[root] = hull([region.box for region in access.operator.reads if region.root == root])
        return [_Tile(access, whole(shape or ()), all_read)]
    allowed = access.cuts()
    for axis, positions in enumerate(tiling.cuts.get(name, ())):
        if positions and not (axis < len(allowed) and allowed[axis]):
            raise InputError(
                f"tiling: operator {name!r} ({access.operator.type}) cannot be cut along axis {axis} of its result "
                f"{list(shape)}; "
                + (f"it can along {[i for i, a in enumerate(allowed) if a]}" if any(allowed) else "it is a barrier")
            )
    reduced = access.reduced() if tiling.sums.get(name) else 0
    if tiling.sums.get(name) and not reduced:
        raise InputError(f"tiling: operator {name!r} ({access.operator.type}) cannot run as a chain of partial sums")
    pieces = tiling.pieces(name, shape, reduced)
    if place:
        pieces.sort(key=lambda piece: place.get(_key_of(name, *piece), len(place)))
    return _in_chains(access, pieces)


def _key_of(name: str, box: Box, span: tuple[int, int] | None) -> TileKey:
    return tile_key(name, [start for start, _ in box], 0 if span is None else span[0])


def _in_chains(access: OperatorAccess, pieces: Sequence[Piece]) -> list[_Tile]:
    """Tiles of an operator; those over one region follow each other in the order they are gone through."""
    steps: dict[Box, int] = {}
    for box, _ in pieces:
        steps[box] = steps.get(box, 0) + 1
    done: dict[Box, int] = {}
    found, every = [], access.reads(whole(access.shapes[access.result]))
    for box, span in pieces:
        position = done.get(box, 0)
        done[box] = position + 1
        step = None if span is None else SumStep(span, position == 0, position + 1 == steps[box])
        found.append(_Tile(access, box, access.touches(box, step, every), step, position, steps[box]))
    return found


class _Grid:
    """Boundaries of a tensor along each axis, and the parts between them in row-major order."""

    __slots__ = ("counts", "edges", "spans")

    def __init__(self, edges: Sequence[Sequence[int]]) -> None:
        self.edges = [sorted(set(axis)) for axis in edges]
        self.spans = [list(pairwise(axis)) for axis in self.edges]
        self.counts = [len(axis) for axis in self.spans]

    @property
    def count(self) -> int:
        """Number of parts."""
        return prod(self.counts)

    def boxes(self) -> list[Box]:
        """All parts."""
        return [tuple(box) for box in product(*self.spans)]

    def inside(self, box: Box) -> list[int]:
        """Numbers of the parts that a box consists of."""
        ranges = [
            range(bisect_left(axis, start), bisect_left(axis, stop))
            for axis, (start, stop) in zip(self.edges, box, strict=True)
        ]
        found = [0]
        for axis, count in zip(ranges, self.counts, strict=True):
            found = [number * count + i for number in found for i in axis]
        return found


def _grids(graph: Graph, tiles: Sequence[_Tile]) -> dict[str, _Grid]:
    edges: dict[str, list[set[int]] | None] = {}
    states = {graph.roots[name].state for name in graph.joins}  # what a join goes on from lies where the join does

    def note(name: str, box: Box) -> None:
        if name not in edges:
            tensor = graph.tensors[name]
            fixed = tensor.shape is None or tensor.region is not None or name in states or not can_be_cut(graph, name)
            edges[name] = None if fixed else [{0, size} for size in tensor.shape or ()]
        axes = edges[name]
        if axes is None:
            return
        for axis, span in zip(axes, box, strict=True):
            axis.update(span)

    for one in tiles:
        for name in one.access.operator.outputs:
            if graph.tensors[name].shape is not None:
                note(name, one.access.region_of(name, one.box))
        for name, box in one.reads.items():
            note(name, box)
    return {name: _Grid([sorted(axis) for axis in axes]) for name, axes in edges.items() if axes is not None}


def _operator(
    one: _Tile, graph: Graph, tensors: Mapping[str, Sequence[Tensor]], parts: Mapping[str, _Grid],
    cut_up: Mapping[str, Tensor], sums: dict[str, Tensor],
) -> Operator:  # fmt: skip
    operator, shape = one.access.operator, one.access.shapes.get(one.access.result)

    def touched(name: str, box: Box | None) -> list[str]:
        if name not in parts:
            return [name]
        assert box is not None
        return [tensors[name][i].name for i in parts[name].inside(box)]

    def read(names: Sequence[str]) -> tuple[str, ...]:
        # What a tile does not read (an operand of Concat outside its region) is no operand of it.
        return tuple(part for name in names if name in one.reads or name not in one.access.shapes
                     for part in touched(name, one.reads.get(name)))  # fmt: skip

    outputs = tuple(part for name in operator.outputs for part in touched(name, one.access.region_of(name, one.box)))
    joined = tuple(root for root in operator.joined if any(name in one.reads for name in graph.joins[root].tensors))
    changed = replace(
        operator, inputs=read(operator.inputs), outputs=outputs, weights=read(operator.weights), joined=joined
    )
    if shape is None or (one.box == whole(shape) and one.step is None):
        return changed
    region = Region.of_box(operator.name, one.box)
    share, count = prod(box_shape(one.box)), prod(shape)
    if one.step is not None:
        share, count = share * (one.step.span[1] - one.step.span[0]), count * one.access.reduced()
    macs = None if operator.macs is None else operator.macs * share // max(1, count)
    changed = replace(changed, name=region.label(shape), macs=macs, reads=(), tile=region)
    return changed if one.step is None else _sum_step(changed, one, cut_up, sums)


def _sum_step(
    tile: Operator, one: _Tile, cut_up: Mapping[str, Tensor], sums: dict[str, Tensor]
) -> Operator:
    """A step of a chain: it reads the partial sums of the step before, and writes partial sums unless it is the last.

    Partial sums have the extents of the results, so that each may take the place of the one before.
    """
    assert one.step is not None

    def partial(name: str, position: int) -> str:
        label = f"{name} step {position + 1} of {one.steps}"
        if label not in sums:
            result = cut_up[name]
            sums[label] = replace(result, name=label, kind=TensorKind.INTERMEDIATE, region=None)
        return label

    read = () if one.step.first else tuple(partial(name, one.position - 1) for name in tile.outputs)
    written = tile.outputs if one.step.last else tuple(partial(name, one.position) for name in tile.outputs)
    return replace(
        tile,
        name=f"{tile.name} step {one.position + 1} of {one.steps}",
        inputs=(*tile.inputs, *read),
        outputs=written,
        accumulation=Accumulation(*one.step.span, read),
    )


def _order(graph: Graph, tiling: Tiling, tiles: Sequence[_Tile], made: Sequence[Operator]) -> list[int]:
    """Tiles in the order that the tiling gives, as far as each one's operands come before it; else depth first."""
    owners = [one.access.operator.name for one in tiles]
    if not tiling.order:
        segment_of = _segment_numbers(graph, tiling)
        return depth_first(made, owners, [segment_of[name] for name in owners])
    place = {key: i for i, key in enumerate(tiling.order)}
    ranks = [
        place.get(_key_of(name, one.box, None if one.step is None else one.step.span), len(place))
        for name, one in zip(owners, tiles, strict=True)
    ]
    wanted = sorted(range(len(made)), key=lambda v: (ranks[v], v))
    position = [0] * len(made)
    for i, v in enumerate(wanted):
        position[v] = i
    return depth_first(made, owners, position)


def _segment_numbers(graph: Graph, tiling: Tiling) -> dict[str, int]:
    """Number of each operator's segment; numbers ascend in the order segments run."""
    if not tiling.segments:
        return {operator.name: 0 for operator in graph.operators}
    named = {name: i for i, names in enumerate(tiling.segments) for name in names}
    last: dict[int, int] = {}
    for operator in graph.operators:
        if operator.name in named:
            last[named[operator.name]] = graph.operator_index(operator.name)
    # A segment stands where its last operator stands in the graph.
    return {o.name: last[named[o.name]] if o.name in named else graph.operator_index(o.name) for o in graph.operators}


def depth_first(operators: Sequence[Operator], owners: Sequence[str], segment_of: Sequence[int]) -> list[int]:
    """Order tiles so that within a segment what a tile needs stands right before it: a line buffer's order.

    Steps of sums come in the order given: what another operator needs of a chain may stand between them.

    Where segments depend on each other in a circle, what is needed comes first, whatever its segment.
    """
    maker = {name: i for i, operator in enumerate(operators) for name in operator.outputs}
    needs = [sorted({maker[name] for name in operator.inputs if name in maker}) for operator in operators]
    reads_on = [False] * len(operators)  # whether tiles of another operator of the segment read a result's sum
    for v in reversed(range(len(operators))):
        for n in needs[v]:
            if segment_of[n] == segment_of[v]:
                reads_on[n] = reads_on[n] or owners[n] != owners[v] or reads_on[v]
    read_within = {v for v, read in enumerate(reads_on) if read}
    # First the tiles that nothing of their segment reads: they draw the others after them.
    sinks = sorted(range(len(operators)), key=lambda v: (segment_of[v], v in read_within, v))
    done = [False] * len(operators)
    order: list[int] = []
    for sink in sinks:
        stack = [(sink, 0)]
        while stack:
            v, position = stack.pop()
            if done[v]:
                continue
            while position < len(needs[v]) and done[needs[v][position]]:
                position += 1
            if position < len(needs[v]):
                stack.append((v, position + 1))
                stack.append((needs[v][position], 0))
                continue
            done[v] = True
            order.append(v)
    return order
