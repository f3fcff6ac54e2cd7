"""Random operators that work element by element."""

from __future__ import annotations

import numpy as np
import onnx

from tests.access.case import OPSET, Array, Case, Rng, bytes_of, integer, pick, scalar, some_scales, values

_SHAPE = (2, 3, 4, 5)
_MICROSOFT = frozenset({"FastGelu", "QuickGelu", "QLinearAdd", "QLinearLeakyRelu", "QLinearMul", "QLinearSigmoid"})
_OPSETS = {"Gelu": 20, "HardSwish": 14, "Mish": 18, "Swish": 24, "BitwiseNot": 18, "BitwiseAnd": 18, "BitwiseOr": 18,
           "BitwiseXor": 18, "CastLike": 19}  # fmt: skip
#: Types that ONNX Runtime has no kernel for.
_NO_KERNEL = frozenset({"BitShift", "Swish"})
_OF_BOOLEANS = frozenset({"And", "Not", "Or", "Xor"})
_OF_INTEGERS = frozenset({"BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "BitShift"})
_OF_TWO = frozenset(
    {"Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual",
     "Less", "LessOrEqual", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Xor"}
)  # fmt: skip
_OF_MANY = frozenset({"Max", "Mean", "Min", "Sum"})


def _elements(rng: Rng, kind: str, *shape: int) -> Array:
    if kind in _OF_BOOLEANS:
        return np.asarray(rng.random(shape) < 0.5)
    if kind in _OF_INTEGERS:
        return rng.integers(0, 7, shape).astype(np.uint8 if kind == "BitShift" else np.int32)
    return np.asarray(np.abs(values(rng, *shape)) + 0.1, np.float32) if kind == "Pow" else values(rng, *shape)


def _other_shape(rng: Rng) -> tuple[int, ...]:
    return pick(rng, _SHAPE, (5,), (3, 1, 1), (), (1, 3, 4, 5), (2, 1, 1, 5), (1,))


def elementwise(rng: Rng, kind: str) -> Case:
    domain = "com.microsoft" if kind in _MICROSOFT else ""
    case = Case(kind, [_elements(rng, kind, *_SHAPE)], opset=_OPSETS.get(kind, OPSET), domain=domain)
    case.by_reference = kind in _NO_KERNEL
    if kind in _OF_TWO:
        case.operands.append(_elements(rng, kind, *_other_shape(rng)))
        if kind not in ("PRelu", "Pow") and rng.random() < 0.3:
            case.operands.reverse()
    elif kind in _OF_MANY:
        case.operands += [values(rng, *_other_shape(rng)) for _ in range(integer(rng, 0, 2))]
    if kind == "Mod":
        case.attributes["fmod"] = 1
    if kind == "BitShift":
        case.attributes["direction"] = pick(rng, "LEFT", "RIGHT")
    if kind == "Cast":
        case.attributes["to"] = pick(rng, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    if kind == "CastLike":
        case.operands.append(scalar(0, np.float64))
    return case


def where(rng: Rng, kind: str) -> Case:
    condition = _elements(rng, "And", *_other_shape(rng))
    return Case(kind, [condition, values(rng, *_SHAPE), values(rng, *_other_shape(rng))])


def clip(rng: Rng, kind: str) -> Case:
    return Case(kind, [values(rng, *_SHAPE), pick(rng, None, scalar(-0.5)), scalar(1)])


def batch_norm(rng: Rng, kind: str) -> Case:
    scale = np.abs(values(rng, 3)) + 0.1
    shape = _SHAPE[: integer(rng, 2, 4)]
    return Case(kind, [values(rng, *shape), scale, values(rng, 3), values(rng, 3), scale])


def quantise(rng: Rng, kind: str) -> Case:
    axis = integer(rng, -4, 3)
    how = rng.random()
    scale = scalar(0.05) if how < 0.3 else some_scales(rng, _SHAPE[axis])
    zero = [bytes_of(rng, *scale.shape)] if rng.random() < 0.8 else []
    given = {} if how < 0.3 and rng.random() < 0.5 else {"axis": axis}
    opset = OPSET
    if how > 0.8:  # a scale for each block of elements
        shape = list(_SHAPE)
        shape[axis] = -(-shape[axis] // 2)
        scale, opset = some_scales(rng, int(np.prod(shape))).reshape(shape), 21
        zero, given = [bytes_of(rng, *shape)], {"axis": axis, "block_size": 2}
    if kind == "QuantizeLinear":
        zero = zero or [np.zeros(scale.shape, np.int8)]
        return Case(kind, [values(rng, *_SHAPE), scale, *zero], given, opset=opset)
    return Case(kind, [bytes_of(rng, *_SHAPE), scale, *zero], given, opset=opset)


def quantised_elementwise(rng: Rng, kind: str) -> Case:
    def conversion() -> list[Array]:
        return [scalar(0.05), scalar(2, np.int8)]

    operands = [bytes_of(rng, *_SHAPE), *conversion()]
    if kind == "QLinearWhere":
        condition = _elements(rng, "And", *_other_shape(rng))
        other = [bytes_of(rng, *_other_shape(rng)), *conversion()]
        return Case(kind, [condition, *operands, *other, *conversion()], domain="com.microsoft")
    if kind in ("QLinearAdd", "QLinearMul"):
        operands += [bytes_of(rng, *_other_shape(rng)), *conversion()]
    return Case(kind, [*operands, *conversion()], domain="com.microsoft")
