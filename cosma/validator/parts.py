"""Parts of tensors that were cut: disjoint, covering their root, and read where an operator depends on them.

Nothing here is shared with the code that cuts. What an operator depends on is found by running its ONNX nodes on the
positions of the root's elements, where the file is given; without it, the graph read from the model says.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.graph import Graph, Operator, Region, Tensor, TensorKind
from cosma.graph.join import pieces_of_outputs, roots_by_piece
from cosma.validator.place import NoRuleError, box_of_result
from cosma.validator.sums import check_sums, last_steps, partial_sums
from cosma.validator.verdicts import Verdict, Violation

if TYPE_CHECKING:
    from cosma.validator.needs import Needs

    Bools = np.ndarray[Any, np.dtype[np.bool_]]


def parts_by_root(graph: Graph) -> dict[str, list[Tensor]]:
    """Parts of every root, in the order of the tensors, each with its region; an empty list for a root without any.

    The pieces of a join count as its parts: as tensors whose region is where they lie in the join.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in graph.roots}
    for tensor in graph.tensors.values():
        if tensor.region is not None:
            found[tensor.region.root].append(tensor)
    for name, join in graph.joins.items():
        found[name] = [replace(graph.tensors[piece.tensor], region=piece.region) for piece in join.pieces]
    return found


def check_parts(graph: Graph) -> list[Violation]:
    """Check that the parts of every root are disjoint, cover it, have its kind and their share of its bytes."""
    found: list[Violation] = []

    def note(verdict: Verdict, message: str) -> None:
        found.append(Violation(verdict, None, message))

    stored = pieces_of_outputs(graph.joins, graph.roots)
    for name, parts in parts_by_root(graph).items():
        root = graph.roots[name]
        shape = root.shape or ()
        inside = [part for part in parts if part.region is not None and part.region.is_within(shape)]
        for part in parts:
            region = part.region
            assert region is not None
            if not region.is_within(shape):
                box = f"{list(region.start)} to {list(region.stop)}"
                note(Verdict.PART_OUTSIDE, f"part {part.name!r} is {box} of {name!r}, whose shape is {list(shape)}")
            elif part.size_bytes * prod(shape) != root.size_bytes * region.count:
                note(
                    Verdict.PART_SIZE,
                    f"part {part.name!r} has {part.size_bytes} bytes for {region.count} of {prod(shape)} elements of "
                    f"{name!r}, which has {root.size_bytes} bytes",
                )
            if part.kind is not root.kind and not _may_differ(graph, part, root, stored):
                note(Verdict.PART_SIZE, f"part {part.name!r} is a {part.kind}, its root {name!r} a {root.kind}")
        clash = _overlap([(part.name, part.region) for part in inside if part.region is not None])
        if clash is not None:
            note(Verdict.PARTS_OVERLAP, f"parts {clash[0]!r} and {clash[1]!r} of {name!r} overlap")
        covered = sum(part.region.count for part in inside if part.region is not None)
        if clash is None and covered != prod(shape):
            note(Verdict.PARTS_MISSING, f"the parts of {name!r} hold {covered} of its {prod(shape)} elements")
    found += _half_written(graph)
    return found


def _may_differ(graph: Graph, part: Tensor, root: Tensor, stored: set[str]) -> bool:
    """Whether a part may be of another kind than its root.

    What a join that is a graph output consists of is an output itself; any other join may consist of anything.
    """
    if root.name in graph.joins:
        # Which pieces of a graph output need be none is for the check of joins to say.
        return root.kind is TensorKind.INTERMEDIATE or part.name == root.state
    return part.kind is TensorKind.OUTPUT and root.kind is TensorKind.INTERMEDIATE and part.name in stored


def _half_written(graph: Graph) -> list[Violation]:
    """Find roots whose parts different operators write; the tiles of one operator may share them out."""
    found = []
    for name, parts in parts_by_root(graph).items():
        if name in graph.joins:
            continue
        producers = sorted({str(graph.producer(part.name)) for part in parts})
        if len(producers) > 1 and len({_untiled(graph, producer) for producer in producers}) > 1:
            message = f"parts of {name!r} are written by {' and '.join(map(repr, producers[:3]))}"
            found.append(Violation(Verdict.PARTS_MISSING, None, f"{message}; one operator writes them all"))
    return found


def _untiled(graph: Graph, name: str) -> str:
    """Operator that a tile is of; the operator itself where it is no tile."""
    if name == "None":
        return name
    box = graph.operator(name).tile
    return name if box is None else box.root


