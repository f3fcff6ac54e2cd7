"""Axes that stay the same through a network, and operators that groups of channels run through together."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from cosma.accelerator import Accelerator
from cosma.frontend import LoadedModel, load_onnx
from cosma.lowering.along import plan_along
from cosma.problem import build_problem
from cosma.rewrite.tile import tile
from cosma.tiling import GridGraph, Segment, build_grid, search_tilings, tiling_of
from cosma.tiling.alone import Alone, ways_alone
from cosma.tiling.excerpt import cut_out
from cosma.tiling.layout import Room, cost_alone, outcome
from cosma.tiling.probe import ALL
from cosma.tiling.repeats import Repeats
from cosma.tiling.segments import GROUPS_OUTSIDE, GROUPS_WITHIN
from cosma.tiling.together import runs_together
from cosma.validator import replay_instructions
from tests.onnx_files import save_network

TOKENS, HEADS, DEPTH = 32, 4, 8
WIDTH, HIDDEN = HEADS * DEPTH, 256


def weight(name: str, *shape: int) -> onnx.TensorProto:
    """A weight of nothing but ones."""
    return onnx.numpy_helper.from_array(np.ones(shape, np.float32), name)


def save(path: Path, nodes: list[onnx.NodeProto], shape: list[int], weights: list[onnx.TensorProto]) -> LoadedModel:
    """Write a model of one input and one output, and read it."""
    return load_onnx(save_network(path, nodes, {"x": shape}, weights))


def block(prefix: str, given: str, result: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Attention and two layers, as exporters write them."""
    p, node = prefix, helper.make_node
    nodes, weights = [], []
    for name, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        weights.append(weight(f"{p}w{name}", WIDTH, WIDTH))
        nodes += [
            node("MatMul", [given, f"{p}w{name}"], [f"{p}{name}0"]),
            node("Reshape", [f"{p}{name}0", "heads"], [f"{p}{name}1"]),
            node("Transpose", [f"{p}{name}1"], [f"{p}{name}"], perm=perm),
        ]
    weights += [weight(f"{p}w1", WIDTH, HIDDEN), weight(f"{p}w2", HIDDEN, WIDTH)]
    nodes += [
        node("MatMul", [f"{p}q", f"{p}k"], [f"{p}s0"]),
        node("Softmax", [f"{p}s0"], [f"{p}s"], axis=-1),
        node("MatMul", [f"{p}s", f"{p}v"], [f"{p}a"]),
        node("Transpose", [f"{p}a"], [f"{p}b"], perm=[0, 2, 1, 3]),
        node("Reshape", [f"{p}b", "tokens"], [f"{p}c"]),
        node("MatMul", [f"{p}c", f"{p}w1"], [f"{p}d"], name=f"{p}up"),
        node("Relu", [f"{p}d"], [f"{p}e"]),
        node("MatMul", [f"{p}e", f"{p}w2"], [result], name=f"{p}down"),
    ]
    return nodes, weights


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """Two blocks of attention and two layers each."""
    first, second = block("a", "x", "h"), block("b", "h", "y")
    shapes = {"heads": [1, TOKENS, HEADS, DEPTH], "tokens": [1, TOKENS, WIDTH]}
    weights = [onnx.numpy_helper.from_array(np.array(v, np.int64), k) for k, v in shapes.items()]
    path = tmp_path_factory.mktemp("together") / "blocks.onnx"
    return save(path, first[0] + second[0], [1, TOKENS, WIDTH], first[1] + second[1] + weights)


@pytest.fixture(scope="module")
def grid(blocks: LoadedModel) -> GridGraph:
    return build_grid(blocks.graph, blocks.sites)


def index(blocks: LoadedModel, result: str) -> int:
    """Number of the operator that yields a tensor."""
    return blocks.graph.operator_index(str(blocks.graph.producer(result)))


