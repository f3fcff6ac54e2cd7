"""Tables of access, tiles laid out, and their plans, against the graph of tiles that the rewrite makes."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from cosma.accelerator import Accelerator
from cosma.csr import rows_of
from cosma.frontend import LoadedModel, load_onnx
from cosma.lowering.along import RULES, Steps, plan_along
from cosma.problem import build_problem, noncompulsory_bytes
from cosma.rewrite.tile import tile
from cosma.tiling import GridGraph, Segment, Segmentation, build_grid, layout, search_tilings, tiling_of
from cosma.tiling.alone import ways_alone
from cosma.tiling.excerpt import cut_out
from cosma.tiling.lay_kernels import lay_tiles
from cosma.tiling.layout import Room, cost_alone, fitted, outcome, tiles_of
from cosma.tiling.probe import FIRST_STEP, LAST_STEP
from cosma.validator import replay_instructions
from tests.onnx_files import save_network
from tests.tiling.plain_tiles import lay_plainly, part_bytes

ROOM = Room(24 * 1024, 16, False, 4000)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """Strides, a depthwise convolution, two branches, channel concatenation, an upsampled sum and a pooled head."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (8, 3, 3, 3), "w2": (8, 1, 3, 3), "w3": (8, 8, 1, 1), "w4": (16, 16, 3, 3), "w5": (4, 16, 1, 1)}
    weights = [onnx.numpy_helper.from_array(rng.normal(size=s).astype(np.float32), n) for n, s in shapes.items()]
    weights += [onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")]
    conv, pads = helper.make_node, {"pads": [1, 1, 1, 1]}
    nodes = [
        conv("Conv", ["x", "w1"], ["a"], name="c1", strides=[2, 2], **pads),
        conv("Relu", ["a"], ["b"], name="r1"),
        conv("Conv", ["b", "w2"], ["c"], name="dw", group=8, **pads),
        conv("Conv", ["b", "w3"], ["d"], name="pw"),
        conv("Concat", ["c", "d"], ["e"], name="cat", axis=1),
        conv("Conv", ["e", "w4"], ["f"], name="c4", strides=[2, 2], **pads),
        conv("Resize", ["f", "", "scales"], ["g"], name="up", mode="nearest"),
        conv("Add", ["e", "g"], ["h"], name="sum"),
        conv("Conv", ["h", "w5"], ["i"], name="c5"),
        conv("GlobalAveragePool", ["i"], ["y"], name="gap"),
    ]
    path = tmp_path_factory.mktemp("layout") / "network.onnx"
    return load_onnx(save_network(path, nodes, {"x": [1, 3, 32, 32]}, weights))


def draw(grid: GridGraph, seed: int) -> Segmentation:
    """A random segmentation that cuts what can be cut in no particular way."""
    rng, count = random.Random(seed), len(grid.grid.height)
    edges = sorted({0, count, *(rng.randrange(1, count) for _ in range(rng.randrange(4)))})
    return tuple(
        Segment(
            begin,
            end,
            rng.choice((1, 1, 2, 3, 5, 8)),
            tuple(min(int(grid.grid.width[v]), rng.choice((1, 1, 2, 3))) for v in range(begin, end)),
            strips=rng.choice((1, 1, 2, 3)),
            loop=rng.randrange(3),
        )
        for begin, end in pairwise(edges)
    )


@pytest.mark.parametrize("weights", ["scratchpad", "stream"])
def test_what_tables_say_is_what_the_graph_of_tiles_costs(network: LoadedModel, weights: str) -> None:
    found = build_grid(network.graph, network.sites)
    machine = Accelerator(scratchpad=ROOM.capacity_bytes, alignment=16, operands="resident", weights=weights)
    room = ROOM._replace(weights_pass=weights == "stream")
    compared = 0
    for seed in range(60):
        segments = draw(found, seed)
        costs = {rule: outcome(found.grid, segments, room, rule) for rule in RULES}
        tiled = tile(network.graph, network.sites, tiling_of(found, segments)).graph
        problem = build_problem(tiled, machine)
        for rule, cost in costs.items():
            planned = plan_along(problem, range(problem.operator_count), rule)
            assert (planned is None) == (cost is None)
            if planned is None or cost is None:
                continue
            report = replay_instructions(tiled, machine, planned.instructions)
            assert report.valid
            assert report.traffic.noncompulsory == noncompulsory_bytes(problem, planned.decisions)
            assert cost.tiles == len(tiled.operators)
            assert cost.cost_bytes == report.traffic.noncompulsory
            assert cost.cost_bytes == int(cost.segment_cost.sum())
            compared += 1
    assert compared > 30


def test_partial_sums_cost_what_their_graph_does_but_for_the_biases_and_what_lies_where(network: LoadedModel) -> None:
    """Steps of a sum: the same tiles and operands; plans are valid, and differ in what lies where alone."""
    found = build_grid(network.graph, network.sites)
    machine = Accelerator(scratchpad=ROOM.capacity_bytes, alignment=16, operands="resident", weights="scratchpad")
    compared, said, paid = 0, 0, 0
    for seed in range(40):
        segments = draw_sums(found, seed)
        tiled = tile(network.graph, network.sites, tiling_of(found, segments)).graph
        problem = build_problem(tiled, machine)
        for rule in RULES:
            cost = outcome(found.grid, segments, ROOM, rule)
            planned = plan_along(problem, range(problem.operator_count), rule)
            if cost is None or planned is None:
                continue
            report = replay_instructions(tiled, machine, planned.instructions)
            assert report.valid
            assert cost.tiles == len(tiled.operators)
            said, paid = said + cost.cost_bytes, paid + report.traffic.noncompulsory
            compared += 1
    assert compared > 20
    assert said == pytest.approx(paid, rel=0.03)


def test_what_is_read_in_parts_and_written_over_costs_what_the_graph_of_tiles_does(tmp_path: Path) -> None:
    """Sums over a normalised axis, and results of another shape than what they read, which they are not put over."""
    rng = np.random.default_rng(0)
    shapes = {"s": (64,), "w1": (64, 64), "w2": (64, 8), "w3": (64, 64)}
    weights = [onnx.numpy_helper.from_array(rng.normal(size=z).astype(np.float32), n) for n, z in shapes.items()]
    weights.append(onnx.numpy_helper.from_array(np.array([4, 4, 64]), "image"))
    nodes = [
        helper.make_node("LayerNormalization", ["x", "s"], ["n"]),
        helper.make_node("MatMul", ["n", "w1"], ["a"]),
        helper.make_node("MatMul", ["n", "w3"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Reshape", ["c", "image"], ["d"]),
        helper.make_node("Sigmoid", ["d"], ["g"]),
        helper.make_node("Exp", ["g"], ["h"]),
        helper.make_node("MatMul", ["h", "w2"], ["y"]),
    ]
    loaded = load_onnx(save_network(tmp_path / "network.onnx", nodes, {"x": [1, 4, 4, 64]}, weights))
    found = build_grid(loaded.graph, loaded.sites)
    machine = Accelerator(scratchpad=1 << 20, alignment=16, operands="resident", weights="scratchpad")
    apart = 0
    for seed in range(60):
        segments = draw_sums(found, seed)
        problem = build_problem(tile(loaded.graph, loaded.sites, tiling_of(found, segments)).graph, machine)
        steps = Steps(*lay_tiles(found.grid, tiles_of(found.grid, segments), 16)[:-2])
        assert problem.operator_count == len(steps.operand_start) - 1
        for v in range(problem.operator_count):
            parts = steps.operand[steps.operand_start[v] : steps.operand_start[v + 1]]
            read = problem.operands_of(v)
            assert sorted(steps.space[parts].tolist()) == sorted(problem.space_bytes[read].tolist())
            if not steps.added[v] and not steps.unfinished[v]:
                over = steps.pair_start[v + 1] - steps.pair_start[v]
                assert over == len(problem.pairs_of(v))
                apart += over == 0
    assert apart


def test_rows_of_pixels_read_as_one_long_row_are_cut_at_their_ends(tmp_path: Path) -> None:
    """Boxes of two scales, as detectors join them: 8 rows of 16 and 4 rows of 8, in stripes of about 27."""
    nodes, shapes = [], {"fine": [1, 8, 8, 4], "coarse": [1, 4, 4, 4]}
    for name, shape in shapes.items():
        boxes = onnx.numpy_helper.from_array(np.array([1, shape[1] * shape[2] * 2, 2]), f"{name}_boxes")
        nodes += [
            helper.make_node("Constant", [], [boxes.name], value=boxes),
            helper.make_node("Relu", [name], [f"{name}_relu"]),
            helper.make_node("Reshape", [f"{name}_relu", boxes.name], [f"{name}_rows"]),
        ]
    nodes.append(helper.make_node("Concat", ["fine_rows", "coarse_rows"], ["all"], axis=1))
    nodes.append(helper.make_node("Sigmoid", ["all"], ["y"], name="last"))
    loaded = load_onnx(save_network(tmp_path / "boxes.onnx", nodes, shapes))
    found = build_grid(loaded.graph, loaded.sites)
    concat = next(v for v, one in enumerate(found.access) if one.operator.type == "Concat")
    segments = tuple(Segment(v, v + 1, 6 if v == concat else 1, (1,)) for v in range(len(found.grid.height)))
    ends = [int(tile[3]) for tile in tiles_of(found.grid, segments) if tile[0] == concat]
    assert ends == [16, 48, 80, 96, 128, 160]


def draw_sums(found: GridGraph, seed: int) -> Segmentation:
    """The same with partial sums."""
    rng, depth = random.Random(seed), found.grid.depth
    return tuple(
        replace(s, sums=tuple(min(int(n), rng.choice((1, 2, 3, 4))) for n in depth[s.begin : s.end]))
        for s in draw(found, seed)
    )


def test_an_operator_alone_is_cut_into_partial_sums_where_neither_factor_fits(tmp_path: Path) -> None:
    """A product of 64x512 by 512x64 bytes: in 8 KiB the result stays, and both factors pass by once."""
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    loaded = load_onnx(save_network(tmp_path / "product.onnx", [product], {"x": [64, 512]}, {"w": (512, 64)}))
    grid = build_grid(loaded.graph.with_dtype("int8"), loaded.sites).grid
    tight, roomy = Room(8 * 1024, 16, False, 4000), Room(128 * 1024, 16, False, 4000)
    alone = ways_alone(grid, 0, tight)
    best = alone.ways[0]
    assert best.sums[0] > 1
    assert alone.cost_bytes == 0
    found = cost_alone(cut_out(grid, 0, 1), best, tight)
    assert found is not None
    assert found[0] == 0
    assert found[1] >= 3 * best.sums[0] * best.stripes * best.pieces[0]  # two factors and a result for each step
    assert cost_alone(cut_out(grid, 0, 1), Segment(0, 1, 64, (1,)), tight) is None
    assert ways_alone(grid, 0, roomy).ways == (Segment(0, 1, 1, (1,)),)


def test_cut_finer_until_all_tiles_fit(network: LoadedModel) -> None:
    grid = build_grid(network.graph, network.sites).grid
    whole = tuple(Segment(v, v + 1, 1, (1,)) for v in range(len(grid.height)))
    room = ROOM._replace(capacity_bytes=16 * 1024)
    assert outcome(grid, whole, room) is None
    found = fitted(grid, whole, room)
    assert found is not None
    assert outcome(grid, found, room) is not None
    assert fitted(grid, whole, room._replace(capacity_bytes=64)) is None
    assert fitted(grid, whole, room._replace(most_tiles=3)) is None


def test_search_is_no_worse_than_its_starts_and_repeats(network: LoadedModel) -> None:
    machine = Accelerator(scratchpad=ROOM.capacity_bytes, alignment=16, operands="resident", weights="scratchpad")

    def least(effort: float, seed: int = 0) -> tuple[int, Segmentation]:
        grid, found, *_ = search_tilings(network.graph, network.sites, machine, effort=effort, seed=seed)
        best = outcome(grid.grid, found[0], Room(ROOM.capacity_bytes, machine.alignment, False, 4000))
        assert best is not None
        return best.cost_bytes, found[0]

    start = least(0.0)
    better = least(0.2)
    assert better[0] <= start[0]
    assert least(0.2) == better
    seen: list[tuple[int, float]] = []
    search_tilings(
        network.graph, network.sites, machine, effort=0.2, report=lambda cost, share: seen.append((cost, share))
    )
    assert [cost for cost, _ in seen] == sorted((cost for cost, _ in seen), reverse=True)
    stopped = search_tilings(network.graph, network.sites, machine, effort=1e6, stop=lambda: True).ranked
    assert stopped


def test_more_parts_are_let_in_where_no_start_has_few(
    network: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Accelerator(scratchpad=ROOM.capacity_bytes, alignment=16, operands="resident", weights="scratchpad")
    plain = search_tilings(network.graph, network.sites, machine, effort=0.0)
    monkeypatch.setattr(layout, "Room", lambda *given: Room(*given)._replace(most_parts_each=0.0005))
    found = search_tilings(network.graph, network.sites, machine, effort=0.0)
    assert found.room.most_parts_each > 0.0005
    assert found.cost_bytes[0] >= plain.cost_bytes[0]
    again = search_tilings(network.graph, network.sites, machine, effort=0.1, before=found)
    assert again.cost_bytes[0] <= found.cost_bytes[0]


def test_the_kernel_lays_out_what_plain_python_does(network: LoadedModel) -> None:
    """Parts, who touches them and who may write over them, for any tiles, in order or not."""
    found = build_grid(network.graph, network.sites)
    grid = found.grid
    unordered = paired = summed = 0
    for seed in range(300):
        rng = random.Random(seed)
        segments = draw(found, seed)
        if seed % 2:
            depth = grid.depth
            segments = tuple(
                replace(s, sums=tuple(min(int(n), rng.choice((1, 2, 3))) for n in depth[s.begin : s.end]))
                for s in segments
            )
        tiles = tiles_of(grid, segments)
        if seed % 3 == 0:
            tiles = tiles[rng.sample(range(len(tiles)), len(tiles))]
        alignment = rng.choice((1, 16, 64))
        *arrays, tensor_of, ordered = lay_tiles(grid, tiles, alignment)
        steps, plain = Steps(*arrays), lay_plainly(grid, tiles)
        number = {part: i for i, part in enumerate(plain.parts)}
        sizes = [part_bytes(grid, part) for part in plain.parts]
        assert tensor_of.tolist() == [t for t, _ in plain.parts]
        assert steps.size.tolist() == sizes
        assert steps.space.tolist() == [-(-size // alignment) * alignment for size in sizes]
        assert steps.clean.tolist() == [int(grid.clean[t]) for t, _ in plain.parts]
        stores = [size if grid.stored[t] else 0 for size, (t, _) in zip(sizes, plain.parts, strict=True)]
        assert steps.store.tolist() == stores
        operands = [[number[part] for part in row] for row in plain.operands]
        assert rows_of(steps.operand_start, steps.operand) == operands
        assert rows_of(steps.result_start, steps.result) == [[number[part] for part in row] for row in plain.results]
        readers = [[i for i, row in enumerate(operands) for part in row if part == p] for p in range(len(sizes))]
        assert rows_of(steps.consumer_start, steps.consumer) == readers
        over = [[number[result] for result, _ in row] for row in plain.pairs]
        under = [[number[operand] for _, operand in row] for row in plain.pairs]
        assert rows_of(steps.pair_start, steps.pair_result) == over
        assert rows_of(steps.pair_start, steps.pair_operand) == under
        assert bool(ordered) == plain.ordered
        assert steps.unfinished.tolist() == [not tile[10] & LAST_STEP for tile in tiles]
        sums = [0 if tile[10] & FIRST_STEP else len(row) for tile, row in zip(tiles, plain.written, strict=True)]
        assert steps.added.tolist() == sums
        unordered, paired, summed = unordered + (not ordered), paired + any(over), summed + (tiles[:, 10] != 3).any()
    assert min(unordered, paired, summed) > 20, (unordered, paired, summed)