def check_tiles(graph: Graph) -> list[Violation]:
    """Check that the tiles of every operator are alike, are disjoint, cover its result, and write just that.

    Tiles lie inside their results: :func:`cosma.validator.extents.check_extents` comes before.
    """
    tiles: dict[str, list[Operator]] = {}
    for operator in graph.operators:
        if operator.tile is not None:
            tiles.setdefault(operator.tile.root, []).append(operator)
    found = []
    for name, own in tiles.items():
        if len({(one.type, one.covers) for one in own}) > 1:
            message = f"tiles of {name!r} have different types, or stand for different nodes"
            found.append(Violation(Verdict.TILES_WRONG, None, message))
        wrong = check_sums(graph, name, own)
        if wrong:
            found += wrong
            continue
        own = last_steps(own)
        if len(own) == 1 and all(graph.tensors[t].region is None for t in own[0].outputs):
            continue  # a sum by steps over a result that is whole
        regions = [graph.tensors[t].region for one in own for t in one.outputs]
        results = list(dict.fromkeys(region.root for region in regions if region is not None))
        if None in regions or not results:
            message = f"tiles of {name!r} write tensors that are no parts of its results"
            found.append(Violation(Verdict.TILES_WRONG, None, message))
            continue
        shape = graph.roots[results[0]].shape or ()
        found += _not_once(name, own, shape)
        for one in own:
            assert one.tile is not None
            for root in results:
                written = [r for t in one.outputs if (r := graph.tensors[t].region) is not None and r.root == root]
                region = _region_of(one.tile, shape, graph.roots[root].shape or ())
                if region is None or sum(r.count for r in written) != region.count or any(
                    r.overlap(region) != r.count for r in written
                ):
                    message = f"tile {one.name!r} does not write its own region of {root!r}"
                    found.append(Violation(Verdict.TILES_WRONG, None, message))
    return found


def _not_once(name: str, tiles: list[Operator], shape: tuple[int, ...]) -> list[Violation]:
    """A violation where the tiles of an operator do not cover its result once."""
    boxes = [(one.name, one.tile) for one in tiles if one.tile is not None]
    clash, covered = _overlap(boxes), sum(box.count for _, box in boxes)
    if clash is not None:
        message = f"tiles {clash[0]!r} and {clash[1]!r} of {name!r} overlap"
    elif covered != prod(shape):
        message = f"tiles of {name!r} cover {covered} of {prod(shape)} elements of its result"
    else:
        return []
    return [Violation(Verdict.TILES_WRONG, None, message)]


def _region_of(tile: Region, first: tuple[int, ...], shape: tuple[int, ...]) -> Region | None:
    """Region of a result that a tile writes, by its region of the first; None where that is none of it."""
    try:
        return Region.of_box(tile.root, box_of_result(tile.box, first, shape))
    except NoRuleError:
        return None


def _overlap(regions: list[tuple[str, Region]]) -> tuple[str, str] | None:
    """Two regions that share an element, by name: a sweep along the axis on which they start most differently."""
    boxes = [(name, region) for name, region in regions if region.count]
    if len(boxes) < 2:
        return None
    starts = np.array([region.start for _, region in boxes], dtype=np.int64)
    stops = np.array([region.stop for _, region in boxes], dtype=np.int64)
    if not starts.shape[1]:
        return boxes[0][0], boxes[1][0]
    axis = max(range(starts.shape[1]), key=lambda k: len(np.unique(starts[:, k])))
    order = np.argsort(starts[:, axis], kind="stable")
    starts, stops = starts[order], stops[order]
    ends = np.searchsorted(starts[:, axis], stops[:, axis], side="left")
    for i in range(len(order)):
        later = slice(i + 1, int(ends[i]))
        shared = (starts[later] < stops[i]) & (stops[later] > starts[i])
        hits = np.flatnonzero(shared.all(axis=1))
        if len(hits):
            return boxes[order[i]][0], boxes[order[i + 1 + int(hits[0])]][0]
    return None


def whole_graph(graph: Graph, model: Graph | None = None) -> Graph:
    """The graph with every root in place of its parts, to be compared with the model's.

    Operators that copy nothing are put back as the model has them: what joins consist of is judged apart, see
    :mod:`cosma.validator.joins`.
    """
    if not graph.roots and not graph.is_tiled:
        return graph
    sums = partial_sums(graph)
    stored = pieces_of_outputs(graph.joins, graph.roots)
    tensors = [
        replace(tensor, kind=TensorKind.INTERMEDIATE)
        if tensor.name in stored and tensor.kind is TensorKind.OUTPUT else tensor
        for tensor in graph.tensors.values() if tensor.region is None and tensor.name not in sums
    ]  # fmt: skip
    back = [] if model is None else joining_operators(graph, model)
    # Parameters that only such operators read are no tensors of the plan.
    known = {tensor.name for tensor in tensors}
    more = dict.fromkeys(name for operator in back for name in operator.weights if name not in known)
    tensors += [model.tensors[name] for name in more] if model is not None else []
    made = {name for operator in back for name in operator.outputs}
    # A join that the model has no operator for stands alone; that the operator is missing is found elsewhere.
    roots = [
        root if root.name not in graph.joins or root.name in made else replace(root, kind=TensorKind.INPUT)
        for root in graph.roots.values()
    ]
    return Graph((*tensors, *roots), (*_whole_operators(graph).values(), *back), graph.name)


