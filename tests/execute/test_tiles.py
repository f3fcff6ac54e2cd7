"""Tiles executed: the numbers of the operators uncut, and the bits of the same tiles without a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

import cosma
from cosma.access.operator import operator_access
from cosma.execute import run_plan
from cosma.execute.execution import execute_plan
from cosma.execute.plain import PlainRun
from cosma.frontend import LoadedModel
from cosma.graph import Graph
from cosma.plan import Plan
from cosma.rewrite.fuse import fuse
from cosma.rewrite.tiling import REDUCED, Tiling
from tests.execute.networks import FAMILIES
from tests.onnx_files import save_network

pytest.importorskip("onnxruntime")


def random_tiling(loaded: LoadedModel, graph: Graph, rng: np.random.Generator) -> Tiling:
    """Cuts at random places along axes that can be cut, sums by steps among them, few enough to be quick."""
    cuts, sums, loops = {}, {}, {}
    for operator in graph.operators:
        access = operator_access(graph, loaded.sites, operator)
        shape = access.shapes[access.result]
        axes = []
        for size, allowed in zip(shape, access.cuts(), strict=True):
            some = allowed and size > 1 and rng.random() < 0.45
            axes.append(tuple(sorted({int(p) for p in rng.integers(1, size, int(rng.integers(1, 3)))})) if some else ())
        cuts[operator.name] = tuple(axes)
        reduced = access.reduced()
        if reduced > 1 and rng.random() < 0.6:
            sums[operator.name] = tuple(sorted({int(p) for p in rng.integers(1, reduced, int(rng.integers(1, 4)))}))
            order = [*range(len(shape)), REDUCED]
            rng.shuffle(order)
            loops[operator.name] = tuple(order)
    return Tiling(cuts, sums=sums, loops=loops)


def tiled_plan(model: Path, seed: int, fused: bool, **changes: object) -> Plan:
    loaded = cosma.load_onnx(model)
    graph = fuse(loaded.graph).graph if fused else loaded.graph
    tiling = random_tiling(loaded, graph, np.random.default_rng(seed))
    accelerator = cosma.Accelerator(scratchpad="96KiB", weights="scratchpad", fusion="epilogue" if fused else "none")
    accelerator = accelerator.replace(**changes)
    return cosma.compile(loaded, accelerator, strategy="e2", tiling=tiling, effort=0.1)


@pytest.mark.parametrize("weights", ["scratchpad", "stream"])
@pytest.mark.parametrize("family", FAMILIES)
def test_tiles_stream_in_ways_that_their_model_allows(family: str, weights: str, tmp_path: Path) -> None:
    """With little room most of what tiles touch passes the scratchpad by, in modes that the judge finds for itself."""
    model = FAMILIES[family](tmp_path / "net.onnx")
    plan = tiled_plan(model, 3, True, operands="stationary", weights=weights, scratchpad="26KiB")
    assert sum(operator.tile is not None for operator in plan.graph.operators) > 10
    assert plan.traffic.streamed > 0
    checked = cosma.replay(plan, cosma.load_onnx(model).finest_graph, model=model)
    assert checked.valid, checked.violations[:3]
    report = run_plan(plan, model, seed=3)
    assert report.equal, report.difference


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("seed", "fused"), [(0, False), (1, True), (2, True)])
def test_tiles_give_the_numbers_of_the_operators(family: str, seed: int, fused: bool, tmp_path: Path) -> None:
    model = FAMILIES[family](tmp_path / "net.onnx")
    plan = tiled_plan(model, seed, fused)
    assert sum(operator.tile is not None for operator in plan.graph.operators) > 10
    report = run_plan(plan, model, seed=seed)
    assert report.equal, report.difference
    assert report.passed, (report.untiled, report.whole)
    assert report.whole.verdict == "equal"
    assert not report.taken_over
    yielded = {root.name for root in plan.graph.roots.values() if root.kind in ("intermediate", "output")}
    assert yielded <= {result.name for result in report.untiled}  # each as a whole, not outputs alone
    if family == "quantised":
        assert all(output.largest == 0 for output in report.untiled)


def test_a_step_of_a_tile_in_the_padding_alone_reads_its_own_channels(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[1, 0, 2, 0])
    weights = {"w": np.ones((4, 4, 1, 1), np.float32)}
    model = save_network(tmp_path / "net.onnx", [node], {"x": (1, 4, 5, 3)}, weights, ["y"])
    accelerator = cosma.Accelerator(scratchpad="64KiB", weights="scratchpad")
    plan = cosma.compile(model, accelerator, tiling=Tiling({"conv": ((), (), (1, 6), ())}, sums={"conv": (2,)}))
    report = run_plan(plan, model)
    assert report.passed, (report.untiled, report.whole)


_X = np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)
_OLD = {
    "Add along channels": ("Add", {"axis": 1, "broadcast": 1}, [(3,)], lambda b: _X + b[:, None, None]),
    "Sub along rows": ("Sub", {"axis": 2, "broadcast": 1}, [(4,)], lambda b: _X - b[:, None]),
    "Mul along the last": ("Mul", {"broadcast": 1}, [(4,)], lambda b: _X * b),
    "Div along two": ("Div", {"axis": 1, "broadcast": 1}, [(3, 4)], lambda b: _X / b[:, :, None]),
    "Add of one": ("Add", {"axis": 1, "broadcast": 1}, [(1,)], lambda b: _X + b),
    "PRelu": ("PRelu", {}, [(3,)], lambda b: np.where(_X > 0, _X, _X * b[:, None, None])),
    "BatchNormalization": (
        "BatchNormalization", {"is_test": 1, "epsilon": 0.0}, [(3,)] * 4,
        lambda s, b, m, v: (_X - m[:, None, None]) / np.sqrt(v)[:, None, None] * s[:, None, None] + b[:, None, None],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", _OLD)
def test_operands_before_opset_7_lie_along_the_axis_that_the_node_names(case: str, tmp_path: Path) -> None:
    kind, attributes, shapes, expected = _OLD[case]
    weights = {f"w{i}": np.random.default_rng(i).random(s, np.float32) + 0.5 for i, s in enumerate(shapes)}
    node = helper.make_node(kind, ["x", *weights], ["y"], name="node", **attributes)
    model = save_network(tmp_path / "net.onnx", [node], {"x": _X.shape}, weights, ["y"], opset=6)
    accelerator = cosma.Accelerator(scratchpad="64KiB", weights="scratchpad")
    plan = cosma.compile(model, accelerator, tiling=Tiling({"node": ((), (1,), (1, 3), (2,))}))
    done = execute_plan(plan, model, inputs={"x": _X})
    np.testing.assert_allclose(done.outputs["y"], expected(*weights.values()), rtol=1e-5, atol=1e-6)
    report = run_plan(plan, model)
    assert report.passed, (report.untiled, report.whole)
    if "axis" in attributes:
        assert report.whole.verdict == "not compared"  # no other reader heeds the axis


def test_scales_of_an_upsample_may_be_attributes(tmp_path: Path) -> None:
    """A size rounded down tells less than the scale: rows 0 to 99 of the result are not those of the operand."""
    node = helper.make_node("Upsample", ["x"], ["y"], name="node", scales=[1.0, 1.0, 1.005, 2.0])
    model = save_network(tmp_path / "net.onnx", [node], {"x": (1, 1, 100, 3)}, {}, {"y": (1, 1, 100, 6)}, opset=7)
    plan = cosma.compile(model, cosma.Accelerator(scratchpad="64KiB"), tiling=Tiling({"node": ((), (), (50, 99), ())}))
    report = run_plan(plan, model)
    assert report.passed, (report.untiled, report.whole)
    assert report.whole.verdict == "equal"


def test_a_view_of_the_first_opsets_is_seen_through(tmp_path: Path) -> None:
    reshape = helper.make_node("Reshape", ["x"], ["r"], shape=[0, -1])
    nodes = [reshape, helper.make_node("Relu", ["r"], ["y"], name="node")]
    model = save_network(tmp_path / "net.onnx", nodes, {"x": (4, 2, 6)}, {}, {"y": (4, 12)}, opset=1)
    accelerator = cosma.Accelerator(scratchpad="64KiB")
    plan = cosma.compile(model, accelerator, tiling=Tiling({"node": ((1, 2), (6,))}))
    assert cosma.replay(plan, cosma.load_onnx(model).finest_graph, model=model).valid


def test_neighbours_that_an_interpolation_multiplies_by_zero_may_be_poison(tmp_path: Path) -> None:
    """Between rows that keep their number, kernels interpolate with a weight of zero."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="r"),
        helper.make_node("Upsample", ["r", "scales"], ["u"], name="u", mode="linear"),
        helper.make_node("Relu", ["u"], ["y"], name="y"),
    ]
    scales = {"scales": np.array([1, 1, 1, 2], np.float32)}
    path = save_network(tmp_path / "wide.onnx", nodes, {"x": (1, 3, 6, 7)}, scales, opset=9)
    plan = cosma.compile(path, cosma.Accelerator(scratchpad="1MiB"), tiling="rows=2", strategy="e2", effort=0.0)
    report = run_plan(plan, path)
    assert report.passed
    assert [check.name for check in report.untiled] == ["r", "u", "y"]


