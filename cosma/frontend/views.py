"""Which nodes move no data: their result is their operand, byte for byte."""

from __future__ import annotations

from collections.abc import Sequence

from cosma.frontend.evaluate import Evaluator
from cosma.frontend.nodes import Node
from cosma.frontend.values import TensorType, Value
from cosma.graph.semantics import is_training
from cosma.graph.tensor import Part

_ALWAYS = frozenset({"Flatten", "Identity", "Optional", "OptionalGetElement", "Reshape", "Squeeze", "Unsqueeze"})
#: Views where the result has the operand's type and shape.
_SAME_TYPE = frozenset({"Cast", "CastLike", "Expand", "Pad", "Tile"})
#: Operators over any number of operands that do nothing to a single one.
_SINGLE_OPERAND = frozenset({"Concat", "Max", "Mean", "Min", "Sum"})


def is_view(
    node: Node, part: Part, operands: Sequence[Value | None], result: TensorType, evaluator: Evaluator
) -> bool:
    """Whether a node's first result is its first operand, laid out in the same bytes; further results must be unread.

    Operands are by position, None for an absent one. ``result`` is the type of the first result, fully known.
    """
    first = operands[0] if operands else None
    if node.domain or first is None or first.elements is not None:
        return False
    if node.type in _ALWAYS:
        return True
    if node.type == "Dropout":
        return not is_training(part)
    if node.type == "Transpose":
        return _keeps_layout(node, first.shape)
    if result != first.type:
        return False
    if node.type == "Slice":
        return _steps_forward(operands, evaluator)
    if node.type == "Pad":
        return _pads_nothing(node, operands, evaluator)
    return node.type in _SAME_TYPE or (
        node.type in _SINGLE_OPERAND and sum(operand is not None for operand in operands) == 1
    )


def _keeps_layout(node: Node, shape: tuple[int, ...]) -> bool:
    """Whether a Transpose leaves the order of all dimensions larger than one as it is."""
    order = node.integers("perm") or tuple(reversed(range(len(shape))))
    moved = [axis for axis in order if 0 <= axis < len(shape) and shape[axis] != 1]
    return len(order) == len(shape) and moved == sorted(moved)


def _steps_forward(operands: Sequence[Value | None], evaluator: Evaluator) -> bool:
    """Whether a Slice whose result has its operand's shape takes the elements in their order."""
    steps = operands[4] if len(operands) > 4 else None
    if steps is None:
        return True
    array = evaluator.array(steps) if steps.constant else None
    return array is not None and all(int(step) > 0 for step in array.tolist())


def _pads_nothing(node: Node, operands: Sequence[Value | None], evaluator: Evaluator) -> bool:
    """Whether all amounts are zero: equal shapes alone could hide a crop on one side."""
    amounts = node.integers("pads") or node.integers("paddings")
    if amounts is not None:
        return not any(amounts)
    pads = operands[1] if len(operands) > 1 else None
    array = evaluator.array(pads) if pads is not None and pads.constant else None
    return array is not None and not array.any()
