"""Exact result types of ONNX's own operators where its inference does not cover them, the oldest versions above all.

Each rule takes the node and its operands' types and returns the types of its results, or None where the rule
does not apply. Rules follow the published operator definitions; none of them guesses.
"""

from __future__ import annotations

from collections.abc import Callable

from cosma.frontend.nodes import Node
from cosma.frontend.values import Operands, TensorType
from cosma.frontend.window_rules import scaled

Rule = Callable[[Node, Operands], list[TensorType] | None]


def _like_first(node: Node, operands: Operands) -> list[TensorType] | None:
    """One result of the first operand's type."""
    first = operands[0] if operands else None
    return None if first is None else [first.type]


def _legacy_arithmetic(node: Node, operands: Operands) -> list[TensorType] | None:
    """Before opset 7 the second operand was broadcast to the first, and only on request."""
    if len(operands) < 2 or operands[0] is None or operands[1] is None:
        return None
    if not node.integer("broadcast", 0) and operands[0].shape != operands[1].shape:
        return None
    return [operands[0].type]


def _legacy_reshape(node: Node, operands: Operands) -> list[TensorType] | None:
    """Before opset 5 the shape was an attribute; 0 copies a dimension, -1 takes what is left."""
    shape = node.integers("shape")
    first = operands[0] if operands else None
    if shape is None or first is None or (0 in shape[len(first.shape) :]):
        return None
    result = [first.shape[axis] if d == 0 else d for axis, d in enumerate(shape)]
    known = 1
    for d in result:
        known *= 1 if d == -1 else d
    if result.count(-1) > 1 or (-1 in result and (known == 0 or first.count % known)):
        return None
    resolved = tuple(first.count // known if d == -1 else d for d in result)
    return [TensorType(first.element, resolved)]


def _legacy_gemm(node: Node, operands: Operands) -> list[TensorType] | None:
    if len(operands) < 2 or operands[0] is None or operands[1] is None:
        return None
    a, b = operands[0], operands[1]
    if len(a.shape) != 2 or len(b.shape) != 2:
        return None
    rows, inner = a.shape if not node.integer("transA", 0) else a.shape[::-1]
    other, columns = b.shape if not node.integer("transB", 0) else b.shape[::-1]
    return [TensorType(a.element, (rows, columns))] if inner == other else None


def _legacy_concat(node: Node, operands: Operands) -> list[TensorType] | None:
    """Opset 1: the axis was optional and 1 by default."""
    parts = [operand for operand in operands if operand is not None]
    axis = node.integer("axis", 1)
    if not parts or axis is None or not 0 <= axis < len(parts[0].shape):
        return None
    rest = {part.shape[:axis] + part.shape[axis + 1 :] for part in parts}
    if len(rest) > 1:
        return None
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    return [TensorType(parts[0].element, tuple(shape))]


def _legacy_upsample(node: Node, operands: Operands) -> list[TensorType] | None:
    """Opset 1: scales of height and width as attributes, rounded down."""
    height, width = node.attributes.get("height_scale"), node.attributes.get("width_scale")
    first = operands[0] if operands else None
    if height is None or width is None or first is None or len(first.shape) != 4:
        return None
    n, c, h, w = first.shape
    return [TensorType(first.element, (n, c, scaled(h, height.f), scaled(w, width.f)))]


def _legacy_cast(node: Node, operands: Operands) -> list[TensorType] | None:
    """Before opset 6 the type was named by a string."""
    from onnx import TensorProto

    to = node.attributes.get("to")
    first = operands[0] if operands else None
    if to is None or first is None or not to.s:
        return None
    try:
        return [TensorType(TensorProto.DataType.Value(to.s.decode("ascii", "replace").upper()), first.shape)]
    except ValueError:
        return None


def _legacy_pad(node: Node, operands: Operands) -> list[TensorType] | None:
    """Opset 1 called the amounts ``paddings``: all begins, then all ends."""
    amounts = node.integers("paddings")
    first = operands[0] if operands else None
    if amounts is None or first is None or len(amounts) != 2 * len(first.shape):
        return None
    half = len(first.shape)
    return [TensorType(first.element, tuple(d + amounts[i] + amounts[half + i] for i, d in enumerate(first.shape)))]


#: Rules for ONNX's own operators in versions that carry no inference, up to opset 6.
LEGACY_RULES: dict[str, Rule] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow"), _legacy_arithmetic),
    **dict.fromkeys(
        (
            "Abs", "BatchNormalization", "Ceil", "Clip", "Dropout", "Elu", "Exp", "Floor", "HardSigmoid",
            "InstanceNormalization", "LRN", "LeakyRelu", "Log", "LogSoftmax", "LpNormalization", "Neg", "PRelu",
            "Reciprocal", "Relu", "Selu", "Sigmoid", "Softmax", "Softplus", "Softsign", "Sqrt", "Tanh", "Max", "Min",
            "Sum", "Mean", "MeanVarianceNormalization",
        ),
        _like_first,
    ),
    "Cast": _legacy_cast, "Concat": _legacy_concat, "Gemm": _legacy_gemm, "Pad": _legacy_pad,
    "Reshape": _legacy_reshape, "Upsample": _legacy_upsample,
}  # fmt: skip


#: Rules for ONNX's own operators in every version, where onnx's inference fails on legal nodes or does not exist.
ALWAYS_RULES: dict[str, Rule] = {"GroupNormalization": _like_first, "MeanVarianceNormalization": _like_first}
