"""Random operators of every type with a rule of access, and kernels to run them: whole, and on slices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper

from cosma.access import Site
from cosma.access.boxes import Box, slices
from cosma.access.site import TileNode
from cosma.graph.semantics import ELEMENTWISE
from cosma.graph.tensor import Part

Rng = np.random.Generator
Array = np.ndarray
OPSET = 17


@dataclass
class Case:
    """One operator with operand values; ``parameters`` are positions of constants that are parameters."""

    type: str
    operands: list[Array | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    parameters: tuple[int, ...] = ()
    results: int = 1
    opset: int = OPSET
    domain: str = ""
    #: Whether ONNX's reference evaluator runs it: ONNX Runtime has no kernel.
    by_reference: bool = False

    def run(self, operands: list[Array | None], attributes: dict[str, Any] | None = None) -> list[Array]:
        given = self.attributes if attributes is None else attributes
        given = {key: value for key, value in given.items() if value is not None}
        names = ["" if o is None else f"i{k}" for k, o in enumerate(operands)]
        outputs = [f"o{k}" for k in range(self.results)]
        node = helper.make_node(self.type, names, outputs, domain=self.domain, **given)
        inputs = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(o.dtype), o.shape)
            for n, o in zip(names, operands, strict=True)
            if o is not None
        ]
        graph = helper.make_graph(
            [node], "one", inputs, [onnx.ValueInfoProto(name=name) for name in outputs]
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        feeds = {n: o for n, o in zip(names, operands, strict=True) if o is not None}
        if self.by_reference:
            from onnx.reference import ReferenceEvaluator

            return [np.asarray(found) for found in ReferenceEvaluator(model).run(outputs, feeds)]
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return session.run(None, feeds)

    def site(self, results: list[Array]) -> Site:
        contents = {
            i: tuple(self.operands[i].reshape(-1).tolist()) for i in self.parameters if self.operands[i] is not None
        }
        return Site(
            Part(self.type, self.domain, tuple(sorted(self.attributes.items()))),
            tuple(None if o is None else o.shape for o in self.operands),
            tuple(r.shape for r in results),
            contents,
            self.opset,
        )


def values(rng: Rng, *shape: int) -> Array:
    return np.asarray(rng.standard_normal(shape), dtype=np.float32)


def bytes_of(rng: Rng, *shape: int, signed: bool = True) -> Array:
    return rng.integers(-99, 99, shape).astype(np.int8) if signed else rng.integers(0, 200, shape).astype(np.uint8)


def scalar(value: float, dtype: Any = np.float32) -> Array:
    return np.array(value, dtype)


def _int(rng: Rng, low: int, high: int) -> int:
    return int(rng.integers(low, high + 1))


def _pick(rng: Rng, *options: Any) -> Any:
    return options[_int(rng, 0, len(options) - 1)]


def _scales(rng: Rng, count: int) -> Array:
    return (rng.random(count) * 0.1 + 0.01).astype(np.float32)


# -- windows ------------------------------------------------------------------------------------------------


def _window(rng: Rng, rank: int, most_pad: int = -1) -> dict[str, Any]:
    """Attributes of a window; ``most_pad`` is relative to its taps."""
    kernel = [_int(rng, 1, 3) for _ in range(rank)]
    found: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": [_int(rng, 1, 3) for _ in range(rank)],
        "dilations": [_int(rng, 1, 2) for _ in range(rank)],
    }
    if rng.random() < 0.3:
        found["auto_pad"] = str(_pick(rng, "SAME_UPPER", "SAME_LOWER", "VALID"))
        found["dilations"] = [1] * rank
        found["strides"] = [min(one, taps) for one, taps in zip(found["strides"], kernel, strict=True)]
    else:
        found["pads"] = [_int(rng, 0, kernel[i % rank] + most_pad) for i in range(2 * rank)]
    return found


def conv(rng: Rng, kind: str) -> Case:
    rank = _pick(rng, 1, 2, 2, 2, 3) if kind == "Conv" else 2
    groups, per_in, per_out = _pick(rng, 1, 1, 2, 3), _int(rng, 1, 2), _int(rng, 1, 3)
    window = _window(rng, rank, most_pad=1)
    channels = groups * per_out
    x = (_int(rng, 1, 2), groups * per_in, *(_int(rng, 7, 10) for _ in range(rank)))
    w = (channels, per_in, *window["kernel_shape"])
    attributes = {**window, "group": groups}
    if kind == "ConvInteger":
        zeros = [scalar(7, np.uint8), scalar(3, np.uint8)]
        data = [bytes_of(rng, *x, signed=False), bytes_of(rng, *w, signed=False)]
        return Case(kind, [*data, *zeros[: _int(rng, 0, 2)]], attributes)
    if kind == "QLinearConv":
        scale = _pick(rng, _scales(rng, channels), scalar(0.02))
        operands = [bytes_of(rng, *x), scalar(0.05), scalar(3, np.int8), bytes_of(rng, *w), scale,
                    np.zeros(scale.shape, np.int8), scalar(0.3), scalar(-4, np.int8)]  # fmt: skip
        if rng.random() < 0.5:
            operands.append(rng.integers(-900, 900, channels).astype(np.int32))
        return Case(kind, operands, attributes)
    operands = [values(rng, *x), values(rng, *w), *([values(rng, channels)] if rng.random() < 0.5 else [])]
    if kind == "Conv":
        return Case(kind, operands, attributes)
    case = Case(kind, operands, {**attributes, "activation": "Relu"}, domain="com.microsoft")
    if rng.random() < 0.5:
        shape = case.run(operands)[0].shape
        case.operands = [*operands[:2], operands[2] if len(operands) > 2 else None, values(rng, *shape)]
    return case


def conv_transpose(rng: Rng, kind: str) -> Case:
    rank = _int(rng, 1, 2)
    groups, per_in, per_out = _int(rng, 1, 2), _int(rng, 1, 2), _int(rng, 1, 3)
    kernel = [_int(rng, 1, 3) for _ in range(rank)]
    strides = [_int(rng, 1, 3) for _ in range(rank)]
    found: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "group": groups}
    found["dilations"] = [_int(rng, 1, 2) for _ in range(rank)]
    size = [_int(rng, 4, 6) for _ in range(rank)]
    how = rng.random()
    if how < 0.5:
        found["pads"] = [_int(rng, 0, 1) for _ in range(2 * rank)]
        found["output_padding"] = [_int(rng, 0, max(0, strides[i] - 1)) for i in range(rank)]
    elif how < 0.65:
        found["auto_pad"] = _pick(rng, "SAME_UPPER", "SAME_LOWER", "VALID")
    elif how < 0.8:
        found["output_shape"] = [s * n - _int(rng, 0, s - 1) for s, n in zip(strides, size, strict=True)]
        found["auto_pad"] = _pick(rng, "NOTSET", "SAME_UPPER")
    x = values(rng, 1, groups * per_in, *size)
    w = values(rng, groups * per_in, per_out, *kernel)
    return Case(kind, [x, w, *([values(rng, groups * per_out)] if rng.random() < 0.7 else [])], found)


def pool(rng: Rng, kind: str) -> Case:
    rank = _pick(rng, 1, 2, 2, 3)
    window = _window(rng, rank)
    opset = _pick(rng, 11, 17, 19, 22)
    if opset < {"MaxPool": 10, "LpPool": 18, "AveragePool": 19}[kind]:
        window.pop("dilations")
    if kind == "LpPool" and opset < 18:
        window["p"] = _int(rng, 1, 2)
    if kind == "AveragePool":
        window["count_include_pad"] = _int(rng, 0, 1)
    if (kind != "LpPool" or opset >= 18) and "auto_pad" not in window:
        window["ceil_mode"] = _int(rng, 0, 1)
    indices = kind == "MaxPool" and rng.random() < 0.1
    x = values(rng, _int(rng, 1, 2), 2, *(_int(rng, 7, 11) for _ in range(rank)))
    return Case(kind, [x], window, opset=opset, results=1 + indices)


def global_pool(rng: Rng, kind: str) -> Case:
    return Case(kind, [values(rng, 2, 5, *(_int(rng, 2, 4) for _ in range(_int(rng, 1, 3))))])


# -- products -----------------------------------------------------------------------------------------------


def matmul(rng: Rng, kind: str) -> Case:
    m, k, n = (_int(rng, 1, 5) for _ in range(3))
    a = _pick(rng, (k,), (m, k), (3, m, k), (2, 3, m, k), (1, m, k), (2, 1, m, k))
    b = _pick(rng, (k,), (k, n), (3, k, n), (2, 1, k, n))
    if kind == "MatMul":
        return Case(kind, [values(rng, *((m, k) if len(a) == len(b) == 1 else a)), values(rng, *b)])
    # quantised kernels want matrices
    a, b = (m, k) if len(a) < 2 else a, (k, n) if len(b) < 2 else b
    if kind == "MatMulInteger":
        zeros = [scalar(7, np.uint8), _pick(rng, scalar(3, np.uint8), bytes_of(rng, n, signed=False))]
        if len(b) > 2:
            zeros[1] = scalar(3, np.uint8)
        data = [bytes_of(rng, *a, signed=False), bytes_of(rng, *b, signed=False)]
        return Case(kind, [*data, *zeros[: _int(rng, 0, 2)]])
    scale = _pick(rng, _scales(rng, n), scalar(0.02)) if len(b) == 2 else scalar(0.02)
    return Case(kind, [bytes_of(rng, *a), scalar(0.05), scalar(2, np.int8), bytes_of(rng, *b), scale,
                       np.zeros(scale.shape, np.int8), scalar(0.4), scalar(-1, np.int8)])  # fmt: skip


def gemm(rng: Rng, kind: str) -> Case:
    m, k, n = (_int(rng, 2, 5) for _ in range(3))
    ta, tb = _int(rng, 0, 1), _int(rng, 0, 1)
    c = _pick(rng, (m, n), (n,), (1, n), (m, 1), (), None)
    a, b = (k, m) if ta else (m, k), (n, k) if tb else (k, n)
    operands = [values(rng, *a), values(rng, *b), *([] if c is None else [values(rng, *c)])]
    return Case(kind, operands, {"transA": ta, "transB": tb, "alpha": 0.5, "beta": 2.0})


def einsum(rng: Rng, kind: str) -> Case:
    sizes = {label: _int(rng, 2, 5) for label in "bhijk"}
    terms, result = _pick(
        rng, ("bhik,bhkj", "bhij"), ("bik,kj", "bij"), ("bhij,bhjk", "bihk"), ("ik,jk", "ji"), ("bij,bij", "bi"),
        ("bii", "bi"), ("ij", "ji"), ("bhi,hj,jk", "bik"),
    )  # fmt: skip
    operands = [values(rng, *(sizes[label] for label in term)) for term in terms.split(",")]
    return Case(kind, operands, {"equation": f"{terms.replace(',', ', ')} -> {result}"})


# -- along axes ---------------------------------------------------------------------------------------------


def softmax(rng: Rng, kind: str) -> Case:
    rank = _int(rng, 2, 4)
    opset = _pick(rng, 11, 17)
    axis = {} if rng.random() < 0.2 else {"axis": _int(rng, -rank, rank - 1)}
    return Case(kind, [values(rng, *(3, 4, 5, 2)[:rank])], axis, opset=opset)


def layer_norm(rng: Rng, kind: str) -> Case:
    shape = (3, 4, 5)
    axis = {} if rng.random() < 0.2 else {"axis": _int(rng, -3, 2)}
    inner = shape[axis.get("axis", -1) :] if axis.get("axis", -1) else shape
    offset = [values(rng, *inner)] if kind == "LayerNormalization" and rng.random() < 0.7 else []
    case = Case(kind, [values(rng, *shape), values(rng, *inner), *offset], axis)
    if kind == "RMSNormalization":
        case.opset, case.by_reference = 23, True
    if kind == "LayerNormalization" and rng.random() < 0.2:
        case.results = 3
    return case


def skip_norm(rng: Rng, kind: str) -> Case:
    shape = (2, 4, 8)
    skip = _pick(rng, shape, shape, (1, 4, 8), (4, 8))
    more = [values(rng, 8) for _ in range(_int(rng, 0, 2 if kind == "SkipLayerNormalization" else 1))]
    operands = [values(rng, *shape), values(rng, *skip), values(rng, 8), *more]
    return Case(kind, operands, domain="com.microsoft")


def normalisation(rng: Rng, kind: str) -> Case:
    if kind == "LRN":
        return Case(kind, [values(rng, 2, 6, 4, 5)], {"size": 2 * _int(rng, 0, 2) + 1})
    if kind == "LpNormalization":
        return Case(kind, [values(rng, 3, 4, 5)], {"axis": _int(rng, -3, 2), "p": _int(rng, 1, 2)})
    if kind == "InstanceNormalization":
        return Case(kind, [values(rng, 2, 3, 4, _pick(rng, 3, 4)), values(rng, 3), values(rng, 3)])
    if kind == "GroupNormalization":
        x = values(rng, 3, 4, 3, _pick(rng, 4, 5))
        return Case(kind, [x, values(rng, 4), values(rng, 4)], {"num_groups": 2}, opset=21, by_reference=True)
    attributes = {"exclusive": _int(rng, 0, 1), "reverse": _int(rng, 0, 1)}
    return Case(kind, [values(rng, 3, 4), scalar(_int(rng, -2, 1), np.int64)], attributes, parameters=(1,))


def reduction(rng: Rng, kind: str) -> Case:
    keep = {"keepdims": _int(rng, 0, 1)} if rng.random() < 0.8 else {}
    x = np.abs(values(rng, 3, 4, 5)) + 0.1
    if kind.startswith("Arg"):
        return Case(kind, [x], {"axis": _int(rng, -3, 2), **keep, "select_last_index": _int(rng, 0, 1)})
    axes = [int(a) - 3 * _int(rng, 0, 1) for a in sorted(rng.choice(3, _int(rng, 1, 3), replace=False))]
    how = rng.random()
    by_operand = kind == "ReduceSum" or rng.random() < 0.5
    opset = 18 if by_operand and kind != "ReduceSum" else OPSET
    if how < 0.15:
        return Case(kind, [x], keep, opset=opset)
    if by_operand:
        if how < 0.3:
            noop = {"noop_with_empty_axes": 1} if rng.random() < 0.5 and kind in ("ReduceSum", "ReduceMax") else {}
            return Case(kind, [x, np.zeros(0, np.int64)], {**keep, **noop}, parameters=(1,), opset=opset)
        return Case(kind, [x, np.array(axes, np.int64)], keep, parameters=(1,), opset=opset)
    return Case(kind, [x], {"axes": axes, **keep})


# -- movement -----------------------------------------------------------------------------------------------


def transpose(rng: Rng, kind: str) -> Case:
    rank = _int(rng, 2, 4)
    order = {} if rng.random() < 0.2 else {"perm": [int(a) for a in rng.permutation(rank)]}
    return Case(kind, [values(rng, *(2, 3, 4, 5)[:rank])], order)


def concat(rng: Rng, kind: str) -> Case:
    axis = _int(rng, -3, 2)
    shapes = [[2, 3, 4] for _ in range(_int(rng, 1, 4))]
    for shape in shapes:
        shape[axis] = _int(rng, 1, 4)
    return Case(kind, [values(rng, *shape) for shape in shapes], {"axis": axis})


def slice_(rng: Rng, kind: str) -> Case:
    shape = (8, 9, 7)
    axes = [int(a) for a in rng.permutation(3)[: _int(rng, 1, 3)]]
    steps = [int(_pick(rng, -3, -2, -1, 1, 2, 3)) for _ in axes]
    starts, ends = [], []
    for axis, step in zip(axes, steps, strict=True):
        low, high = _int(rng, 0, 2), shape[axis] - _int(rng, 1, 3)
        first, last = (low, high + 1) if step > 0 else (high, low - 1)
        far = 2**31 - 1 if step > 0 else -(2**31)
        last = far if last < 0 or rng.random() < 0.4 else last - _pick(rng, 0, shape[axis] if last < shape[axis] else 0)
        starts.append(first - _pick(rng, 0, shape[axis]))
        ends.append(last)
    written = [a - _pick(rng, 0, 3) for a in axes]
    if min(steps) == max(steps) == 1 and rng.random() < 0.5:
        return Case(kind, [values(rng, *shape)], {"starts": starts, "ends": ends, "axes": written}, opset=9)
    bounds = [np.array(v, np.int64) for v in (starts, ends, written, steps)]
    return Case(kind, [values(rng, *shape), *bounds], parameters=(1, 2, 3, 4))


def pad(rng: Rng, kind: str) -> Case:
    mode = _pick(rng, "constant", "constant", "reflect", "edge", "wrap")
    shape = (2, 5, 6)
    least = _pick(rng, 0, -1)
    axes = sorted(int(a) for a in rng.permutation(3)[:2]) if rng.random() < 0.3 else [0, 1, 2]
    most = {"constant": 3, "edge": 3, "reflect": 1, "wrap": 2}[mode]
    amounts = [_pick(rng, 0, _int(rng, least if shape[a] > 2 else 0, most)) for _ in range(2) for a in axes]
    opset = 19 if mode == "wrap" or len(axes) < 3 else OPSET
    operands: list[Array | None] = [values(rng, *shape), np.array(amounts, np.int64)]
    constant = scalar(0.5) if mode == "constant" and rng.random() < 0.5 else None
    if len(axes) < 3:
        operands += [constant, np.array([a - _pick(rng, 0, 3) for a in axes], np.int64)]
        return Case(kind, operands, {"mode": mode}, parameters=(1, 3), opset=opset)
    return Case(kind, [*operands, *([] if constant is None else [constant])], {"mode": mode}, (1,), opset=opset)


def split(rng: Rng, kind: str) -> Case:
    axis = _int(rng, -3, 2)
    x = values(rng, 4, 6, 2)
    if rng.random() < 0.5 and x.shape[axis] > 2:
        sizes = np.array([1, x.shape[axis] - 1], np.int64)
        return Case(kind, [x, sizes], {"axis": axis}, parameters=(1,), results=2)
    return Case(kind, [x], {"axis": axis}, results=2)


def blocks(rng: Rng, kind: str) -> Case:
    if kind == "SpaceToDepth":
        return Case(kind, [values(rng, 2, 2, 6, 12)], {"blocksize": _int(rng, 2, 3)})
    size = _int(rng, 1, 3)
    mode = {"mode": _pick(rng, "DCR", "CRD")} if rng.random() < 0.8 else {}
    return Case(kind, [values(rng, 2, 2 * size * size, 3, 4)], {"blocksize": size, **mode})


def gather(rng: Rng, kind: str) -> Case:
    indices = rng.integers(-7, 7, _pick(rng, (), (3,), (2, 3)))
    axis = _int(rng, -3, 2)
    shape = [3, 4, 5]
    shape[axis] = 7
    return Case(kind, [values(rng, *shape), np.asarray(indices, np.int64)], {"axis": axis})


def expand(rng: Rng, kind: str) -> Case:
    shape, to = _pick(rng, ((3, 1), (2, 3, 4)), ((1, 3, 4), (2, 1, 4)), ((2, 3, 4), (3, 4)), ((4,), (2, 1)))
    return Case(kind, [values(rng, *shape), np.array(to, np.int64)], parameters=(1,))


def resize(rng: Rng, kind: str) -> Case:
    x = values(rng, 1, 2, _int(rng, 5, 14), _int(rng, 5, 14))
    if kind == "Upsample":
        scales = np.array([1, 1, *rng.choice([1.0, 1.5, 2.0, 2.3], 2)], np.float32)
        return Case(kind, [x, scales], {"mode": _pick(rng, "nearest", "linear")}, parameters=(1,), opset=9)
    mode = _pick(rng, "nearest", "linear", "cubic")
    few = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    opset = _pick(rng, 10, 11, 13, 19)
    attributes: dict[str, Any] = {"mode": mode}
    if opset > 10:
        more = ("half_pixel_symmetric",) if opset == 19 else ()
        attributes["coordinate_transformation_mode"] = _pick(rng, *few, *more)
        if mode == "nearest":
            attributes["nearest_mode"] = _pick(rng, "round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        if mode == "cubic":
            attributes |= {"cubic_coeff_a": _pick(rng, -0.5, -0.75), "exclude_outside": _int(rng, 0, 1)}
    elif mode == "cubic":
        attributes["mode"] = "nearest"
    if opset == 19 and mode != "nearest" and rng.random() < 0.2:
        attributes["antialias"] = 1
    scales = [float(v) for v in rng.choice([0.25, 0.3, 0.5, 0.6, 1.0, 1.5, 2.0, 2.3], 2)]
    sizes = [_int(rng, 1, 20), _int(rng, 1, 20)]
    if opset == 19 and rng.random() < 0.3:
        attributes["axes"] = [2, 3]
    else:
        scales, sizes = [1.0, 1.0, *scales], [1, 2, *sizes]
    roi = None if opset > 11 else np.zeros(0, np.float32)
    if opset > 10 and rng.random() < 0.5:
        if "axes" in attributes and rng.random() < 0.4:
            attributes["keep_aspect_ratio_policy"] = _pick(rng, "not_larger", "not_smaller")
        operands = [x, roi, None if opset > 11 else np.zeros(0, np.float32), np.array(sizes, np.int64)]
        return Case(kind, operands, attributes, parameters=(3,), opset=opset)
    if opset == 10:
        return Case(kind, [x, np.array(scales, np.float32)], attributes, parameters=(1,), opset=10)
    return Case(kind, [x, roi, np.array(scales, np.float32)], attributes, parameters=(2,), opset=opset)


# -- element by element -------------------------------------------------------------------------------------

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
    return _pick(rng, _SHAPE, (5,), (3, 1, 1), (), (1, 3, 4, 5), (2, 1, 1, 5), (1,))


def elementwise(rng: Rng, kind: str) -> Case:
    domain = "com.microsoft" if kind in _MICROSOFT else ""
    case = Case(kind, [_elements(rng, kind, *_SHAPE)], opset=_OPSETS.get(kind, OPSET), domain=domain)
    case.by_reference = kind in _NO_KERNEL
    if kind in _OF_TWO:
        case.operands.append(_elements(rng, kind, *_other_shape(rng)))
        if kind not in ("PRelu", "Pow") and rng.random() < 0.3:
            case.operands.reverse()
    elif kind in _OF_MANY:
        case.operands += [values(rng, *_other_shape(rng)) for _ in range(_int(rng, 0, 2))]
    if kind == "Mod":
        case.attributes["fmod"] = 1
    if kind == "BitShift":
        case.attributes["direction"] = _pick(rng, "LEFT", "RIGHT")
    if kind == "Cast":
        case.attributes["to"] = _pick(rng, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    if kind == "CastLike":
        case.operands.append(scalar(0, np.float64))
    return case


def where(rng: Rng, kind: str) -> Case:
    condition = _elements(rng, "And", *_other_shape(rng))
    return Case(kind, [condition, values(rng, *_SHAPE), values(rng, *_other_shape(rng))])


def clip(rng: Rng, kind: str) -> Case:
    return Case(kind, [values(rng, *_SHAPE), _pick(rng, None, scalar(-0.5)), scalar(1)])


def batch_norm(rng: Rng, kind: str) -> Case:
    scale = np.abs(values(rng, 3)) + 0.1
    shape = _SHAPE[: _int(rng, 2, 4)]
    return Case(kind, [values(rng, *shape), scale, values(rng, 3), values(rng, 3), scale])


def quantise(rng: Rng, kind: str) -> Case:
    axis = _int(rng, -4, 3)
    how = rng.random()
    scale = scalar(0.05) if how < 0.3 else _scales(rng, _SHAPE[axis])
    zero = [bytes_of(rng, *scale.shape)] if rng.random() < 0.8 else []
    given = {} if how < 0.3 and rng.random() < 0.5 else {"axis": axis}
    opset = OPSET
    if how > 0.8:  # a scale for each block of elements
        shape = list(_SHAPE)
        shape[axis] = -(-shape[axis] // 2)
        scale, opset = _scales(rng, int(np.prod(shape))).reshape(shape), 21
        zero, given = [bytes_of(rng, *shape)], {"axis": axis, "block_size": 2}
    if kind == "QuantizeLinear":
        zero = zero or [np.zeros(scale.shape, np.int8)]
        return Case(kind, [values(rng, *_SHAPE), scale, *zero], given, opset=opset)
    return Case(kind, [bytes_of(rng, *_SHAPE), scale, *zero], given, opset=opset)


def quantised_elementwise(rng: Rng, kind: str) -> Case:
    def conversion() -> list[Array]:
        return [scalar(0.05), scalar(2, np.int8)]

    operands = [bytes_of(rng, *_SHAPE), *conversion()]
    if kind in ("QLinearAdd", "QLinearMul"):
        operands += [bytes_of(rng, *_other_shape(rng)), *conversion()]
    return Case(kind, [*operands, *conversion()], domain="com.microsoft")


Maker = Callable[[Rng, str], Case]

#: What makes cases of each type.
MAKERS: dict[str, Maker] = {
    **dict.fromkeys(ELEMENTWISE, elementwise),
    **dict.fromkeys(("QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu"), quantised_elementwise),
    "Where": where,
    "Clip": clip,
    "BatchNormalization": batch_norm,
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), quantise),
    **dict.fromkeys(("Conv", "FusedConv", "ConvInteger", "QLinearConv"), conv),
    "ConvTranspose": conv_transpose,
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), global_pool),
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul"), matmul),
    "Gemm": gemm,
    "Einsum": einsum,
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), softmax),
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
    "Slice": slice_,
    "Pad": pad,
    "Split": split,
    **dict.fromkeys(("Resize", "Upsample"), resize),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), blocks),
    "Gather": gather,
    "Expand": expand,
}
del MAKERS["QLinearWhere"]  # it has no rule of access

#: Types with many attributes, which many draws are made of.
RICH = frozenset(
    {"AveragePool", "Conv", "ConvTranspose", "Gemm", "LpPool", "MatMul", "MaxPool", "Pad", "QLinearConv", "Resize",
     "Slice", "Softmax"}
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
        garbage = ~operand
    else:
        garbage = np.asarray(rng.standard_normal(operand.shape) * 1000, dtype=operand.dtype)
    if box is None:
        return garbage
    found = np.array(garbage)
    found[slices(box)] = operand[slices(box)]
    return found


def on_slices(case: Case, tile: TileNode, reads: tuple[Box | None, ...]) -> Array:
    """What the operator's kernel yields for a tile, from slices of the operands."""
    operands = [
        o if o is None or i in case.parameters else None if reads[i] is None else np.asarray(o[slices(reads[i])])
        for i, o in enumerate(case.operands)
    ]
    for i, content in tile.contents.items():
        operands += [None] * (i + 1 - len(operands))
        operands[i] = np.array(content, dtype=np.int64)
    if case.type == "Concat":
        operands = [o for o in operands if o is not None]
    return case.run(operands, {**case.attributes, **tile.attributes})[0]
