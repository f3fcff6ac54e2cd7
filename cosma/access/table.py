"""One row for each operator type: its rule of access. What has no row is a barrier."""

from __future__ import annotations

from typing import Final

from cosma.access import movement
from cosma.access.channels_last import EitherOrder
from cosma.access.contractions import DynamicProduct, EinsteinSum, GeneralProduct, MatrixProduct
from cosma.access.elementwise import Elementwise
from cosma.access.reductions import (
    Normalisation,
    Reduction,
    all_but_batch,
    channel_axis,
    first_axis,
    reduced_axes,
    single_axis,
    softmax_axes,
    spatial_axes,
    trailing_axes,
)
from cosma.access.site import Access, Barrier, Site
from cosma.access.windows import Convolution, GlobalPooling, Pooling, TransposedConvolution
from cosma.graph.semantics import is_elementwise_part

_POOLING, _SOFTMAX, _BARRIER = Pooling(), Normalisation(softmax_axes), Barrier()
_ELEMENTWISE = Elementwise()

#: Operators of ONNX and ONNX Runtime by type.
ACCESS: Final[dict[str, Access]] = {
    # windows
    "Conv": Convolution(),
    "FusedConv": Convolution(),
    "ConvInteger": Convolution(bias=-1, per_output=(3,)),
    "QLinearConv": EitherOrder(Convolution(weight=3, bias=8, per_output=(4, 5))),
    "ConvTranspose": TransposedConvolution(),
    "MaxPool": _POOLING,
    "AveragePool": _POOLING,
    "LpPool": _POOLING,
    "QLinearAveragePool": EitherOrder(_POOLING),
    "NhwcMaxPool": EitherOrder(_POOLING, always=True),
    "GlobalAveragePool": GlobalPooling(),
    "GlobalMaxPool": GlobalPooling(),
    "GlobalLpPool": GlobalPooling(),
    "QLinearGlobalAveragePool": EitherOrder(GlobalPooling()),
    # products
    "MatMul": MatrixProduct(),
    "MatMulInteger": MatrixProduct(per_row=(2,), per_column=(3,)),
    "MatMulIntegerToFloat": MatrixProduct(per_row=(2, 4), per_column=(3, 5, 6), sums=False),
    "QLinearMatMul": MatrixProduct(second=3, per_row=(1, 2), per_column=(4, 5), sums=False),
    "DynamicQuantizeMatMul": DynamicProduct(per_column=(2, 3, 4), sums=False),
    "Gemm": GeneralProduct(),
    "QGemm": GeneralProduct(second=3, addend=6, per_column=(4, 5), sums=False),
    "Einsum": EinsteinSum(),
    # rows
    "Softmax": _SOFTMAX,
    "LogSoftmax": _SOFTMAX,
    "Hardmax": _SOFTMAX,
    "QLinearSoftmax": _SOFTMAX,
    "LayerNormalization": Normalisation(trailing_axes),
    "RMSNormalization": Normalisation(trailing_axes),
    "SimplifiedLayerNormalization": Normalisation(trailing_axes),
    "SkipLayerNormalization": Normalisation(trailing_axes),
    "SkipSimplifiedLayerNormalization": Normalisation(trailing_axes),
    "LpNormalization": Normalisation(single_axis),
    "InstanceNormalization": Normalisation(spatial_axes),
    "LRN": Normalisation(channel_axis),
    "GroupNormalization": Normalisation(all_but_batch),
    "CumSum": Normalisation(lambda site: None if 1 not in site.contents else frozenset(
        {int(site.contents[1][0]) % len(site.result)})),
    **{
        f"Reduce{kind}": Reduction(reduced_axes)
        for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
    },
    "ArgMax": Reduction(first_axis),
    "ArgMin": Reduction(first_axis),
    # movement
    "Transpose": movement.Transposition(),
    "Concat": movement.Concatenation(),
    "QLinearConcat": movement.Concatenation(first=2, each=3),
    "Slice": movement.Selection(),
    "Pad": movement.Padding(),
    "Split": movement.Splitting(),
    "Resize": movement.Interpolation(),
    "Upsample": movement.Interpolation(),
    "DepthToSpace": movement.DepthToSpaceRule(),
    "SpaceToDepth": movement.SpaceToDepthRule(),
    "Gather": movement.Lookup(),
    "Expand": movement.Repetition(),
    "Tile": movement.Tiles(),
}  # fmt: skip

#: Operators of ONNX Runtime that differ from ONNX's of the same name, or are not read by position as they are.
_OTHER = frozenset({"Pad"})


def access_of(site: Site) -> Access:
    """Rule of an operator; a barrier where none covers it."""
    part = site.part
    if part.domain not in ("", "com.microsoft") or (part.domain and part.type in _OTHER):
        return _BARRIER
    if not site.results or site.results[0] is None or any(0 in shape for shape in site.results if shape is not None):
        return _BARRIER
    if is_elementwise_part(part):
        return _ELEMENTWISE
    return ACCESS.get(part.type, _BARRIER)
