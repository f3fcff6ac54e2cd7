"""Sequences of tensors, resolved while the model is read: a sequence is the list of its tensors.

Taking an element out of a sequence or putting one in moves no data. Splitting into a sequence and joining one are
operators over the elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cosma.errors import ModelLoadError
from cosma.frontend.guards import MOST_PIECES
from cosma.frontend.loaded import NodeFate
from cosma.frontend.nodes import Node, make_node
from cosma.frontend.records import Step
from cosma.frontend.values import Operands, Value

if TYPE_CHECKING:
    from cosma.frontend.walk_state import WalkState

_PRODUCERS = frozenset({"SequenceConstruct", "SequenceEmpty", "SplitToSequence"})


class SequenceNodes:
    """Handles the nodes that make, change and read sequences."""

    def __init__(self, walk: WalkState) -> None:
        self._walk = walk

    def handle(self, node: Node, operands: Operands) -> bool:
        """Handle a node if it makes or reads a sequence.

        Raises ModelLoadError if it needs an index or a length that is known only when the model runs.
        """
        first = operands[0] if operands else None
        reads_sequence = any(operand is not None and operand.elements is not None for operand in operands)
        if node.domain or not (reads_sequence or node.type in _PRODUCERS):
            return False
        if node.type == "SequenceConstruct":
            self._view(node, tuple(operand for operand in operands if operand is not None))
        elif node.type == "SequenceEmpty":
            self._view(node, ())
        elif node.type == "SplitToSequence" and first is not None:
            self._split(node, first, operands)
        elif first is None or first.elements is None:
            raise ModelLoadError(
                f"{node} reads a sequence where it takes a tensor; export it with tensors, joined or stacked"
            )
        elif node.type == "SequenceAt":
            self._take(node, first.elements, operands)
        elif node.type == "ConcatFromSequence":
            self.join(node, first.elements)
        elif node.type == "SequenceInsert":
            at = self._index(node, operands, 2, len(first.elements), behind=True)
            assert operands[1] is not None
            self._view(node, (*first.elements[:at], operands[1], *first.elements[at:]))
        elif node.type == "SequenceErase":
            at = self._index(node, operands, 1, len(first.elements))
            self._view(node, first.elements[:at] + first.elements[at + 1 :])
        elif node.type == "SequenceLength":
            import numpy as np

            self._walk.add_array(node, np.array(len(first.elements), dtype=np.int64))
        elif node.type == "Identity":
            self._view(node, first.elements)
        else:
            raise ModelLoadError(f"{node} works on a sequence in a way that is not understood; export it with tensors")
        return True

    def _view(self, node: Node, elements: tuple[Value, ...]) -> None:
        name = node.first_output
        value = Value(name, 0, (), name, elements=elements)
        self._walk.values[name] = value
        constant = all(element.constant for element in elements)
        fate = NodeFate.FOLDED if constant else NodeFate.VIEW
        self._walk.steps.append(Step(node, fate, elements, (value,)))

    def _index(self, node: Node, operands: Operands, position: int, length: int, *, behind: bool = False) -> int:
        """Position in a sequence that an operand says, by default the last one.

        A negative one counts from the end of the sequence as it is, also where something is put in: -1 is before the
        last element. The position behind the last is one only there.
        """
        last = length if behind else length - 1
        operand = operands[position] if position < len(operands) else None
        if operand is None:
            return last
        array = self._walk.evaluator.array(operand) if operand.constant else None
        if array is None or array.size != 1:
            raise ModelLoadError(
                f"{node}: its position {operand.name!r} is known only when the model runs, so which tensor it means "
                "is not known; export the model with a fixed position"
            )
        at = int(array.reshape(()))
        if not -length <= at <= last:
            raise ModelLoadError(f"{node}: position {at} is outside a sequence of {length}")
        return at + length if at < 0 else at

    def _take(self, node: Node, elements: tuple[Value, ...], operands: Operands) -> None:
        if len(operands) < 2 or operands[1] is None:
            raise ModelLoadError(f"{node} lacks its position")
        element = elements[self._index(node, operands, 1, len(elements))]
        # An element of a split has no name of its own until it is first taken out.
        if element.name in self._walk.parts:
            self._walk.renamed.setdefault(element.name, node.first_output)
        self._walk.add_view(node, element, element.type)

    def _split(self, node: Node, operand: Value, operands: Operands) -> None:
        name, axis = node.first_output, node.integer("axis", 0) or 0
        if not -len(operand.shape) <= axis < len(operand.shape):
            raise ModelLoadError(f"{node}: axis {axis} is outside {operand.type}")
        axis %= len(operand.shape)
        drop = len(operands) < 2 and not node.integer("keepdims", 1)
        elements = []
        for i, size in enumerate(self._sizes(node, operand.shape[axis], operands)):
            shape = (*operand.shape[:axis], *(() if drop else (size,)), *operand.shape[axis + 1 :])
            part = f"{name}\0{i}"  # no name of the model: until it gets one
            self._walk.parts[part] = (name, i)
            value = Value(part, operand.element, shape, part, constant=operand.constant)
            value.stored = (part,) if operand.constant else ()
            elements.append(value)
        self._walk.values[name] = Value(name, 0, (), name, elements=tuple(elements))
        fate = NodeFate.FOLDED if operand.constant else NodeFate.OPERATOR
        self._walk.steps.append(Step(node, fate, (operand,), tuple(elements)))

    def _sizes(self, node: Node, total: int, operands: Operands) -> list[int]:
        operand = operands[1] if len(operands) > 1 else None
        if operand is None:
            _check_pieces(node, total)
            return [1] * total
        array = self._walk.evaluator.array(operand) if operand.constant else None
        if array is None:
            raise ModelLoadError(f"{node}: the sizes it splits into, {operand.name!r}, are not known in advance")
        if array.ndim == 0:
            size = int(array)
            if size <= 0:
                raise ModelLoadError(f"{node}: splits into pieces of {size}")
            _check_pieces(node, -(-total // size))
            return [min(size, total - start) for start in range(0, total, size)]
        if array.ndim != 1:
            raise ModelLoadError(f"{node}: the sizes it splits into, {operand.name!r}, are no list: {operand.type}")
        sizes = [int(size) for size in array]
        if sum(sizes) != total or min(sizes, default=0) < 0:
            raise ModelLoadError(f"{node}: splits {total} into {sizes}, which do not add up")
        return sizes

    def join(self, node: Node, elements: tuple[Value, ...]) -> None:
        """Record a node that joins tensors along an axis; raises ModelLoadError if they do not fit."""
        axis, new = node.integer("axis", 0) or 0, bool(node.integer("new_axis", 0))
        if not elements:
            raise ModelLoadError(f"{node} joins an empty sequence")
        rank = len(elements[0].shape) + new
        if not -rank <= axis < rank:
            raise ModelLoadError(f"{node}: axis {axis} is outside rank {rank}")
        axis %= rank
        shape = list(elements[0].shape)
        rests = {e.shape if new else e.shape[:axis] + e.shape[axis + 1 :] for e in elements}
        if len(rests) > 1 or len({e.element for e in elements}) > 1:
            types = ", ".join(str(element.type) for element in elements)
            raise ModelLoadError(f"{node} joins tensors that do not fit: {types}")
        if new:
            shape.insert(axis, len(elements))
        else:
            shape[axis] = sum(e.shape[axis] for e in elements)
        name = node.first_output
        constant = all(element.constant for element in elements)
        value = Value(name, elements[0].element, tuple(shape), name, constant=constant)
        value.stored = (name,) if constant else ()
        self._walk.values[name] = value
        self._walk.steps.append(
            Step(node, NodeFate.FOLDED if constant else NodeFate.OPERATOR, elements, (value,))
        )


    def stack(self, name: str, elements: Sequence[Value]) -> Value:
        """Record that tensors are joined along a new first axis under a name."""
        from onnx import helper

        sequence = f"{name}[]"
        self._walk.values[sequence] = Value(sequence, 0, (), sequence, elements=tuple(elements))
        node = make_node(helper.make_node("ConcatFromSequence", [sequence], [name], axis=0, new_axis=1))
        self.join(node, tuple(elements))
        return self._walk.values[name]


def _check_pieces(node: Node, pieces: int) -> None:
    if pieces > MOST_PIECES:
        raise ModelLoadError(f"{node} splits into {pieces} pieces; at most {MOST_PIECES} are taken")
