"""Exact result types of operators ONNX's own inference does not cover: ONNX Runtime's and ONNX's oldest.

Each rule takes the node and its operands' types and returns the types of its results, or None where the rule
does not apply. Rules follow the published operator definitions; none of them guesses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cosma.frontend.nodes import Node
from cosma.frontend.values import TensorType, Value
from cosma.frontend.window_rules import pooled, scaled

Operands = Sequence[Value | None]
Rule = Callable[[Node, Operands], list[TensorType] | None]


def _like_first(node: Node, operands: Operands) -> list[TensorType] | None:
    """One result of the first operand's type."""
    first = operands[0] if operands else None
    return None if first is None else [first.type]


def _broadcast(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...] | None:
    rank = max(map(len, shapes))
    result = []
    for axis in range(-rank, 0):
        sizes = {shape[axis] for shape in shapes if -axis <= len(shape)} - {1}
        if len(sizes) > 1:
            return None
        result.append(sizes.pop() if sizes else 1)
    return tuple(result)


def _broadcast_pair(positions: tuple[int, int]) -> Rule:
    def rule(node: Node, operands: Operands) -> list[TensorType] | None:
        found = [operands[i] for i in positions if i < len(operands)]
        if len(found) < 2 or found[0] is None or found[1] is None:
            return None
        shape = _broadcast([found[0].shape, found[1].shape])
        return None if shape is None else [TensorType(found[0].element, shape)]

    return rule


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


#: Rules for ONNX's own operators in every version, where onnx's inference fails on legal nodes.
ALWAYS_RULES: dict[str, Rule] = {"MeanVarianceNormalization": _like_first}


def _fused_matmul(node: Node, operands: Operands) -> list[TensorType] | None:
    """MatMul with either operand's last two dimensions swapped; batch transposition is left to value_info."""
    if len(operands) < 2 or operands[0] is None or operands[1] is None:
        return None
    if node.integer("transBatchA", 0) or node.integer("transBatchB", 0):
        return None
    a, b = operands[0].shape, operands[1].shape
    if min(len(a), len(b)) < 2:
        return None
    a = a[:-2] + a[:-3:-1] if node.integer("transA", 0) else a
    b = b[:-2] + b[:-3:-1] if node.integer("transB", 0) else b
    batch = _broadcast([a[:-2], b[:-2]]) if a[:-2] or b[:-2] else ()
    if batch is None or a[-1] != b[-2]:
        return None
    return [TensorType(operands[0].element, (*batch, a[-2], b[-1]))]


def _qgemm(node: Node, operands: Operands) -> list[TensorType] | None:
    """``(A, a_scale, a_zero, B, b_scale, b_zero, C?, y_scale?, y_zero?)``: float without an output scale."""
    if len(operands) < 6 or operands[0] is None or operands[3] is None:
        return None
    typed = _legacy_gemm(node, (operands[0], operands[3]))
    if typed is None:
        return None
    quantized = len(operands) > 7 and operands[7] is not None
    return [TensorType(operands[0].element if quantized else 1, typed[0].shape)]


def _skip_normalization(node: Node, operands: Operands) -> list[TensorType] | None:
    """Output; mean and inverse deviation of every row; the sum before normalisation."""
    first = operands[0] if operands else None
    if first is None or not first.shape:
        return None
    row = TensorType(1, (*first.shape[:-1], 1))
    return [first.type, row, row, first.type]


def _quantize(node: Node, operands: Operands) -> list[TensorType] | None:
    if not operands or operands[0] is None:
        return None
    zero = operands[2] if len(operands) > 2 else None
    return [TensorType(2 if zero is None else zero.element, operands[0].shape)]


def _dequantize(node: Node, operands: Operands) -> list[TensorType] | None:
    if len(operands) < 2 or operands[0] is None or operands[1] is None:
        return None
    return [TensorType(operands[1].element, operands[0].shape)]


def _qlinear_concat(node: Node, operands: Operands) -> list[TensorType] | None:
    """``(y_scale, y_zero, x0, x0_scale, x0_zero, x1, ...)``."""
    return _legacy_concat(node, [operands[i] for i in range(2, len(operands), 3)])


def _matmul_nbits(node: Node, operands: Operands) -> list[TensorType] | None:
    columns, inner = node.integer("N"), node.integer("K")
    first = operands[0] if operands else None
    if first is None or not first.shape or columns is None or first.shape[-1] != inner:
        return None
    return [TensorType(first.element, (*first.shape[:-1], columns))]


