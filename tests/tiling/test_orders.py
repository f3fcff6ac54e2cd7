"""Searching in other orders than the file's: the same network, and orders that are taken where they move less."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from onnx import helper

from cosma import Accelerator, compile
from cosma.compiler.orders import gathered_order, order_like, orders_to_cut
from cosma.frontend import LoadedModel, load_onnx
from cosma.graph import Graph
from cosma.tiling import Segment, build_grid, search_tilings
from cosma.tiling.excerpt import in_order
from cosma.tiling.layout import Room, outcome
from tests.onnx_files import save_network

BRANCHES = 4
STEPS, UNITS = 8, 32
ROOM = Room(3 * 1024, 16, False, 2000)
MACHINE = Accelerator(
    scratchpad=3 * 1024, alignment=16, operands="resident", weights="scratchpad", fusion="epilogue", in_place=True
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Branches that widen first and narrow behind, listed layer by layer, so that the order given holds all at once."""
    nodes, weights = [], {}
    for step, (before, after) in enumerate(((32, 128), (128, 96), (96, 8))):
        for i in range(BRANCHES):
            weights[f"w{step}_{i}"] = (before, after)
            nodes.append(
                helper.make_node("MatMul", ["x" if step == 0 else f"y{step - 1}_{i}", f"w{step}_{i}"], [f"y{step}_{i}"])
            )
    nodes.append(helper.make_node("Sum", [f"y2_{i}" for i in range(BRANCHES)], ["y"]))
    path = tmp_path_factory.mktemp("orders") / "network.onnx"
    save_network(path, nodes, {"x": [24, 32]}, weights)
    return path


@pytest.fixture(scope="module")
def network(model: Path) -> LoadedModel:
    return load_onnx(model)


def random_order(graph: Graph, seed: int) -> list[int]:
    rng, left, order = random.Random(seed), list(range(len(graph.operators))), []
    made = {t for v in left for t in graph.operators[v].outputs}
    while left:
        ready = [v for v in left if not any(t in made for t in graph.operators[v].inputs)]
        v = rng.choice(ready)
        left.remove(v)
        order.append(v)
        made -= {*graph.operators[v].outputs}
    return order


def test_a_grid_in_another_order_is_that_of_the_graph_in_this_order(network: LoadedModel) -> None:
    graph = network.graph.with_dtype("int8")
    given = build_grid(graph, network.sites)
    rng = random.Random(0)
    for seed in range(20):
        order = random_order(graph, seed)
        moved = in_order(given, order)
        built = build_grid(graph.replace(operators=[graph.operators[v] for v in order]), network.sites)
        assert [one.operator.name for one in moved.access] == [one.operator.name for one in built.access]
        assert moved.axes == built.axes
        cuts = tuple(Segment(v, v + 1, rng.choice((4, 8)), (rng.choice((1, 2, 8)),)) for v in range(len(order)))
        one, other = outcome(moved.grid, cuts, ROOM), outcome(built.grid, cuts, ROOM)
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert (one.cost_bytes, one.work, one.tiles) == (other.cost_bytes, other.work, other.tiles)


def test_the_better_order_is_taken_and_its_plan_is_valid(network: LoadedModel, model: Path) -> None:
    graph = network.graph.with_dtype("int8")
    orders = orders_to_cut(graph, MACHINE)
    alone = search_tilings(graph, network.sites, MACHINE, effort=0.5)
    several = search_tilings(graph, network.sites, MACHINE, effort=0.5, orders=orders)
    assert several.cost_bytes[0] < alone.cost_bytes[0]
    assert several.order != alone.order
    plan = compile(model, MACHINE, dtype="int8", tiling="auto", effort=1.0)  # replayed before it is returned
    assert plan.traffic.noncompulsory < alone.cost_bytes[0]


def test_progress_over_several_orders_never_goes_back(network: LoadedModel) -> None:
    graph, seen = network.graph.with_dtype("int8"), []
    found = search_tilings(
        graph, network.sites, MACHINE, effort=0.5, orders=orders_to_cut(graph, MACHINE),
        report=lambda cost, share: seen.append((cost, share)),
    )  # fmt: skip
    assert [cost for cost, _ in seen] == sorted((cost for cost, _ in seen), reverse=True)
    assert [share for _, share in seen] == sorted(share for _, share in seen)
    assert seen[-1][0] == found.cost_bytes[0]


def test_an_order_is_kept_by_a_graph_with_more_operators(network: LoadedModel) -> None:
    graph = network.graph
    names = [operator.name for operator in graph.operators]
    for seed in range(10):
        order = random_order(graph, seed)
        like = order_like(graph, [names[v] for v in order])
        assert list(like) == order
        some = [names[v] for v in order if v % 3]
        like = order_like(graph, some)
        place = {t: i for i, v in enumerate(like) for t in graph.operators[v].outputs}
        assert sorted(like) == list(range(len(names)))
        assert all(place.get(t, -1) < i for i, v in enumerate(like) for t in graph.operators[v].inputs)
        assert [names[v] for v in like if names[v] in some] == some


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recurrent layers, step by step: each step of the first and of the second, as exporters unroll them."""
    nodes = [helper.make_node("Split", ["x"], [f"x{t}" for t in range(STEPS)], axis=0)]
    for t in range(STEPS):
        for layer, source in ((0, f"x{t}"), (1, f"h0_{t}")):
            result = f"h{layer}_{t}"
            nodes.append(helper.make_node("MatMul", [source, f"in{layer}"], [f"i{layer}_{t}"]))
            if t == 0:
                nodes.append(helper.make_node("Tanh", [f"i{layer}_{t}"], [result]))
                continue
            nodes.append(helper.make_node("MatMul", [f"h{layer}_{t - 1}", f"re{layer}"], [f"r{layer}_{t}"]))
            nodes.append(helper.make_node("Add", [f"i{layer}_{t}", f"r{layer}_{t}"], [f"s{layer}_{t}"]))
            nodes.append(helper.make_node("Tanh", [f"s{layer}_{t}"], [result]))
    nodes.append(helper.make_node("Concat", [f"h1_{t}" for t in range(STEPS)], ["y"], axis=0))
    path = tmp_path_factory.mktemp("orders") / "recurrent.onnx"
    weights = dict.fromkeys(("in0", "re0", "in1", "re1"), (UNITS, UNITS))
    save_network(path, nodes, {"x": [STEPS, UNITS]}, weights)
    return path


def test_steps_that_share_weights_run_layer_by_layer(recurrent: Path) -> None:
    """Each weight of 1 KiB is read in one go, where a scratchpad of two holds no more at once."""
    graph = load_onnx(recurrent).graph.with_dtype("int8")
    order = gathered_order(graph, 2 * UNITS * UNITS)
    assert order is not None
    read = [w for v in order for w in graph.operators[v].weights]
    assert [w for i, w in enumerate(read) if i == 0 or read[i - 1] != w] == ["in0", "re0", "in1", "re1"]
    place = {t: i for i, v in enumerate(order) for t in graph.operators[v].outputs}
    assert all(place.get(t, -1) < i for i, v in enumerate(order) for t in graph.operators[v].inputs)
    assert gathered_order(graph, 7 * UNITS * UNITS) is None
    machine = MACHINE.replace(scratchpad=3 * 1024)
    assert gathered_order(graph, machine.capacity_bytes) in orders_to_cut(graph, machine)
    plan = compile(recurrent, machine, dtype="int8", tiling="auto", effort=1.0)
    assert plan.traffic.noncompulsory == 0