def test_a_selection_behind_a_view_or_a_dequantisation_reads_what_it_selects(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 1]),
        helper.make_node("Slice", ["t", "begin", "end", "axes", "steps"], ["y"]),
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("Slice", ["d", "begin", "end", "axes", "steps"], ["e"]),
        helper.make_node("QuantizeLinear", ["e", "scale", "zero"], ["z"]),
    ]
    weights = {
        "begin": np.array([5]), "end": np.array([12]), "axes": np.array([0]), "steps": np.array([3]),
        "scale": np.array(0.05, np.float32), "zero": np.array(7, np.uint8),
    }  # fmt: skip
    path = save_network(tmp_path / "net.onnx", nodes, {"x": (12, 4)}, weights, ["y", "z"])
    for operands in ("resident", "stationary"):
        accelerator = cosma.Accelerator(scratchpad="4KiB", operands=operands)
        plan = cosma.compile(path, accelerator, tiling="rows=2", strategy="e2")
        report = run_plan(plan, path)
        assert report.equal
        assert report.passed


def test_an_operator_reads_a_tensor_as_it_is_or_dequantises_it(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("Greater", ["d", "zeros"], ["g"]),
        helper.make_node("Relu", ["d"], ["r"]),
        helper.make_node("Where", ["g", "d", "r"], ["y"]),
    ]
    weights = {
        "scale": np.array(0.05, np.float32), "zero": np.array(7, np.uint8), "zeros": np.zeros((1, 1), np.float32)
    }  # fmt: skip
    path = save_network(tmp_path / "net.onnx", nodes, {"x": (12, 4)}, weights)
    for tiling in ("none", "rows=4"):
        accelerator = cosma.Accelerator(scratchpad="4KiB", fusion="epilogue")
        plan = cosma.compile(path, accelerator, tiling=tiling, strategy="e2")
        assert run_plan(plan, path).passed


