"""What a region of a node's result depends on, by the definition of each ONNX operator: the judge's own rules.

Written from the operators' definitions, to be compared with what plans read; nothing that makes plans uses it. An
operator without a rule has no answer, and then everything must be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from cosma.validator.moved_regions import concatenation, gather, moved, quantised_concatenation, resize, split
from cosma.validator.place import Box, NoRuleError, Place, Rule, Shape, Span, Wanted, aligned, all_of
from cosma.validator.window_regions import channels_last, convolution, global_pooling, pooling, transposed_convolution

if TYPE_CHECKING:
    from onnx import NodeProto


def wanted(place: Place, result: int, box: Box) -> Wanted:
    """What a region of a result depends on.

    Raises NoRuleError if the operator has no rule, or its rule needs what is not known.
    """
    node = place.node
    if node.domain not in ("", "ai.onnx", "com.microsoft") or place.results[result] is None:
        raise NoRuleError
    rule = RULES.get(node.op_type)
    if rule is None or (node.domain == "com.microsoft" and node.op_type not in MICROSOFT):
        raise NoRuleError
    return rule(place, result, box)


# -- element by element -------------------------------------------------------------------------------------


def _broadcast(place: Place, result: int, box: Box) -> Wanted:
    shape = place.results[result]
    assert shape is not None
    there = [(i, place.shape(i)) for i in range(len(place.node.input)) if place.has(i)]
    if place.opset < 7 and not place.node.domain:
        return [(i, _in_place(place, box, given, shape)) for i, given in there]
    return [(i, aligned(box, given, shape)) for i, given in there]


def _in_place(place: Place, box: Box, given: Shape, shape: Shape) -> Box:
    """Region of an operand before opset 7: one element, or extents of the result from an axis on without a gap."""
    if prod(given) == 1:
        return all_of(given)
    first = len(shape) - len(given)
    if len(given) < len(shape):
        first = int(place.attributes.get("axis", first)) % len(shape)
        if place.node.op_type == "PRelu" and len(given) == 1:
            first = 1
    behind = first + len(given)
    if first < 0 or shape[first:behind] != given:
        raise NoRuleError
    return box[first:behind]


def _scaled(place: Place, result: int, box: Box) -> Wanted:
    """Quantising: one scale, or one for each position along an axis."""
    shape = place.shape(0)
    axis = int(place.attributes.get("axis", 1))
    axis += len(shape) if axis < 0 else 0
    found: Wanted = [(0, box)]
    for i in (1, 2):
        if place.has(i):
            given = place.shape(i)
            if prod(given) == 1:
                found.append((i, all_of(given)))
            elif len(given) == 1 and axis < len(shape) and given[0] == shape[axis]:
                found.append((i, (box[axis],)))
            else:
                raise NoRuleError
    return found


def _batch_normalisation(place: Place, result: int, box: Box) -> Wanted:
    if place.attributes.get("training_mode", 0) or sum(bool(name) for name in place.node.output) != 1:
        raise NoRuleError
    if place.opset < 7 and not place.attributes.get("is_test", 0):
        raise NoRuleError
    if any(place.shape(i) != place.shape(0)[1:2] for i in range(1, len(place.node.input))):
        raise NoRuleError
    return [(0, box), *((i, (box[1],)) for i in range(1, len(place.node.input)))]


def _dropout(place: Place, result: int, box: Box) -> Wanted:
    """Nothing happens outside of training; from opset 12 on an operand says whether it is."""
    training = place.opset >= 12 and place.has(2) and (place.content(2) is None or bool(np.any(place.content(2))))
    if result or training or (place.opset < 7 and not place.attributes.get("is_test", 0)):
        raise NoRuleError
    return [(0, box)]


# -- products -----------------------------------------------------------------------------------------------


def _product(second: int, rows: Sequence[int] = (), columns: Sequence[int] = ()) -> Rule:
    def rule(place: Place, result: int, box: Box) -> Wanted:
        a, b, shape = place.shape(0), place.shape(second), place.results[0]
        assert shape is not None
        across = box[-1] if len(b) > 1 else None
        down = box[len(box) - (2 if across is not None else 1)] if len(a) > 1 else None
        outer = len(shape) - (across is not None) - (down is not None)
        left = (*aligned(box[:outer], a[:-2], shape[:outer]), down, (0, a[-1])) if down is not None else all_of(a)
        right = (*aligned(box[:outer], b[:-2], shape[:outer]), (0, b[-2]), across) if across is not None else all_of(b)
        found: Wanted = [(0, left), (second, right)]
        for i in range(len(place.node.input)):
            if i in (0, second) or not place.has(i):
                continue
            given = place.shape(i)
            if i in rows and down is not None and given == (a[-2],) and given != (1,):
                found.append((i, (down,)))
            elif i in columns and across is not None and given == (b[-1],) and given != (1,):
                found.append((i, (across,)))
            else:
                found.append((i, all_of(given)))
        return found

    return rule


def _dynamic_product(place: Place, result: int, box: Box) -> Wanted:
    """Every element depends on the extremes of all of the first matrix; scales may belong to a column."""
    return [(0, all_of(place.shape(0))), *_product(1, columns=(2, 3, 4))(place, result, box)[1:]]


def _gemm(second: int, addend: int, columns: Sequence[int] = ()) -> Rule:
    def rule(place: Place, result: int, box: Box) -> Wanted:
        a, b, shape = place.shape(0), place.shape(second), place.results[0]
        assert shape is not None
        flipped = [bool(place.attributes.get(name, 0)) for name in ("transA", "transB")]
        found: Wanted = [
            (0, ((0, a[0]), box[0]) if flipped[0] else (box[0], (0, a[1]))),
            (second, (box[1], (0, b[1])) if flipped[1] else ((0, b[0]), box[1])),
        ]
        for i in range(1, len(place.node.input)):
            if i == addend and place.has(i):
                found.append((i, aligned(box, place.shape(i), shape)))
            elif i != second and place.has(i):
                given = place.shape(i)
                found.append((i, (box[1],) if i in columns and given == (shape[1],) else all_of(given)))
        return found

    return rule


def _einsum(place: Place, result: int, box: Box) -> Wanted:
    """Each operand where its letters say; a letter of the result names one extent wherever it stands."""
    given = place.attributes.get("equation", "")
    text = (given.decode() if isinstance(given, bytes) else str(given)).replace(" ", "")
    operands, arrow, letters = text.partition("->")
    shape = place.results[0]
    if not arrow or "." in text or shape is None or len(letters) != len(shape) or len(set(letters)) != len(letters):
        raise NoRuleError
    where = dict(zip(letters, zip(box, shape, strict=True), strict=True))
    found: Wanted = []
    for i, term in enumerate(operands.split(",")):
        extents = place.shape(i)
        if len(term) != len(extents):
            raise NoRuleError
        spans = []
        for letter, extent in zip(term, extents, strict=True):
            span, full = where.get(letter, ((0, extent), extent))
            spans.append(span if full == extent else (0, extent))
        found.append((i, tuple(spans)))
    return found


def summed_over(place: Place) -> int:
    """Extent of the axis that a node sums over by plain addition; 0 where it does not, or quantises its sum at once."""
    kind, data = place.node.op_type, place.shape(0)
    if place.node.domain not in ("", "ai.onnx"):
        return 0
    if kind in ("MatMul", "MatMulInteger"):
        return data[-1]
    if kind == "Gemm":
        return data[0 if place.attributes.get("transA", 0) else 1]
    if kind in ("Conv", "ConvInteger") and place.attributes.get("group", 1) == 1:
        return place.shape(1)[1]
    return 0


def narrowed(place: Place, operands: Wanted, span: Span, *, first: bool) -> Wanted:
    """What one step of a sum depends on, of what the whole sum does.

    ``span`` is its interval of the axis summed over; the first step adds the bias.
    """
    kind = place.node.op_type
    if kind in ("Conv", "ConvInteger"):
        axes = {0: 1, 1: 1}
    elif kind == "Gemm":
        axes = {0: 0 if place.attributes.get("transA", 0) else 1, 1: 1 if place.attributes.get("transB", 0) else 0}
    else:
        axes = {0: len(place.shape(0)) - 1, 1: max(0, len(place.shape(1)) - 2)}
    found: Wanted = []
    for i, box in operands:
        if i in axes:
            found.append((i, (*box[: axes[i]], span, *box[axes[i] + 1 :])))
        elif first or not (i == 2 and kind in ("Conv", "Gemm")):
            found.append((i, box))
    return found


#: Operators whose result has another element type than what they read, element by element.
RETYPING = frozenset(
    {"Cast", "CastLike", "DequantizeLinear", "DynamicQuantizeLinear", "Equal", "Greater", "GreaterOrEqual", "IsInf",
     "IsNaN", "Less", "LessOrEqual", "QuantizeLinear"}
)  # fmt: skip


def works_by_element(node: NodeProto) -> bool:
    """Whether each element of a node's result depends on elements at its own place."""
    return node.op_type in (*_ELEMENT_BY_ELEMENT, "BatchNormalization")


