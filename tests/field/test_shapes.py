"""Shapes as ONNX Runtime has them, where ONNX's own inference differs or says nothing."""

from __future__ import annotations

import random

import numpy as np
import pytest
from onnx import helper

from cosma.errors import ModelLoadError
from tests.field.conftest import Load, executed, planned, single

POOLS = [("MaxPool", 10), ("MaxPool", 12), ("MaxPool", 18), ("MaxPool", 22), ("AveragePool", 10), ("AveragePool", 19),
         ("AveragePool", 22), ("LpPool", 18), ("LpPool", 22)]  # fmt: skip


def _random_pool(dice: random.Random, op: str, opset: int) -> tuple[dict[str, object], list[int]]:
    rank = dice.choice([1, 2, 2, 3])
    kernel = [dice.randint(1, 4) for _ in range(rank)]
    attributes: dict[str, object] = {"kernel_shape": kernel, "strides": [dice.randint(1, 5) for _ in range(rank)]}
    attributes["ceil_mode"] = dice.choice([0, 1, 1])
    dilations = [1] * rank
    if (op == "MaxPool" and opset >= 10) or (op == "AveragePool" and opset >= 19) or op == "LpPool":
        dilations = [dice.randint(1, 3) for _ in range(rank)]
        attributes["dilations"] = dilations
    padding = dice.choice(["pads", "pads", "none", "SAME_UPPER", "SAME_LOWER", "VALID"])
    if padding == "pads":
        attributes["pads"] = [dice.randint(0, k - 1) for k in kernel * 2]
    elif padding != "none":
        attributes["auto_pad"] = padding
    return attributes, [1, 2, *(dice.randint(d * k, 20) for k, d in zip(kernel, dilations, strict=True))]


@pytest.mark.parametrize(("op", "opset"), POOLS)
def test_pooling_is_sized_as_onnx_runtime_sizes_it(op: str, opset: int, load: Load) -> None:
    dice = random.Random(f"{op} {opset}")
    compared = 0
    for _ in range(40):
        attributes, shape = _random_pool(dice, op, opset)
        node = helper.make_node(op, ["x"], ["y"], **attributes)
        inputs = {"x": np.ones(shape, np.float32)}
        model = single(node, inputs, {}, opset)
        try:
            right, _ = executed(model, inputs)
        except Exception:  # ONNX Runtime refuses some of them: of three axes with dilations, say
            continue
        assert planned(load(model), ["y"]) == right, str((attributes, shape))
        compared += 1
    assert compared >= 20


@pytest.mark.parametrize("opset", [10, 11, 13, 18, 21, 22])
def test_a_window_that_starts_in_the_padding_behind_is_left_out(opset: int, load: Load) -> None:
    for op in ("MaxPool", "AveragePool", "LpPool") if opset >= 18 else ("MaxPool", "AveragePool"):
        node = helper.make_node(op, ["x"], ["y"], kernel_shape=[3, 3], strides=[3, 3], pads=[1] * 4, ceil_mode=1)
        model = single(node, {"x": np.ones((1, 8, 17, 17), np.float32)}, {}, opset)
        assert planned(load(model), ["y"]) == {"y": (1, 8, 6, 6)}
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, [1, 8, 6, 6]))
        assert planned(load(model), ["y"]) == {"y": (1, 8, 6, 6)}
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, [1, 8, 7, 7]))
        with pytest.raises(ModelLoadError, match=r"states that 'y' is float32\[1,8,7,7\]"):
            load(model)


def test_the_indices_of_a_pooling_have_its_shape(load: Load) -> None:
    node = helper.make_node("MaxPool", ["x"], ["y", "i"], kernel_shape=[3], strides=[3], pads=[1, 1], ceil_mode=1)
    inputs = {"x": np.ones((1, 8, 17), np.float32)}
    model = single(node, inputs, {}, 12)
    loaded = load(model)
    assert planned(loaded, ["y", "i"]) == executed(model, inputs)[0] == {"y": (1, 8, 6), "i": (1, 8, 6)}
    assert loaded.graph.tensors["i"].dtype == "int64"


def test_a_transposed_convolution_has_the_output_shape_it_states(load: Load) -> None:
    """ONNX's inference leaves the axes out where they are shorter than the operand's."""
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], output_shape=[7, 9], strides=[1, 3])
    inputs = {"x": np.ones((2, 4, 9, 4), np.float32), "w": np.ones((4, 2, 1, 2), np.float32)}
    assert planned(load(single(node, inputs, {}, 17)), ["y"]) == {"y": (2, 2, 7, 9)}


