"""The validator's own rules for modes against the table that plans use."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from cosma import Accelerator, Graph, Mode, Plan, compile, replay
from cosma.access.modes import with_modes
from cosma.compiler.fusion import fusion_choices
from cosma.frontend import load_onnx
from cosma.validator import Verdict
from cosma.validator.modes import check_modes
from tests.access.sites import MAKERS, draws
from tests.onnx_files import save_network

ZOO = Path(__file__).resolve().parents[2] / "models" / "zoo"
NAMES = (
    "darts_v2_imagenet", "distilbert_s128", "gpt2_s128", "lstm_bi2_s64", "mobilenet_v2_224", "mobilenet_v2_int8_qdq",
    "randwire_small_ws_1", "unet_256", "vit_6l_224_fp16", "zoo_resnet50", "zoo_squeezenet",
)  # fmt: skip


@pytest.mark.parametrize("weights", ["stream", "scratchpad"])
@pytest.mark.parametrize("name", NAMES)
def test_every_mode_of_the_table_passes(name: str, weights: str) -> None:
    loaded = load_onnx(ZOO / f"{name}.onnx")
    accelerator = Accelerator(scratchpad="1MiB", operands="stationary", weights=weights, fusion="epilogue")
    free = accelerator.replace(operands="streamable")
    for dtype in (None, "int8"):
        graph = loaded.graph if dtype is None else loaded.graph.with_dtype(dtype)
        for choice in fusion_choices(graph, free):
            every = with_modes(choice.graph, loaded.sites, keep_weights=weights == "scratchpad")
            assert check_modes(every, accelerator) == []
            assert sum(bool(mode.may_stream) for o in every.operators for mode in o.modes) > len(every.operators) // 2


def most_rows(read: int, made: int, kernel: int, stride: int, before: int, gap: int) -> int:
    """Rows between the first and the last that one row of the result touches, counted tap by tap."""
    rows = [[r * stride - before + k * gap for k in range(kernel)] for r in range(made)]
    inside = [[at for at in taps if 0 <= at < read] for taps in rows]
    return max(taps[-1] - taps[0] + 1 if taps else 0 for taps in inside)


def test_windows_need_the_rows_that_one_row_reads_however_they_are_padded(tmp_path: Path) -> None:
    """Small maps: no row of the result may read all taps, and only rows at one edge may read most."""
    nodes, expected, dense = [], {}, []
    draw = random.Random(0)
    cases = [
        (h, k, s, p, q, d)
        for h, k, s, d in product(range(1, 10), range(1, 6), (1, 2, 3), (1, 2)) for p in range(k) for q in range(k)
        if h + p + q > (k - 1) * d
    ]  # fmt: skip
    for i, (h, k, s, p, q, d) in enumerate(draw.sample(cases, 600)):
        made = (h + p + q - (k - 1) * d - 1) // s + 1
        nodes.append(helper.make_node(
            "MaxPool", [f"x{h}"], [f"y{i}"], name=f"y{i}", kernel_shape=[k, 1], strides=[s, 1], pads=[p, 0, q, 0],
            dilations=[d, 1],
        ))  # fmt: skip
        expected[f"y{i}"] = most_rows(h, made, k, s, p, d)
        dense += [f"y{i}"] if d == 1 else []
    inputs = {f"x{h}": (1, 1, h, 1) for h in range(1, 10)}
    loaded = load_onnx(save_network(tmp_path / "windows.onnx", nodes, inputs, {}, list(expected)))
    graph = with_modes(loaded.graph.with_dtype("int8"), loaded.sites, keep_weights=True)
    accelerator = Accelerator(scratchpad=1024, operands="stationary")
    assert check_modes(graph, accelerator) == []
    rows = {o.name: max(mode.workspace_bytes for mode in o.modes) for o in graph.operators}
    # Between the taps of windows with gaps the table may count a row that nothing touches.
    assert all(rows[name] >= expected[name] for name in expected)
    assert {name: rows[name] for name in dense} == {name: expected[name] for name in dense}
    # One byte less is refused wherever the map streams.
    less = [
        replace(o, modes=[replace(m, workspace_bytes=max(0, m.workspace_bytes - 1)) for m in o.modes])
        for o in graph.operators
    ]  # fmt: skip
    refused = {v.message.split("'")[3] for v in check_modes(graph.replace(operators=less), accelerator)}
    passing = {o.name for o in graph.operators for m in o.modes if m.workspace_bytes and o.inputs[0] in m.may_stream}
    assert refused & {*dense} == passing & {*dense}
    assert len(refused) > 100


@pytest.fixture(scope="module")
def planned() -> tuple[Plan, Graph]:
    loaded = load_onnx(ZOO / "mobilenet_v2_224.onnx")
    accelerator = Accelerator(scratchpad="256KiB", operands="stationary", weights="scratchpad")
    return compile(loaded, accelerator, dtype="int8", strategy="e2"), loaded.finest_graph.with_dtype("int8")


def with_mode(plan: Plan, kind: str, name: str, **change: object) -> Plan:
    """The plan with one mode of an operator of some type claimed otherwise."""
    chosen = next(o for o in plan.graph.operators if o.type == kind and o.modes[0].name == name)
    modes = (replace(chosen.modes[0], **change),)  # type: ignore[arg-type]
    operators = [replace(o, modes=modes) if o is chosen else o for o in plan.graph.operators]
    return replace(plan, graph=Graph(plan.graph.tensors.values(), operators, plan.graph.name))


def test_a_plan_is_valid_with_its_model(planned: tuple[Plan, Graph]) -> None:
    plan, graph = planned
    assert replay(plan, graph).valid


@pytest.mark.parametrize(("kind", "name"), [("Conv", "weight-stationary"), ("Conv", "rows")])
def test_a_workspace_that_is_claimed_too_small_is_found(planned: tuple[Plan, Graph], kind: str, name: str) -> None:
    plan, graph = planned
    damaged = with_mode(plan, kind, name, workspace_bytes=1)
    assert Verdict.MODE_FORBIDDEN in {v.verdict for v in replay(damaged, graph).violations}


def test_a_product_that_keeps_nothing_is_found(planned: tuple[Plan, Graph]) -> None:
    plan, graph = planned
    operator = next(o for o in plan.graph.operators if o.type == "Conv" and o.modes[0].name == "weight-stationary")
    everything = (*operator.operands, *operator.outputs)
    found = replay(with_mode(plan, "Conv", "weight-stationary", may_stream=everything), graph).violations
    assert any("neither a factor nor the result stays" in v.message for v in found)


def test_a_mode_of_foreign_tensors_is_found(planned: tuple[Plan, Graph]) -> None:
    plan, graph = planned
    damaged = with_mode(plan, "Clip", "lockstep", may_stream=(plan.graph.operators[-1].outputs[0],))
    assert any("does not touch" in v.message for v in replay(damaged, graph).violations)


def test_what_has_no_rule_streams_nothing() -> None:
    loaded = load_onnx(ZOO / "distilbert_s128.onnx")
    operator = loaded.graph.operators[0]
    every = with_modes(loaded.graph, {}, keep_weights=False)
    assert all(o.modes == (Mode("resident"),) for o in every.operators)
    assert operator.modes == ()


def test_a_tile_streams_no_view_of_which_it_reads_more_than_it_yields(tmp_path: Path) -> None:
    """Rows of an image are no interval of the same values seen as a vector, so tiles of them read all of it."""
    node = helper.make_node
    weights = {"w": (1, 1, 1024), "scale": (4, 1, 1), "image": np.array([1, 4, 16, 16], np.int64)}
    nodes = [
        node("Mul", ["x", "w"], ["a"]), node("Reshape", ["a", "image"], ["b"]), node("Mul", ["b", "scale"], ["y"]),
    ]  # fmt: skip
    path = save_network(tmp_path / "view.onnx", nodes, {"x": [1, 1, 1024]}, weights)
    accelerator = Accelerator(scratchpad="6KiB", operands="stationary", weights="scratchpad")
    plan = compile(path, accelerator, tiling="rows=4")
    assert replay(plan, load_onnx(path).finest_graph, model=path).valid
    tiles = [o for o in plan.graph.operators if o.tile is not None]
    assert tiles
    for tile in tiles:
        assert not {name for mode in tile.modes for name in mode.may_stream}.intersection(tile.inputs)


def test_quantised_forms_stream_as_their_kernels_can(tmp_path: Path) -> None:
    """Extremes come first, so what they are taken of stays; rows are not counted where channels come last."""
    from tests.execute.networks import FAMILIES

    loaded = load_onnx(FAMILIES["integers"](tmp_path / "net.onnx"))
    accelerator = Accelerator(scratchpad="1MiB", operands="stationary", weights="scratchpad")
    every = with_modes(loaded.graph, loaded.sites, keep_weights=True)
    assert check_modes(every, accelerator) == []
    of = {(o.type, o.outputs[0]): o for o in every.operators}
    streams = {key: {name for mode in o.modes for name in mode.may_stream} for key, o in of.items()}
    assert streams["DynamicQuantizeMatMul", "z"] == {"z", "w5"}
    assert streams["QLinearConv", "l"] == streams["NhwcMaxPool", "m"] == set()
    for key, passing in (("DynamicQuantizeMatMul", "z"), ("f",)), (("QLinearConv", "l"), ("t", "l")):
        mode = Mode("streaming", passing, 1 << 20)
        operators = [replace(o, modes=(mode,)) if o is of[key] else o for o in every.operators]
        assert {v.verdict for v in check_modes(every.replace(operators=operators), accelerator)} == {
            Verdict.MODE_FORBIDDEN
        }
    for key in ("QLinearAveragePool", "p"), ("QLinearConcat", "j"), ("QGemm", "y"), ("QLinearSoftmax", "s"):
        assert key[1] in streams[key]


def test_rows_along_an_axis_of_one_index_and_rows_of_views_pass(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["v"]),
        helper.make_node("Flatten", ["v"], ["m"], axis=0),
        helper.make_node("Gemm", ["m", "w", "b"], ["y"]),
        helper.make_node("Softmax", ["r"], ["s"], axis=0),
        helper.make_node("Reshape", ["r", "inner"], ["i"]),
        helper.make_node("Softmax", ["i"], ["t"], axis=-1),
        helper.make_node("ReduceMax", ["i"], ["u"], axes=[-1]),
        helper.make_node("MaxPool", ["i"], ["p"], kernel_shape=[2]),
    ]
    shapes = {"w": (8, 4), "b": (1, 4), "inner": np.array([1, 15, 2])}
    weights = {name: np.ones(of, np.float32) if isinstance(of, tuple) else of for name, of in shapes.items()}
    path = tmp_path / "m.onnx"
    save_network(path, nodes, {"x": (8,), "r": (1, 6, 5)}, weights, ["y", "s", "t", "u", "p"])
    loaded = load_onnx(path)
    for weights in ("scratchpad", "stream"):
        every = with_modes(loaded.graph, loaded.sites, keep_weights=weights == "scratchpad")
        assert {"input-stationary", "rows"} <= {mode.name for o in every.operators for mode in o.modes}
        assert check_modes(every, Accelerator(scratchpad="1MiB", operands="stationary", weights=weights)) == []


@pytest.mark.parametrize("kind", MAKERS)
def test_modes_of_drawn_operators_pass(kind: str, tmp_path: Path) -> None:
    """Operators of every rule with drawn attributes and shapes, their later operands constant or not."""
    for seed in draws(kind, 8, 3):
        case = MAKERS[kind](np.random.default_rng(3000 + seed), kind)
        path = tmp_path / f"{seed}.onnx"
        case.save(path, constant=bool(seed % 2))
        loaded = load_onnx(path)
        for weights in ("scratchpad", "stream"):
            every = with_modes(loaded.graph, loaded.sites, keep_weights=weights == "scratchpad")
            accelerator = Accelerator(scratchpad="1MiB", operands="stationary", weights=weights)
            assert check_modes(every, accelerator) == [], case
