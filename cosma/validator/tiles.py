"""What tiles must read: regions followed back from the results of a tile through the ONNX nodes of its operator.

The nodes come from the model's file, the rules from :mod:`cosma.validator.regions`. Where there is no rule, a tile must
read everything that its operator reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.validator.needs import Needs, is_view
from cosma.validator.place import Box, NoRuleError, Place, Shape, all_of, box_of_result, hull_of, size_of
from cosma.validator.regions import MOVES, RETYPING, narrowed, summed_over, wanted, works_by_element
from cosma.validator.sums import last_steps, partial_sums
from cosma.validator.verdicts import Verdict, Violation

if TYPE_CHECKING:
    from onnx import NodeProto

    from cosma.graph import Graph, Operator, Region, Tensor

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class _Need:
    """Elements of a tensor: a box, or their places in row-major order where they are no box."""

    box: Box
    places: Array | None = None


def unread_by_tiles(planned: Graph, needs: Needs | None) -> list[Violation]:
    """Find tiles that do not read all that their region depends on.

    Without the model's file (``needs``), every tile must read everything.
    """
    operators: dict[str, list[Operator]] = {}
    for operator in planned.operators:
        if operator.tile is not None:
            operators.setdefault(operator.tile.root, []).append(operator)
    found: list[Violation] = []
    judge = _Judge(planned, needs)
    for tiles in operators.values():
        found += judge.check(tiles)
        found += judge.check_sum(tiles)
    return found


class _Judge:
    def __init__(self, planned: Graph, needs: Needs | None) -> None:
        self._planned, self._needs = planned, needs
        self._root_of = {t.name: t.region.root for t in planned.tensors.values() if t.region is not None}
        self._known = {**planned.tensors, **planned.roots}
        self._places: dict[str, Place] = {}
        self._sums = partial_sums(planned)

    def check(self, tiles: list[Operator]) -> list[Violation]:
        """What the tiles of one operator leave unread."""
        given = {self._root_of.get(n, n) for tile in tiles for n in tile.operands if n not in self._sums}
        results = list(dict.fromkeys(self._root_of.get(n, n) for tile in last_steps(tiles) for n in tile.outputs))
        found = []
        for tile in tiles:
            read = self._read(tile)
            for name, need in self._all_needed(tile, given, results):
                lack = self._lacking(name, need, read)
                if lack:
                    message = f"tile {tile.name!r} depends on {lack} elements of {name!r} that no part it reads holds"
                    found.append(Violation(Verdict.REGION_UNREAD, None, message))
        return found

    def check_sum(self, tiles: list[Operator]) -> list[Violation]:
        """Whether steps of a sum share out the axis that the node sums over."""
        steps = [tile for tile in tiles if tile.accumulation is not None]
        if not steps:
            return []
        last = last_steps(tiles)[0]
        result = self._root_of.get(last.outputs[0], last.outputs[0])
        given = {self._root_of.get(n, n) for tile in tiles for n in tile.operands if n not in self._sums}
        message, name = "", steps[0].tile.root if steps[0].tile is not None else ""
        try:
            node = self.maker(_sum_behind(self, result, given))
            assert node is not None
            extent = summed_over(self.place(node))
            end = max(tile.accumulation.stop for tile in steps if tile.accumulation is not None)
            if end != extent:
                message = f"tiles of {name!r} sum over {end} elements of {extent}"
            shape = self.shape(result)
            if result == last.outputs[0] and last.tile is not None and last.tile.box != all_of(shape):
                message = f"tiles of {name!r} are of {last.tile.box}, and write all of a result of shape {shape}"
        except NoRuleError:
            message = f"tiles of {name!r} are steps of a sum that its nodes do not compute"
        return [Violation(Verdict.TILES_WRONG, None, message)] if message else []

    def _read(self, tile: Operator) -> Mapping[str, list[Tensor]]:
        read: dict[str, list[Tensor]] = {}
        for name in tile.operands:
            read.setdefault(self._root_of.get(name, name), []).append(self._planned.tensors[name])
        return read

    def _all_needed(self, tile: Operator, given: set[str], results: list[str]) -> Iterable[tuple[str, _Need]]:
        assert tile.tile is not None
        box = tile.tile.box
        step = tile.accumulation
        try:
            walk = _Walk(self, given)
            if step is not None:
                walk.sum_name, walk.span = _sum_behind(self, results[0], given), (step.start, step.stop)
                walk.first, walk.box = not step.sums, box
                if not self._sums.isdisjoint(tile.outputs):
                    results = [walk.sum_name]
            elif any(name not in self._root_of for name in tile.outputs):
                raise NoRuleError
            first = self.shape(results[0])
            for root in results:
                walk.follow(root, box_of_result(box, first, self.shape(root)))
            return walk.found
        except NoRuleError:
            return [(name, self.everything(name)) for name in sorted(given)]

    def everything(self, name: str) -> _Need:
        """All of a tensor."""
        shape = self._shape_of(name)
        return _Need(all_of(shape) if shape is not None else ())

    def _shape_of(self, name: str) -> Shape | None:
        tensor = self._known[name]
        if tensor.shape is not None:
            return tensor.shape
        return None if self._needs is None else self._needs.shapes.get(name)

    def _lacking(self, name: str, need: _Need, read: Mapping[str, list[Tensor]]) -> int:
        """How many elements that are needed no part holds that is read."""
        parts = [tensor.region for tensor in read.get(name, ()) if tensor.region is not None]
        count = size_of(need.box) if need.places is None else len(need.places)
        if name not in self._planned.roots:
            return 0 if read.get(name) else max(1, count)
        shape = self._planned.roots[name].shape or ()
        if need.places is not None:
            mask = np.zeros(shape, dtype=np.bool_)
            for region in parts:
                if region.is_within(shape):
                    mask[region.slices] = True
            return int(count - mask.reshape(-1)[need.places].sum())
        # Parts are disjoint, or that is a violation of its own.
        return max(0, count - sum(_shared(need.box, region) for region in parts))

    # -- the model ----------------------------------------------------------------------------------------

    def maker(self, name: str) -> NodeProto | None:
        """The node that yields a value."""
        if self._needs is None:
            raise NoRuleError
        return self._needs.maker(name)

    def shape(self, name: str) -> Shape:
        """Shape of a value, views included."""
        found = None if self._needs is None else self._needs.shape(name)
        if found is None:
            raise NoRuleError
        return found

    def place(self, node: NodeProto) -> Place:
        """A node with the shapes around it."""
        key = next((name for name in node.output if name), "")
        if key not in self._places:
            self._places[key] = self._make_place(node)
        return self._places[key]

    def _make_place(self, node: NodeProto) -> Place:
        from onnx import helper

        needs = self._needs
        if needs is None or any(a.HasField("g") or a.graphs for a in node.attribute):
            raise NoRuleError
        opset = next((e.version for e in needs.model.opset_import if e.domain in ("", "ai.onnx")), 1)
        return Place(
            node,
            {a.name: helper.get_attribute_value(a) for a in node.attribute},
            tuple(needs.shape(name) if name else None for name in node.input),
            tuple(needs.shape(name) if name else None for name in node.output),
            lambda i: needs.constant(node.input[i]) if node.input[i] else None,
            lambda: needs.moved(node),
            opset,
        )

    def can_move(self, node: NodeProto) -> bool:
        """Whether it is known where the elements of a node's result come from."""
        return self._needs is not None and self._needs.moved(node) is not None

    def moved(self, node: NodeProto) -> Array:
        """Where the elements of a node's result come from, in row-major order; -1 for none of the first operand."""
        found = None if self._needs is None else self._needs.moved(node)
        if found is None:
            raise NoRuleError
        return found.reshape(-1)

    def leaves(self, name: str) -> set[str] | None:
        """What a constant is computed from; None if it is no constant."""
        return None if self._needs is None else self._needs.leaves(name)

    def weights(self, name: str, given: set[str]) -> list[str]:
        """Sets of rows that stand for a table."""
        return [
            other for other in given
            if (rows := self._known[other].rows) is not None and rows.table == name
        ]  # fmt: skip


