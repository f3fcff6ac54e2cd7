"""Small networks of several families, with weights, to be cut into tiles and executed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.onnx_files import save_network

Node = onnx.NodeProto
node = helper.make_node


class Maker:
    """Collects nodes and weights of one network."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[Node] = []
        self.weights: list[TensorProto] = []
        self.rng = np.random.default_rng(seed)

    def weight(self, name: str, *shape: int) -> str:
        scale = 1.0 / max(1.0, np.prod(shape[1:])) ** 0.5
        return self.constant(name, (self.rng.standard_normal(shape) * scale).astype(np.float32))

    def constant(self, name: str, value: object) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        self.nodes.append(node(kind, list(inputs), [output], name=f"n_{output}", **attributes))
        return output

    def save(self, path: Path, inputs: dict[str, tuple[int, ...]], outputs: Sequence[str], opset: int = 17) -> Path:
        kinds = {name: TensorProto.INT64 if name == "tokens" else TensorProto.FLOAT for name in inputs}
        values = {name: (kinds[name], shape) for name, shape in inputs.items()}
        return save_network(path, self.nodes, values, self.weights, outputs, opset=opset)


def cnn(path: Path) -> Path:
    """Odd sizes, asymmetric and automatic pads, strides, pooling with rounding up, a head over all rows."""
    m = Maker()
    m.add("Conv", ["x", m.weight("w1", 8, 3, 3, 3), m.weight("b1", 8)], "c1", pads=[0, 1, 2, 1])
    m.add("Relu", ["c1"], "r1")
    m.add("Conv", ["r1", m.weight("w2", 8, 8, 3, 5)], "c2", auto_pad="SAME_LOWER", strides=[2, 2])
    m.add("BatchNormalization", ["c2", m.weight("g", 8), m.weight("o", 8), m.weight("m", 8),
                                 m.constant("v", np.ones(8, np.float32))], "n2")  # fmt: skip
    m.add("Clip", ["n2", m.constant("lo", np.float32(0)), m.constant("hi", np.float32(6))], "r2")
    m.add("MaxPool", ["r2"], "p1", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    m.add("AveragePool", ["p1"], "p2", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    m.add("Add", ["p1", "p2"], "s")
    m.add("GlobalAveragePool", ["s"], "gap")
    m.add("Flatten", ["gap"], "flat")
    m.add("Gemm", ["flat", m.weight("wg", 10, 8), m.weight("bg", 10)], "y", transB=1)
    return m.save(path, {"x": (1, 3, 33, 30)}, ["y", "s"])


def separable(path: Path) -> Path:
    """Depthwise, grouped, dilated and pointwise convolutions with squeeze and excitation."""
    m = Maker(1)
    m.add("Conv", ["x", m.weight("w1", 16, 1, 3, 3)], "d1", group=16, pads=[1, 1, 1, 1], strides=[2, 2])
    m.add("Sigmoid", ["d1"], "g1")
    m.add("Mul", ["d1", "g1"], "a1")
    m.add("ReduceMean", ["a1"], "sq", axes=[2, 3], keepdims=1)
    m.add("Conv", ["sq", m.weight("w2", 16, 16, 1, 1)], "e")
    m.add("HardSigmoid", ["e"], "e2")
    m.add("Mul", ["a1", "e2"], "a2")
    m.add("Conv", ["a2", m.weight("w3", 24, 16, 1, 1), m.weight("b3", 24)], "pw")
    m.add("Conv", ["pw", m.weight("w4", 24, 6, 3, 3)], "y", group=4, dilations=[2, 2], pads=[2, 2, 2, 2])
    return m.save(path, {"x": (1, 16, 24, 24)}, ["y"])


def unet(path: Path) -> Path:
    """Down and up again, with ConvTranspose, Resize, Pad, Slice and joins over channels."""
    m = Maker(2)
    m.add("Conv", ["x", m.weight("w1", 8, 4, 3, 3)], "c1", pads=[1, 1, 1, 1])
    m.add("MaxPool", ["c1"], "p1", kernel_shape=[2, 2], strides=[2, 2])
    m.add("Conv", ["p1", m.weight("w2", 12, 8, 3, 3)], "c2", pads=[1, 1, 1, 1])
    m.add("ConvTranspose", ["c2", m.weight("w3", 12, 6, 2, 2)], "up1", strides=[2, 2])
    m.add("Resize", ["c2", "", m.constant("two", np.array([1, 1, 2, 2], np.float32))], "up2", mode="linear")
    m.add("Resize", ["c2", "", "two"], "up3", mode="nearest", coordinate_transformation_mode="asymmetric",
          nearest_mode="floor")  # fmt: skip
    m.add("Concat", ["c1", "up1", "up2"], "j", axis=1)
    m.add("Pad", ["j", m.constant("pads", np.array([0, 0, 1, 2, 0, 0, 2, 1]))], "pad")
    m.add("Conv", ["pad", m.weight("w4", 12, 26, 3, 3)], "c4")
    m.add("Slice", ["up3", m.constant("from", np.array([0, 0])), m.constant("to", np.array([20, 20])),
                    m.constant("axes", np.array([2, 3]))], "crop")  # fmt: skip
    m.add("Slice", ["c4", "from", "to", "axes"], "crop4")
    m.add("Add", ["crop4", "crop"], "y")
    return m.save(path, {"x": (1, 4, 20, 20)}, ["y"])


def transformer(path: Path) -> Path:
    """Tokens, LayerNormalization and attention with heads through Reshape and Transpose, as exporters write it."""
    m = Maker(3)
    m.add("Gather", [m.weight("table", 40, 32), "tokens"], "e")
    m.add("LayerNormalization", ["e", m.weight("lg", 32), m.weight("lb", 32)], "ln", axis=-1)
    heads = m.constant("heads", np.array([0, 0, 4, 8]))
    for name, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        m.add("MatMul", ["ln", m.weight(f"w{name}", 32, 32)], f"{name}1")
        m.add("Add", [f"{name}1", m.weight(f"b{name}", 32)], f"{name}2")
        m.add("Reshape", [f"{name}2", heads], f"{name}3")
        m.add("Transpose", [f"{name}3"], name, perm=order)
    m.add("MatMul", ["q", "k"], "scores")
    m.add("Div", ["scores", m.constant("root", np.float32(8**0.5))], "scaled")
    m.add("Softmax", ["scaled"], "probabilities", axis=-1)
    m.add("MatMul", ["probabilities", "v"], "mixed")
    m.add("Transpose", ["mixed"], "back", perm=[0, 2, 1, 3])
    m.add("Reshape", ["back", m.constant("flat", np.array([0, 0, 32]))], "joined")
    m.add("MatMul", ["joined", m.weight("wo", 32, 32)], "o")
    m.add("Add", ["o", "e"], "sum")
    m.add("MatMul", ["sum", m.weight("wf", 32, 64)], "f1")
    m.add("Erf", ["f1"], "f2")
    m.add("MatMul", ["f2", m.weight("wh", 64, 32)], "f3")
    m.add("Add", ["f3", "sum"], "y")
    return m.save(path, {"tokens": (1, 12)}, ["y"])


def quantised(path: Path) -> Path:
    """The two ways of writing integer networks: operators between conversions, and operators of their own."""
    m = Maker(4)

    def scale(name: str, value: float) -> list[str]:
        return [m.constant(f"{name}_s", np.float32(value)), m.constant(f"{name}_z", np.int8(0))]

    xs, as_, bs, ws, us = (scale(n, v) for n, v in (("xq", 0.05), ("aq", 0.06), ("bq", 0.07), ("wq", 0.01),
                                                    ("uq", 0.01)))  # fmt: skip
    m.add("QuantizeLinear", ["x", *xs], "xi")
    m.add("DequantizeLinear", ["xi", *xs], "xd")
    m.constant("w", m.rng.integers(-99, 99, (8, 4, 3, 3)).astype(np.int8))
    m.add("DequantizeLinear", ["w", *ws], "wd")
    m.add("Conv", ["xd", "wd"], "c", pads=[1, 1, 1, 1])
    m.add("Relu", ["c"], "r")
    m.add("QuantizeLinear", ["r", *as_], "a")
    m.constant("u", m.rng.integers(-99, 99, (8, 8, 3, 3)).astype(np.int8))
    m.add("QLinearConv", ["a", *as_, "u", *us, *bs], "b", pads=[1, 1, 1, 1])
    m.add("DequantizeLinear", ["a", *as_], "ad")
    m.add("DequantizeLinear", ["b", *bs], "bd")
    m.add("Add", ["ad", "bd"], "s")
    m.add("QuantizeLinear", ["s", *bs], "y")
    m.add("ConvInteger", ["y", "u"], "z", pads=[0, 0, 0, 0])
    return m.save(path, {"x": (1, 4, 18, 16)}, ["y", "z"])


def branches(path: Path) -> Path:
    """A cell of many branches: an uneven Split, Concat, sums, a normalisation with its mean, a reversed slice."""
    m = Maker(5)
    sizes = m.constant("sizes", np.array([7, 5]))
    m.nodes.append(node("Split", ["x", sizes], ["l", "r"], name="n_split", axis=1))
    m.add("Conv", ["l", m.weight("w1", 6, 7, 3, 3)], "lc", pads=[1, 1, 1, 1])
    m.add("Conv", ["r", m.weight("w2", 6, 5, 1, 1)], "rc")
    m.add("Tanh", ["rc"], "rt")
    m.add("Add", ["lc", "rt"], "s")
    m.add("Concat", ["s", "l", "rt"], "j", axis=1)
    m.add("Transpose", ["j"], "t", perm=[0, 2, 3, 1])
    normalised = ["t", m.weight("g", 19)]
    m.nodes.append(node("LayerNormalization", normalised, ["n", "mean"], name="n_norm", axis=-1))
    m.add("Reshape", [m.weight("w3", 1, 19, 12), m.constant("flat", np.array([19, 12]))], "w3_flat")
    m.add("MatMul", ["n", "w3_flat"], "d")
    m.add("Slice", ["d", m.constant("from", np.array([-1])), m.constant("to", np.array([-(2**31)])),
                    m.constant("axes", np.array([1])), m.constant("by", np.array([-2]))], "rev")  # fmt: skip
    m.add("ReduceMax", ["rev"], "m", axes=[2], keepdims=1)
    m.add("Sub", ["rev", "m"], "y")
    return m.save(path, {"x": (1, 12, 14, 10)}, ["y", "mean"])


def integers(path: Path) -> Path:
    """Operators that ONNX Runtime has for integer networks, maps with channels second and last."""
    m = Maker(6)

    def scale(name: str, value: float, zero: int = 0) -> list[str]:
        return [m.constant(f"{name}_s", np.float32(value)), m.constant(f"{name}_z", np.int8(zero))]

    def weight(name: str, *shape: int) -> str:
        return m.constant(name, m.rng.integers(-99, 99, shape).astype(np.int8))

    def add(kind: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        return m.add(kind, inputs, output, domain="com.microsoft", **attributes)

    xs, cs, ps, js, gs, ss, ws = (scale(*given) for given in (
        ("xq", 0.05), ("cq", 0.2, 3), ("pq", 0.15, -2), ("jq", 0.2), ("gq", 0.1), ("sq", 1 / 256, -128), ("wq", 0.01)
    ))  # fmt: skip
    m.add("QuantizeLinear", ["x", *xs], "a")
    m.add("QLinearConv", ["a", *xs, weight("w1", 8, 4, 3, 3), *ws, *cs], "c", pads=[1, 1, 1, 1])
    add("QLinearAveragePool", ["c", *cs, *ps], "p", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    add("QLinearConcat", [*js, "c", *cs, "p", *ps], "j", axis=1)
    m.add("Transpose", ["j"], "t", perm=[0, 2, 3, 1])
    last = {"pads": [1, 1, 1, 1], "channels_last": 1}
    add("QLinearConv", ["t", *js, weight("w2", 6, 16, 3, 3), *ws, *cs], "l", **last)
    add("NhwcMaxPool", ["l"], "m", kernel_shape=[3, 3], strides=[2, 2])
    add("QLinearGlobalAveragePool", ["m", *cs, *gs], "g", channels_last=1)
    m.add("Reshape", ["g", m.constant("flat", np.array([2, 6]))], "v")
    add("QGemm", ["v", *gs, weight("w3", 6, 10), *ws], "y")
    m.add("Reshape", ["t", m.constant("tokens", np.array([2, -1, 16]))], "u")
    add("QLinearSoftmax", ["u", *js, *ss], "s", axis=-1, opset=13)
    product = ["s", weight("w4", 16, 12), ss[0], ws[0], ss[1], ws[1], m.weight("b4", 12)]
    add("MatMulIntegerToFloat", product, "f")
    add("DynamicQuantizeMatMul", ["f", weight("w5", 12, 20), ws[0]], "z")
    return m.save(path, {"x": (2, 4, 14, 12)}, ["y", "z"])


FAMILIES = {f.__name__: f for f in (cnn, separable, unet, transformer, quantised, branches, integers)}
