"""Tiles that read pieces of Concats that copy nothing: planned, judged from the model's nodes, executed, mutated."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

import cosma
from cosma.access.operator import operator_access
from cosma.bounds.tilings import tilings_bound
from cosma.execute import run_plan
from cosma.frontend import LoadedModel
from cosma.graph import Graph, Join, Piece, Region, Tensor
from cosma.graph.in_place import may_overwrite
from cosma.plan.file import plan_from_json, plan_to_json
from cosma.plan.tiles import untiled_graph
from cosma.rewrite.fuse import first_links, fuse
from cosma.rewrite.join import join_copies
from cosma.rewrite.tile import tile
from cosma.rewrite.tiling import Tiling, even_cuts
from cosma.studies.existing import existing_plans
from cosma.tiling.given import rule_tiling
from tests.execute.networks import FAMILIES, Maker
from tests.execute.test_tiles import random_tiling
from tests.zero_copy.models import random_model, save

pytest.importorskip("onnxruntime")


def dense(path: Path) -> Path:
    """Layers that each read all before them, through normalisation and a bottleneck; the last Concat is reduced."""
    m = Maker(11)
    m.add("Conv", ["x", m.weight("w0", 8, 3, 3, 3)], "a0", pads=[1, 1, 1, 1])
    made, wide = ["a0"], 8
    for i in range(1, 4):
        c = m.add("Concat", made, f"c{i}", axis=1) if i > 1 else "a0"
        m.add("Mul", [c, m.weight(f"s{i}", wide, 1, 1)], f"m{i}")
        m.add("Relu", [f"m{i}"], f"r{i}")
        m.add("Conv", [f"r{i}", m.weight(f"wa{i}", 8, wide, 1, 1)], f"b{i}")
        m.add("Conv", [f"b{i}", m.weight(f"wb{i}", 4, 8, 3, 3)], f"a{i}", pads=[1, 1, 1, 1])
        made.append(f"a{i}")
        wide += 4
    m.add("Concat", made, "c4", axis=1)
    m.add("AveragePool", ["c4"], "p", kernel_shape=[2, 2], strides=[2, 2])
    m.add("GlobalAveragePool", ["c4"], "y")
    return m.save(path, {"x": (1, 3, 16, 12)}, ["p", "y"])


def nested(path: Path) -> Path:
    """A Concat of Concats, of an input of the graph, and of a tensor that is an output."""
    m = Maker(12)
    m.add("Conv", ["x", m.weight("w0", 6, 3, 3, 3)], "a", pads=[1, 1, 1, 1])
    m.add("Sigmoid", ["a"], "o")
    m.add("Concat", ["a", "x"], "c1", axis=1)
    m.add("Concat", ["c1", "o"], "c2", axis=1)
    m.add("Conv", ["c1", m.weight("w1", 5, 9, 3, 3)], "l", pads=[1, 1, 1, 1])
    m.add("MaxPool", ["c2"], "q", kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    m.add("Conv", ["c2", m.weight("w2", 7, 15, 5, 1)], "k", strides=[2, 1], pads=[2, 0, 2, 0])
    m.add("Concat", ["l", "q"], "y", axis=1)
    return m.save(path, {"x": (1, 3, 14, 10)}, ["y", "o", "k"])


def inception(path: Path) -> Path:
    """Branches of several windows side by side, twice, the second over the first."""
    m = Maker(13)
    read, wide = "x", 4
    for i in range(2):
        m.add("Conv", [read, m.weight(f"a{i}w", 4, wide, 1, 1)], f"a{i}")
        m.add("Conv", [f"a{i}", m.weight(f"b{i}w", 4, 4, 3, 3)], f"b{i}", pads=[1, 1, 1, 1])
        m.add("Conv", [read, m.weight(f"d{i}w", 4, wide, 1, 1)], f"d{i}")
        m.add("Relu", [f"d{i}"], f"e{i}")
        m.add("MaxPool", [read], f"p{i}", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        m.add("Conv", [f"p{i}", m.weight(f"q{i}w", 3, wide, 1, 1)], f"q{i}")
        read, wide = m.add("Concat", [f"e{i}", f"b{i}", f"q{i}"], f"c{i}", axis=1), 11
    m.add("Conv", [read, m.weight("w", 4, 11, 3, 3)], "y")
    return m.save(path, {"x": (1, 4, 15, 13)}, ["y"])


def rows(path: Path) -> Path:
    """Concats along rows: of maps, and of sequences with a view between."""
    m = Maker(14)
    m.add("Conv", ["x", m.weight("w0", 4, 3, 3, 3)], "a", pads=[1, 1, 1, 1])
    m.add("Tanh", ["x"], "b0")
    m.add("Conv", ["b0", m.weight("w1", 4, 3, 1, 1)], "b")
    m.add("Concat", ["a", "b", "z"], "c", axis=2)
    m.add("Conv", ["c", m.weight("w2", 6, 4, 5, 3)], "d", pads=[2, 1, 2, 1], strides=[2, 1])
    m.add("Exp", ["d"], "y")
    m.add("MatMul", ["s", m.weight("w3", 8, 10)], "h")
    m.add("MatMul", ["t", m.weight("w4", 8, 10)], "g")
    m.add("Concat", ["h", "g"], "j", axis=1)
    m.add("Squeeze", ["j", m.constant("zero", np.array([0]))], "v")
    m.add("MatMul", ["v", m.weight("w5", 10, 6)], "u")
    shapes = {"x": (1, 3, 12, 8), "z": (1, 4, 3, 8), "s": (1, 7, 8), "t": (1, 9, 8)}
    return m.save(path, shapes, ["y", "u"])


NETWORKS: dict[str, Callable[[Path], Path]] = {
    "dense": dense, "nested": nested, "inception": inception, "rows": rows, "unet": FAMILIES["unet"],
}  # fmt: skip


def joined_graph(loaded: LoadedModel, *, fused: bool = False) -> Graph:
    """The network without the Concats that need not copy."""
    graph = loaded.graph
    if fused:
        concats = {o.name for o in graph.operators if o.type == "Concat"}
        graph = fuse(graph, frozenset(link.tensor for link in first_links(graph) if link.producer not in concats)).graph
    return join_copies(graph, loaded.sites, keep=[o.name for o in graph.operators if o.type != "Concat"]).graph


def plan_of(loaded: LoadedModel, graph: Graph, tiling: Tiling, **changes: Any) -> cosma.Plan:
    """A plan of the tiles of a graph that copies nothing, as one for the model."""
    settings = {"scratchpad": "64KiB", "weights": "scratchpad", "fusion": "epilogue"} | changes
    made = tile(graph, loaded.sites, tiling).graph
    return cosma.compile(made, cosma.Accelerator(**settings), strategy="e2")


def check(plan: cosma.Plan, model: Path, seed: int = 0) -> None:
    """Valid by the model's nodes, the same from its text, and equal to the model and to the same tiles when run."""
    report = cosma.replay(plan, cosma.load_onnx(model).finest_graph, model=model)
    assert report.valid, report.lines()
    again = plan_from_json(plan_to_json(plan))
    assert plan_to_json(again) == plan_to_json(plan)
    run = run_plan(again, model, seed=seed)
    assert run.equal, run.difference
    assert run.passed, (run.untiled, run.whole)
    assert run.whole.verdict == "equal"


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("seed", "fused", "operands"), [(0, False, "resident"), (1, True, "streamable")])
def test_tiles_read_pieces(name: str, seed: int, fused: bool, operands: str, tmp_path: Path) -> None:
    model = NETWORKS[name](tmp_path / "net.onnx")
    loaded = cosma.load_onnx(model)
    graph = joined_graph(loaded, fused=fused)
    assert graph.joins
    for operator in graph.operators:
        assert not (operator.joined and operator_access(graph, loaded.sites, operator).barrier)
    plan = plan_of(loaded, graph, random_tiling(loaded, graph, np.random.default_rng(seed)), operands=operands)
    assert any(o.tile is not None and o.joined for o in plan.graph.operators)
    pieces = [plan.graph.tensors[name] for join in plan.graph.joins.values() for name in join.tensors]
    assert any(piece.region is not None for piece in pieces)
    check(plan, model, seed)