@dataclass(slots=True)
class _Walk:
    """One tile: regions from its results back to the operands of its operator."""

    judge: _Judge
    given: set[str]
    found: list[tuple[str, _Need]] = field(default_factory=list)
    #: For a step of a sum: the value summed up, its interval of the axis summed over, whether it adds the bias.
    sum_name: str = ""
    span: tuple[int, int] = (0, 0)
    first: bool = True
    box: Box = ()
    _seen: set[tuple[str, Box]] = field(default_factory=set)

    def follow(self, result: str, box: Box) -> None:
        """Add what a region of a result depends on; raises NoRuleError if that is not known."""
        if self.judge.maker(result) is None:
            raise NoRuleError
        waiting = [(result, self.judge.shape(result), box)]
        while waiting:
            found = self._through_moves(*waiting.pop())
            if found is None or found in self._seen:
                continue
            self._seen.add(found)
            name, region = found
            node = self.judge.maker(name)
            if node is None:
                continue  # a parameter; whether the plan lists every operand is for another check
            try:
                place = self.judge.place(node)
                operands = wanted(place, list(node.output).index(name), region)
                if name == self.sum_name:
                    if region != self.box:
                        raise NoRuleError
                    operands = narrowed(place, operands, self.span, first=self.first)
            except NoRuleError:
                if name == self.sum_name:
                    raise
                self._note_leaves(name)
                continue
            waiting += [(node.input[i], place.shape(i), needed) for i, needed in operands]

    def _through_moves(self, name: str, shape: Shape, box: Box) -> tuple[str, Box] | None:
        """What a region of a value is a region of, behind views and nodes that only move elements.

        It is noted if the operator reads it, else to be followed; None then, and where nothing is left.
        """
        places: Array | range | None = None
        while True:
            if name in self.given:
                self._note(name, shape, box, places)
                return None
            rows = self.judge.weights(name, self.given)
            for one in rows:
                self.found.append((one, self.judge.everything(one)))
            node = self.judge.maker(name)
            if rows or node is None:
                return None
            if not is_view(node) and not self._is_move(node, name):
                return name, box if places is None else hull_of_places(places, shape)
            if places is None:
                places = places_of_box(box, shape)
            if not is_view(node) and node.op_type != "Dropout":
                moved = self.judge.moved(node)
                found = moved[places.start : places.stop] if isinstance(places, range) else moved[places]
                places = found[found >= 0]
                if node.op_type == "Expand":  # the only one that reads an element twice
                    places = np.unique(places)
            if not len(places):
                return None
            shape, name = self.judge.shape(node.input[0]), node.input[0]

    def _is_move(self, node: NodeProto, name: str) -> bool:
        """Whether a node's result consists of elements of its first operand, at places that are known."""
        if node.domain or name != node.output[0] or any(one in self.given for one in node.input[1:]):
            return False
        if node.op_type == "Dropout":
            try:
                return bool(wanted(self.judge.place(node), 0, all_of(self.judge.shape(name))))
            except NoRuleError:
                return False
        return node.op_type in MOVES and self.judge.can_move(node)

    def _note_leaves(self, name: str) -> None:
        """Need all that a constant is computed from."""
        leaves = self.judge.leaves(name)
        if leaves is None:
            raise NoRuleError
        for leaf in leaves:
            for one in [leaf] if leaf in self.given else self.judge.weights(leaf, self.given):
                self.found.append((one, self.judge.everything(one)))

    def _note(self, name: str, shape: Shape, box: Box, places: Array | range | None) -> None:
        if isinstance(places, range):
            box = hull_of_places(places, shape)
            places = None if size_of(box) == len(places) else np.arange(places.start, places.stop)
        self.found.append((name, _Need(box, places)))


