"""Quantised graphs whose tensors have many readers, as they are, dequantised and quantised again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import NodeProto, helper

import cosma
from cosma.execute import run_plan
from tests.onnx_files import save_network

SCALES = {"scale": np.array(0.05, np.float32), "zero": np.array(128, np.uint8)}


def shared(path: Path, seed: int) -> Path:
    """Write a random network of elementwise operators and pairs of QuantizeLinear and DequantizeLinear."""
    rng = np.random.default_rng(seed)
    nodes: list[NodeProto] = []

    def add(kind: str, *operands: str) -> str:
        nodes.append(helper.make_node(kind, operands, [f"t{len(nodes)}"], name=f"n{len(nodes)}"))
        return f"t{len(nodes) - 1}"

    def requantised(name: str) -> str:
        return add("DequantizeLinear", add("QuantizeLinear", name, "scale", "zero"), "scale", "zero")

    values = ["x", requantised("x")]
    for _ in range(int(rng.integers(2, 9))):
        one, other = (str(rng.choice(values[-3:])), str(rng.choice(values)))
        kind = str(rng.choice(["Relu", "Sigmoid", "Add", "Mul", "Max", "Where", "requantised"]))
        if kind == "requantised":
            values.append(requantised(one))
        elif kind == "Where":
            values.append(add("Where", add("Greater", one, "x"), one, other))
        else:
            values.append(add(kind, *((one,) if kind in ("Relu", "Sigmoid") else (one, other))))
    read = {name for node in nodes for name in node.input}
    results = [name for node in nodes for name in node.output if name not in read]
    return save_network(path, nodes, {"x": (1, 2, 6, 5)}, SCALES, results)


@pytest.mark.parametrize("seed", range(30))
def test_plans_of_shared_quantised_tensors_are_those_of_the_model(seed: int, tmp_path: Path) -> None:
    path = shared(tmp_path / "net.onnx", seed)
    accelerator = cosma.Accelerator(scratchpad="4KiB", fusion="epilogue")
    tiling = "rows=2" if seed % 3 == 0 else "none"
    plan = cosma.compile(path, accelerator, strategy="e2", effort=0.0, tiling=tiling)  # replayed with the model
    if seed % 5 == 0:
        pytest.importorskip("onnxruntime")
        assert run_plan(plan, path).passed


def test_quantising_again_by_the_same_scale_is_no_operator(tmp_path: Path) -> None:
    """The dequantised values are read in floating point as well, and are computed for that reader."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], name="d"),
        helper.make_node("Mul", ["d", "x"], ["m"], name="m"),
        helper.make_node("QuantizeLinear", ["d", "scale", "zero"], ["again"], name="again"),
        helper.make_node("DequantizeLinear", ["again", "scale", "zero"], ["y"], name="y"),
    ]
    path = save_network(tmp_path / "net.onnx", nodes, {"x": (4, 6)}, SCALES, ["m", "y"])
    graph = cosma.load_onnx(path).graph
    assert {operator.type for operator in graph.operators} == {"QuantizeLinear", "DequantizeLinear", "Mul"}
    assert "again" not in graph.tensors