def joining_operators(graph: Graph, model: Graph) -> list[Operator]:
    """Operators of the model whose results are joins in a plan's graph."""
    return [operator for operator in model.operators if all(name in graph.joins for name in operator.outputs)]


def _whole_operators(graph: Graph) -> dict[str, Operator]:
    """Operators over roots in place of their parts, by name; the tiles of one are one."""
    root_of = {t.name: t.region.root for t in graph.tensors.values() if t.region is not None}
    sums, joined_to = partial_sums(graph), roots_by_piece(graph.joins)

    def merged(names: tuple[str, ...], inside: tuple[str, ...] = ()) -> tuple[str, ...]:
        found = (
            next((root for root in joined_to.get(name, ()) if root in inside), root_of.get(name, name))
            for name in names if name not in sums
        )  # fmt: skip
        return tuple(dict.fromkeys(found))

    operators: dict[str, Operator] = {}
    for o in graph.operators:
        name = o.name if o.tile is None else o.tile.root
        first = operators.get(name)
        joined = o if first is None else replace(
            o, inputs=first.inputs + o.inputs, outputs=first.outputs + o.outputs, weights=first.weights + o.weights
        )  # fmt: skip
        operators[name] = replace(
            joined, name=name, tile=None, macs=None, accumulation=None, joined=(),
            inputs=merged(joined.inputs, o.joined), outputs=merged(joined.outputs), weights=merged(joined.weights),
        )  # fmt: skip
    return operators


def unread_regions(planned: Graph, model: Graph, needs: Needs | None = None) -> list[Violation]:
    """Find what operators depend on, as the model's say, and do not read.

    ``needs`` is what the ONNX nodes themselves depend on, where the file is given.
    """
    by_results = {operator.outputs: operator for operator in model.operators}
    by_covers = {operator.covers[0]: operator for operator in model.operators if operator.covers}
    parts = parts_by_root(planned)
    found = []
    for operator, whole in zip(planned.operators, _same_order(planned), strict=True):
        if operator.tile is not None:
            continue  # judged by its region, not as a whole: see unread_by_tiles
        theirs = [by_covers[node] for node in operator.covers if node in by_covers]
        if not theirs and whole.outputs in by_results:
            theirs = [by_results[whole.outputs]]
        inputs = set(operator.inputs)
        for name in whole.inputs:
            if name not in parts:
                continue
            read = [p for p in parts[name] if p.name in inputs]
            if len(read) == len(parts[name]):
                continue
            shape = planned.roots[name].shape or ()
            missing = _needed(name, shape, operator, theirs, needs) & ~_mask(shape, read)
            if missing.any():
                at = [int(i) for i in np.argwhere(missing)[0]]
                count = int(missing.sum())
                what = f"operator {operator.name!r} depends on {count} elements of {name!r}, the first at {at}"
                found.append(Violation(Verdict.REGION_UNREAD, None, f"{what}, that no part it reads holds"))
    return found


def _same_order(planned: Graph) -> list[Operator]:
    """The whole operators in the order of the planned ones."""
    whole = _whole_operators(planned)
    return [whole[o.name if o.tile is None else o.tile.root] for o in planned.operators]


def _needed(
    name: str, shape: tuple[int, ...], operator: Operator, theirs: list[Operator], needs: Needs | None
) -> Bools:
    """Elements of a root that an operator depends on: by its ONNX nodes, else by the model's graph, else all."""
    mask = needs.of(name, shape, operator.covers) if needs is not None else None
    if mask is not None:
        return mask
    readers = [one for one in theirs if name in one.inputs]
    boxes = [[region for region in one.reads if region.root == name] for one in readers]
    if not boxes or not all(row and all(region.is_within(shape) for region in row) for row in boxes):
        return np.ones(shape, dtype=np.bool_)
    return _fill(shape, [region for row in boxes for region in row])


def _mask(shape: tuple[int, ...], parts: list[Tensor]) -> Bools:
    return _fill(shape, [part.region for part in parts if part.region is not None])


def _fill(shape: tuple[int, ...], regions: list[Region]) -> Bools:
    mask = np.zeros(shape, dtype=np.bool_)
    for region in regions:
        if region.is_within(shape):
            mask[region.slices] = True
    return mask
