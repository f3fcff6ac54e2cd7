"""Tilings of matrix products: by hand and chosen, at or below an optimal mapper of fused loop nests."""

from __future__ import annotations

from pathlib import Path

import pytest

import cosma
from cosma.execute import run_plan
from cosma.graph import Graph, Operator, Tensor
from cosma.lowering.buffers import slots_of
from cosma.problem import Decisions, build_problem
from cosma.problem.decisions import Residency
from results.tiles.einsums import CASES, attention, attention_by_hand, plan_case
from tests.execute.networks import Maker

BY_NAME = {f"{case.name}-{case.kib}": case for case in CASES}


@pytest.mark.parametrize("name", ["MM-64", "MLP-512", "MBV2-64", "RES-128"])
@pytest.mark.parametrize("way", ["by hand", "auto"])
def test_no_more_than_the_best_fused_loop_nest(name: str, way: str, tmp_path: Path) -> None:
    case = BY_NAME[name]
    found = plan_case(case, case.by_hand if way == "by hand" else "auto", tmp_path, effort=0.2)
    assert found["total"] <= case.accelforge_bytes
    assert found["compulsory"] <= found["bound"] <= found["total"]


@pytest.mark.parametrize("name", ["MM-16", "MLP-128"])
def test_small_scratchpads_by_hand(name: str, tmp_path: Path) -> None:
    case = BY_NAME[name]
    assert plan_case(case, case.by_hand, tmp_path, effort=0)["total"] <= case.accelforge_bytes


@pytest.mark.parametrize("kib", [128, 512])
@pytest.mark.parametrize("way", ["by hand", "auto"])
def test_the_score_matrix_of_attention_never_goes_off_chip(kib: int, way: str, tmp_path: Path) -> None:
    path = attention(tmp_path / "attention.onnx")
    accelerator = cosma.Accelerator(scratchpad=kib * 1024, operands="resident", weights="scratchpad")
    tiling = attention_by_hand(2048 // kib) if way == "by hand" else "auto"
    plan = cosma.compile(path, accelerator, dtype="int8", tiling=tiling, effort=0)
    assert plan.traffic.total == plan.traffic.compulsory == 1_048_576
    moved = {getattr(i, "tensor", "") for i in plan.instructions if i.do in ("load", "store")}
    assert not any(name.startswith(("scores", "shares")) for name in moved)


def test_attention_computes_what_it_should(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = attention(tmp_path / "attention.onnx", tokens=48, heads=3, depth=8)
    accelerator = cosma.Accelerator(scratchpad="5KiB", operands="resident", weights="scratchpad")
    plan = cosma.compile(path, accelerator, dtype="int8", tiling="auto", effort=0)
    assert any(o.tile is not None for o in plan.graph.operators)
    report = run_plan(plan, path)
    assert report.passed, (report.difference, report.untiled)


def test_a_network_of_products_computes_what_it_should(tmp_path: Path) -> None:
    """Products with biases and activations, single and in pairs, in tiles that are chosen."""
    pytest.importorskip("onnxruntime")
    m = Maker()
    m.add("MatMul", ["x", m.weight("w1", 40, 96)], "p1")
    m.add("Add", ["p1", m.weight("b1", 96)], "s1")
    m.add("Relu", ["s1"], "r1")
    m.add("MatMul", ["r1", m.weight("w2", 96, 40)], "p2")
    m.add("Add", ["p2", "x"], "s2")
    m.add("Softmax", ["s2"], "n", axis=-1)
    m.add("Gemm", ["n", m.weight("w3", 56, 40), m.weight("b3", 56)], "y", transB=1)
    path = m.save(tmp_path / "net.onnx", {"x": (64, 40)}, ["y"])
    for capacity in ("4KiB", "6KiB", "8KiB"):
        for fusion in ("none", "epilogue"):
            accelerator = cosma.Accelerator(
                scratchpad=capacity, operands="resident", weights="scratchpad", fusion=fusion
            )
            loaded = cosma.load_onnx(path)
            plan = cosma.compile(loaded, accelerator, dtype="int8", tiling="auto", effort=0)
            report = run_plan(plan, path)
            assert report.passed, (capacity, fusion, report.difference, report.untiled)
            assert cosma.replay(plan, loaded.finest_graph.with_dtype("int8"), model=path).valid


def test_an_operand_that_is_loaded_where_its_result_takes_its_place() -> None:
    """A partial sum comes back from off-chip just for the step that overwrites it, and has the larger number."""
    graph = Graph([Tensor("y", 64, "output"), Tensor("x", 128, "input")], [Operator("o", "Cast", ["x"], ["y"])])
    problem = build_problem(graph, cosma.Accelerator(scratchpad=128, alignment=64, operands="resident"))
    result, sums = problem.tensor_names.index("y"), problem.tensor_names.index("x")
    assert result < sums
    slots = slots_of(problem, Decisions((0,), (Residency(result, 0, 1, False, sums), Residency(sums, 0, 1, True))))
    assert slots.members == ((1, 0),)
    (buffer,) = slots.buffers
    assert buffer.size == 128


def test_products_are_cut_where_operands_may_stream(tmp_path: Path) -> None:
    case = BY_NAME["MM-64"]
    path = case.model(tmp_path / "product.onnx")
    accelerator = cosma.Accelerator(scratchpad="64KiB", operands="stationary", weights="scratchpad")
    plan = cosma.compile(path, accelerator, dtype="int8", tiling="auto", effort=0.2)
    assert plan.traffic.total <= case.accelforge_bytes
    assert cosma.replay(plan, cosma.load_onnx(path).finest_graph.with_dtype("int8"), model=path).valid


def test_weights_that_nearly_fill_the_scratchpad_leave_room_for_columns(tmp_path: Path) -> None:
    case = BY_NAME["RES-64"]
    assert plan_case(case, "auto", tmp_path, effort=0)["total"] <= case.accelforge_bytes
