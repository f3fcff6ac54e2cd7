"""Quantised graphs count as what they are: a float operator between DequantizeLinear and QuantizeLinear is integer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import cosma
from cosma import Accelerator
from cosma.execute import run_plan
from cosma.frontend import LoadedModel, load_onnx
from tests.field.quantised import AMPLE, SHAPE, Net


def covered(loaded: LoadedModel) -> list[str]:
    return sorted(name for operator in loaded.graph.operators for name in operator.covers)


def computing(path: Path) -> list[str]:
    """First results of the nodes that are not computed from constants alone."""
    model = onnx.load(path)
    known = {t.name for t in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if all(name in known for name in node.input if name):
            known.update(node.output)
        else:
            found.append(node.output[0])
    return sorted(found)


def check(path: Path, types: list[str], *, run: bool = True, room: str = "3KiB") -> LoadedModel:
    """The operators of a model, all nodes covered once, and a plan that spills executed equal to the model."""
    loaded = load_onnx(path)
    assert [o.type for o in loaded.graph.operators] == types
    assert covered(loaded) == computing(path)
    for accelerator in (AMPLE, Accelerator(scratchpad=room), Accelerator(scratchpad=room, fusion="epilogue")):
        plan = cosma.compile(loaded, accelerator, effort=0.5)
        assert cosma.replay(plan).valid
        if run:
            assert run_plan(plan, path).equal
    return loaded


G = "DequantizeLinear+{}+QuantizeLinear".format


# -- single operators -----------------------------------------------------------------------------------------

SIZES = np.array([1, 8, 16, 16], np.int64)


@pytest.mark.parametrize(
    ("kind", "more", "attributes", "shape"),
    [
        ("Relu", [], {}, SHAPE),
        ("Sigmoid", [], {}, SHAPE),
        ("Softmax", [], {"axis": 1}, SHAPE),
        ("MaxPool", [], {"kernel_shape": [2, 2], "strides": [2, 2]}, (1, 8, 4, 4)),
        ("AveragePool", [], {"kernel_shape": [2, 2], "strides": [2, 2]}, (1, 8, 4, 4)),
        ("GlobalAveragePool", [], {}, (1, 8, 1, 1)),
        ("ReduceMean", [], {"keepdims": 1}, (1, 1, 1, 1)),
        ("Resize", ["", "", "sizes"], {"mode": "nearest"}, (1, 8, 16, 16)),
        ("Transpose", [], {"perm": [0, 2, 1, 3]}, SHAPE),
        ("LeakyRelu", [], {"alpha": 0.1}, SHAPE),
    ],
)
def test_operators_of_one_operand(
    tmp_path: Path, kind: str, more: list[str], attributes: dict[str, object], shape: tuple[int, ...]
) -> None:
    net = Net()
    net.constant("sizes", SIZES)
    net.add(kind, [net.dq("x"), *more], "f", **attributes)
    net.q("f", "y")
    loaded = check(net.save(tmp_path / "net.onnx", {"x": SHAPE}, {"y": shape}), [G(kind)])
    assert {t.name: t.size_bytes for t in loaded.graph.tensors.values() if t.kind != "weight"} == {
        "x": 512, "y": int(np.prod(shape)),
    }  # fmt: skip


@pytest.mark.parametrize(("kind", "shape"), [("Add", SHAPE), ("Mul", SHAPE), ("Concat", (1, 16, 8, 8)), ("Sub", SHAPE)])
def test_operators_of_two_operands(tmp_path: Path, kind: str, shape: tuple[int, ...]) -> None:
    net = Net()
    net.add(kind, [net.dq("x"), net.dq("z")], "f", **({"axis": 1} if kind == "Concat" else {}))
    net.q("f", "y")
    check(net.save(tmp_path / "net.onnx", {"x": SHAPE, "z": SHAPE}, {"y": shape}), [G(kind)])


@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", [None, "Relu", "Clip"])
def test_convolution_with_bias_and_activation(
    tmp_path: Path, channels: bool, bias: bool, activation: str | None
) -> None:
    net = Net()
    operands = [net.dq("x"), net.weight("w", (8, 8, 3, 3), channels=channels)]
    if bias:
        net.constant("b_q", np.arange(8, dtype=np.int32))
        net.constant("b_s", np.full(8 if channels else (), 0.001, np.float32))
        operands.append(net.add("DequantizeLinear", ["b_q", "b_s"], "b", axis=0))
    net.add("Conv", operands, "c", pads=[1, 1, 1, 1])
    last = "c"
    if activation is not None:
        limits = [net.constant("low", np.float32(0)), net.constant("high", np.float32(6))]
        last = net.add(activation, ["c", *(limits if activation == "Clip" else [])], "a")
    net.q(last, "y")
    kind = "Conv" if activation is None else f"Conv+{activation}"
    loaded = check(net.save(tmp_path / "net.onnx", {"x": SHAPE}, {"y": SHAPE}), [G(kind)])
    stored = {name: loaded.graph.tensors[name].dtype for name in loaded.graph.operators[0].weights}
    assert stored["w_q"] == "int8"
    assert stored.get("b_q", "int32") == "int32"
    assert ("b_q" in stored) == bias
    assert "b_s" not in stored  # the bias has the scale of the product, as in QLinearConv


@pytest.mark.parametrize("kind", ["MatMul", "Gemm"])
@pytest.mark.parametrize("quantised", [True, False])
def test_products_need_no_quantize_behind_them(tmp_path: Path, kind: str, quantised: bool) -> None:
    net = Net()
    net.add(kind, [net.dq("x"), net.weight("w", (16, 8))], "f")
    y = net.q("f", "y") if quantised else "f"
    types = None if quantised else {"f": TensorProto.FLOAT}
    path = net.save(tmp_path / "net.onnx", {"x": (4, 16)}, {y: (4, 8)}, types=types)
    check(path, [G(kind) if quantised else f"DequantizeLinear+{kind}"])


def test_a_bias_added_to_a_product_is_in_between(tmp_path: Path) -> None:
    net = Net()
    net.add("MatMul", [net.dq("x"), net.weight("w", (16, 8))], "m")
    net.add("Add", ["m", net.constant("b", np.ones(8, np.float32))], "a")
    net.q("a", "y")
    check(net.save(tmp_path / "net.onnx", {"x": (4, 16)}, {"y": (4, 8)}), [G("MatMul+Add")])


def test_a_product_of_two_activations(tmp_path: Path) -> None:
    net = Net()
    net.add("MatMul", [net.dq("x"), net.dq("z")], "f")
    net.q("f", "y")
    check(net.save(tmp_path / "net.onnx", {"x": (4, 16), "z": (16, 8)}, {"y": (4, 8)}), [G("MatMul")])


def test_each_result_of_a_split_is_quantised(tmp_path: Path) -> None:
    net = Net()
    net.add("Split", [net.dq("x")], "a", "b", axis=1, num_outputs=2)
    net.q("a", "y")
    net.q("b", "z")
    loaded = check(net.save(tmp_path / "net.onnx", {"x": SHAPE}, {"y": (1, 4, 8, 8), "z": (1, 4, 8, 8)}),
                   ["DequantizeLinear+Split+QuantizeLinear+QuantizeLinear"])  # fmt: skip
    assert loaded.graph.operators[0].outputs == ("y", "z")


# -- sharing, ends, and what stays float ----------------------------------------------------------------------


def test_one_dequantisation_for_several_readers_is_covered_once(tmp_path: Path) -> None:
    net = Net()
    f = net.dq("x")
    net.q(net.add("Relu", [f], "r"), "a")
    net.q(net.add("Sigmoid", [f], "s"), "b")
    net.q(net.add("Add", [net.dq("a"), f], "t"), "c")
    net.q(net.add("Mul", [net.dq("b"), net.dq("c")], "u"), "y")
    loaded = check(net.save(tmp_path / "net.onnx", {"x": SHAPE}, {"y": SHAPE}), [G("Relu"), G("Sigmoid"), G("Add"),
                                                                                G("Mul")])  # fmt: skip
    assert all(t.dtype == "int8" for t in loaded.graph.tensors.values() if t.kind in ("intermediate", "input"))
    assert [o.covers for o in loaded.graph.operators if "x_f" in o.covers] == [("r", "x_f", "a")]


def test_a_value_with_a_float_reader_stays_for_it(tmp_path: Path) -> None:
    net = Net()
    f = net.dq("x")
    net.q(net.add("Relu", [f], "r"), "y")
    net.add("Exp", [f], "z")
    path = net.save(tmp_path / "net.onnx", {"x": SHAPE}, {"y": SHAPE, "z": SHAPE}, types={"z": TensorProto.FLOAT})
    check(path, ["DequantizeLinear", G("Relu"), "Exp"])


def test_a_result_with_a_float_reader_and_a_quantize_stays_float(tmp_path: Path) -> None:
    net = Net()
    net.add("MaxPool", [net.dq("x")], "f", kernel_shape=[1, 1])
    net.q("f", "y")
    net.add("Exp", ["f"], "z")
    path = net.save(tmp_path / "net.onnx", {"x": SHAPE}, {"y": SHAPE, "z": SHAPE}, types={"z": TensorProto.FLOAT})
    check(path, ["DequantizeLinear", "MaxPool", "QuantizeLinear", "Exp"])


def test_float_ends_have_operators_of_their_own(tmp_path: Path) -> None:
    net = Net()
    net.q("x", "xq")
    net.q(net.add("Relu", [net.dq("xq")], "r"), "rq")
    net.add("DequantizeLinear", ["rq", "sc", "zp"], "y")
    path = net.save(
        tmp_path / "net.onnx", {"x": SHAPE}, {"y": SHAPE}, types=dict.fromkeys(("x", "y"), TensorProto.FLOAT)
    )
    check(path, ["QuantizeLinear", G("Relu"), "DequantizeLinear"])


def test_a_float_operand_keeps_its_operator_float(tmp_path: Path) -> None:
    net = Net()
    net.q(net.add("Add", [net.dq("x"), "z"], "s"), "y")
    path = net.save(tmp_path / "net.onnx", {"x": SHAPE, "z": SHAPE}, {"y": SHAPE}, types={"z": TensorProto.FLOAT})
    check(path, ["DequantizeLinear", "Add", "QuantizeLinear"], room="8KiB")


def test_a_graph_output_between_stays(tmp_path: Path) -> None:
    net = Net()
    f = net.dq("x")
    net.q(net.add("Relu", [f], "r"), "y")
    path = net.save(
        tmp_path / "net.onnx", {"x": SHAPE}, {"y": SHAPE, f: SHAPE}, types={f: TensorProto.FLOAT}
    )
    check(path, ["DequantizeLinear", G("Relu")])


@pytest.mark.parametrize("view", ["Reshape", "Flatten"])
def test_a_view_between_dequantize_and_quantize_stays_a_view(tmp_path: Path, view: str) -> None:
    net = Net()
    net.q(net.add("Relu", [net.dq("x")], "r"), "a")
    if view == "Reshape":
        net.add("Reshape", [net.dq("a"), net.constant("to", np.array([8, 64], np.int64))], "v")
    else:
        net.add("Flatten", [net.dq("a")], "v", axis=2)
    net.q("v", "b")
    net.q(net.add("Softmax", [net.dq("b")], "s"), "y")
    loaded = check(net.save(tmp_path / "net.onnx", {"x": SHAPE}, {"y": (8, 64)}), [G("Relu"), G("Softmax")])
    assert {t.name for t in loaded.graph.tensors.values() if t.kind == "intermediate"} == {"a"}


def test_requantising_to_another_scale_is_an_operator(tmp_path: Path) -> None:
    net = Net()
    net.constant("other", np.float32(0.1))
    net.add("QuantizeLinear", [net.dq("x"), "other", "zp"], "a")
    net.add("DequantizeLinear", ["a", "other", "zp"], "af")
    net.q(net.add("Relu", ["af"], "r"), "y")
    check(net.save(tmp_path / "net.onnx", {"x": SHAPE}, {"y": SHAPE}),
          ["DequantizeLinear+QuantizeLinear", G("Relu")])  # fmt: skip


# -- element types and other forms ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "size"), [("int8", 512), ("uint8", 512), ("int16", 1024), ("uint16", 1024), ("int4", 256), ("uint4", 256)]
)
def test_every_quantised_type(tmp_path: Path, dtype: str, size: int) -> None:
    net = Net(dtype)
    net.q(net.add("Relu", [net.dq("x")], "r"), "a")
    net.q(net.add("Tanh", [net.dq("a")], "t"), "y")
    path = net.save(tmp_path / "net.onnx", {"x": SHAPE}, {"y": SHAPE})
    loaded = check(path, [G("Relu"), G("Tanh")], run=dtype in ("int8", "uint8", "int16", "uint16"))
    assert loaded.graph.tensors["a"].size_bytes == size


@pytest.mark.parametrize("dtype", ["float8e4m3fn", "float8e5m2"])
def test_eight_bit_floats_are_quantised_too(tmp_path: Path, dtype: str) -> None:
    net = Net(dtype)
    net.q(net.add("Relu", [net.dq("x")], "r"), "a")
    net.q(net.add("Tanh", [net.dq("a")], "t"), "y")
    check(net.save(tmp_path / "net.onnx", {"x": SHAPE}, {"y": SHAPE}), [G("Relu"), G("Tanh")], run=False)


def test_quantised_weights_alone_leave_float_operators(tmp_path: Path) -> None:
    """Weights quantised and dequantised again, as in training: they are stored as eight bits."""
    net = Net()
    net.constant("w", np.ones((8, 8, 1, 1), np.float32))
    net.q("w", "wq")
    net.add("DequantizeLinear", ["wq", "sc", "zp"], "wf")
    net.add("Relu", [net.add("Conv", ["x", "wf"], "c")], "y")
    path = net.save(
        tmp_path / "net.onnx", {"x": SHAPE}, {"y": SHAPE}, types=dict.fromkeys(("x", "y"), TensorProto.FLOAT)
    )
    loaded = check(path, ["Conv", "Relu"])
    assert loaded.graph.tensors["wq"].size_bytes == 64


def test_dynamic_quantisation_stays_as_it_is_written(tmp_path: Path) -> None:
    net = Net()
    net.add("DynamicQuantizeLinear", ["x"], "q", "s", "z")
    net.constant("w", np.ones((16, 8), np.uint8))
    net.add("MatMulInteger", ["q", "w", "z"], "m")
    net.add("Cast", ["m"], "c", to=TensorProto.FLOAT)
    net.add("Mul", ["c", "s"], "y")
    path = net.save(
        tmp_path / "net.onnx", {"x": (4, 16)}, {"y": (4, 8)}, types=dict.fromkeys(("x", "y"), TensorProto.FLOAT)
    )
    check(path, ["DynamicQuantizeLinear", "MatMulInteger", "Cast", "Mul"])