def test_a_tile_of_one_copy_behind_a_quantised_operator_is_a_view(tmp_path: Path) -> None:
    """ONNX does not infer the shapes of ONNX Runtime's own operators, nor of what is behind them."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node(
            "QLinearSigmoid", ["q", "scale", "zero", "scale", "zero"], ["s"], domain="com.microsoft"
        ),
        helper.make_node("DequantizeLinear", ["s", "scale", "zero"], ["d"]),
        helper.make_node("Tile", ["d", "copies"], ["t"]),
        helper.make_node("Relu", ["t"], ["y"]),
    ]
    weights = {"scale": np.array(0.05, np.float32), "zero": np.array(7, np.uint8), "copies": np.array([1, 1])}
    path = save_network(tmp_path / "net.onnx", nodes, {"x": (12, 4)}, weights)
    plan = cosma.compile(path, cosma.Accelerator(scratchpad="4KiB"), tiling="rows=4", strategy="e2")
    assert run_plan(plan, path).passed


def _near_ties(folder: Path) -> Path:
    """Columns that are sums of the same numbers in other orders, so that how they are added up decides their order."""
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal(96).astype(np.float32)
    columns = np.stack([rng.permutation(numbers) for _ in range(8)], axis=1)
    half_a_step = np.float32(abs(numbers.sum()) / 2.5)  # each sum lies between two steps
    weights = {"w": columns, "scale": half_a_step, "zero": np.array(128, np.uint8), "bias": np.zeros(8, np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="m"),
        helper.make_node("ArgMax", ["m"], ["most"], name="most", axis=1),
        helper.make_node("Add", ["m", "bias"], ["b"], name="b"),
        helper.make_node("QuantizeLinear", ["b", "scale", "zero"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], name="d"),
        helper.make_node("Relu", ["d"], ["y"], name="y"),
    ]
    return save_network(folder / "ties.onnx", nodes, {"x": (16, 96)}, weights, ["most", "y"])


@pytest.mark.parametrize("fusion", ["none", "epilogue"])
def test_what_follows_from_rounding_is_no_difference(fusion: str, tmp_path: Path) -> None:
    path = _near_ties(tmp_path)
    accelerator = cosma.Accelerator(scratchpad="64KiB", fusion=fusion)
    tiling = Tiling({"m": ((4, 8), ())}, sums={"m": (17, 40, 71)})
    plan = cosma.compile(path, accelerator, tiling=tiling, strategy="e2", effort=0.0)
    inputs = {"x": np.repeat(np.linspace(0.5, 1.5, 16, dtype=np.float32)[:, None], 96, axis=1)}
    inputs["x"][0] = 1.0
    report = run_plan(plan, path, inputs=inputs)
    assert "most" in report.moved
    assert report.equal
    assert report.passed, report.untiled


def test_a_wrong_number_stays_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles that compute something else differ on the operands of the run without tiles too."""
    path = _near_ties(tmp_path)
    plan = cosma.compile(path, cosma.Accelerator(scratchpad="64KiB"), tiling="rows=4", strategy="e2", effort=0.0)
    run = PlainRun.of

    def other(*given: Any) -> PlainRun:
        made = run(*given)
        made.kept["most"] = 7 - made.kept["most"]
        return made

    monkeypatch.setattr(PlainRun, "of", other)
    report = run_plan(plan, path)
    assert report.equal
    assert not report.passed
    assert [check.name for check in report.untiled if not check.is_equal] == ["most"]
