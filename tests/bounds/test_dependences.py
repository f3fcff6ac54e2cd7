"""What the bound over all tilings takes operators to need: never more than tiles of some plan do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

import cosma
from cosma.access.operator import operator_access
from cosma.bounds.couplings import share_of_taps
from cosma.bounds.dependences import dependences_of
from cosma.bounds.tilings import tilings_bound
from cosma.compiler.one_pass import plan_in_one_pass
from cosma.graph import Graph
from cosma.problem import build_problem
from cosma.rewrite.tile import tile
from cosma.rewrite.tiling import Tiling, tile_key
from tests.onnx_files import save_network


def node(kind: str, operands: list[str], result: str, **attributes: object) -> NodeProto:
    return helper.make_node(kind, operands, [result], name=result, **attributes)


def bytes_of(loaded: cosma.LoadedModel, graph: Graph, tiling: Tiling, room: int) -> int:
    machine = cosma.Accelerator(scratchpad=room, alignment=1, weights="scratchpad", operands="resident")
    planned = plan_in_one_pass(build_problem(tile(graph, loaded.sites, tiling).graph, machine))
    assert planned is not None
    return planned[0]


@pytest.mark.parametrize("room", [85, 100, 120])
def test_an_element_of_a_weight_meets_one_of_the_pieces_joined(tmp_path: Path, room: int) -> None:
    """Sums over the columns of one piece come first, by all rows; then a row of the other at a time."""
    rows, wide, narrow, step = 20, 60, 10, 10
    nodes = [
        node("Exp", ["x2"], "b"), node("Exp", ["x1"], "a"), node("Concat", ["b", "a"], "c", axis=1),
        node("MatMul", ["c", "w"], "z"), node("ReduceMax", ["z"], "r", axes=[1], keepdims=1),
        node("Mul", ["a", "r"], "y"),
    ]  # fmt: skip
    inputs, weights = {"x1": (rows, narrow), "x2": (rows, wide)}, {"w": (narrow + wide, 2)}
    loaded = cosma.load_onnx(save_network(tmp_path / "joined.onnx", nodes, inputs, weights, ["y"]))
    graph = loaded.graph.with_dtype("int8")
    by_row, steps = tuple(range(1, rows)), tuple(range(step, wide, step))
    cuts = dict.fromkeys("azry", (by_row, ())) | {"b": (by_row, steps), "c": (by_row, (*steps, wide))}
    order = [
        key for k in range(0, wide, step) for i in range(rows)
        for key in (tile_key("b", (i, k), 0), tile_key("c", (i, k), 0), tile_key("z", (i, 0), k))
    ]  # fmt: skip
    for i in range(rows):
        order += [tile_key("a", (i, 0), 0), tile_key("c", (i, wide), 0), tile_key("z", (i, 0), wide)]
        order += [tile_key(name, (i, 0), 0) for name in "ry"]
    tiling = Tiling(cuts, sums={"z": (*steps, wide)}, order=tuple(order))
    assert bytes_of(loaded, graph, tiling, room) == tilings_bound(graph, loaded.sites, room) == 0


@pytest.mark.parametrize("seen_through", ["Reshape", "Squeeze"])
def test_a_weight_seen_through_a_view_is_cut_as_the_weight_is(tmp_path: Path, seen_through: str) -> None:
    """Columns of the product read columns of the weight, which no scratchpad of this size holds."""
    rows, depth, columns, room = 4, 20, 100, 160
    how = np.array([depth, columns] if seen_through == "Reshape" else [0], np.int64)
    nodes = [
        node("Exp", ["x"], "y"), node(seen_through, ["w", "how"], "v"), node("MatMul", ["y", "v"], "z"),
        node("ReduceMax", ["z"], "r", axes=[0], keepdims=1),
    ]  # fmt: skip
    weights = {"w": (1, depth, columns), "how": how}
    loaded = cosma.load_onnx(save_network(tmp_path / "view.onnx", nodes, {"x": (rows, depth)}, weights, ["r"]))
    graph = loaded.graph.with_dtype("int8")
    names = [operator.name for operator in graph.operators]
    by_column = tuple(range(1, columns))
    tiling = Tiling(dict.fromkeys(names[1:], ((), by_column)), segments=(tuple(names[1:]),))
    assert bytes_of(loaded, graph, tiling, room) == tilings_bound(graph, loaded.sites, room) == 0


@pytest.mark.parametrize("room", [70, 90, 110])
def test_what_fusion_removes_keeps_nothing_whole(tmp_path: Path, room: int) -> None:
    """Packed elements cannot be parts; a fused operator with such a step in it is cut by rows all the same."""
    nodes = [
        node("Exp", ["x"], "y"), node("ReduceMax", ["y", "axes"], "m", keepdims=1), node("Relu", ["y"], "a"),
        node("Cast", ["a"], "b", to=TensorProto.INT4), node("Cast", ["b"], "c", to=TensorProto.FLOAT),
        node("Mul", ["c", "m"], "o"),
    ]  # fmt: skip
    weights = {"axes": np.array([1], np.int64)}
    path = save_network(
        tmp_path / "packed.onnx", nodes, {"x": (4, 60)}, weights, ["o"], opset=21, ir_version=10
    )  # fmt: skip
    loaded = cosma.load_onnx(path)
    machine = cosma.Accelerator(
        scratchpad=room, alignment=1, weights="scratchpad", operands="streamable", fusion="epilogue"
    )  # fmt: skip
    plan = cosma.compile(path, machine, dtype="int8", tiling="rows=1", effort=0.5)
    bound = tilings_bound(loaded.graph.with_dtype("int8"), loaded.sites, room)
    assert plan.traffic.noncompulsory == bound == 0


@pytest.mark.parametrize(("seen", "whole"), [((8, 8), "t"), ((4, 16), None)])
def test_a_split_of_a_view_has_no_boxes_of_it(tmp_path: Path, seen: tuple[int, int], whole: str | None) -> None:
    """A row of a half, seen as rows of 16, is no row of the product, which has rows of eight."""
    nodes = [
        node("MatMul", ["x", "w"], "t"), node("Reshape", ["t", "shape"], "v"),
        helper.make_node("Split", ["v"], ["a", "b"], axis=0),
        node("Softmax", ["a"], "y", axis=-1), node("Softmax", ["b"], "z", axis=-1),
    ]  # fmt: skip
    arrays = {"w": np.ones((8, 8), np.float32), "shape": np.array(seen)}
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    loaded = cosma.load_onnx(save_network(tmp_path / "split.onnx", nodes, {"x": (8, 8)}, weights, ["y", "z"]))
    assert next(w.parts_of for w in dependences_of(loaded.graph, loaded.sites).work if w.type == "Split") == whole


@pytest.mark.parametrize("room", [400, 600, 800])
@pytest.mark.parametrize("kind", ["GatherND", "GatherElements", "Gather"])
def test_of_what_is_picked_by_known_indices_no_more_is_needed(tmp_path: Path, kind: str, room: int) -> None:
    """A row is picked and normalised, then added to each row in turn: the rows need not wait for one another."""
    rows, columns = 16, 16
    picked = {"GatherND": [[0]], "GatherElements": [[0] * columns], "Gather": [0]}[kind]
    axis = {} if kind == "GatherND" else {"axis": 0}
    nodes = [
        node("MatMul", ["a", "w"], "x"), node(kind, ["x", "i"], "g", **axis), node("Softmax", ["g"], "s", axis=-1),
        node("Add", ["x", "s"], "y"),
    ]  # fmt: skip
    weights = {"w": (4, columns), "i": np.array(picked, np.int64)}
    loaded = cosma.load_onnx(save_network(tmp_path / "picked.onnx", nodes, {"a": (rows, 4)}, weights, ["y"]))
    by_row = (tuple(range(1, rows)), ())
    tiling = Tiling({"x": by_row, "y": by_row}, segments=(tuple(o.name for o in loaded.graph.operators),))
    bound = tilings_bound(loaded.graph, loaded.sites, room)
    assert bound <= bytes_of(loaded, loaded.graph, tiling, room)
    assert bound == 0 or room == 400


@pytest.mark.parametrize("window", [(4, 2, 2, 5), (5, 2, 3, 6), (5, 2, 2, 7), (3, 1, 1, 6)])
def test_no_box_uses_fewer_taps_than_are_counted(tmp_path: Path, window: tuple[int, int, int, int]) -> None:
    """A window longer than the map uses the fewest taps in the middle."""
    kernel, dilation, pad, size = window
    nodes = [node("Conv", ["x", "w"], "y", pads=[pad, 0, pad, 0], dilations=[dilation, 1])]
    path = save_network(tmp_path / "taps.onnx", nodes, {"x": (1, 1, size, 1)}, {"w": (1, 1, kernel, 1)}, ["y"])
    loaded = cosma.load_onnx(path)
    site = operator_access(loaded.graph, loaded.sites, loaded.graph.operators[0]).chain[0].site
    rows = site.result[2]
    for extent in range(1, rows + 1):
        for first in range(rows - extent + 1):
            met = {(tap, at + tap * dilation - pad) for at in range(first, first + extent) for tap in range(kernel)}
            used = {tap for tap, row in met if 0 <= row < size}
            assert share_of_taps(site, (1, 1, kernel, 1), (1, 1, extent, 1)) <= len(used) / kernel
