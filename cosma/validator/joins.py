"""Joins: whether a root that nobody writes consists of what the model's operators make of their operands.

Every element of the tensors that a plan's operators write gets a number, and the operators that the plan leaves out
move these numbers: by the ONNX nodes themselves where the file is given, else as the graph read from the model says.
What comes out must be the numbers of the pieces, each where the plan says that it lies.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.validator.needs import is_view
from cosma.validator.parts import joining_operators
from cosma.validator.verdicts import Verdict, Violation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnx import NodeProto

    from cosma.accelerator import Accelerator
    from cosma.graph import Graph, Operator, Piece, Tensor
    from cosma.validator.needs import Needs

    Array = np.ndarray[Any, np.dtype[np.int64]]


def check_joins(planned: Graph, accelerator: Accelerator) -> list[Violation]:
    """Check that joins are allowed, and that operators read all pieces that they say they read."""
    if not planned.joins:
        return []
    found = []
    has_tiles = planned.is_tiled
    if not (has_tiles if accelerator.zero_copy is None else accelerator.zero_copy):
        why = "is for plans of tiles unless it is asked for" if accelerator.zero_copy is None else "is off"
        message = f"{len(planned.joins)} tensors are never written as such, but zero-copy {why}"
        found.append(Violation(Verdict.ZERO_COPY_FORBIDDEN, None, message))
    stored = {
        piece.tensor
        for join in planned.joins.values() if planned.roots[join.root].kind == "output"
        for piece in join.pieces
        if not continues(planned.roots[join.root], planned.tensors[piece.tensor], piece)
    }  # fmt: skip
    states: dict[str, str] = {}
    for root in (planned.roots[name] for name in planned.joins):
        if root.state is None:
            continue
        before = planned.tensors.get(root.state)
        if before is None or before.kind != "input" or states.setdefault(root.state, root.name) != root.name:
            message = f"{root.name!r} is to be the next value of {root.state!r}, which is no graph input of its own"
            found.append(Violation(Verdict.JOIN_WRONG, None, message))
    for name in sorted(stored):
        if planned.tensors[name].kind != "output":
            message = f"{name!r} is a piece of a graph output, but no output itself"
            found.append(Violation(Verdict.JOIN_WRONG, None, message))
    return found


def continues(root: Tensor, tensor: Tensor, piece: Piece) -> bool:
    """Whether a piece of a graph output is the graph input whose next value the output is, and lies where that was.

    Such a piece is off-chip where the output is to be, and needs no store.
    """
    is_state = tensor.kind == "input" and tensor.name == root.state and tensor.region is None
    return is_state and all(start == 0 for start in piece.region.start)


def wrong_joins(planned: Graph, model: Graph, needs: Needs | None = None) -> list[Violation]:
    """Find joins that are not what the model makes of their pieces; ``needs`` is of the model's file, where given."""
    if not planned.joins:
        return []
    numbers = _Numbers(planned, model, needs)
    makers = {name: o for o in joining_operators(planned, model) for name in o.outputs}
    for name in makers:  # in the model's order, so that each finds what it is made of
        numbers.of(name)
    found = []
    for name in planned.joins:
        expected = numbers.of(name) if name in makers else None
        if expected is None:
            message = f"{name!r} is a join in the plan, but not known to be one in the model"
        elif not np.array_equal(expected, numbers.claimed(name)):
            wrong = int((expected != numbers.claimed(name)).sum())
            message = f"{wrong} of {expected.size} elements of {name!r} are not where its pieces have them"
        else:
            continue
        found.append(Violation(Verdict.JOIN_WRONG, None, message))
    return found


