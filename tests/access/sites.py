"""Random operators of every type with a rule of access, and regions of their results."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cosma.access.boxes import Box, box_shape, element_count, slices
from cosma.access.site import TileNode
from cosma.graph.semantics import ELEMENTWISE
from tests.access.axes import layer_norm, normalisation, reduction, skip_norm, softmax
from tests.access.case import Array, Case, Rng
from tests.access.elements import batch_norm, clip, elementwise, quantise, quantised_elementwise, where
from tests.access.moves import blocks, concat, expand, gather, pad, resize, slice_, split, tile, transpose
from tests.access.quantised import (
    quantised_concat,
    quantised_conv,
    quantised_gemm,
    quantised_global_pool,
    quantised_pool,
    quantised_softmax,
    scaled_matmul,
)
from tests.access.sums import conv, conv_transpose, einsum, gemm, global_pool, matmul, pool

Maker = Callable[[Rng, str], Case]

#: What makes cases of each type.
MAKERS: dict[str, Maker] = {
    **dict.fromkeys(ELEMENTWISE, elementwise),
    **dict.fromkeys(
        ("QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearWhere"), quantised_elementwise
    ),
    "Where": where,
    "Clip": clip,
    "BatchNormalization": batch_norm,
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), quantise),
    **dict.fromkeys(("Conv", "FusedConv", "ConvInteger"), conv),
    "QLinearConv": quantised_conv,
    "ConvTranspose": conv_transpose,
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), pool),
    **dict.fromkeys(("NhwcMaxPool", "QLinearAveragePool"), quantised_pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), global_pool),
    "QLinearGlobalAveragePool": quantised_global_pool,
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul"), matmul),
    **dict.fromkeys(("MatMulIntegerToFloat", "DynamicQuantizeMatMul"), scaled_matmul),
    "Gemm": gemm,
    "QGemm": quantised_gemm,
    "Einsum": einsum,
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), softmax),
    "QLinearSoftmax": quantised_softmax,
    **dict.fromkeys(("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"), layer_norm),
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), skip_norm),
    **dict.fromkeys(
        ("LpNormalization", "InstanceNormalization", "LRN", "GroupNormalization", "CumSum"), normalisation
    ),
    **{
        f"Reduce{kind}": reduction
        for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
    },
    **dict.fromkeys(("ArgMax", "ArgMin"), reduction),
    "Transpose": transpose,
    "Concat": concat,
    "QLinearConcat": quantised_concat,
    "Slice": slice_,
    "Pad": pad,
    "Split": split,
    **dict.fromkeys(("Resize", "Upsample"), resize),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), blocks),
    "Gather": gather,
    "Expand": expand,
    "Tile": tile,
}

#: Types with many attributes, which many draws are made of.
RICH = frozenset(
    {"AveragePool", "Conv", "ConvTranspose", "Gemm", "LpPool", "MatMul", "MaxPool", "Pad", "QLinearAveragePool",
     "QLinearConv", "Resize", "Slice", "Softmax"}
)  # fmt: skip


def draws(kind: str, rich: int, other: int) -> range:
    """Seeds of the cases of a type."""
    return range(rich if kind in RICH else other)


def random_box(rng: Rng, shape: tuple[int, ...], cuts: tuple[bool, ...]) -> Box:
    """A region that is whole along the axes that cannot be cut."""
    found = []
    for size, cut in zip(shape, cuts, strict=True):
        if not cut or size == 0:
            found.append((0, size))
            continue
        start = int(rng.integers(0, size))
        found.append((start, int(rng.integers(start + 1, size + 1))))
    return tuple(found)


def poisoned(operand: Array, box: Box | None, rng: Rng) -> Array:
    """The operand with other values outside a region."""
    if operand.dtype == np.int64:
        garbage = np.zeros_like(operand)  # indices stay some
    elif operand.dtype == np.bool_ or np.issubdtype(operand.dtype, np.integer):
        garbage = np.asarray(~operand)
    else:
        garbage = np.asarray(rng.standard_normal(operand.shape) * 1000, dtype=operand.dtype)
    if box is None:
        return garbage
    found = np.array(garbage)
    found[slices(box)] = operand[slices(box)]
    return found


def on_slices(case: Case, tile: TileNode, reads: tuple[Box | None, ...]) -> list[Array]:
    """What the operator's kernel yields for a tile, from slices of the operands."""
    operands = [
        o if o is None or i in case.parameters else None if reads[i] is None else np.asarray(o[slices(reads[i])])
        for i, o in enumerate(case.operands)
    ]
    for i, content in tile.contents.items():
        operands += [None] * (i + 1 - len(operands))
        operands[i] = np.array(content, dtype=np.int64)
        if i < len(reads) and (read := reads[i]) is not None and element_count(read) == len(content):
            operands[i] = operands[i].reshape(box_shape(read))
    if case.type in ("Concat", "QLinearConcat"):
        operands = [o for o in operands if o is not None]
    return case.run(operands, {**case.attributes, **tile.attributes})


def cropped(tile: TileNode, found: Array, box: Box) -> Array:
    """The region of a tile, of what its kernel yields."""
    crop = tile.crop or (0,) * found.ndim
    return found[tuple(slice(c, c + n) for c, n in zip(crop, box_shape(box), strict=True))]