# -- along axes ---------------------------------------------------------------------------------------------


def _along(axes_of: Callable[[Place, int], set[int]], broadcast: bool = False) -> Rule:
    """A result of the first operand's shape that needs all of some axes."""

    def rule(place: Place, result: int, box: Box) -> Wanted:
        data, own = place.shape(0), place.results[result]
        axes = axes_of(place, len(data))
        if own is None or len(own) != len(data):
            raise NoRuleError
        if any(size != there and i not in axes for i, (size, there) in enumerate(zip(own, data, strict=True))):
            raise NoRuleError
        wide = tuple((0, size) if i in axes else box[i] for i, size in enumerate(data))
        found: Wanted = [(0, wide)]
        for i in range(1, len(place.node.input)):
            if place.has(i):
                given = place.shape(i)
                if broadcast:
                    found.append((i, aligned(wide, given, data)))
                elif place.node.op_type == "InstanceNormalization":
                    found.append((i, (box[1],)))
                else:
                    found.append((i, all_of(given)))
        return found

    return rule


def _axis(default: int) -> Callable[[Place, int], set[int]]:
    return lambda place, rank: {int(place.attributes.get("axis", default)) % rank}


def _behind(place: Place, rank: int) -> set[int]:
    return set(range(int(place.attributes.get("axis", -1)) % rank, rank))