class _Numbers:
    """Numbers of elements, by tensor: those of the model that are stored, and what is made of them by moving."""

    def __init__(self, planned: Graph, model: Graph, needs: Needs | None) -> None:
        self._planned, self._model, self._needs = planned, model, needs
        self._first: dict[str, int] = {}
        at = 0
        known = {**planned.tensors, **planned.roots}
        for name in known:
            tensor = model.tensors.get(name)
            if tensor is not None and tensor.shape is not None and name not in planned.joins:
                self._first[name] = at
                at += prod(tensor.shape)
        self._makers = {name: o for o in model.operators for name in o.outputs}
        self._found: dict[str, Array | None] = {}

    def claimed(self, name: str) -> Array:
        """Numbers of a join's elements by its pieces; -1 where no piece lies."""
        shape = self._planned.roots[name].shape or ()
        found = np.full(shape, -1, dtype=np.int64)
        for piece in self._planned.joins[name].pieces:
            if not piece.region.is_within(shape):
                continue
            numbers = self._of_piece(piece.tensor)
            if numbers is not None and numbers.size == piece.region.count:
                found[piece.region.slices] = numbers.reshape(piece.region.shape)
        return found

    def _of_piece(self, name: str) -> Array | None:
        region = self._planned.tensors[name].region
        if region is None:
            return self._stored(name)
        shape = self._model.tensors[region.root].shape if region.root in self._first else None
        if shape is None or not region.is_within(shape):
            return None
        # Numbers of the part alone: the whole root for each of thousands of parts took most of the time of a replay.
        found: Array = np.array(self._first[region.root], dtype=np.int64)
        for axis, (start, stop) in enumerate(zip(region.start, region.stop, strict=True)):
            found = np.add.outer(found, np.arange(start, stop, dtype=np.int64) * prod(shape[axis + 1 :]))
        return found

    def _stored(self, name: str) -> Array | None:
        if name not in self._first:
            return None
        shape = self._model.tensors[name].shape or ()
        first = self._first[name]
        return np.arange(first, first + prod(shape), dtype=np.int64).reshape(shape)

    def of(self, name: str) -> Array | None:
        """Numbers of a tensor's elements, as the model moves them; None where that is not known."""
        if name in self._found:
            return self._found[name]
        found = self._stored(name)
        if found is None and name in self._planned.joins:
            operator = self._makers.get(name)
            results = None if operator is None else self._moved(operator)
            if operator is not None and results is not None:
                self._found |= dict(zip(operator.outputs, results, strict=False))
            found = self._found.get(name)
        elif found is None and self._needs is not None:
            found = self._of_view(name)
        self._found[name] = found
        return found

    def _moved(self, operator: Operator) -> Sequence[Array] | None:
        if self._needs is not None:
            return self._by_node(operator)
        given = [self.of(name) for name in operator.inputs]
        if any(numbers is None for numbers in given):
            return None
        return _by_graph(self._model, operator, [numbers for numbers in given if numbers is not None])

    def _of_view(self, name: str) -> Array | None:
        """Numbers of what is no tensor of the graph, because it is another one in another shape or as it is."""
        assert self._needs is not None
        node = self._needs.maker(name)
        if node is None or node.domain not in ("", "ai.onnx"):
            return None
        if node.op_type in AS_IT_IS:
            return self.of(node.input[0])
        moved = self._run(node) if is_view(node) or node.op_type in MOVING else None
        return None if moved is None else moved[list(node.output).index(name)]

    def _by_node(self, operator: Operator) -> Sequence[Array] | None:
        assert self._needs is not None
        node = next((n for name in operator.outputs if (n := self._needs.maker(name)) is not None), None)
        if node is None or node.domain not in ("", "ai.onnx") or node.op_type not in MOVING:
            return None
        results = self._run(node)
        if results is None:
            return None
        by_name = dict(zip(node.output, results, strict=False))
        return [by_name[name] for name in operator.outputs] if set(operator.outputs) <= by_name.keys() else None

    def _run(self, node: NodeProto) -> Sequence[Array] | None:
        """Run a node on the numbers of its operands."""
        assert self._needs is not None
        operands: list[Array | None] = []
        for name in node.input:
            known = None if not name else self.of(name) if self._is_activation(name) else self._needs.constant(name)
            if name and known is None:
                return None
            operands.append(known)
        return self._needs.run(node, operands)

    def _is_activation(self, name: str) -> bool:
        return self._needs is not None and self._needs.leaves(name) is None


#: Operators of which every result consists of elements of the operands that are no constants.
MOVING = ("Concat", "Gather", "Slice", "Split")
#: Operators that may hand on their first operand as it is: where the graph has no tensor for the result, they do.
AS_IT_IS = ("Cast", "CastLike", "Dropout")


def _by_graph(model: Graph, operator: Operator, given: Sequence[Array]) -> Sequence[Array] | None:
    """What an operator makes of numbers, by its attributes and by the boxes that the graph says it reads."""
    shapes = [model.tensors[name].shape or () for name in operator.outputs]
    axis = dict(operator.attributes).get("axis", 0 if operator.type == "Split" else None)
    if operator.fused or operator.domain:
        return None
    if operator.type in ("Concat", "Split") and isinstance(axis, int) and shapes[0]:
        # Operands may be views, in the shape that the result's asks for.
        along = axis % len(shapes[0])
        rest = shapes[0][:along], shapes[0][along + 1 :]
        if any(not numbers.size or numbers.size % max(1, prod((*rest[0], *rest[1]))) for numbers in given):
            return None
        seen = [numbers.reshape((*rest[0], -1, *rest[1])) for numbers in given]
        if operator.type == "Concat":
            return [np.concatenate(seen, axis=along)]
        ends = np.cumsum([shape[along] for shape in shapes])
        return np.split(seen[0], ends[:-1], axis=along) if len(seen) == 1 and ends[-1] == seen[0].shape[along] else None
    if operator.type in ("Gather", "Slice") and len(operator.reads) == 1 and len(given) == 1:
        region = operator.reads[0]
        if region.is_within(given[0].shape) and region.count == prod(shapes[0]):
            return [given[0][region.slices].reshape(shapes[0])]
    return None