def test_pieces_that_change_places_are_not_overwritten(tmp_path: Path) -> None:
    """Half of a result is computed from the other half of what was split: it may not take the place of its own."""
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("Split", ["e", "sizes"], ["p", "q"], axis=1),
        helper.make_node("Concat", ["q", "p"], ["c"], axis=1),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Split", ["r", "sizes"], ["s", "t"], axis=1),
        helper.make_node("Softmax", ["s"], ["y"]),
        helper.make_node("Softmax", ["t"], ["z"]),
    ]
    shapes = {name: [1, 2, 8, 8] for name in "yz"}
    model = save(tmp_path, "swap", nodes, {"x": [1, 4, 8, 8]}, shapes, {"sizes": [2, 2]})
    loaded = cosma.load_onnx(model)
    graph = join_copies(loaded.graph, loaded.sites).graph
    relu = next(o for o in graph.operators if o.type == "Relu")
    assert relu.joined
    tensors = graph.tensors
    assert not any(may_overwrite(relu, tensors[r], tensors[o]) for r in relu.outputs for o in relu.inputs)
    check(cosma.compile(model, cosma.Accelerator(scratchpad=2048, zero_copy=True)), model)


@pytest.mark.parametrize("seeds", [range(40), range(40, 80)])
def test_random_models_in_tiles(seeds: range, tmp_path: Path) -> None:
    """Concats, Splits, Slices and views in any order, whatever of the Concats copies nothing."""
    tiled = 0
    for seed in seeds:
        made = random_model(tmp_path, seed, views=seed % 2 == 1)
        if made is None:
            continue
        model, size = made
        loaded = cosma.load_onnx(model)
        graph = joined_graph(loaded, fused=seed % 3 == 0)
        tiling = random_tiling(loaded, graph, np.random.default_rng(seed))
        if not graph.joins or not tiling.operators:
            continue
        operands = random.Random(seed).choice(["streamable", "resident"])
        plan = plan_of(loaded, graph, tiling, scratchpad=max(1024, size), alignment=4, operands=operands)
        tiled += any(o.tile is not None and o.joined for o in plan.graph.operators)
        check(plan, model, seed)
    assert tiled > 2