def test_tokens_stay_rows_and_heads_channels(blocks: LoadedModel, grid: GridGraph) -> None:
    axes = {one.result: own for one, own in zip(grid.access, grid.axes, strict=True)}
    assert axes["aq0"][:2] == (1, 2)
    assert axes["aq"] == (2, 1, 3)
    assert axes["ak"] == (3, 1, 2)
    assert axes["as0"][:2] == axes["as"][:2] == axes["aa"][:2] == (2, 1)
    assert axes["ab"] == (1, 2, 3)
    assert axes["ad"][:2] == axes["ae"][:2] == (1, 2)


def test_channels_last_networks_are_cut_along_rows(tmp_path: Path) -> None:
    """The input, the transposes around a convolution and what lies between have the rows of the image as rows."""
    node = helper.make_node
    nodes = [
        node("Transpose", ["x"], ["a"], perm=[0, 3, 1, 2]),
        node("Conv", ["a", "w"], ["b"], pads=[1, 1, 1, 1]),
        node("Transpose", ["b"], ["c"], perm=[0, 2, 3, 1]),
        node("Relu", ["c"], ["y"]),
    ]
    model = save(tmp_path / "m.onnx", nodes, [1, 12, 10, 3], [weight("w", 8, 3, 3, 3)])
    found = build_grid(model.graph, model.sites)
    assert list(found.axes) == [(2, 1, 3), (2, 1, 3), (1, 3, 2), (1, 3, 2)]
    names = list(model.graph.tensors)
    assert found.grid.rows[names.index("x")] == 12
    assert found.grid.columns[names.index("x")] == 10


