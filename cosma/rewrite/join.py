"""Concat, Split, Slice and Gather of neighbours that copy nothing: their results consist of what others wrote.

A tensor that such an operator yields becomes a root without a copy of its own. It is read piece by piece where its
pieces lie: operands of a Concat as they are, and of the operand of a Split or a Slice the parts that are asked for.
Pieces are tensors like any other, so each has an address and a lifetime of its own.

Joining is a choice. It costs readers their way to work in place over the whole, and an operator that writes parts its
own. So whoever plans tries both graphs and keeps the better plan.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise, product
from math import prod

from cosma.access import Box, NodeSite, whole
from cosma.access.boxes import intersection
from cosma.access.operator import can_be_cut
from cosma.graph import Graph, Join, Operator, Piece, Region, Tensor, TensorKind
from cosma.graph.dtypes import size_of
from cosma.rewrite.lineage import Lineage, Rewritten

#: Most parts of one tensor that Splits and Slices may ask for, as in :mod:`cosma.rewrite.parts`.
MOST_PARTS = 256
#: Types of operators that only move elements, of which some copy nothing.
COPIES = frozenset({"Concat", "Gather", "Slice", "Split"})


@dataclass(frozen=True, slots=True)
class _Move:
    """A box of a result that is a box of an operand.

    ``axes`` names the operand's axis of each axis of the result; -1 where the box has one element along the result's,
    which the operand need not have.
    """

    result: str
    into: Box
    operand: str
    box: Box
    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """A box of a tensor that is a box of one that an operator writes; ``axes`` as in :class:`_Move`."""

    storage: str
    box: Box
    into: Box
    axes: tuple[int, ...]


def join_copies(
    graph: Graph, sites: Mapping[str, NodeSite], *, keep: Collection[str] = ()
) -> Rewritten:  # fmt: skip
    """Take out every operator that need not copy; the graph itself where there is none.

    Parameters
    ----------
    graph
        The graph, fused or not, without parts or tiles.
    sites
        Nodes of the model by first result; a graph without any has Concats and Splits alone that copy nothing.
    keep
        Operators that go on copying, by name.
    """
    moves: dict[str, tuple[_Move, ...]] = {}
    plan = _Plan(graph)
    for operator in graph.operators:
        own = None if operator.name in keep else _moves(graph, operator, sites)
        if own is not None and plan.accepts(own):
            plan.add(own)
            moves[operator.name] = own
    while (clash := plan.clash(moves)) is not None:
        del moves[clash]
        plan = _Plan(graph)
        for operator in graph.operators:
            if operator.name in moves:
                plan.add(moves[operator.name])
    if not moves:
        return Rewritten(graph, Lineage.identity(graph))
    return plan.build(moves)


def _moves(graph: Graph, operator: Operator, sites: Mapping[str, NodeSite]) -> tuple[_Move, ...] | None:
    """What an operator moves; None where it does more than that, or what it does is not known."""
    if operator.fused or operator.domain or operator.tile or operator.type not in COPIES:
        return None
    names = (*operator.inputs, *operator.outputs)
    if any(graph.tensors[name].shape is None or not can_be_cut(graph, name) for name in names):
        return None
    if len({graph.tensors[name].dtype for name in names}) != 1:
        return None
    shapes = {name: graph.tensors[name].shape or () for name in names}
    site = next((sites[name] for name in operator.covers if name in sites), None)
    seen = dict(shapes)
    if site is not None:
        if not _in_order(site, operator, shapes):
            return None
        seen |= {a.value: a.shape for a in site.operands if a is not None and not a.constant}
    onto = {name: _axes_onto(seen[name], shapes[name]) for name in names}
    if any(axes is None for axes in onto.values()):
        return None
    moves: Sequence[_Move] | None = None
    if operator.type in ("Concat", "Split"):
        # Constants among the operands of a Concat are copied; those of the others are no more than parameters.
        moves = _along_axis(operator, seen) if operator.type == "Split" or not operator.weights else None
    elif site is not None:
        moves = _selection(operator, seen, site, onto[operator.inputs[0]] or ())
    return None if moves is None else tuple(_in_tensors(move, shapes, onto[move.operand] or ()) for move in moves)


def _in_order(site: NodeSite, operator: Operator, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a node has the operator's operands and results, each once, in its order, the results in their shapes."""
    read = [a.value for a in site.operands if a is not None and not a.constant]
    results = [(name, shape) for name, shape in zip(site.results, site.site.results, strict=False) if name]
    return (
        tuple(read) == operator.inputs
        and tuple(name for name, _ in results) == operator.outputs
        and all(shapes[name] == shape for name, shape in results)
    )


