"""Random operators with operands, and kernels to run them: whole, and on slices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper

from cosma.access import Site
from cosma.access.boxes import Box, slices
from cosma.graph.tensor import Part

Rng = np.random.Generator
OPSET = 17


@dataclass
class Case:
    """One operator with operand values; ``contents`` are positions of constants that are parameters."""

    type: str
    operands: list[np.ndarray | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    parameters: tuple[int, ...] = ()
    results: int = 1
    opset: int = OPSET

    def run(self, operands: list[np.ndarray | None], attributes: dict[str, Any] | None = None) -> list[np.ndarray]:
        import onnxruntime

        given = self.attributes if attributes is None else attributes
        given = {key: value for key, value in given.items() if value is not None}
        names = ["" if o is None else f"i{k}" for k, o in enumerate(operands)]
        outputs = [f"o{k}" for k in range(self.results)]
        node = helper.make_node(self.type, names, outputs, **given)
        inputs = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(o.dtype), o.shape)
            for n, o in zip(names, operands, strict=True)
            if o is not None
        ]
        graph = helper.make_graph(
            [node], "one", inputs, [onnx.ValueInfoProto(name=name) for name in outputs]
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return session.run(None, {n: o for n, o in zip(names, operands, strict=True) if o is not None})

    def site(self, results: list[np.ndarray]) -> Site:
        contents = {
            i: tuple(self.operands[i].reshape(-1).tolist()) for i in self.parameters if self.operands[i] is not None
        }
        return Site(
            Part(self.type, "", tuple(sorted(self.attributes.items()))),
            tuple(None if o is None else o.shape for o in self.operands),
            tuple(r.shape for r in results),
            contents,
            self.opset,
        )


def values(rng: Rng, *shape: int) -> np.ndarray:
    return np.asarray(rng.standard_normal(shape), dtype=np.float32)


def _int(rng: Rng, low: int, high: int) -> int:
    return int(rng.integers(low, high + 1))


def _window(rng: Rng, rank: int) -> dict[str, Any]:
    kernel = [_int(rng, 1, 3) for _ in range(rank)]
    found: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": [_int(rng, 1, 3) for _ in range(rank)],
        "dilations": [_int(rng, 1, 2) for _ in range(rank)],
    }
    if rng.random() < 0.3:
        found["auto_pad"] = str(rng.choice(["SAME_UPPER", "SAME_LOWER", "VALID"]))
        found["dilations"] = [1] * rank
        found["strides"] = [min(one, taps) for one, taps in zip(found["strides"], kernel, strict=True)]
    else:
        found["pads"] = [_int(rng, 0, kernel[i % rank] - 1) for i in range(2 * rank)]
    return found


def conv(rng: Rng) -> Case:
    rank = _int(rng, 1, 2)
    groups, per_in, per_out = _int(rng, 1, 3), _int(rng, 1, 2), _int(rng, 1, 3)
    window = _window(rng, rank)
    x = values(rng, _int(rng, 1, 2), groups * per_in, *(_int(rng, 7, 10) for _ in range(rank)))
    w = values(rng, groups * per_out, per_in, *window["kernel_shape"])
    bias = values(rng, groups * per_out) if rng.random() < 0.5 else None
    return Case("Conv", [x, w] if bias is None else [x, w, bias], {**window, "group": groups})


def conv_transpose(rng: Rng) -> Case:
    rank = _int(rng, 1, 2)
    groups, per_in, per_out = _int(rng, 1, 2), _int(rng, 1, 2), _int(rng, 1, 3)
    kernel = [_int(rng, 1, 3) for _ in range(rank)]
    strides = [_int(rng, 1, 3) for _ in range(rank)]
    found: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "group": groups}
    found["dilations"] = [_int(rng, 1, 2) for _ in range(rank)]
    if rng.random() < 0.7:
        found["pads"] = [_int(rng, 0, 1) for _ in range(2 * rank)]
        found["output_padding"] = [_int(rng, 0, max(0, strides[i] - 1)) for i in range(rank)]
    x = values(rng, 1, groups * per_in, *(_int(rng, 4, 6) for _ in range(rank)))
    w = values(rng, groups * per_in, per_out, *kernel)
    return Case("ConvTranspose", [x, w, values(rng, groups * per_out)], found)


def pool(rng: Rng) -> Case:
    kind = str(rng.choice(["MaxPool", "AveragePool", "LpPool"]))
    rank = _int(rng, 1, 2)
    window = _window(rng, rank)
    if kind != "MaxPool":
        window.pop("dilations")
    if kind == "AveragePool":
        window["count_include_pad"] = _int(rng, 0, 1)
    if kind != "LpPool" and "auto_pad" not in window:
        window["ceil_mode"] = _int(rng, 0, 1)
    return Case(kind, [values(rng, 1, 2, *(_int(rng, 7, 11) for _ in range(rank)))], window)


def global_pool(rng: Rng) -> Case:
    return Case(str(rng.choice(["GlobalAveragePool", "GlobalMaxPool"])), [values(rng, 2, 5, 3, 4)])


def matmul(rng: Rng) -> Case:
    m, k, n = (_int(rng, 1, 5) for _ in range(3))
    a, b = [(k,), (m, k), (3, m, k), (2, 3, m, k), (1, m, k)], [(k,), (k, n), (3, k, n), (2, 1, k, n)]
    one, other = a[_int(rng, 0, 4)], b[_int(rng, 0, 3)]
    if len(one) == len(other) == 1:
        one = (m, k)
    return Case("MatMul", [values(rng, *one), values(rng, *other)])


def gemm(rng: Rng) -> Case:
    m, k, n = (_int(rng, 2, 5) for _ in range(3))
    ta, tb = _int(rng, 0, 1), _int(rng, 0, 1)
    c = [(m, n), (n,), (1, n), (m, 1), ()][_int(rng, 0, 4)]
    a, b = (k, m) if ta else (m, k), (n, k) if tb else (k, n)
    return Case("Gemm", [values(rng, *a), values(rng, *b), values(rng, *c)], {"transA": ta, "transB": tb, "alpha": 0.5})


def elementwise(rng: Rng) -> Case:
    kind = _int(rng, 0, 5)
    shape = (2, 3, 4, 5)
    if kind == 0:
        return Case("Relu", [values(rng, *shape)])
    if kind == 1:
        other = [(5,), (3, 1, 1), (), (1, 3, 4, 5), (2, 1, 1, 5)][_int(rng, 0, 4)]
        return Case(str(rng.choice(["Add", "Mul", "Sub"])), [values(rng, *shape), values(rng, *other)])
    if kind == 2:
        scale = np.abs(values(rng, 3)) + 0.1
        return Case("BatchNormalization", [values(rng, *shape), scale, values(rng, 3), values(rng, 3), scale])
    if kind == 3:
        return Case("Where", [values(rng, 2, 1, 4, 1) > 0, values(rng, *shape), values(rng, 5)])
    if kind == 4:
        scale = np.abs(values(rng, 3)) + 0.1
        return Case("QuantizeLinear", [values(rng, *shape), scale, np.zeros(3, np.int8)], {"axis": 1})
    return Case("Clip", [values(rng, *shape), np.array(-0.5, np.float32), np.ones((), np.float32)])


def normalisation(rng: Rng) -> Case:
    kind = _int(rng, 0, 6)
    axis = _int(rng, -3, 2)
    if kind == 6:
        return Case("LRN", [values(rng, 2, 6, 4, 5)], {"size": 2 * _int(rng, 0, 2) + 1})
    if kind == 0:
        return Case(str(rng.choice(["Softmax", "LogSoftmax"])), [values(rng, 3, 4, 5)], {"axis": axis})
    if kind == 1:
        return Case("Softmax", [values(rng, 3, 4, 5)], {"axis": axis % 3}, opset=11)
    if kind == 2:
        shape = (3, 4, 5)[axis:]
        operands = [values(rng, 3, 4, 5), values(rng, *shape), values(rng, *shape)]
        return Case("LayerNormalization", operands, {"axis": axis})
    if kind == 3:
        return Case("InstanceNormalization", [values(rng, 2, 3, 4, 4), values(rng, 3), values(rng, 3)])
    if kind == 4:
        return Case("LpNormalization", [values(rng, 3, 4, 5)], {"axis": axis, "p": 2})
    return Case("CumSum", [values(rng, 3, 4), np.array(_int(rng, 0, 1), np.int64)], parameters=(1,))


def einsum(rng: Rng) -> Case:
    sizes = {label: _int(rng, 2, 5) for label in "bhijk"}
    left, right, result = [
        ("bhik", "bhkj", "bhij"), ("bik", "kj", "bij"), ("bhij", "bhjk", "bihk"), ("ik", "jk", "ji"),
        ("bij", "bij", "bi"),
    ][_int(rng, 0, 4)]  # fmt: skip
    operands = [values(rng, *(sizes[label] for label in term)) for term in (left, right)]
    return Case("Einsum", operands, {"equation": f"{left}, {right} -> {result}"})


def reduction(rng: Rng) -> Case:
    keep = _int(rng, 0, 1)
    if rng.random() < 0.3:
        return Case("ArgMax", [values(rng, 3, 4, 5)], {"axis": _int(rng, 0, 2), "keepdims": keep})
    if rng.random() < 0.4:
        axes = np.array(sorted(rng.choice(3, _int(rng, 1, 2), replace=False)), np.int64)
        return Case("ReduceSum", [values(rng, 3, 4, 5), axes], {"keepdims": keep}, parameters=(1,))
    axes = [int(a) for a in sorted(rng.choice(3, _int(rng, 1, 2), replace=False))]
    return Case(
        str(rng.choice(["ReduceMean", "ReduceMax"])), [values(rng, 3, 4, 5)], {"axes": axes, "keepdims": keep}
    )


def movement(rng: Rng) -> Case:
    kind = _int(rng, 0, 8)
    if kind == 0:
        return Case("Transpose", [values(rng, 2, 3, 4)], {"perm": [int(a) for a in rng.permutation(3)]})
    if kind == 1:
        axis = _int(rng, 0, 2)
        shapes = [[2, 3, 4] for _ in range(_int(rng, 2, 3))]
        for shape in shapes:
            shape[axis] = _int(rng, 1, 4)
        return Case("Concat", [values(rng, *shape) for shape in shapes], {"axis": axis})
    if kind == 2:
        step = int(rng.choice([-2, -1, 1, 2, 3]))
        start, end = (1, 100) if step > 0 else (-2, -100)
        bounds = [np.array([v], np.int64) for v in (start, end, _int(rng, 0, 1), step)]
        return Case("Slice", [values(rng, 8, 9), *bounds], parameters=(1, 2, 3, 4))
    if kind == 3:
        mode = str(rng.choice(["constant", "constant", "reflect", "edge"]))
        pads = np.array([0, 1, 2, 0, 2, 1], np.int64)
        return Case("Pad", [values(rng, 2, 4, 5), pads], {"mode": mode}, parameters=(1,))
    if kind == 4:
        return Case("Split", [values(rng, 4, 6, 2)], {"axis": _int(rng, 0, 1)}, results=2)
    if kind == 5:
        mode = str(rng.choice(["DCR", "CRD"]))
        return Case("DepthToSpace", [values(rng, 1, 8, 3, 4)], {"blocksize": 2, "mode": mode})
    if kind == 6:
        return Case("SpaceToDepth", [values(rng, 1, 2, 6, 4)], {"blocksize": 2})
    if kind == 7:
        return Case("Gather", [values(rng, 3, 7, 4), rng.integers(0, 7, (2, 3))], {"axis": 1})
    return Case("Expand", [values(rng, 3, 1), np.array([2, 3, 4], np.int64)], parameters=(1,))


def resize(rng: Rng) -> Case:
    mode = str(rng.choice(["nearest", "linear", "cubic"]))
    coordinate = str(rng.choice(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]))
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinate}
    if mode == "nearest":
        attributes["nearest_mode"] = str(rng.choice(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]))
    if rng.random() < 0.5:
        sizes = np.array([1, 2, _int(rng, 3, 14), _int(rng, 3, 14)], np.int64)
        return Case("Resize", [values(rng, 1, 2, 6, 7), None, None, sizes], attributes, parameters=(3,))
    scales = np.array([1, 1, *rng.choice([0.5, 0.6, 1.5, 2.0, 2.3], 2)], np.float32)
    return Case("Resize", [values(rng, 1, 2, 6, 7), None, scales], attributes, parameters=(2,))


MAKERS: tuple[Callable[[Rng], Case], ...] = (
    conv, conv_transpose, pool, global_pool, matmul, gemm, einsum, elementwise, normalisation, reduction, movement,
    resize,
)  # fmt: skip


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


def poisoned(operand: np.ndarray, box: Box | None, rng: Rng) -> np.ndarray:
    """The operand with other values outside a region."""
    if operand.dtype == np.bool_:
        garbage = ~operand
    elif np.issubdtype(operand.dtype, np.integer):
        garbage = np.zeros_like(operand)
    else:
        garbage = np.asarray(rng.standard_normal(operand.shape) * 1000, dtype=operand.dtype)
    if box is None:
        return garbage
    found = np.array(garbage)
    found[slices(box)] = operand[slices(box)]
    return found
