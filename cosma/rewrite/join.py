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
from itertools import pairwise, product
from math import prod

from cosma.access import Box, NodeSite, whole
from cosma.access.boxes import intersection
from cosma.graph import Graph, Join, Operator, Piece, Region, Tensor, TensorKind
from cosma.rewrite.lineage import Lineage, Rewritten
from cosma.rewrite.moves import Move, moves_of
from cosma.rewrite.parts import MOST_PARTS, part_of


@dataclass(frozen=True, slots=True)
class _Place:
    """A box of a tensor that is a box of one that an operator writes; ``axes`` as in :class:`Move`."""

    storage: str
    box: Box
    into: Box
    axes: tuple[int, ...]


def join_copies(
    graph: Graph, sites: Mapping[str, NodeSite], *, keep: Collection[str] = ()
) -> Rewritten:  # fmt: skip
    """Take out every operator that need not copy; the graph itself where there is none.

    The graph is fused or not, without parts or tiles. Sites are the nodes of the model by first result; a graph without
    any has Concats and Splits alone that copy nothing. Operators named in ``keep`` go on copying.
    """
    moves: dict[str, tuple[Move, ...]] = {}
    plan = _Plan(graph)
    for operator in graph.operators:
        own = None if operator.name in keep else moves_of(graph, operator, sites)
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

    def _moved(self, move: Move) -> list[_Place]:
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

    def accepts(self, moves: Sequence[Move]) -> bool:
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

    def add(self, moves: Sequence[Move]) -> None:
        """Take the operator of some moves out."""
        made: dict[str, list[_Place]] = {}
        for move in moves:
            made.setdefault(move.result, []).extend(self._moved(move))
        for name, places in made.items():
            self._places[name] = sorted(places, key=lambda place: [start for start, _ in place.into])
            if self.graph.tensors[name].kind is TensorKind.OUTPUT:
                for place in (place for place in places if not self._continues(name, place)):
                    self._stored.setdefault(place.storage, []).append(place.box)

    def clash(self, moves: Mapping[str, Sequence[Move]]) -> str | None:
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

    def build(self, moves: Mapping[str, Sequence[Move]]) -> Rewritten:
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
        kind = TensorKind.OUTPUT if self._is_stored(root.name, box) else root.kind
        return replace(part_of(root, Region.of_box(root.name, box), taken), kind=kind)

    def _pieces(self, name: str, parts: Mapping[str, Sequence[Tensor]]) -> list[Piece]:
        found = []
        for place in self.places(name):
            if place.storage not in parts:
                found.append(Piece(place.storage, Region.of_box(name, place.into)))
                continue
            for part in parts[place.storage]:
                assert part.region is not None
                box = part.region.box
                if intersection(box, place.box) is None:
                    continue
                into = tuple(
                    (low, high) if of < 0
                    else (low + box[of][0] - place.box[of][0], low + box[of][1] - place.box[of][0])
                    for (low, high), of in zip(place.into, place.axes, strict=True)
                )  # fmt: skip
                found.append(Piece(part.name, Region.of_box(name, into)))
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