def _sum_behind(judge: _Judge, result: str, given: set[str]) -> str:
    """The value that is summed up behind a result: through views and nodes that work element by element on it.

    It has the shape of the result, so that regions of both are the same.

    Raises NoRuleError if there is no such value.
    """
    waiting, seen = [result], set()
    while waiting:
        name = waiting.pop()
        if name in seen or name in given:
            continue
        seen.add(name)
        node = judge.maker(name)
        if node is None or judge.leaves(name) is not None:
            continue
        if is_view(node) or _keeps_order(judge, node):
            waiting.append(node.input[0])
            continue
        if summed_over(judge.place(node)):
            if judge.shape(name) != judge.shape(result):
                raise NoRuleError
            return name
        if not works_by_element(node) or node.op_type in RETYPING:
            raise NoRuleError  # a sum is as wide as what it becomes, which another element type is not
        waiting += [n for n in node.input if n]
    raise NoRuleError


def _keeps_order(judge: _Judge, node: NodeProto) -> bool:
    """Whether a node moves elements and leaves all in their order, as a transposition of axes of length one does."""
    if node.op_type != "Transpose" or not judge.can_move(node):
        return False
    moved = judge.moved(node)
    return bool((moved == np.arange(len(moved))).all())


def places_of_box(box: Box, shape: Shape) -> Array | range:
    """Places, in row-major order, of the elements of a box; a range where they stand side by side."""
    first = next((i for i, (start, stop) in enumerate(box) if stop - start > 1), len(box))
    if all(span == (0, size) for span, size in zip(box[first + 1 :], shape[first + 1 :], strict=True)):
        start = sum(a * prod(shape[axis + 1 :]) for axis, (a, _) in enumerate(box))
        return range(start, start + size_of(box))
    found = np.zeros((1,) * len(shape), dtype=np.int64)
    for axis, (a, b) in enumerate(box):
        along = np.arange(a, b, dtype=np.int64) * prod(shape[axis + 1 :])
        found = found + along.reshape((-1,) + (1,) * (len(shape) - axis - 1))
    return found.reshape(-1)


def hull_of_places(places: Array | range, shape: Shape) -> Box:
    """Smallest box that contains some elements."""
    if not isinstance(places, range):
        return hull_of(places, shape)
    found: list[tuple[int, int]] = []
    apart = False  # whether the first and the last already differ along an axis before
    for axis, size in enumerate(shape):
        inner = prod(shape[axis + 1 :])
        low, high = places[0] // inner % size, places[-1] // inner % size
        found.append((0, size) if apart else (low, high + 1))
        apart = apart or low != high
    return tuple(found)


def _shared(box: Box, region: Region) -> int:
    """Number of elements of a box that lie in a part."""
    if len(box) != len(region.start):
        return 0
    return prod(
        max(0, min(stop, b) - max(start, a))
        for (start, stop), a, b in zip(box, region.start, region.stop, strict=True)
    )
