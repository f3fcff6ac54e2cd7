"""Plans whose shapes follow from the rules for windows, loops and limits are executed and give the model's numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from cosma import Accelerator, compile
from cosma.execute import run_plan
from tests.field.conftest import single
from tests.field.test_bounds import NMS
from tests.field.test_loops import CONST_TRIP, GROWING, SCAN, SCRIPTED, WHILE

pytest.importorskip("onnxruntime")

X = {"x": np.ones((1, 4, 17, 17), np.float32)}
POOL = {"kernel_shape": [3, 3], "strides": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1}


@pytest.mark.parametrize(
    "model",
    [
        single(helper.make_node("MaxPool", ["x"], ["y"], **POOL), X, {}, 17),
        single(helper.make_node("AveragePool", ["x"], ["y"], **POOL), X, {}, 11),
        single(
            helper.make_node("Resize", ["x", "", "s"], ["y"], mode="nearest"), X,
            {"s": np.array([1, 1, 0.7, 0.3], np.float32)}, 13,
        ),
        single(
            helper.make_node("Resize", ["x", "", "s"], ["y"], mode="linear", axes=[2, 3]), X,
            {"s": np.array([1.1, 2.3], np.float32)}, 18,
        ),
        onnx.parser.parse_model(CONST_TRIP),
        onnx.parser.parse_model(WHILE),
        onnx.parser.parse_model(GROWING),
        onnx.parser.parse_model(SCRIPTED),
        onnx.parser.parse_model(SCAN),
        onnx.parser.parse_model(NMS),
    ],
    ids=["max_pool", "average_pool", "resize", "resize_axes", "trip", "while", "growing", "scripted", "scan", "nms"],
)  # fmt: skip
def test_it_runs_as_planned(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    plan = compile(path, Accelerator(scratchpad="256KiB"), strategy="e1")
    report = run_plan(plan, path)
    assert report.equal
    assert report.traffic_as_planned