def _axes_onto(seen: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The tensor's axis of each axis that a node sees, -1 for one of size one; None where the two differ otherwise."""
    if seen == shape:
        return tuple(range(len(shape)))
    long = [axis for axis, size in enumerate(shape) if size != 1]
    if [size for size in seen if size != 1] != [shape[axis] for axis in long]:
        return None
    rest = iter(long)
    return tuple(next(rest) if size != 1 else -1 for size in seen)


def _in_tensors(move: _Move, shapes: Mapping[str, tuple[int, ...]], onto: tuple[int, ...]) -> _Move:
    """A move in terms of the operand's own axes, where the node sees others of size one."""
    box = list(whole(shapes[move.operand]))
    for axis, of in enumerate(onto):
        if of >= 0:
            box[of] = move.box[axis]
    return replace(move, box=tuple(box), axes=tuple(onto[axis] if axis >= 0 else -1 for axis in move.axes))


def _along_axis(operator: Operator, shapes: Mapping[str, tuple[int, ...]]) -> list[_Move] | None:
    """Concat and Split: several tensors side by side along one axis of another."""
    joining = operator.type == "Concat"
    (one,), many = (operator.outputs, operator.inputs) if joining else (operator.inputs, operator.outputs)
    stated = operator.parts[0].attribute("axis")
    axis = 0 if stated is None and not joining else stated
    shape = shapes[one]
    if not isinstance(axis, int) or not -len(shape) <= axis < len(shape):
        return None
    axis %= len(shape)
    if any(_without(shapes[name], axis) != _without(shape, axis) for name in many):
        return None
    ends = list(accumulate(shapes[name][axis] for name in many))
    if not ends or ends[-1] != shape[axis]:
        return None
    found = []
    axes = tuple(range(len(shape)))
    for name, end in zip(many, ends, strict=True):
        inside = whole(shapes[name])
        start = end - shapes[name][axis]
        around = tuple((start, end) if i == axis else span for i, span in enumerate(whole(shape)))
        found.append(_Move(one, around, name, inside, axes) if joining else _Move(name, inside, one, around, axes))
    return found


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (len(shape), *shape[:axis], *shape[axis + 1 :])


def _selection(
    operator: Operator, shapes: Mapping[str, tuple[int, ...]], site: NodeSite, onto: tuple[int, ...]
) -> list[_Move] | None:
    """Slice with steps of one, and Gather of neighbours in their order: one box of the operand."""
    if len(operator.inputs) != 1 or len(operator.reads) != 1 or len(operator.outputs) != 1:
        return None
    (name,), (result,), (region,) = operator.inputs, operator.outputs, operator.reads
    if region.root != name:
        return None
    box = tuple((region.start[of], region.stop[of]) if of >= 0 else (0, 1) for of in onto)
    axes = list(range(len(box)))
    if operator.type == "Slice":
        if any(step != 1 for step in site.site.contents.get(4, ())):
            return None
    else:
        axis = site.site.integer("axis", 0) % len(axes)
        indices, shape = site.site.contents.get(1), site.site.shape(1)
        first, last = box[axis]
        if indices is None and last - first > 1:
            return None
        size = shapes[name][axis]
        rows = [first] if indices is None else [int(i) + size if i < 0 else int(i) for i in indices]
        if rows != list(range(first, last)) or shape is None or len(shape) > 1:
            return None
        if not shape:
            del axes[axis]
    if tuple(box[axis][1] - box[axis][0] for axis in axes) != shapes[result]:
        return None
    return [_Move(result, whole(shapes[result]), name, box, tuple(axes))]


class _Plan:
    """Which tensors consist of which others, operator by operator in the graph's order."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._places: dict[str, list[_Place]] = {}
        self._stored: dict[str, list[Box]] = {}  # boxes of storages that graph outputs consist of

    def places(self, name: str) -> list[_Place]:
        """What a tensor consists of: itself, where an operator writes it."""
        if name in self._places:
            return self._places[name]
        box = whole(self.graph.tensors[name].shape or ())
        return [_Place(name, box, box, tuple(range(len(box))))]

    def _moved(self, move: _Move) -> list[_Place]:
        found = []
        for place in self.places(move.operand):
            both = intersection(place.into, move.box)
            if both is None:
                continue
            box = list(place.box)
            for axis, of in enumerate(place.axes):
                if of < 0:
                    continue
                start = place.box[of][0] + both[axis][0] - place.into[axis][0]
                box[of] = (start, start + both[axis][1] - both[axis][0])
            into = tuple(
                (low, high) if axis < 0
                else (low + both[axis][0] - move.box[axis][0], low + both[axis][1] - move.box[axis][0])
                for (low, high), axis in zip(move.into, move.axes, strict=True)
            )  # fmt: skip
            axes = tuple(place.axes[axis] if axis >= 0 else -1 for axis in move.axes)
            found.append(_Place(place.storage, tuple(box), into, axes))
        return found

    def accepts(self, moves: Sequence[_Move]) -> bool:
        """Whether graph outputs among the results may consist of what is written anyway."""
        taken = {name: list(boxes) for name, boxes in self._stored.items()}
        for move in moves:
            if self.graph.tensors[move.result].kind is not TensorKind.OUTPUT:
                continue
            for place in self._moved(move):
                if self._continues(move.result, place):
                    continue
                if self.graph.tensors[place.storage].kind is not TensorKind.INTERMEDIATE:
                    return False
                if any(intersection(place.box, other) for other in taken.get(place.storage, ())):
                    return False
                taken.setdefault(place.storage, []).append(place.box)
        return True

    def _continues(self, result: str, place: _Place) -> bool:
        """Whether a place holds the state that a result is the next value of, from the first element on."""
        state = self.graph.tensors[result].state
        begins = all(start == 0 for start, _ in place.into)
        return place.storage == state and begins and place.box == whole(self.graph.tensors[state].shape or ())

    def add(self, moves: Sequence[_Move]) -> None:
        """Take the operator of some moves out."""
        made: dict[str, list[_Place]] = {}
        for move in moves:
            made.setdefault(move.result, []).extend(self._moved(move))
        for name, places in made.items():
            self._places[name] = sorted(places, key=lambda place: [start for start, _ in place.into])
            if self.graph.tensors[name].kind is TensorKind.OUTPUT:
                for place in (place for place in places if not self._continues(name, place)):
                    self._stored.setdefault(place.storage, []).append(place.box)

    def clash(self, moves: Mapping[str, Sequence[_Move]]) -> str | None:
        """An operator that must copy after all.

        Its result holds something twice, or what a reader reads as another operand too, or it cuts a tensor into too
        many parts.
        """
        for name, places in self._places.items():
            if _overlap(places):
                return self._maker(name)
        for operator in self.graph.operators:
            if operator.name in moves:
                continue
            seen: list[_Place] = []
            for name in sorted(operator.inputs, key=lambda name: name in self._places):
                seen += self.places(name)
                if _overlap(seen):
                    return self._maker(name)
        cuts = self._cuts()
        for name, places in self._places.items():
            if any(prod(len(axis) - 1 for axis in cuts[place.storage]) > MOST_PARTS for place in places):
                return self._maker(name)
        return None

    def _maker(self, name: str) -> str:
        maker = self.graph.producer(name)
        assert maker is not None
        return maker

    def _cuts(self) -> dict[str, list[list[int]]]:
        """Boundaries along each axis of every storage."""
        edges: dict[str, list[set[int]]] = {}
        for places in self._places.values():
            for place in places:
                shape = self.graph.tensors[place.storage].shape or ()
                axes = edges.setdefault(place.storage, [{0, size} for size in shape])
                for axis, span in zip(axes, place.box, strict=True):
                    axis.update(span)
        return {name: [sorted(axis) for axis in axes] for name, axes in edges.items()}

    # -- the new graph ----------------------------------------------------------------------------------------

    def build(self, moves: Mapping[str, Sequence[_Move]]) -> Rewritten:
        """Build the graph without the operators that copy nothing."""
        graph = self.graph
        taken = set(graph.tensors)
        parts: dict[str, tuple[Tensor, ...]] = {}
        for name, axes in self._cuts().items():
            boxes = [tuple(box) for box in product(*(list(pairwise(axis)) for axis in axes))]
            if len(boxes) > 1:
                parts[name] = tuple(self._part(graph.tensors[name], box, taken) for box in boxes)
        left = {name for o in graph.operators if o.name not in moves for name in o.weights}
        gone = {name for operator in moves for name in graph.operator(operator).weights} - left
        tensors = [
            part
            for tensor in graph.tensors.values()
            if tensor.name not in self._places and tensor.name not in gone
            for part in parts.get(tensor.name, (self._kept(tensor),))
        ]
        covers = {move.result: graph.operator(name).covers for name, row in moves.items() for move in row}
        joins = [Join(name, self._pieces(name, parts), covers.get(name, ())) for name in self._places]
        by_name = {join.root: join for join in joins}
        operators = [self._operator(o, parts, by_name) for o in graph.operators if o.name not in moves]
        roots = [
            *graph.roots.values(),
            *(replace(graph.tensors[name], state=None) for name in parts),
            *(self._root(name) for name in self._places),
        ]
        lineage = Lineage(
            {o.name: (o.name,) for o in operators},
            parts={name: tuple(part.name for part in row) for name, row in parts.items()}
            | {join.root: join.tensors for join in joins},
        )
        joins = [*graph.joins.values(), *joins]
        return Rewritten(graph.replace(tensors=tensors, operators=operators, roots=roots, joins=joins), lineage)

    def _is_stored(self, name: str, box: Box) -> bool:
        return any(intersection(box, other) for other in self._stored.get(name, ()))

    def _root(self, name: str) -> Tensor:
        """A join; that it is the next value of a state is only said where it begins with what that was."""
        tensor = self.graph.tensors[name]
        goes_on = any(self._continues(name, place) for place in self._places[name])
        return tensor if goes_on else replace(tensor, state=None)

    def _kept(self, tensor: Tensor) -> Tensor:
        stored = self._is_stored(tensor.name, whole(tensor.shape or ()))
        return replace(tensor, kind=TensorKind.OUTPUT if stored else tensor.kind)

    def _part(self, root: Tensor, box: Box, taken: set[str]) -> Tensor:
        assert root.shape is not None
        assert root.dtype is not None
        region = Region(root.name, [a for a, _ in box], [b for _, b in box])
        name = region.label(root.shape)
        while name in taken:
            name += "'"
        taken.add(name)
        kind = TensorKind.OUTPUT if self._is_stored(root.name, box) else root.kind
        size = size_of(region.shape, root.dtype)
        return replace(root, name=name, kind=kind, shape=region.shape, size_bytes=size, region=region, state=None)

    def _pieces(self, name: str, parts: Mapping[str, Sequence[Tensor]]) -> list[Piece]:
        found = []
        for place in self.places(name):
            if place.storage not in parts:
                found.append(Piece(place.storage, _region(name, place.into)))
                continue
            for part in parts[place.storage]:
                assert part.region is not None
                box = tuple(zip(part.region.start, part.region.stop, strict=True))
                if intersection(box, place.box) is None:
                    continue
                into = tuple(
                    (low, high) if of < 0
                    else (low + box[of][0] - place.box[of][0], low + box[of][1] - place.box[of][0])
                    for (low, high), of in zip(place.into, place.axes, strict=True)
                )  # fmt: skip
                found.append(Piece(part.name, _region(name, into)))
        return sorted(found, key=lambda piece: piece.region.start)

    def _operator(
        self, operator: Operator, parts: Mapping[str, Sequence[Tensor]], joins: Mapping[str, Join]
    ) -> Operator:
        inputs: list[str] = []
        became: dict[str, list[str]] = {}
        for name in operator.inputs:
            before = len(inputs)
            wanted = [region for region in operator.reads if region.root == name]
            rows: Iterable[tuple[str, Region | None]] = [(name, None)]
            if name in joins:
                rows = [(piece.tensor, piece.region) for piece in joins[name].pieces]
            elif name in parts:
                rows = [(part.name, part.region) for part in parts[name]]
            inputs += [
                tensor for tensor, box in rows
                if box is None or not wanted or any(box.overlap(region) for region in wanted)
            ]  # fmt: skip
            became[name] = inputs[before:]
        became |= {name: [part.name for part in parts[name]] if name in parts else [name] for name in operator.outputs}
        outputs = [part for name in operator.outputs for part in became[name]]
        modes = [
            replace(mode, may_stream=tuple(part for name in mode.may_stream for part in became.get(name, [name])))
            for mode in operator.modes
        ]
        joined = tuple(name for name in operator.inputs if name in joins)
        if tuple(inputs) == operator.inputs and tuple(outputs) == operator.outputs and not joined:
            return operator
        return replace(operator, inputs=tuple(inputs), outputs=tuple(outputs), joined=joined, modes=tuple(modes))


def _overlap(places: Sequence[_Place]) -> bool:
    """Whether two places share an element of a storage."""
    by_storage: dict[str, list[Box]] = {}
    for place in places:
        others = by_storage.setdefault(place.storage, [])
        if any(intersection(other, place.box) for other in others):
            return True
        others.append(place.box)
    return False


def _region(root: str, box: Box) -> Region:
    return Region(root, [a for a, _ in box], [b for _, b in box])
