"""Integer products give the same numbers on every processor."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from cosma.execute.exact import with_unsigned_weights
from cosma.execute.ort import import_ort, session_options

pytest.importorskip("onnxruntime")

RNG = np.random.default_rng(0)
ACTIVATIONS = RNG.integers(128, 256, (6, 40)).astype(np.uint8)
WEIGHTS = RNG.choice(np.array([-128, 127], np.int8), (40, 10))
ONE = np.float32(1)
SCALE = np.float32(4096)
MICROSOFT = "com.microsoft"


def model_of(node: NodeProto, operands: dict[str, np.ndarray], result: int) -> ModelProto:
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in operands.items()]
    output = helper.make_tensor_value_info("y", result, None)
    graph = helper.make_graph([node], "g", [], [output], initializers)
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def run_exactly(model: ModelProto) -> tuple[np.ndarray, list[NodeProto]]:
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    nodes = list(with_unsigned_weights(model.graph.node, types.get))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    ort = import_ort()
    session = ort.InferenceSession(model.SerializeToString(), session_options(ort), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {})
    return np.asarray(found), nodes


def product(zero: np.ndarray | int = 0) -> np.ndarray:
    return ACTIVATIONS.astype(np.int64) @ (WEIGHTS.astype(np.int64) - zero)


def requantised(exact: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(exact / SCALE) + 128, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("zero", [None, np.int8(3), RNG.integers(-9, 9, 10).astype(np.int8)])
def test_integer_products_are_exact(zero: np.ndarray | None) -> None:
    operands = {"a": ACTIVATIONS, "b": WEIGHTS} | ({} if zero is None else {"z": zero})
    names = ["a", "b"] if zero is None else ["a", "b", "", "z"]
    model = model_of(helper.make_node("MatMulInteger", names, ["y"]), operands, TensorProto.INT32)
    found, _ = run_exactly(model)
    np.testing.assert_array_equal(found, product(0 if zero is None else zero.astype(np.int64)))


def test_one_tensor_of_weights_is_shifted_once() -> None:
    nodes = [helper.make_node("MatMulInteger", ["a", "b"], [name]) for name in "xy"]
    types = {"a": TensorProto.UINT8, "b": TensorProto.INT8}
    changed = list(with_unsigned_weights(nodes, types.get))
    # The weights need a cast, a sum with its constant and a cast back, the absent zero point one constant.
    assert [node.op_type for node in changed].count("MatMulInteger") == 2
    assert len(changed) == 2 + 4 + 1
    assert changed[-1].input == changed[-2].input


@pytest.mark.parametrize(
    ("activations", "weights"),
    [
        (TensorProto.INT8, TensorProto.INT8), (TensorProto.UINT8, TensorProto.UINT8), (TensorProto.UINT8, None),
        (None, TensorProto.INT8),
    ],
)
def test_products_that_never_saturate_stay_as_they_are(activations: int | None, weights: int | None) -> None:
    node = helper.make_node("MatMulInteger", ["a", "b"], ["y"])
    types = {"a": activations, "b": weights}
    assert list(with_unsigned_weights([node], types.get)) == [node]


def test_a_quantised_product_is_exact() -> None:
    operands = {"a": ACTIVATIONS, "s": ONE, "z": np.uint8(0), "b": WEIGHTS, "zb": np.int8(0)}
    operands |= {"o": SCALE, "zo": np.uint8(128)}
    node = helper.make_node("QLinearMatMul", ["a", "s", "z", "b", "s", "zb", "o", "zo"], ["y"])
    found, nodes = run_exactly(model_of(node, operands, TensorProto.UINT8))
    assert nodes[-1].input[5] != "zb"
    np.testing.assert_array_equal(found, requantised(product()))


def test_a_quantised_general_product_is_exact() -> None:
    operands = {"a": ACTIVATIONS, "s": ONE, "z": np.uint8(0), "b": WEIGHTS, "zb": np.int8(0)}
    operands |= {"c": np.zeros(10, np.int32), "o": SCALE, "zo": np.uint8(128)}
    names = ["a", "s", "z", "b", "s", "zb", "c", "o", "zo"]
    node = helper.make_node("QGemm", names, ["y"], domain=MICROSOFT)
    found, _ = run_exactly(model_of(node, operands, TensorProto.UINT8))
    np.testing.assert_array_equal(found, requantised(product()))


def test_a_quantised_convolution_is_exact() -> None:
    image = ACTIVATIONS.T.reshape(1, 40, 2, 3)
    kernel = WEIGHTS.T.reshape(10, 40, 1, 1)
    operands = {"a": image, "s": ONE, "z": np.uint8(0), "b": kernel, "zb": np.int8(0), "o": SCALE, "zo": np.uint8(128)}
    node = helper.make_node("QLinearConv", ["a", "s", "z", "b", "s", "zb", "o", "zo"], ["y"])
    found, _ = run_exactly(model_of(node, operands, TensorProto.UINT8))
    np.testing.assert_array_equal(found.reshape(10, 6), requantised(product()).T)


def test_a_convolution_of_signed_weights_runs() -> None:
    image, kernel = ACTIVATIONS.T.reshape(1, 40, 2, 3), WEIGHTS.T.reshape(10, 40, 1, 1)
    node = helper.make_node("ConvInteger", ["a", "b"], ["y"])
    found, _ = run_exactly(model_of(node, {"a": image, "b": kernel}, TensorProto.INT32))
    np.testing.assert_array_equal(found.reshape(10, 6), product().T)


@pytest.mark.parametrize("type_", ["DynamicQuantizeMatMul", "MatMulIntegerToFloat"])
def test_products_with_scales_are_exact(type_: str) -> None:
    # 255 lies among the activations, so dynamic quantisation finds the scale 1 and the zero point 0.
    activations = ACTIVATIONS.copy()
    activations[:, 0] = 255
    exact = activations.astype(np.int64) @ WEIGHTS.astype(np.int64)
    if type_ == "DynamicQuantizeMatMul":
        operands = {"a": activations.astype(np.float32), "b": WEIGHTS, "s": ONE}
        names = ["a", "b", "s"]
    else:
        operands = {"a": activations, "b": WEIGHTS, "s": ONE}
        names = ["a", "b", "s", "s"]
    node = helper.make_node(type_, names, ["y"], domain=MICROSOFT)
    found, _ = run_exactly(model_of(node, operands, TensorProto.FLOAT))
    np.testing.assert_allclose(found, exact.astype(np.float32), rtol=1e-6)


def test_attention_of_signed_weights_is_that_of_unsigned_ones() -> None:
    hidden, heads = 40, 2
    weights = RNG.choice(np.array([-128, 127], np.int8), (hidden, 3 * hidden))
    tokens = RNG.integers(128, 256, (1, 6, hidden)).astype(np.uint8)
    common = {"x": tokens, "bias": np.zeros(3 * hidden, np.float32), "sx": np.float32(0.01), "sw": np.float32(0.01)}
    common |= {"zx": np.uint8(128)}
    names = ["x", "w", "bias", "sx", "sw", "", "zx", "zw"]
    results = []
    for w, zero in ((weights, np.int8(0)), ((weights.astype(np.int16) + 128).astype(np.uint8), np.uint8(128))):
        node = helper.make_node("QAttention", names, ["y"], domain=MICROSOFT, num_heads=heads)
        found, _ = run_exactly(model_of(node, common | {"w": w, "zw": zero}, TensorProto.FLOAT))
        results.append(found)
    np.testing.assert_array_equal(*results)


def test_recurrent_cells_of_signed_weights_are_those_of_unsigned_ones() -> None:
    hidden, inputs = 16, 32
    weights = [RNG.choice(np.array([-128, 127], np.int8), (1, rows, 4 * hidden)) for rows in (inputs, hidden)]
    common = {"x": RNG.standard_normal((7, 1, inputs)).astype(np.float32), "s": np.full(1, 0.01, np.float32)}
    names = ["x", "w", "r", "", "", "", "", "", "s", "zw", "s", "zr"]
    results = []
    for shift, element in ((0, np.int8), (128, np.uint8)):
        w, r = ((one.astype(np.int16) + shift).astype(element) for one in weights)
        zero = np.full(1, shift, element)
        node = helper.make_node("DynamicQuantizeLSTM", names, ["y"], domain=MICROSOFT, hidden_size=hidden)
        found, _ = run_exactly(model_of(node, common | {"w": w, "r": r, "zw": zero, "zr": zero}, TensorProto.FLOAT))
        results.append(found)
    np.testing.assert_array_equal(*results)
