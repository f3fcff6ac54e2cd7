"""ONNX Runtime's own operators have the shapes and element types that ONNX Runtime yields.

Each case runs on ONNX Runtime where it has a kernel for the CPU; its result then is the yardstick. The others state
what ``docs/ContribOperators.md`` of microsoft/onnxruntime says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from onnx import helper

from tests.field.conftest import Array, Load, executed, planned, single


@dataclass
class Case:
    """One node: operands by position (None: absent), which of them are constants, and how many results."""

    op: str
    operands: list[Array | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    results: int = 1
    constants: tuple[int, ...] = ()
    domain: str = "com.microsoft"
    #: Shapes by the documentation, where ONNX Runtime has no kernel for the CPU.
    stated: list[tuple[int, ...]] | None = None
    opset: int = 17


def f(*shape: int, dtype: Any = np.float32) -> Array:
    return np.full(shape, 0.5).astype(dtype)


def u(*shape: int) -> Array:
    return np.ones(shape, np.uint8)


def i8(*shape: int) -> Array:
    return np.ones(shape, np.int8)


def ints(*values: int, dtype: Any = np.int32) -> Array:
    return np.array(values, dtype)


def scalar(value: float, dtype: Any = np.float32) -> Array:
    return np.array(value, dtype)


S, Z = scalar(0.1), scalar(0, np.uint8)
ZI = scalar(0, np.int8)
MHA = {"num_heads": 2}
GQA = {"num_heads": 4, "kv_num_heads": 2}
CONV = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}

RUN = [
    Case("Attention", [f(2, 5, 8), f(8, 24), f(24)], MHA),
    Case("Attention", [f(2, 5, 8), f(8, 24), f(24), None, f(2, 2, 2, 3, 4)], MHA, 2),
    Case("Attention", [f(2, 5, 8), f(8, 28), f(28)], MHA | {"qkv_hidden_sizes": [8, 8, 12]}),
    Case("MultiHeadAttention", [f(2, 5, 8), f(2, 7, 8), f(2, 7, 8)], MHA),
    Case("MultiHeadAttention", [f(2, 5, 8), f(2, 7, 8), f(2, 7, 12)], MHA, 1),
    Case("MultiHeadAttention", [f(2, 5, 8), f(2, 7, 8), f(2, 7, 8)], MHA, 3),
    Case("MultiHeadAttention", [f(2, 5, 8), f(2, 5, 8), f(2, 5, 8), None, None, None, f(2, 2, 3, 4), f(2, 2, 3, 4)],
         MHA, 3),
    Case("MultiHeadAttention", [f(2, 5, 8), f(2, 2, 7, 4), f(2, 2, 7, 4)], MHA),
    Case("DecoderMaskedMultiHeadAttention", [f(2, 1, 8), f(2, 1, 8), f(2, 1, 8), None, None, f(2, 2, 6, 4), f(2, 2,
         6, 4), ints(3)],
         MHA | {"past_present_share_buffer": 1}, 3),
    Case("DecoderMaskedMultiHeadAttention", [f(2, 1, 8), f(2, 2, 7, 4), f(2, 2, 7, 4)], MHA),
    Case("GroupQueryAttention", [f(1, 1, 64), f(1, 1, 32), f(1, 1, 32), f(1, 2, 32, 16), f(1, 2, 32, 16), ints(5),
         scalar(6, np.int32)],
         GQA, 3, (6,)),
    Case("GroupQueryAttention", [f(1, 4, 64), f(1, 4, 32), f(1, 4, 32), f(1, 2, 3, 16), f(1, 2, 3, 16), ints(6),
         scalar(7, np.int32)],
         GQA, 3, (6,)),
    Case("GroupQueryAttention", [f(1, 4, 128), None, None, f(1, 2, 32, 16), f(1, 2, 32, 16), ints(6), scalar(7,
         np.int32)], GQA, 3, (6,)),
    Case("GroupQueryAttention", [f(2, 6, 64), f(2, 6, 32), f(2, 6, 32), None, None, ints(5, 5), scalar(6,
         np.int32)], GQA, 3, (6,)),
    Case("QAttention", [u(2, 5, 8), i8(8, 24), f(24), S, S, None, Z, ZI], MHA),
    Case("MoE", [f(8, 16), f(8, 4), f(4, 32, 16), None, f(4, 16, 32)], {"k": 2, "activation_type": "relu"}),
    Case("MoE", [f(2, 4, 16), f(8, 4), f(4, 32, 16), None, f(4, 16, 32)], {"k": 2, "activation_type": "relu"}),
    Case("GroupNorm", [f(1, 8, 8, 16), f(16), f(16)], {"groups": 4, "activation": 0, "channels_last": 1},
         stated=[(1, 8, 8, 16)]),
    Case("SkipGroupNorm", [f(1, 8, 8, 16), f(16), f(16), f(1, 8, 8, 16), f(16)], {"groups": 4, "activation": 0}, 2,
         stated=[(1, 8, 8, 16), (1, 8, 8, 16)]),
    Case("SimplifiedLayerNormalization", [f(4, 64), f(64)], {"axis": -1, "stash_type": 1}, domain=""),
    Case("SimplifiedLayerNormalization", [f(3, 4, 64), f(64)], {"axis": -1, "stash_type": 1}, 2, domain=""),
    Case("LayerNormalization", [f(3, 4, 8), f(4, 8), f(4, 8)], {"axis": 1}, 3, domain="", opset=12),
    Case("LayerNormalization", [f(3, 4, 8), f(8)], {"axis": -1}, 1, domain="", opset=16),
    Case("SkipLayerNormalization", [f(2, 5, 8), f(2, 5, 8), f(8), f(8), f(8)], {}, 1),
    Case("SkipSimplifiedLayerNormalization", [f(2, 5, 8), f(2, 5, 8), f(8)], {}, 1),
    Case("EmbedLayerNormalization", [ints(1, 2, 3).reshape(1, 3), ints(0, 0, 0).reshape(1, 3), f(9, 8), f(6, 8),
         f(2, 8), f(8), f(8),
         ints(1, 1, 1).reshape(1, 3)], {}, 3),
    Case("MatMulNBits", [f(3, 5, 32), u(24, 1, 16), f(24)], {"N": 24, "K": 32, "bits": 4, "block_size": 32}),
    Case("MatMulBnb4", [f(3, 5, 32), u(24 * 32 // 2), f(24)], {"N": 24, "K": 32, "block_size": 32, "quant_type": 1}),
    Case("GatherBlockQuantized", [u(10, 32), ints(1, 2, 3, 4), f(10, 2)], {"block_size": 32, "bits": 4,
         "quantize_axis": 1}, constants=(0, 2)),
    Case("GatherBlockQuantized", [u(10, 32), ints(1, 2, 3, 4).reshape(2, 2), f(10, 1), u(10, 1)],
         {"block_size": 32, "bits": 8, "quantize_axis": 1}, constants=(0, 2, 3)),
    Case("QLinearConv", [u(1, 3, 9, 9), S, Z, u(8, 3, 3, 3), S, Z, S, Z], CONV, constants=(3,)),
    Case("QLinearConv", [u(1, 9, 9, 3), S, Z, u(8, 3, 3, 3), S, Z, S, Z], CONV | {"channels_last": 1},
         constants=(3,)),
    Case("QLinearAdd", [u(2, 3, 4), S, Z, u(3, 1), S, Z, S, Z]),
    Case("QLinearMul", [u(2, 3, 4), S, Z, u(4), S, Z, S, Z]),
    Case("QLinearConcat", [S, Z, u(2, 3), S, Z, u(2, 4), S, Z], {"axis": 1}),
    Case("QLinearConcat", [S, Z, u(2, 3), S, Z, u(2, 4), S, Z], {"axis": -1}),
    Case("QLinearSigmoid", [u(2, 3), S, Z, S, Z]),
    Case("QLinearLeakyRelu", [u(2, 3), S, Z, S, Z], {"alpha": 0.1}),
    Case("QLinearGlobalAveragePool", [u(1, 5, 4, 4), S, Z, S, Z]),
    Case("QLinearGlobalAveragePool", [u(1, 4, 4, 5), S, Z, S, Z], {"channels_last": 1}),
    Case("QLinearSoftmax", [u(2, 3), S, Z, S, Z], {"axis": -1, "opset": 13}),
    Case("QLinearWhere", [np.ones((3, 1), bool), u(1, 4), S, Z, u(3, 4), S, Z, S, Z], constants=(2, 3, 5, 6, 7, 8)),
    Case("QLinearReduceMean", [u(2, 3, 4), S, Z, S, Z], {"axes": [1], "keepdims": 0}, stated=[(2, 4)]),
    Case("QGemm", [u(3, 4), S, Z, u(4, 5), S, Z, None, S, Z]),
    Case("QGemm", [u(3, 4), S, Z, u(5, 4), S, Z], {"transB": 1}),
    Case("NhwcMaxPool", [u(1, 9, 9, 3)], CONV | {"ceil_mode": 1}),
    Case("QuantizeLinear", [f(2, 3), S, Z]),
    Case("DequantizeLinear", [u(2, 3), S, Z]),
    Case("FusedConv", [f(1, 3, 9, 9), f(8, 3, 3, 3), f(8)], CONV | {"activation": "Relu"}),
    Case("FusedGemm", [f(3, 4), f(4, 5)], {"activation": "Relu"}),
    Case("FusedMatMul", [f(2, 3, 4), f(2, 5, 4)], {"transB": 1}),
    Case("FusedMatMul", [f(3, 2, 4), f(2, 4, 5)], {"transBatchA": 1}),
    Case("FusedMatMul", [f(4, 2, 3), f(5, 2, 4)], {"transBatchA": 1, "transA": 1, "transBatchB": 1, "transB": 1}),
    Case("TransposeMatMul", [f(2, 4, 3), f(2, 4, 5)], {"transA": 1}),
    Case("Gelu", [f(2, 3)]), Case("FastGelu", [f(2, 3), f(3)]), Case("BiasGelu", [f(2, 3), f(3)]),
    Case("QuickGelu", [f(2, 3)], {"alpha": 1.7}),
    Case("BiasSplitGelu", [f(1, 3, 2560), f(2560)], stated=[(1, 3, 1280)]),
    Case("BiasAdd", [f(1, 3, 320), f(320), f(1, 3, 320)], stated=[(1, 3, 320)]),
    Case("RotaryEmbedding", [f(2, 5, 16), np.zeros((2, 5), np.int64), f(8, 8), f(8, 8)]),
    Case("DynamicQuantizeMatMul", [f(3, 4), u(4, 5), S, Z]),
    Case("MatMulIntegerToFloat", [u(3, 4), u(4, 5), S, S, Z, Z]),
    Case("MatMulInteger16", [np.ones((3, 4), np.int16), np.ones((4, 5), np.int16)]),
    Case("ConvTransposeWithDynamicPads", [f(1, 3, 5, 5), f(3, 4, 3, 3), ints(1, 1, 0, 0, dtype=np.int64)],
         {"strides": [2, 2]},
         constants=(2,)),
    Case("Inverse", [np.eye(3, dtype=np.float32)]),
    Case("Trilu", [f(3, 4)], {"upper": 0}),
    Case("GridSample", [f(1, 2, 4, 4), f(1, 3, 5, 2)]),
    Case("GridSample", [f(1, 2, 4, 4), f(1, 3, 5, 2)], opset=13),
    Case("Pad", [f(2, 3), ints(0, 1, 2, 0, dtype=np.int64)], constants=(1,)),
    Case("CDist", [f(3, 4), f(5, 4)], {"metric": "euclidean"}),
    Case("ExpandDims", [f(2, 3), scalar(-1, np.int32)], constants=(1,)),
    Case("CropAndResize", [f(1, 2, 6, 6), f(3, 4), ints(0, 0, 0), ints(4, 5)], constants=(3,)),
    Case("GatherND", [f(3, 4, 5), np.zeros((2, 2), np.int64)]),
    Case("MaxpoolWithMask", [f(1, 2, 6, 6), np.ones((1, 2, 6, 6), np.int32)], {"kernel_shape": [2, 2],
         "strides": [2, 2]}),
    Case("MurmurHash3", [ints(1, 2, 3)], {"positive": 0}),
    Case("BiasSoftmax", [f(2, 3, 4), f(2, 1, 4)], {"axis": 2, "is_inner_broadcast": 1}, stated=[(2, 3, 4)]),
    Case("UnfoldTensor", [f(2, 9)], {"dim": 1, "size": 3, "step": 2}),
    Case("NGramRepeatBlock", [np.ones((1, 4), np.int64), f(1, 9)], {"ngram_size": 2}),
    Case("DynamicQuantizeLSTM", [f(3, 2, 4), u(1, 4, 20), u(1, 5, 20), None, None, None, None, None, f(1), u(1),
         f(1), u(1)],
         {"hidden_size": 5}, 3, constants=(1, 2, 8, 9, 10, 11)),
    Case("SparseAttention", [f(1, 4, 64), f(1, 4, 32), f(1, 4, 32), f(1, 2, 32, 16), f(1, 2, 32, 16),
         *([np.zeros((1, 3), np.int32)] * 2),
         scalar(4, np.int32), ints(4)], GQA | {"sparse_block_size": 16}, 3, stated=[(1, 4, 64), (1, 2, 32, 16), (1,
         2, 32, 16)]),
    Case("PackedAttention", [f(7, 8), f(8, 24), f(24), np.zeros((2, 5), np.int32), ints(0, 3, 7)], MHA, stated=[(7,
         8)]),
    Case("PackedMultiHeadAttention", [f(7, 2, 3, 4), None, None, None, np.zeros((2, 5), np.int32), ints(0, 3, 7)],
         MHA, stated=[(7, 8)]),
    Case("DecoderMaskedSelfAttention", [f(2, 1, 8), f(8, 24), f(24), None, f(2, 2, 2, 6, 4), None, ints(3)],
         MHA | {"past_present_share_buffer": 1}, 2, stated=[(2, 1, 8), (2, 2, 2, 6, 4)]),
    Case("QMoE", [f(8, 16), f(8, 4), u(4, 32, 8), f(4, 32), None, u(4, 16, 16), f(4, 16)], {"k": 2,
         "expert_weight_bits": 4},
         stated=[(8, 16)]),
    Case("NhwcConv", [f(1, 9, 9, 3), f(8, 3, 3, 3)], CONV, stated=[(1, 5, 5, 8)]),
    Case("NhwcFusedConv", [f(1, 9, 9, 3, dtype=np.float16), f(8, 3, 3, 3, dtype=np.float16)],
         CONV | {"activation": "Relu"},
         stated=[(1, 5, 5, 8)]),
    Case("QOrderedMatMul", [i8(1, 3, 4), S, i8(4, 5), S, S], {"order_A": 1, "order_B": 0, "order_Y": 1}, stated=[(1,
         3, 5)]),
    Case("QOrderedGelu", [i8(1, 3, 4), S, S], {"order_X": 1, "order_Y": 1}, stated=[(1, 3, 4)]),
    Case("QOrderedAttention", [i8(1, 3, 8), S, S, S, S, i8(8, 8), i8(8, 8), i8(8, 8), S, S, S, f(8), f(8), f(8), S,
         S, S],
         MHA | {"order_input": 1, "order_weight": 0, "order_output": 1}, stated=[(1, 3, 8)]),
    Case("BitmaskDropout", [f(5, 9)], {}, 2, stated=[(5, 9), (2,)]),
    Case("RelativePositionBias", [f(32, 4), scalar(6, np.int64), scalar(6, np.int64)], {"max_distance": 128},
         constants=(1, 2),
         stated=[(1, 4, 6, 6)]),
    Case("RestorePadding", [f(7, 8), np.zeros((2, 5), np.int32)], stated=[(2, 5, 8)]),
    Case("Rfft", [f(2, 9)], {"signal_ndim": 1, "onesided": 1, "normalized": 0}, stated=[(2, 5, 2)]),
    Case("Irfft", [f(2, 5, 2)], {"signal_ndim": 1, "onesided": 1, "normalized": 0}, stated=[(2, 8)]),
    Case("TorchEmbedding", [f(9, 8), np.zeros((2, 3), np.int64)], stated=[(2, 3, 8)]),
    Case("SwiGLU", [f(2, 8)], stated=[(2, 4)]),
]  # fmt: skip


def _model(case: Case) -> tuple[Any, dict[str, Array], list[str]]:
    names = ["" if array is None else f"i{i}" for i, array in enumerate(case.operands)]
    results = [f"o{i}" for i in range(case.results)]
    node = helper.make_node(case.op, names, results, domain=case.domain, **case.attributes)
    given = {name: array for name, array in zip(names, case.operands, strict=True) if array is not None}
    constants = {f"i{i}": given.pop(f"i{i}") for i in case.constants}
    return single(node, given, constants, case.opset), given, results


@pytest.mark.parametrize("case", RUN, ids=lambda case: case.op)
def test_a_contrib_operator_is_sized_by_its_rule(case: Case, load: Load) -> None:
    model, inputs, results = _model(case)
    loaded = load(model)
    shapes = planned(loaded, results)
    if case.stated is not None:
        assert list(shapes.values()) == case.stated
        return
    right, dtypes = executed(model, inputs)
    assert shapes == right
    assert {name: loaded.graph.tensors[name].dtype for name in results} == dtypes