def _softmax(place: Place, rank: int) -> set[int]:
    # The quantised one is of no version of ONNX, and says which it computes.
    if int(place.attributes.get("opset", place.opset)) >= 13:
        return {int(place.attributes.get("axis", -1)) % rank}
    return set(range(int(place.attributes.get("axis", 1)) % rank, rank))


def _running(place: Place, rank: int) -> set[int]:
    found = place.content(1)
    if found is None:
        raise NoRuleError
    return {int(np.asarray(found).reshape(-1)[0]) % rank}


def _reduction(place: Place, result: int, box: Box) -> Wanted:
    data = place.shape(0)
    single = place.node.op_type.startswith("Arg")
    axes = (int(place.attributes.get("axis", 0)),) if single else place.values("axes", 1)
    if not axes:
        axes = () if place.attributes.get("noop_with_empty_axes", 0) else tuple(range(len(data)))
    gone = {axis % len(data) for axis in axes}
    kept = iter(box if not place.attributes.get("keepdims", 1) else [s for i, s in enumerate(box) if i not in gone])
    read = tuple((0, size) if i in gone else next(kept) for i, size in enumerate(data))
    return [(0, read), *place.everything_of(1)]


_ELEMENT_BY_ELEMENT = (
    "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BitShift", "BitwiseAnd", "BitwiseNot",
    "BitwiseOr", "BitwiseXor", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Div", "Elu", "Equal", "Erf",
    "Exp", "FastGelu", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsInf",
    "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or",
    "PRelu", "Pow", "QLinearAdd", "QLinearLeakyRelu", "QLinearMul", "QLinearSigmoid", "QLinearWhere", "QuickGelu",
    "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt",
    "Sub", "Sum", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Where", "Xor",
)  # fmt: skip
_NORMALISED = _along(_behind, broadcast=True)

#: Operators whose results are elements of the first operand, or padding.
MOVES = ("DepthToSpace", "Expand", "Pad", "Slice", "SpaceToDepth", "Tile", "Transpose")

#: Rule of each operator.
RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_ELEMENT_BY_ELEMENT, _broadcast),
    "QuantizeLinear": _scaled,
    "DequantizeLinear": _scaled,
    "Dropout": _dropout,
    "BatchNormalization": _batch_normalisation,
    "Conv": convolution(1, 2, ()),
    "FusedConv": convolution(1, 2, ()),
    "ConvInteger": convolution(1, None, (3,)),
    "QLinearConv": channels_last(convolution(3, 8, (4, 5))),
    "ConvTranspose": transposed_convolution,
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), pooling),
    **dict.fromkeys(("NhwcMaxPool", "QLinearAveragePool"), channels_last(pooling)),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), global_pooling),
    "QLinearGlobalAveragePool": channels_last(global_pooling),
    "MatMul": _product(1),
    "MatMulInteger": _product(1, rows=(2,), columns=(3,)),
    "QLinearMatMul": _product(3, rows=(1, 2), columns=(4, 5)),
    "MatMulIntegerToFloat": _product(1, rows=(2, 4), columns=(3, 5, 6)),
    "DynamicQuantizeMatMul": _dynamic_product,
    "Gemm": _gemm(1, 2),
    "QGemm": _gemm(3, 6, (4, 5)),
    "Einsum": _einsum,
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "QLinearSoftmax"), _along(_softmax)),
    **dict.fromkeys(
        ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization",
         "SkipSimplifiedLayerNormalization"), _NORMALISED
    ),
    "LpNormalization": _along(_axis(-1)),
    "LRN": _along(lambda place, rank: {1}),
    "InstanceNormalization": _along(lambda place, rank: set(range(2, rank))),
    "GroupNormalization": _along(lambda place, rank: set(range(1, rank))),
    "CumSum": _along(_running),
    **{
        f"Reduce{kind}": _reduction
        for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
    },
    "ArgMax": _reduction,
    "ArgMin": _reduction,
    **dict.fromkeys(MOVES, moved),
    "Concat": concatenation,
    "QLinearConcat": quantised_concatenation,
    "Split": split,
    "Gather": gather,
    "Resize": resize,
    "Upsample": resize,
}  # fmt: skip

#: Operators of ONNX Runtime's own domain that have these rules.
MICROSOFT = frozenset(
    {"DequantizeLinear", "DynamicQuantizeMatMul", "FastGelu", "FusedConv", "Gelu", "MatMulInteger",
     "MatMulIntegerToFloat", "NhwcMaxPool", "QGemm", "QLinearAdd", "QLinearAveragePool", "QLinearConcat", "QLinearConv",
     "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul", "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere",
     "QuantizeLinear", "QuickGelu", "SimplifiedLayerNormalization", "SkipLayerNormalization",
     "SkipSimplifiedLayerNormalization"}
)  # fmt: skip