def _integer_matmul(element_from: int | None) -> Rule:
    """MatMul of the first two operands whose result has another operand's element type, or float32."""

    def rule(node: Node, operands: Operands) -> list[TensorType] | None:
        typed = _fused_matmul(node, operands)
        scale = operands[element_from] if element_from is not None and element_from < len(operands) else None
        return None if typed is None else [TensorType(1 if scale is None else scale.element, typed[0].shape)]

    return rule


def _global_pool(node: Node, operands: Operands) -> list[TensorType] | None:
    first = operands[0] if operands else None
    if first is None or len(first.shape) < 3:
        return None
    ones = (1,) * (len(first.shape) - 2)
    shape = (first.shape[0], *ones, first.shape[-1]) if node.integer("channels_last", 0) else (*first.shape[:2], *ones)
    return [TensorType(first.element, shape)]


def _pool(node: Node, operands: Operands) -> list[TensorType] | None:
    """Pooling of the axes between channels and batch, or of all behind both."""
    first = operands[0] if operands else None
    if first is None or len(first.shape) < 3:
        return None
    last = node.type == "NhwcMaxPool" or bool(node.integer("channels_last", 0))
    sizes = pooled(node, first.shape[1:-1] if last else first.shape[2:])
    if sizes is None:
        return None
    shape = (first.shape[0], *sizes, first.shape[-1]) if last else (*first.shape[:2], *sizes)
    return [TensorType(first.element, shape)]


def _embed(node: Node, operands: Operands) -> list[TensorType] | None:
    """``(ids, segments, words, ...)``: embeddings, one mask index per sequence, the sum before normalisation."""
    if len(operands) < 3 or operands[0] is None or operands[2] is None or len(operands[0].shape) != 2:
        return None
    batch, length = operands[0].shape
    full = TensorType(operands[2].element, (batch, length, operands[2].shape[-1]))
    return [full, TensorType(6, (batch,)), full]


def _packed_attention(node: Node, operands: Operands) -> list[TensorType] | None:
    """``(input, weights of query, key and value side by side, ...)``: as wide as the values."""
    if len(operands) < 2 or operands[0] is None or operands[1] is None or len(operands[0].shape) != 3:
        return None
    sizes = node.integers("qkv_hidden_sizes")
    total = operands[1].shape[-1]
    if (sizes and len(sizes) != 3) or (not sizes and total % 3):
        return None
    return [TensorType(operands[0].element, (*operands[0].shape[:2], sizes[2] if sizes else total // 3))]


def _multi_head_attention(node: Node, operands: Operands) -> list[TensorType] | None:
    """``(query, key, value, ...)``, each ``[batch, length, width]``: the query's length, the value's width."""
    if len(operands) < 3 or operands[0] is None or operands[2] is None:
        return None
    query, value = operands[0], operands[2]
    if len(query.shape) != 3 or len(value.shape) != 3:
        return None
    return [TensorType(query.element, (*query.shape[:2], value.shape[-1]))]


#: Rules for ONNX Runtime's operators (domain ``com.microsoft``).
MICROSOFT_RULES: dict[str, Rule] = {
    **dict.fromkeys(
        (
            "BiasGelu", "FastGelu", "Gelu", "QuickGelu", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax",
            "RotaryEmbedding", "BiasDropout", "BiasSoftmax",
        ),
        _like_first,
    ),
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), _broadcast_pair((0, 3))),
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), _skip_normalization),
    "FusedGemm": _legacy_gemm, "FusedMatMul": _fused_matmul, "TransposeMatMul": _fused_matmul, "QGemm": _qgemm,
    "QuantizeLinear": _quantize, "DequantizeLinear": _dequantize, "QLinearConcat": _qlinear_concat,
    "MatMulNBits": _matmul_nbits, "DynamicQuantizeMatMul": _integer_matmul(None),
    "MatMulIntegerToFloat": _integer_matmul(2), "QLinearAveragePool": _pool, "NhwcMaxPool": _pool,
    "QLinearGlobalAveragePool": _global_pool,
    "EmbedLayerNormalization": _embed, "Attention": _packed_attention, "MultiHeadAttention": _multi_head_attention,
}  # fmt: skip

#: ONNX Runtime's operators whose result is typed as that of an ONNX operator on the first operands.
SAME_AS: dict[str, tuple[str, int]] = {"FusedConv": ("Conv", 3)}
