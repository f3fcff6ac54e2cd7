"""Forms in which networks are quantised: they move the same, inspect tells them apart, check takes groups and nodes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

import cosma
from cosma import Accelerator
from cosma.execute import run_plan
from cosma.frontend import load_onnx
from cosma.graph import Graph
from tests.field.quantised import AMPLE, SHAPE, Net

REPORTS = Path(__file__).resolve().parents[3] / "shared" / "reports"


@pytest.mark.skipif(not REPORTS.exists(), reason="the shared inputs are not beside the project")
@pytest.mark.parametrize(("fusion", "moved"), [("none", 45), ("epilogue", 40)])  # a joined sum reads one scale less
@pytest.mark.parametrize("name", ["qdq_residual", "qlinear_residual"])
def test_both_forms_of_a_residual_network_move_the_same(name: str, fusion: str, moved: int) -> None:
    plan = cosma.compile(REPORTS / f"{name}.onnx", Accelerator(scratchpad="24KiB", fusion=fusion), effort=1)
    assert (plan.traffic.compulsory, plan.traffic.noncompulsory) == (19274, moved)
    assert run_plan(plan, REPORTS / f"{name}.onnx").equal


@pytest.mark.parametrize("capacity", ["1KiB", "2KiB", "4KiB", "64KiB"])
def test_qdq_and_qoperator_forms_of_one_network_move_the_same(tmp_path: Path, capacity: str) -> None:
    pairs = Net(), Net()
    for net in pairs:
        net.constant("to", np.array([1, 512], np.int64))
        net.constant("w_q", np.ones((8, 8, 1, 1), np.int8))
        net.constant("w_s", np.float32(0.1))
    qdq, integer = pairs
    w = qdq.add("DequantizeLinear", ["w_q", "w_s", "zp"], "w")
    qdq.q(qdq.add("Conv", [qdq.dq("x"), w], "c_r"), "c")
    qdq.q(qdq.add("MaxPool", [qdq.dq("c")], "p_r", kernel_shape=[3, 3], pads=[1, 1, 1, 1]), "p")
    qdq.q(qdq.add("Add", [qdq.dq("p"), "x_f"], "s_r"), "s")
    qdq.q(qdq.add("Transpose", [qdq.dq("s")], "t_r", perm=[0, 2, 3, 1]), "t")
    qdq.q(qdq.add("Reshape", [qdq.dq("t"), "to"], "v_r"), "v")
    qdq.q(qdq.add("Sigmoid", [qdq.dq("v")], "y_r"), "y")
    scaled = ["sc", "zp"]
    integer.add("QLinearConv", ["x", *scaled, "w_q", "w_s", "zp", *scaled], "c")
    integer.add("MaxPool", ["c"], "p", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    integer.add("QLinearAdd", ["p", *scaled, "x", *scaled, *scaled], "s", domain="com.microsoft")
    integer.add("Transpose", ["s"], "t", perm=[0, 2, 3, 1])
    integer.add("Reshape", ["t", "to"], "v")
    integer.add("QLinearSigmoid", ["v", *scaled, *scaled], "y", domain="com.microsoft")
    for fusion in ("none", "epilogue"):
        moved = []
        for name, net in (("qdq", qdq), ("integer", integer)):
            path = net.save(tmp_path / f"{name}.onnx", {"x": SHAPE}, {"y": (1, 512)})
            plan = cosma.compile(path, Accelerator(scratchpad=capacity, fusion=fusion), effort=1)
            assert run_plan(plan, path).equal
            moved.append((plan.traffic.compulsory, plan.traffic.noncompulsory))
        assert moved[0] == moved[1]


# -- what inspect says ----------------------------------------------------------------------------------------


def build(kind: str, path: Path) -> Path:
    """One small network in each form, with a float tail where the form is QDQ."""
    net = Net()
    floats = dict.fromkeys(("x", "y"), TensorProto.FLOAT)
    if kind == "dynamic":
        net.add("DynamicQuantizeLinear", ["x"], "q", "s", "z")
        net.constant("w", np.ones((16, 8), np.uint8))
        net.add("Cast", [net.add("MatMulInteger", ["q", "w", "z"], "m")], "y", to=TensorProto.FLOAT)
        return net.save(path, {"x": (4, 16)}, {"y": (4, 8)}, types=floats)
    if kind == "QOperator":
        net.constant("w", np.ones((8, 8, 1, 1), np.int8))
        net.add("QLinearConv", ["x", "sc", "zp", "w", "sc", "zp", "sc", "zp"], "c")
        net.add("MaxPool", ["c"], "y", kernel_shape=[2, 2])
        return net.save(path, {"x": SHAPE}, {"y": (1, 8, 7, 7)})
    if kind == "weights":
        net.add("Conv", ["x", net.weight("w", (8, 8, 1, 1))], "y")
        return net.save(path, {"x": SHAPE}, {"y": SHAPE}, types=floats)
    if kind == "none":
        net.add("Relu", ["x"], "y")
        return net.save(path, {"x": SHAPE}, {"y": SHAPE}, types=floats)
    net.q("x", "xq")
    net.q(net.add("Relu", [net.dq("xq")], "r"), "rq")
    net.add("Softmax", [net.dq("rq")], "s", axis=1)
    net.add("Erf", ["s"], "y")
    return net.save(path, {"x": SHAPE}, {"y": SHAPE}, types=floats)


@pytest.mark.parametrize(
    ("kind", "integer", "conversions", "stays"),
    [
        ("none", 0, 0, []),
        ("weights", 0, 0, [("Conv", "reads the graph input 'x', which is floating point")]),
        ("QOperator", 2, 0, []),
        ("dynamic", 1, 1, [("Cast", "its result 'y' is a graph output in floating point")]),
        ("QDQ", 1, 2, [
            ("Softmax", "its result 's' is read by 'Erf_y' (Erf) in floating point"),
            ("Erf", "reads 's', which 'Softmax_s' (Softmax) yields in floating point"),
        ]),
    ],
)  # fmt: skip
def test_inspect_says_how_a_model_is_quantised(
    tmp_path: Path, kind: str, integer: int, conversions: int, stays: list[tuple[str, str]]
) -> None:
    path = build(kind, tmp_path / "net.onnx")
    facts = json.loads(cli("inspect", path, "--json"))["quantisation"]
    assert (facts["form"], facts["integer_operators"], facts["conversions"]) == (kind, integer, conversions)
    assert [(row["type"], row["why"]) for row in facts["stays_float"]] == stays
    assert facts["float_operators"] == len(stays)
    text = cli("inspect", path)
    assert f"Quantisation: {kind}" in text
    assert all(name in text for name, _ in stays)


def cli(*arguments: object) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "cosma", *map(str, arguments)], capture_output=True, text=True, check=True
    )
    return ran.stdout


def test_check_accepts_the_group_and_nothing_else(tmp_path: Path) -> None:
    from cosma.rewrite.quantise import quantise

    net = Net()
    net.q(net.add("Relu", [net.dq("x")], "r"), "a")
    net.q(net.add("Add", [net.dq("a"), "x_f"], "s"), "y")
    loaded = load_onnx(net.save(tmp_path / "net.onnx", {"x": SHAPE}, {"y": SHAPE}))
    nodes = loaded.finest_graph
    assert quantise(nodes).graph == loaded.graph
    plan = cosma.compile(loaded, AMPLE, effort=0.2)
    assert cosma.replay(plan, nodes).valid
    # The plan of the nodes one by one is a plan of the model too.
    assert cosma.replay(cosma.compile(nodes, AMPLE, effort=0.2), nodes).valid
    for change, message in (
        ({"covers": plan.graph.operators[0].covers[:1]}, "is missing"),
        ({"covers": (*plan.graph.operators[0].covers, "y")}, "covered twice"),
        ({"weights": ()}, "reads other tensors"),
        ({"type": "Relu"}, "is a DequantizeLinear+Relu+QuantizeLinear in the model"),
    ):
        wrong = Graph(
            plan.graph.tensors.values(),
            [replace(o, **change) if o.name == plan.graph.operators[0].name else o for o in plan.graph.operators],
            plan.graph.name,
        )
        found = cosma.replay(replace(plan, graph=wrong), nodes).violations
        assert any(message in v.message for v in found), (message, found)
