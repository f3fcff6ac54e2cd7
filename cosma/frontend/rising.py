"""Sizes that are known only at run time, and constants that are computed from them.

A tensor of such a size is planned for the most that it can hold. A constant computed from the largest sizes stands for
those of every run only where it rises with them, and where what it decides is largest when it is largest. So each such
value is also followed at the least sizes (:attr:`Value.low`). A result that is larger there is not planned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cosma.frontend.nodes import Node
from cosma.frontend.values import Operands, TensorType, Value, lowest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cosma.frontend.evaluate import Evaluator

#: Parameters with which results grow, by position.
_GROWS = {
    "AffineGrid": 1, "CenterCropPad": 1, "ConstantOfShape": 0, "Expand": 1, "OneHot": 1, "Range": 1, "Reshape": 1,
    "Resize": 3, "Slice": 2, "Split": 1, "Tile": 1, "TopK": 1,
}  # fmt: skip
#: Operators of which results rise with the operands at these positions, all others fixed.
_RISES: dict[str, tuple[int, ...] | None] = {
    **dict.fromkeys(("Add", "Concat", "Max", "Min", "Mul", "Sum")),
    **dict.fromkeys(
        (
            "Cast", "Ceil", "Div", "Flatten", "Floor", "Gather", "Identity", "ReduceMax", "ReduceMin", "ReduceProd",
            "ReduceSum", "Relu", "Round", "Slice", "Split", "Squeeze", "Sub", "Transpose", "Unsqueeze",
        ),
        (0,),
    ),
    **dict.fromkeys(("Expand", "Reshape", "Tile"), (0, 1)),
    "ConstantOfShape": (0,), "Range": (1,), "Where": (1, 2),
}  # fmt: skip
#: Those of them that rise as long as nothing is negative.
_UNSIGNED = frozenset({"Div", "Mul", "ReduceProd", "ReduceSum"})


def may_rise(node: Node, position: int) -> bool:
    """Whether results are largest where a parameter is largest."""
    return not node.domain and _GROWS.get(node.type) == position


def vary(values: Iterable[Value | None]) -> bool:
    """Whether some value differs between runs in its size, or in content that follows from sizes."""
    return any(value is not None and value.low is not None for value in values)


def least(size: int) -> int:
    """A size to follow a tensor at that may hold less: broadcasting and windows still work where it is 1."""
    return min(1, size - 1) if size else 0


def rises(node: Node, operands: Operands, evaluator: Evaluator) -> bool:
    """Whether constant results of a node rise with every operand that rests on sizes known only at run time."""
    if not node.domain and node.type == "Equal":
        return _asks_for_marks(operands, evaluator)
    if node.domain or node.type not in _RISES:
        return False
    positions = _RISES[node.type]
    if positions is not None and any(vary((value,)) for i, value in enumerate(operands) if i not in positions):
        return False
    if node.type in _UNSIGNED:
        for value in (*operands, *lowest(operands)):
            array: Any = None if value is None else evaluator.array(value, most=True)
            if value is not None and (array is None or bool((array < 0).any())):
                return False
    return True


def _asks_for_marks(operands: Operands, evaluator: Evaluator) -> bool:
    """Whether sizes are compared with numbers that are none, as exporters mark what a shape leaves open."""
    marks: list[Any] = [evaluator.array(value) for value in operands if value is not None and value.low is None]
    sizes: list[Any] = [evaluator.array(value.low) for value in operands if value is not None and value.low is not None]
    if len(marks) != 1 or len(sizes) != 1 or marks[0] is None or sizes[0] is None:
        return False
    return bool((marks[0] < 0).all() and (sizes[0] >= 0).all())


def settle_low(value: Value, node: Node, operands: Operands, found: TensorType, evaluator: Evaluator) -> None:
    """Set what a folded constant is at the least sizes, or that its content is known only at run time."""
    assert value.source is not None
    if not vary(operands):
        return
    shape = value.shape if found.low is None else found.low
    low = Value(value.name, value.element, shape, value.root, constant=True, stored=value.stored)
    low.source = (value.source[0], lowest(operands), value.source[2])
    if not rises(node, operands, evaluator):
        evaluator.withhold(value)
        evaluator.withhold(low)
        value.low = low
        return
    most, fewest = evaluator.array(value), evaluator.array(low)
    if most is None or fewest is None or most.shape != fewest.shape or bool((most != fewest).any()):
        value.low = low
