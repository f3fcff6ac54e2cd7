"""Result types of ONNX Runtime's own operators (domain ``com.microsoft``), one row each.

Source: ``docs/ContribOperators.md`` of microsoft/onnxruntime, and the operators' definitions in
``onnxruntime/core/graph/contrib_ops`` where that page says no shape. A rule yields one type per result, None where it
does not apply to the operands; a dimension that is known only at run time is None.
"""

from __future__ import annotations

from cosma.frontend import contrib_attention as attention
from cosma.frontend import contrib_products as products
from cosma.frontend.contrib_calls import (
    BOOL,
    FLOAT,
    INT8,
    INT32,
    INT64,
    UINT8,
    UINT32,
    Call,
    Rule,
    Types,
    broadcast,
    broadcast_of,
    like,
    matmul,
    reduced_shape,
)
from cosma.frontend.values import TensorType
from cosma.frontend.window_rules import pooled


def _normalized(*statistics: str) -> Rule:
    """Output as the operand, with the scale's type; statistics with one value for each normalized stretch."""

    def rule(call: Call) -> Types:
        shape, scale = call.shape(0), call.element(1)
        axis = call.integer("axis", -1)
        if shape is None or not scale or not -len(shape) <= axis < len(shape):
            return None
        kept = shape[: axis % len(shape)]
        rows = TensorType(FLOAT, kept + (1,) * (len(shape) - len(kept)))
        return [TensorType(scale, shape), *([rows] * len(statistics))]

    return rule


def _skip_normalization(call: Call) -> Types:
    """Output; mean and inverse deviation of every row; the sum before normalization."""
    shape = call.shape(0)
    if not shape:
        return None
    row = TensorType(FLOAT, (*shape[:-1], 1))
    return [call.type(0), row, row, call.type(0)]


def _quantize(call: Call) -> Types:
    return [TensorType(call.element(2) if call.has(2) else UINT8, call.shape(0))] if call.has(0) else None


def _dequantize(call: Call) -> Types:
    return [TensorType(call.element(1), call.shape(0))] if call.has(0) and call.has(1) else None


def _qlinear_concat(call: Call) -> Types:
    """``(y_scale, y_zero, x0, x0_scale, x0_zero, x1, ...)``."""
    parts = [call.shape(i) for i in range(2, len(call.operands), 3)]
    axis = call.integer("axis", 0)
    first = parts[0] if parts else None
    if first is None or not -len(first) <= axis < len(first):
        return None
    axis %= len(first)
    total = 0
    for part in parts:
        if part is None or part[:axis] + part[axis + 1 :] != first[:axis] + first[axis + 1 :]:
            return None
        total += part[axis]
    return [TensorType(call.element(2), (*first[:axis], total, *first[axis + 1 :]))]


def _reduced(element: int | None = None) -> Rule:
    def rule(call: Call) -> Types:
        shape = reduced_shape(call)
        return None if shape is None else [TensorType(call.element(0) if element is None else element, shape)]

    return rule


def _global_pool(call: Call) -> Types:
    shape = call.shape(0)
    if shape is None or len(shape) < 3:
        return None
    ones = (1,) * (len(shape) - 2)
    kept = (shape[0], *ones, shape[-1]) if call.integer("channels_last", 0) else (*shape[:2], *ones)
    return [TensorType(call.element(0), kept)]


def _pool(call: Call) -> Types:
    """Pooling over the axes between batch and channels where channels are last, else over those behind both."""
    shape = call.shape(0)
    if shape is None or len(shape) < 3:
        return None
    last = call.node.type == "NhwcMaxPool" or bool(call.integer("channels_last", 0))
    sizes = pooled(call.node, shape[1:-1] if last else shape[2:])
    if sizes is None:
        return None
    return [TensorType(call.element(0), (shape[0], *sizes, shape[-1]) if last else (*shape[:2], *sizes))]


def _embed(call: Call) -> Types:
    """Embeddings; one mask index per sequence; the sum before normalization."""
    ids, words = call.shape(0), call.shape(2)
    if ids is None or words is None or len(ids) != 2:
        return None
    element = FLOAT if call.node.type == "QEmbedLayerNormalization" else call.element(2)
    full = TensorType(element, (*ids, words[-1]))
    return [full, TensorType(INT32, ids[:1]), full]