def waiting_network(folder: Path, seed: int) -> Path:
    """A few small operators over rows with Concats, among them gates, for which a whole map has to wait."""
    rng = np.random.default_rng(seed)
    m = Maker(seed)
    rows, wide = int(rng.integers(3, 5)), {"x": 1}
    m.add("Conv", ["x", m.weight("w", 2, 1, 1, 1)], "t0")
    wide["t0"] = 2
    for i in range(1, int(rng.integers(4, 6))):
        source = list(wide)[-1]
        kind = ("conv", "gate", "pool")[int(rng.integers(3))]
        if len(wide) > 2 and rng.random() < 0.6:
            other = list(wide)[int(rng.integers(1, len(wide) - 1))]
            m.add("Concat", [other, source], f"c{i}", axis=1)
            source, width = f"c{i}", wide[other] + wide[source]
        else:
            width = wide[source]
        if kind == "conv":
            taps, out = int(rng.choice([1, 3])), int(rng.integers(1, 3))
            m.add("Conv", [source, m.weight(f"w{i}", out, width, taps, 1)], f"t{i}", pads=[taps // 2, 0] * 2)
            width = out
        elif kind == "gate":
            m.add("ReduceMean", [source], f"g{i}", axes=[1, 2, 3], keepdims=1)
            m.add("Mul", [source, f"g{i}"], f"t{i}")
        else:
            m.add("MaxPool", [source], f"t{i}", kernel_shape=[3, 1], pads=[1, 0, 1, 0])
        wide[f"t{i}"] = width
    return m.save(folder / f"waiting{seed}.onnx", {"x": (1, 1, rows, 1)}, [list(wide)[-1]])


@pytest.mark.filterwarnings("ignore:everything is streamed")
@pytest.mark.parametrize("seeds", [range(6), range(6, 12)])
def test_the_bound_over_tilings_holds_with_copies_and_without(seeds: range, tmp_path: Path) -> None:
    """No plan of tiles by rows undercuts it, whichever of the two networks was cut."""
    bounds = compared = 0
    for seed in seeds:
        loaded = cosma.load_onnx(waiting_network(tmp_path, seed))
        graph = loaded.graph.with_dtype("int8")
        without = join_copies(graph, loaded.sites, keep=[o.name for o in graph.operators if o.type != "Concat"]).graph
        if not without.joins:
            continue
        largest = max(t.size_bytes for t in graph.tensors.values() if t.kind != "weight")
        for capacity in (largest // 2, largest):
            bound = tilings_bound(graph, loaded.sites, capacity)
            bounds += bound > 0
            machine = cosma.Accelerator(scratchpad=capacity, alignment=1, operands="streamable", weights="scratchpad")
            for one in (graph, without):
                made = tile(one, loaded.sites, rule_tiling(one, loaded.sites, {"rows": 1})).graph
                plan = cosma.compile(made, machine, strategy="exact", effort=0.05)
                assert bound <= plan.traffic.noncompulsory
                compared += 1
    assert compared > 4
    assert bounds > 1


# -- mutations ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, cosma.Plan]:
    """Two maps side by side, then a window over both; every map in two halves of rows."""
    m = Maker(21)
    m.add("Conv", ["x", m.weight("w0", 4, 3, 1, 1)], "a")
    m.add("Conv", ["x", m.weight("w1", 4, 3, 1, 1)], "b")
    m.add("Concat", ["a", "b"], "c", axis=1)
    m.add("MaxPool", ["c"], "y", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    path = m.save(tmp_path_factory.mktemp("halves") / "net.onnx", {"x": (1, 3, 8, 6)}, ["y"])
    loaded = cosma.load_onnx(path)
    graph = joined_graph(loaded)
    cuts = {o.name: ((), (), even_cuts(8, 2), ()) for o in graph.operators}
    return path, plan_of(loaded, graph, Tiling(cuts), fusion="none")


def verdicts(case: tuple[Path, cosma.Plan], change: Callable[[dict[str, Any]], None]) -> set[str]:
    """What is said of a plan after a change, its claims left out."""
    path, plan = case
    record = json.loads(plan_to_json(plan))
    for claim in ("traffic", "peak", "certificate"):
        del record[claim]
    change(record)
    report = cosma.replay(plan_from_json(json.dumps(record)), cosma.load_onnx(path).finest_graph, model=path)
    return {str(v.verdict) for v in report.violations}


def join_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    return next(root["pieces"] for root in record["roots"] if root["name"] == "c")


def test_a_join_of_parts_is_judged(halves: tuple[Path, cosma.Plan]) -> None:
    assert verdicts(halves, lambda record: None) == set()
    pieces = join_of(json.loads(plan_to_json(halves[1])))
    assert len(pieces) == 8  # halves, and of each the row at the cut that the other half's window reads


def test_parts_in_each_others_place_are_refused(halves: tuple[Path, cosma.Plan]) -> None:
    def swap_operands(record: dict[str, Any]) -> None:
        """A part of ``a`` where the same part of ``b`` belongs."""
        of_a, of_b = (next(p for p in join_of(record) if p["tensor"].startswith(name)) for name in "ab")
        of_a["tensor"], of_b["tensor"] = of_b["tensor"], of_a["tensor"]

    def swap_rows(record: dict[str, Any]) -> None:
        """The first and the last rows of ``a`` change places."""
        own = [p for p in join_of(record) if p["tensor"].startswith("a")]
        own[0]["tensor"], own[-1]["tensor"] = own[-1]["tensor"], own[0]["tensor"]

    assert "join-wrong" in verdicts(halves, swap_operands)
    assert "join-wrong" in verdicts(halves, swap_rows)


def test_a_join_with_a_hole_is_refused(halves: tuple[Path, cosma.Plan]) -> None:
    found = verdicts(halves, lambda record: join_of(record).pop(2))
    assert {"parts-missing", "join-wrong"} <= found


def test_a_piece_in_two_places_is_refused(halves: tuple[Path, cosma.Plan]) -> None:
    def shift(record: dict[str, Any]) -> None:
        piece = next(p for p in join_of(record) if p["tensor"].startswith("b"))
        piece["start"][1] -= 1
        piece["stop"][1] -= 1

    assert {"parts-overlap", "join-wrong"} <= verdicts(halves, shift)


def test_a_tile_that_leaves_a_piece_unread_is_refused(halves: tuple[Path, cosma.Plan]) -> None:
    def without(record: dict[str, Any]) -> None:
        reader = next(o for o in record["operators"] if o.get("joined"))
        reader["inputs"].remove(next(name for name in reader["inputs"] if name.startswith("b")))

    assert verdicts(halves, without) & {"region-unread"}


def test_a_tile_that_reads_pieces_as_such_is_refused(halves: tuple[Path, cosma.Plan]) -> None:
    """The model's operator reads the Concat's result, not its operands."""
    def apart(record: dict[str, Any]) -> None:
        for operator in record["operators"]:
            operator.pop("joined", None)

    assert verdicts(halves, apart) == {"model-mismatch"}


# -- joins of parts ---------------------------------------------------------------------------------------------------


def test_parts_of_pieces_lie_where_the_pieces_lie() -> None:
    """Also where the piece has other axes of size one than the join."""
    join = Join("c", [Piece("a", Region("c", (1, 0, 0, 2), (2, 1, 4, 8)))], ["c"])
    parts = [
        Tensor(f"a{i}", 12, "intermediate", shape=(2, 6), dtype="int8", region=Region("a", (2 * i, 0), (2 * i + 2, 6)))
        for i in range(2)
    ]
    cut = join.cut({"a": parts})
    assert cut.covers == ("c",)
    assert [(p.tensor, p.region.start, p.region.stop) for p in cut.pieces] == [
        ("a0", (1, 0, 0, 2), (2, 1, 2, 8)), ("a1", (1, 0, 2, 2), (2, 1, 4, 8))
    ]  # fmt: skip
    assert join.cut({}) == join


@pytest.mark.parametrize("network", ["dense", "rows", "inception"])
def test_put_together_again_a_network_copies(network: str, tmp_path: Path) -> None:
    loaded = cosma.load_onnx(NETWORKS[network](tmp_path / "m.onnx"))
    graph = joined_graph(loaded)
    plan = plan_of(loaded, graph, rule_tiling(graph, loaded.sites, {"rows": 2}), fusion="none")
    assert plan.graph.joins
    assert any(operator.tile is not None for operator in plan.graph.operators)

    def what(graph: Graph) -> set[tuple[str, frozenset[str], tuple[str, ...]]]:
        return {(one.type, frozenset(one.operands), one.outputs) for one in graph.operators}

    assert what(untiled_graph(plan.graph)) == what(loaded.graph)
    assert all(one.total_bytes is not None for one in existing_plans(plan))


def test_where_no_operator_is_cut_concats_copy_unless_asked_not_to(tmp_path: Path) -> None:
    """A search for tilings may find that whole operators do; a plan of these with joins would be refused."""
    m = Maker(14)
    names = ["x", *(f"a{i}" for i in range(5))]
    for i, (a, b) in enumerate(pairwise(names)):
        m.add("Conv", [a, m.weight(f"w{i}", 2, 2, 3, 3)], b, pads=[1, 1, 1, 1])
    m.add("Concat", [names[-1], names[1]], "y", axis=1)
    model = m.save(tmp_path / "m.onnx", {"x": (1, 2, 8, 8)}, ["y"])
    accelerator = cosma.Accelerator(scratchpad="2KiB", weights="scratchpad")
    plan = cosma.compile(model, accelerator, tiling="auto", effort=0.1)
    assert not plan.graph.joins or any(operator.tile is not None for operator in plan.graph.operators)