def test_rows_that_no_window_reaches_do_not_mislead(tmp_path: Path) -> None:
    """A pooling that never reads the last row of its operand still has the rows of the image as rows."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        node("MaxPool", ["a"], ["y"], kernel_shape=[3, 3], strides=[2, 2]),
    ]  # fmt: skip
    model = save(tmp_path / "m.onnx", nodes, [1, 3, 12, 12], [weight("w", 8, 3, 3, 3)])
    assert build_grid(model.graph, model.sites).axes == ((2, 1, 3), (2, 1, 3))


def test_an_axis_that_is_not_followed_in_order_is_read_whole(blocks: LoadedModel, grid: GridGraph) -> None:
    """Neighbouring channels of tokens read neighbouring elements of a head, then those of the next head."""
    names, g = list(blocks.graph.tensors), grid.grid
    v = index(blocks, "ad")
    k = next(k for k in range(g.start[v], g.start[v + 1]) if names[g.operand[k]] == "ab")
    assert g.column_source[k] == ALL


def test_hidden_units_pass_group_by_group(blocks: LoadedModel, grid: GridGraph) -> None:
    """A scratchpad that holds neither the hidden layer nor the weights moves nothing twice."""
    begin, end = index(blocks, "ad"), index(blocks, "h") + 1
    machine = Room(14 * 1024, 16, False, 4000)
    runs = {(run.begin, run.end): run for run in runs_together(grid.grid, machine, 10**9)}
    run = runs[begin, end]
    assert run.cost_bytes == 0
    assert sum(ways_alone(grid.grid, v, machine).cost_bytes for v in range(begin, end)) == 0  # but what lies between
    way = run.ways[0]
    assert way.loop in (GROUPS_OUTSIDE, GROUPS_WITHIN)
    assert way.pieces[0] == way.sums[-1] > 1
    own = cost_alone(cut_out(grid.grid, begin, end), replace(way, begin=0, end=end - begin), machine)
    assert own is not None
    assert own[0] == 0


def test_runs_that_are_alike_are_counted_as_work_once(grid: GridGraph) -> None:
    known: dict[bytes, Alone] = {}
    machine = Room(14 * 1024, 16, False, 4000)
    first = runs_together(grid.grid, machine, 10**9, known=known)
    again = runs_together(grid.grid, machine, 10**9, known=known)
    assert [run.ways for run in again] == [run.ways for run in first]
    assert sum(run.work for run in first) == sum(run.work for run in known.values() if run.ways)
    assert sum(run.work for run in again) == 0


def test_heads_pass_one_by_one(blocks: LoadedModel, grid: GridGraph) -> None:
    """All scores take 16 KiB; those of a head with all that it reads take less than that."""
    begin, end = index(blocks, "as0"), index(blocks, "ab") + 1
    machine = Room(13 * 1024, 16, False, 4000)
    run = next(r for r in runs_together(grid.grid, machine, 10**9) if (r.begin, r.end) == (begin, end))
    assert run.cost_bytes == 0
    assert set(run.ways[0].pieces) == {HEADS}


@pytest.mark.parametrize("loop", [GROUPS_OUTSIDE, GROUPS_WITHIN])
@pytest.mark.parametrize(("groups", "stripes"), [(2, 1), (3, 2), (4, 3), (7, 4)])
def test_groups_that_run_through_are_what_the_graph_of_tiles_runs(
    blocks: LoadedModel, grid: GridGraph, loop: int, groups: int, stripes: int
) -> None:
    """Each step of a sum comes when its group does; sums that leave in between are stored again."""
    n = len(blocks.graph.operators)
    pieces, sums = [1] * n, [1] * n
    for layer in ("a", "b"):
        pieces[index(blocks, f"{layer}d")] = pieces[index(blocks, f"{layer}e")] = groups
        sums[index(blocks, "h" if layer == "a" else "y")] = groups
    edges = [0, index(blocks, "ad"), index(blocks, "h") + 1, index(blocks, "bd"), n]
    segments = tuple(
        Segment(a, b, stripes, tuple(pieces[a:b]), loop=loop if k % 2 else 0, sums=tuple(sums[a:b]))
        for k, (a, b) in enumerate(pairwise(edges))
    )
    tiled = tile(blocks.graph, blocks.sites, tiling_of(grid, segments)).graph
    for size in (24 * 1024, 32 * 1024, 64 * 1024):
        machine = Accelerator(scratchpad=size, alignment=16, operands="resident", weights="scratchpad")
        problem = build_problem(tiled, machine)
        planned = plan_along(problem, range(problem.operator_count), 2)
        found = outcome(grid.grid, segments, Room(size, 16, False, 4000))
        assert (planned is None) == (found is None)
        if planned is not None and found is not None:
            report = replay_instructions(tiled, machine, planned.instructions)
            assert report.valid
            assert found.tiles == len(tiled.operators)
            assert found.cost_bytes == pytest.approx(report.traffic.noncompulsory, rel=0.1, abs=2048)


def test_blocks_repeat(blocks: LoadedModel, grid: GridGraph) -> None:
    found = Repeats(grid.grid)
    assert found.period == len(blocks.graph.operators) // 2
    assert found.places(0, found.period - 1) == [found.period]  # the last yields an output
    assert found.places(found.period, 2 * found.period - 1) == [0]
    assert found.places(0, found.period) == []


def test_like_operators_are_found_at_any_distance() -> None:
    """Blocks need not be evenly apart, and a run of like operators is cut into places that do not overlap."""
    found = Repeats.__new__(Repeats)
    found.kind = np.array([0, 1, 2, 0, 1, 3, 3, 0, 1, 2, 0, 1, 2])
    assert found.places(0, 2) == [3, 7, 10]
    assert found.places(7, 10) == [0, 10]
    found.kind = np.zeros(7, dtype=np.int64)
    assert found.places(2, 4) == [0, 4]


def test_the_search_uses_both(blocks: LoadedModel) -> None:
    """Scores, hidden layers and weights each exceed the scratchpad; what is moved is little more than the maps."""
    machine = Accelerator(scratchpad=14 * 1024, alignment=16, operands="resident", weights="scratchpad")
    found, ranked, *_ = search_tilings(blocks.graph, blocks.sites, machine, effort=1.0)
    best = outcome(found.grid, ranked[0], Room(14 * 1024, 16, False, 4000))
    assert best is not None
    maps = 2 * 4 * TOKENS * WIDTH * 4  # what each block reads and yields, written and read
    assert best.cost_bytes < 2 * maps


STEPS, UNITS = 12, 96


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A scan that is unrolled: each step decays a state by its own share, and sums it up with its own weights.

    Shares of all steps together take 18 KiB (int8), as does what is added; a step has 1.5 KiB of either.
    """
    node, width = helper.make_node, 16
    nodes = [
        node("MatMul", ["up", "x"], ["z"]),  # the weight in front, so that channels are the first axis
        node("Unsqueeze", ["z", "last"], ["w"]),
        node("Mul", ["w", "shares"], ["a"]),
        node("Sigmoid", ["a"], ["s"]),
        node("Mul", ["w", "others"], ["b"]),
        node("Split", ["s"], [f"s{t}" for t in range(STEPS)], axis=1),
        node("Split", ["b"], [f"b{t}" for t in range(STEPS)], axis=1),
        node("Split", ["c"], [f"c{t}" for t in range(STEPS)], axis=0),
        node("Identity", ["b0"], ["h0"]),
    ]
    for t in range(1, STEPS):
        nodes += [
            node("Mul", [f"h{t - 1}", f"s{t}"], [f"d{t}"]),
            node("Add", [f"d{t}", f"b{t}"], [f"h{t}"]),
            node("Transpose", [f"c{t}"], [f"e{t}"], perm=[1, 0]),
            node("MatMul", [f"h{t}", f"e{t}"], [f"y{t}"]),
        ]
    nodes.append(node("Concat", [f"y{t}" for t in range(1, STEPS)], ["y"], axis=1))
    weights = [
        weight("up", UNITS, 8), weight("shares", 1, 1, width), weight("others", 1, 1, width),
        onnx.numpy_helper.from_array(np.array([2], np.int64), "last"),
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("together") / "scan.onnx"
    return load_onnx(save_network(path, nodes, {"x": [8, STEPS], "c": [STEPS, width]}, weights))


def test_channels_run_through_all_steps_of_a_scan(scan: LoadedModel) -> None:
    """A run of more operators than others have; what a step reads beside its state is no part of a group."""
    graph = scan.graph.with_dtype("int8")
    grid = build_grid(graph, scan.sites)
    room = Room(8 * 1024, 16, False, 4000)
    run = max(runs_together(grid.grid, room, 10**9), key=lambda one: one.end - one.begin)
    assert run.end - run.begin > 3 * (STEPS - 1)
    groups = {grid.access[run.begin + k].result: n for k, n in enumerate(run.ways[0].pieces)}
    assert all(groups.get(f"h{t}", 2) > 1 for t in range(1, STEPS))
    assert all(groups.get(f"e{t}", 1) == 1 for t in range(1, STEPS))
    machine = Accelerator(scratchpad=8 * 1024, alignment=16, operands="resident", weights="scratchpad")
    found = search_tilings(graph, scan.sites, machine, effort=0.5)
    # Whole, shares and what is added would be stored and read: 72 KiB.
    assert found.cost_bytes[0] < 8 * 1024


def test_a_map_normalised_in_groups_has_its_own_axes_again(tmp_path: Path) -> None:
    """Groups of channels have other axes; what scales each channel says which axis the channels are."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("Reshape", ["a", "groups"], ["b"]),
        node("Softmax", ["b"], ["c"], axis=-1),
        node("Reshape", ["c", "map"], ["d"]),
        node("Mul", ["d", "scale"], ["e"]),
        node("Conv", ["e", "v"], ["y"]),
    ]
    weights = [
        weight("w", 8, 4, 1, 1), weight("scale", 8, 1, 1), weight("v", 4, 8, 1, 1),
        onnx.numpy_helper.from_array(np.array([1, 2, 144], np.int64), "groups"),
        onnx.numpy_helper.from_array(np.array([1, 8, 6, 6], np.int64), "map"),
    ]  # fmt: skip
    model = save(tmp_path / "m.onnx", nodes, [1, 4, 6, 6], weights)
    found = build_grid(model.graph, model.sites)
    assert [one.operator.type for one in found.access][-2:] == ["Mul", "Conv"]
    assert found.axes[-2] == found.axes[-1] == (2, 1, 3)