def _half_of_last(call: Call) -> Types:
    """Two halves of the last axis become one; a second operand that is the other half leaves the first as it is."""
    shape = call.shape(0)
    if call.node.type == "SwiGLU" and call.has(1):
        return [call.type(0)]
    return [TensorType(call.element(0), (*shape[:-1], shape[-1] // 2))] if shape and shape[-1] % 2 == 0 else None


def _gather_block_quantized(call: Call) -> Types:
    """Rows of a quantized table, dequantized; bytes hold ``8 / bits`` elements of the last axis."""
    data, indices = call.shape(0), call.shape(1)
    axis = call.integer("gather_axis", 0)
    if not data or indices is None or not call.has(2) or not -len(data) <= axis < len(data):
        return None
    axis %= len(data)
    bits = call.integer("bits", 4)
    if call.element(0) == UINT8 and bits in (2, 4, 8):
        data = (*data[:-1], data[-1] * (8 // bits))
    return [TensorType(call.element(2), data[:axis] + indices + data[axis + 1 :])]


def _dropout(call: Call) -> Types:
    shape = call.shape(0)
    if shape is None:
        return None
    packed = call.node.type.startswith("Bitmask")
    count = call.operands[0].count if call.operands[0] is not None else 0
    mask = TensorType(UINT32, (-(-count // 32),)) if packed else TensorType(BOOL, shape)
    return [call.type(0), mask]


def _recurrent(call: Call) -> Types:
    """``Y [steps, directions, batch, hidden]``, and the last state and cell of each direction."""
    shape, hidden = call.shape(0), call.integer("hidden_size", 0)
    if shape is None or len(shape) != 3 or hidden <= 0:
        return None
    directions = 2 if call.node.text("direction", "forward") == "bidirectional" else 1
    state = TensorType(call.element(0), (directions, shape[1], hidden))
    return [TensorType(call.element(0), (shape[0], directions, shape[1], hidden)), state, state]


def _rfft(call: Call) -> Types:
    shape = call.shape(0)
    return [TensorType(call.element(0), (*shape[:-1], shape[-1] // 2 + 1, 2))] if shape else None


def _irfft(call: Call) -> Types:
    shape = call.shape(0)
    if shape is None or len(shape) < 2 or shape[-1] != 2 or shape[-2] < 1:
        return None
    return [TensorType(call.element(0), (*shape[:-2], 2 * (shape[-2] - 1)))]


def _crop_and_resize(call: Call) -> Types:
    shape, rois, crop = call.shape(0), call.shape(1), call.numbers(3)
    if shape is None or rois is None or crop is None or len(shape) != 4 or len(rois) != 2 or len(crop) != 2:
        return None
    return [TensorType(call.element(0), (rois[0], shape[1], *crop))]


def _unfold(call: Call) -> Types:
    shape, axis = call.shape(0), call.integer("dim", -1)
    size, step = call.integer("size", 0), call.integer("step", 1)
    if not shape or not -len(shape) <= axis < len(shape) or size < 1 or step < 1 or shape[axis] < size:
        return None
    axis %= len(shape)
    windows = (shape[axis] - size) // step + 1
    return [TensorType(call.element(0), (*shape[:axis], windows, *shape[axis + 1 :], size))]


def _torch_embedding(call: Call) -> Types:
    table, indices = call.shape(0), call.shape(1)
    return [TensorType(call.element(0), (*indices, table[1]))] if table and indices is not None else None


def _expand_dims(call: Call) -> Types:
    shape, axis = call.shape(0), call.numbers(1)
    if shape is None or axis is None or len(axis) != 1 or not -len(shape) - 1 <= axis[0] <= len(shape):
        return None
    at = axis[0] % (len(shape) + 1)
    return [TensorType(call.element(0), (*shape[:at], 1, *shape[at:]))]


def _restore_padding(call: Call) -> Types:
    packed, offsets = call.shape(0), call.shape(1)
    if packed is None or offsets is None or len(packed) != 2 or len(offsets) != 2:
        return None
    return [TensorType(call.element(0), (*offsets, packed[1]))]


def _remove_padding(call: Call) -> Types:
    """How many tokens are left is known only at run time."""
    shape = call.shape(0)
    if shape is None or len(shape) != 3:
        return None
    return [
        TensorType(call.element(0), (None, shape[2])), TensorType(INT32, shape[:2]), TensorType(INT32, (shape[0] + 1,)),
        TensorType(INT32, (1,)),
    ]  # fmt: skip


def _unique(call: Call) -> Types:
    return [TensorType(call.element(0), (None,)), TensorType(INT64, call.shape(0)), TensorType(INT64, (None,))]


def _cdist(call: Call) -> Types:
    a, b = call.shape(0), call.shape(1)
    if a is None or b is None or len(a) != 2 or len(b) != 2 or a[1] != b[1]:
        return None
    return [TensorType(call.element(0), (a[0], b[0]))]


def _murmur_hash(call: Call) -> Types:
    return [TensorType(UINT32 if call.integer("positive", 1) else INT32, call.shape(0))] if call.has(0) else None


def _causal_conv(call: Call) -> Types:
    """Depthwise along the last axis; the state keeps the operand's last ``(kernel - 1) * dilation`` steps."""
    shape, weight = call.shape(0), call.shape(1)
    if shape is None or weight is None or call.integer("input_channels", 0) or call.integer("state_window", 0):
        return None
    if call.has(3):
        return [call.type(0), call.type(3)]
    if len(shape) != 3 or len(weight) != 3 or call.integer("channels_last", 0):
        return [call.type(0)]
    state = (*shape[:2], (weight[2] - 1) * call.integer("dilation", 1))
    return [call.type(0), TensorType(call.element(0), state)]


def _cast_like_order(call: Call) -> Types:
    return [TensorType(call.integer("to", FLOAT), call.shape(0))] if call.has(0) else None


def _of(element: int) -> Rule:
    def rule(call: Call) -> Types:
        return [TensorType(element, call.shape(0))] if call.has(0) else None

    return rule


def _scalar_bool(call: Call) -> Types:
    return [TensorType(BOOL, ())]


def _relative_position_bias(call: Call) -> Types:
    table, query, key = call.shape(0), call.numbers(1), call.numbers(2)
    if table is None or len(table) != 2 or query is None or key is None or len(query) != 1 or len(key) != 1:
        return None
    return [TensorType(call.element(0), (1, table[1], query[0], key[0]))]


#: Rules by operator.
CONTRIB_RULES: dict[str, Rule] = {
    **dict.fromkeys(
        (
            "BiasAdd", "BiasGelu", "BiasSoftmax", "BranchwiseRMSNorm", "FastGelu", "GatedAdd", "GatedRMSNorm", "Gelu",
            "GroupNorm", "Inverse", "LongformerAttention", "MRotaryEmbedding", "MoE", "MoEPacked", "QLinearLeakyRelu",
            "QLinearSigmoid", "QLinearSoftmax", "QMoE", "QOrderedGelu", "QOrderedLayerNormalization",
            "QOrderedLongformerAttention", "QuickGelu", "RotaryEmbedding", "SampleOp", "ScaledSiLU", "DecoderAttention",
        ),
        like(0),
    ),
    **dict.fromkeys(("BiasDropout", "BitmaskBiasDropout", "BitmaskDropout"), _dropout),
    **dict.fromkeys(("BiasSplitGelu", "SwiGLU"), _half_of_last),
    **dict.fromkeys(("ComplexMul", "ComplexMulConj"), broadcast(0, 1)),
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), broadcast(0, 3)),
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), _skip_normalization),
    **dict.fromkeys(("FusedMatMul", "FusedMatMulActivation", "GemmFastGelu", "TransposeMatMul"), matmul),
    **dict.fromkeys(("MaxpoolWithMask", "NhwcMaxPool", "QLinearAveragePool"), _pool),
    **dict.fromkeys(("EmbedLayerNormalization", "QEmbedLayerNormalization"), _embed),
    **dict.fromkeys(("AttnLSTM", "DynamicQuantizeLSTM"), _recurrent),
    **dict.fromkeys(("MatMulNBits", "MatMulNBitsMlp", "MatMulPacked", "MatMulNBitsQLoRA"), products.fixed_columns()),
    "Attention": attention.packed_weights(1, past=4),
    "CDist": _cdist,
    "CausalConvWithState": _causal_conv,
    "CropAndResize": _crop_and_resize,
    "DecoderMaskedMultiHeadAttention": attention.multi_head,
    "DecoderMaskedSelfAttention": attention.packed_weights(1, past=4),
    "DequantizeLinear": _dequantize,
    "DequantizeWithOrder": _cast_like_order,
    "DynamicQuantizeMatMul": products.matmul_element(FLOAT, 2),
    "ExpandDims": _expand_dims,
    "FusedGemm": products.gemm(),
    "GatedRelativePositionBias": attention.gated_position_bias,
    "GatherBlockQuantized": _gather_block_quantized,
    "GemmFloat8": products.gemm(element_from=None),
    "GemmaRotaryEmbedding": like(1, 3),
    "GroupQueryAttention": attention.grouped,
    "IsAllFinite": _scalar_bool,
    "Irfft": _irfft,
    "LayerNormalization": _normalized("mean", "inv_std_var"),
    "LinearAttention": attention.linear,
    "MatMulBnb4": products.matmul_bnb4,
    "MatMulFpQ4": products.matmul_fpq4,
    "MatMulInteger16": products.matmul_element(INT32),
    "MatMulIntegerToFloat": products.matmul_element(FLOAT, 2),
    "MatMulNBitsQkv": products.matmul_nbits_qkv,
    "MulInteger": broadcast_of(INT32, 0, 2),
    "MultiHeadAttention": attention.multi_head,
    "MurmurHash3": _murmur_hash,
    "NGramRepeatBlock": like(1),
    "PackedAttention": attention.packed_weights(1, past=None),
    "PackedMultiHeadAttention": attention.packed_multi_head,
    "PagedAttention": attention.paged,
    "QAttention": attention.packed_weights(1, past=8, element_from=3),
    "QGemm": products.qgemm,
    "QLinearConcat": _qlinear_concat,
    "QLinearGlobalAveragePool": _global_pool,
    "QLinearReduceMean": _reduced(),
    "QLinearWhere": broadcast_of(None, 1, 4, 0),
    "QOrderedAttention": attention.split_weights,
    "QOrderedMatMul": products.qordered_matmul,
    "QuantizeLinear": _quantize,
    "QuantizeWithOrder": _of(INT8),
    "ReduceSumInteger": _reduced(0),
    "RelativePositionBias": _relative_position_bias,
    "RemovePadding": _remove_padding,
    "RestorePadding": _restore_padding,
    "Rfft": _rfft,
    "SimplifiedLayerNormalization": _normalized("inv_std_var"),
    "SkipGroupNorm": like(0, 0),
    "SparseAttention": attention.sparse,
    "TorchEmbedding": _torch_embedding,
    "UnfoldTensor": _unfold,
    "Unique": _unique,
}  # fmt: skip

#: Operators that ONNX Runtime also knows in ONNX's own domain, in opsets in which ONNX does not define them.
IN_ONNX_DOMAIN: dict[str, Rule] = {
    **{name: CONTRIB_RULES[name] for name in ("LayerNormalization", "SimplifiedLayerNormalization")},
    **{
        name: CONTRIB_RULES[name]
        for name in ("RotaryEmbedding", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
    },
    **dict.fromkeys(("Affine", "ImageScaler", "ParametricSoftplus", "Scale", "ScaledTanh"), like(0)),
}

#: Operands whose content decides a shape, by operator.
CONTENT: dict[str, tuple[int, ...]] = {
    "ConvTransposeWithDynamicPads": (2,), "CropAndResize": (3,), "ExpandDims": (1,), "GroupQueryAttention": (6,),
    "MatMulFpQ4": (2,), "Pad": (1,), "Range": (0, 1, 2), "RelativePositionBias": (1, 2),
}  # fmt: skip

#: Operators typed as an ONNX operator on some of their operands. Third: whether channels come last.
SAME_AS: dict[str, tuple[str, tuple[int, ...], bool]] = {
    "ConvTransposeWithDynamicPads": ("ConvTranspose", (0, 1, 3), False),
    "FusedConv": ("Conv", (0, 1, 2), False),
    "GatherND": ("GatherND", (0, 1), False),
    "GridSample": ("GridSample", (0, 1), False),
    "NhwcConv": ("Conv", (0, 1, 2), True),
    "NhwcFusedConv": ("Conv", (0, 1, 2), True),
    "Pad": ("Pad", (0, 1, 2), False),
    "QLinearConv": ("QLinearConv", (0, 1, 2, 3, 4, 5, 6, 7, 8), False),
    "Range": ("Range", (0, 1, 2), False),
    "Trilu": ("Trilu", (0, 1), False),
}