@pytest.mark.parametrize("op", ["NhwcMaxPool", "QLinearAveragePool"])
def test_onnx_runtimes_own_pooling_is_sized_alike(op: str, load: Load) -> None:
    dice = random.Random(op)
    compared = 0
    for _ in range(40):
        attributes, shape = _random_pool(dice, op, 1)
        attributes.pop("dilations", None)
        channels_last = op == "NhwcMaxPool" or dice.random() < 0.5
        x = np.ones((shape[0], *shape[2:], shape[1]) if channels_last else shape, np.uint8)
        scale, zero = np.float32(0.1), np.uint8(0)
        constants = {"s": np.array(scale), "z": np.array(zero)}
        names = ["x"] if op == "NhwcMaxPool" else ["x", "s", "z", "s", "z"]
        if op == "QLinearAveragePool":
            attributes["channels_last"] = int(channels_last)
        node = helper.make_node(op, names, ["y"], domain="com.microsoft", **attributes)
        model = single(node, {"x": x}, constants if op != "NhwcMaxPool" else {}, 17)
        try:
            right, _ = executed(model, {"x": x})
        except Exception:
            continue
        assert planned(load(model), ["y"]) == right, (attributes, x.shape)
        compared += 1
    assert compared >= 15


def _random_resize(dice: random.Random, shape: list[int]) -> tuple[str, int, list[str], dict[str, object], dict]:  # type: ignore[type-arg]
    kind = dice.choice(["upsample7", "upsample9", "resize10", "scales", "scales", "sizes", "policy", "axes", "roi"])
    scales = [1.0, 1.0, dice.choice([0.7, 0.3, 1.1, 2.3, 0.6]), round(dice.uniform(0.2, 3), 1)]
    if kind.startswith("upsample"):
        scales = [max(scale, 1.0) for scale in scales]
    given = {"s": np.array(scales, np.float32), "r": np.array([0, 0, 0.2, 0.1, 1, 1, 0.7, 0.8], np.float32)}
    sizes = np.array([dice.randint(3, 40), dice.randint(3, 40)])
    mode: dict[str, object] = {"mode": "nearest"}
    match kind:
        case "upsample7":
            return "Upsample", 7, ["x"], mode | {"scales": scales}, {}
        case "upsample9":
            return "Upsample", 9, ["x", "s"], mode, given
        case "resize10":
            return "Resize", 10, ["x", "s"], mode, given
        case "scales":
            return "Resize", dice.choice([13, 18, 19]), ["x", "", "s"], mode, given
        case "sizes":
            return "Resize", 13, ["x", "", "", "z"], mode, {"z": np.array([*shape[:2], *sizes])}
        case "policy":
            policy = dice.choice(["not_larger", "not_smaller"])
            attributes = {"axes": [2, 3], "keep_aspect_ratio_policy": policy}
            return "Resize", 18, ["x", "", "", "z"], mode | attributes, {"z": sizes}
        case "axes":
            return "Resize", 18, ["x", "", "s"], mode | {"axes": [3, 2]}, {"s": given["s"][2:]}
    crop = {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"}
    return "Resize", 13, ["x", "r", "s"], crop, given


def test_resizing_is_sized_as_onnx_runtime_sizes_it(load: Load) -> None:
    dice = random.Random(3)
    for _ in range(120):
        shape = [1, 2, dice.randint(3, 40), dice.randint(3, 40)]
        op, opset, names, attributes, constants = _random_resize(dice, shape)
        node = helper.make_node(op, names, ["y"], **attributes)
        inputs = {"x": np.ones(shape, np.float32)}
        model = single(node, inputs, {k: v for k, v in constants.items() if k in names}, opset)
        right, _ = executed(model, inputs)
        assert planned(load(model), ["y"]) == right, (op, opset, attributes, constants, shape)


def test_a_statement_that_differs_by_rounding_of_the_scale_is_taken(load: Load) -> None:
    node = helper.make_node("Resize", ["x", "", "s"], ["y"], mode="nearest")
    inputs = {"x": np.ones((1, 4, 10, 10), np.float32)}
    model = single(node, inputs, {"s": np.array([1, 1, 0.7, 0.7], np.float32)}, 13)
    loaded = load(model)
    assert planned(loaded, ["y"]) == {"y": (1, 4, 7, 7)}
    assert any("multiplies sizes and scales in float32" in note for note in loaded.notes)
    for size in (6, 7):
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, [1, 4, size, size]))
        loaded = load(model)
        assert planned(loaded, ["y"]) == {"y": (1, 4, size, size)}
        assert any("as the model states" in note for note in loaded.notes) == (size == 6)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, [1, 4, 8, 8]))
    with pytest.raises(ModelLoadError, match=r"states that 'y' is float32\[1,4,8,8\]"):
        load(model)


@pytest.mark.parametrize("size", [6, 7])
def test_a_statement_further_on_decides_between_roundings(size: int, load: Load) -> None:
    x = helper.make_tensor_value_info("x", 1, [1, 4, 10, 10])
    y = helper.make_tensor_value_info("y", 1, [1, 4, size, size])
    scales = helper.make_tensor("s", 1, [4], [1, 1, 0.7, 0.7])
    nodes = [helper.make_node("Resize", ["x", "", "s"], ["u"], mode="nearest"), helper.make_node("Neg", ["u"], ["y"])]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], [scales]))
    loaded = load(model)
    assert planned(loaded, ["u", "y"]) == {"u": (1, 4, size, size), "y": (1, 4, size, size)}
    assert len(loaded.assumptions) == 1
    y.type.tensor_type.shape.dim[2].dim_value = 8
    with pytest.raises(ModelLoadError, match=r"states that 'y'"):
        load(helper.make_model(helper.make_graph(nodes, "g", [x], [y], [scales])))
