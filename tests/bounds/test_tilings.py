"""The bound over all tilings: never above the best plan of any tiles, and equal to it where it should be."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import cosma
from cosma.access.operator import operator_access
from cosma.bounds.tilings import tilings_bound
from cosma.compiler.one_pass import plan_in_one_pass
from cosma.problem import build_problem
from cosma.rewrite.fuse import fuse
from cosma.rewrite.tile import tile
from cosma.rewrite.tiling import Tiling, tile_key
from tests.brute_force import TooLargeError, brute_force
from tests.onnx_files import save_network


class Network:
    """A small model, node by node; a value is its name and its channels or columns."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
        return name

    def add(self, kind: str, *operands: str, **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(operands), [name], name=f"n{len(self.nodes)}", **attributes))
        return name

    def first_row(self, source: str, columns: int) -> str:
        """Pick a row by indices that are known, in one of two ways."""
        elements = len(self.nodes) % 2 == 0
        index = np.zeros((1, columns if elements else 1), np.int64)
        self.weights.append(onnx.numpy_helper.from_array(index, f"i{len(self.nodes)}"))
        kind, axis = ("GatherElements", {"axis": 0}) if elements else ("GatherND", {})
        return self.add(kind, source, self.weights[-1].name, **axis)

    def conv(self, source: str, channels: int, results: int, taps: tuple[int, int] = (1, 1)) -> str:
        pads = [taps[0] // 2, taps[1] // 2] * 2
        return self.add("Conv", source, self.weight(results, channels, *taps), pads=pads)

    def loaded(self, folder: Path, shape: tuple[int, ...]) -> cosma.LoadedModel:
        read = {name for node in self.nodes for name in node.input}
        outputs = [node.output[0] for node in self.nodes if node.output[0] not in read]
        return cosma.load_onnx(save_network(folder / "tiny.onnx", self.nodes, {"x": shape}, self.weights, outputs))


def random_maps(folder: Path, rng: np.random.Generator) -> cosma.LoadedModel:
    """Convolutions, sums, joins and gates over a few elements."""
    net, shape = Network(), (1, *(int(n) for n in rng.integers(1, 4, 3)))
    values = [("x", shape[1])]
    for _ in range(int(rng.integers(2, 5))):
        source, channels = values[int(rng.integers(max(0, len(values) - 2), len(values)))]
        kind = rng.random()
        same = [name for name, count in values if count == channels]
        if kind < 0.6:
            results = int(rng.integers(1, 4))
            taps = (int(rng.choice([1, 1, 3])), int(rng.choice([1, 1, 3])))
            values.append((net.conv(source, channels, results, taps), results))
        elif kind < 0.75:
            values.append((net.add("Add", source, same[int(rng.integers(len(same)))]), channels))
        elif kind < 0.82:
            values.append((net.add("Relu", source), channels))
        elif kind < 0.9:
            other, more = values[int(rng.integers(len(values)))]
            values.append((net.add("Concat", source, other, axis=1), channels + more))
        else:
            values.append((net.add("Mul", source, net.add("GlobalAveragePool", source)), channels))
    return net.loaded(folder, shape)


def random_tokens(folder: Path, rng: np.random.Generator) -> cosma.LoadedModel:
    """Products with weights and of results with each other, sums and rows that are normalised."""
    net, shape = Network(), (int(rng.integers(1, 5)), int(rng.integers(1, 6)))
    values = [("x", shape[1])]
    for _ in range(int(rng.integers(1, 4))):
        source, columns = values[int(rng.integers(max(0, len(values) - 2), len(values)))]
        kind = rng.random()
        same = [name for name, count in values if count == columns]
        if kind < 0.45:
            results = int(rng.integers(1, 6))
            values.append((net.add("MatMul", source, net.weight(columns, results)), results))
        elif kind < 0.65:
            inner = net.add("MatMul", net.add("Softmax", source, axis=-1), net.weight(columns, columns + 1))
            block = net.add("MatMul", inner, net.weight(columns + 1, columns))
            values.append((net.add("Add", source, block) if kind < 0.6 else block, columns))
        elif kind < 0.8:
            values.append((net.add("Add", source, same[int(rng.integers(len(same)))]), columns))
        elif kind < 0.87:
            values.append((net.add("Softmax", source, axis=-1), columns))
        elif kind < 0.9:
            values.append((net.add("Add", source, net.add("Softmax", net.first_row(source, columns))), columns))
        elif kind < 0.95 and columns > 1:
            product = net.add("MatMul", source, net.weight(columns, 2 * columns))
            first, second = f"{product}a", f"{product}b"
            net.nodes.append(helper.make_node("Split", [product], [first, second], axis=1, name=f"{product}s"))
            scores = net.add("MatMul", first, net.add("Transpose", second, perm=[1, 0]))
            values.append((net.add("MatMul", scores, second), columns))
        else:
            scores = net.add("MatMul", source, net.add("Transpose", source, perm=[1, 0]))
            values.append((net.add("MatMul", scores, source), columns))
    return net.loaded(folder, shape)


def random_steps(folder: Path, rng: np.random.Generator) -> cosma.LoadedModel:
    """Steps of a recurrent layer or two, each by the weights of the one before, with gates of all or some of them."""
    net, columns = Network(), int(rng.integers(1, 5))
    weights = [net.weight(columns, columns) for _ in range(int(rng.integers(1, 3)))]
    values, more = ["x"], int(rng.integers(1, 5))
    wide = net.weight(more + columns, columns)
    joins = rng.random() < 0.4  # what a step multiplies is joined of what is given, in parts or made, and its state
    given = net.add("MatMul", "x", net.weight(columns, 2 * more))
    parts = [f"{given}a", f"{given}b"]
    if joins:
        net.nodes.append(helper.make_node("Split", [given], parts, axis=1, name=f"{given}s"))
    else:
        net.nodes.pop()
    for _ in range(int(rng.integers(2, 7))):
        source = values[int(rng.integers(max(0, len(values) - 2), len(values)))]
        kind = rng.random()
        if joins and kind < 0.7:
            other = net.add("Relu", parts[0]) if rng.random() < 0.3 else parts[int(rng.integers(2))]
            values.append(net.add("MatMul", net.add("Concat", other, source, axis=1), wide))
        elif kind < 0.7:
            values.append(net.add("MatMul", source, weights[int(rng.integers(len(weights)))]))
        elif kind < 0.8:
            values.append(net.add("Tanh", source))
        else:
            values.append(net.add("Add", source, values[int(rng.integers(len(values)))]))
    return net.loaded(folder, (int(rng.integers(1, 3)), columns))


def any_tiling(graph: cosma.Graph, loaded: cosma.LoadedModel, rng: np.random.Generator, chance: float) -> Tiling:
    """Cuts at any positions along all axes that can be cut, and along those summed over."""
    cuts, sums = {}, {}
    for operator in graph.operators:
        access = operator_access(graph, loaded.sites, operator)
        shape = access.shapes[access.result]
        steps = tuple(at for at in range(1, access.reduced()) if rng.random() < chance)
        if steps and rng.random() < 0.6:
            sums[operator.name] = steps
        cuts[operator.name] = tuple(
            tuple(at for at in range(1, size) if allowed and rng.random() < chance)
            for size, allowed in zip(shape, access.cuts(), strict=True)
        )
    return Tiling(cuts, sums=sums)


@pytest.mark.parametrize("block", range(6))
def test_no_plan_of_any_tiles_goes_below(tmp_path: Path, block: int) -> None:
    """Brute force over all orders, residencies, streams and takeovers of tiles cut at random along every axis."""
    compared = 0
    for seed in range(block * 150, block * 150 + 150):
        rng = np.random.default_rng(seed)
        make = (random_maps if rng.random() < 0.6 else random_tokens) if block < 4 else random_steps
        loaded = make(tmp_path, rng)
        graph = loaded.graph.with_dtype("int8")
        largest = max(t.size_bytes for t in graph.tensors.values())
        for _ in range(4):
            capacity = int(rng.integers(1, largest + 1))
            bound = tilings_bound(graph, loaded.sites, capacity)
            if not bound:
                continue
            cut = fuse(graph).graph if rng.random() < 0.4 else graph
            tiling = any_tiling(cut, loaded, rng, float(rng.choice([0.0, 0.1, 0.3, 0.6])))
            made = tile(cut, loaded.sites, tiling).graph
            machine = cosma.Accelerator(
                scratchpad=capacity, alignment=1, operands="streamable", weights="scratchpad"
            )
            if len(made.operators) > 8:
                continue
            try:
                optimum = brute_force(build_problem(made, machine), most_states=2000).noncompulsory_bytes
            except TooLargeError:
                continue
            if optimum is None:
                continue
            assert bound <= optimum, f"seed {seed}, capacity {capacity}"
            compared += 1
    assert compared > 20


def layers(folder: Path, tokens: int, widths: tuple[int, ...]) -> cosma.LoadedModel:
    net, value = Network(), "x"
    for columns, results in pairwise(widths):
        value = net.add("MatMul", value, net.weight(columns, results))
    return net.loaded(folder, (tokens, widths[0]))


def test_either_weights_are_read_again_or_all_tokens_wait(tmp_path: Path) -> None:
    """Before the third product is complete anywhere, all tokens have passed the second, or its weights wait."""
    loaded = layers(tmp_path, 20, (30, 30, 30, 30))
    graph = loaded.graph.with_dtype("int8")
    # 600 bytes of a result, or 900 of a weight: of what is alive, all but the capacity is moved again.
    for capacity in (100, 400, 599):
        assert 600 - capacity <= tilings_bound(graph, loaded.sites, capacity)
    assert tilings_bound(graph, loaded.sites, 600) == 0
    # With few weights they wait, which is cheaper than results that are written and read.
    small = layers(tmp_path, 200, (3, 3, 3, 3))
    assert tilings_bound(small.graph.with_dtype("int8"), small.sites, 20) == 0


def test_a_weight_that_every_second_step_needs_anew_is_read_again_as_often(tmp_path: Path) -> None:
    """No product of a step is in a sum before the step before has begun to be complete, which needs all of its own."""
    net, value = Network(), "x"
    weight = net.weight(20, 20)
    for _ in range(9):
        value = net.add("MatMul", value, weight)
    loaded = net.loaded(tmp_path, (1, 20))
    graph = loaded.graph.with_dtype("int8")
    for capacity in (100, 300, 399):
        # Before the second, the fourth, the sixth and the eighth step, of 400 bytes all but the capacity lie off-chip.
        assert 4 * (400 - capacity) <= tilings_bound(graph, loaded.sites, capacity) <= 8 * (400 - capacity) + 400
    assert tilings_bound(graph, loaded.sites, 460) == 0


@pytest.mark.parametrize("parted", [False, True])
def test_a_weight_does_not_wait_for_a_state_alone(tmp_path: Path, parted: bool) -> None:
    """Most of what each step multiplies is there from the start: its products are summed with each row read once."""
    net, steps, width, state = Network(), 6, 60, 4
    weight, value = net.weight(width + state, state), "x"
    inputs = {"x": (1, state), **({} if parted else {f"x{t}": (1, width) for t in range(steps)})}
    if parted:
        inputs["given"] = (steps, width)
        parts = [f"x{t}" for t in range(steps)]
        net.nodes.append(helper.make_node("Split", ["given"], parts, axis=0, name="split"))
    for t in range(steps):
        value = net.add("MatMul", net.add("Concat", f"x{t}", value, axis=1), weight)
    loaded = cosma.load_onnx(save_network(tmp_path / "tiny.onnx", net.nodes, inputs, net.weights, [value]))
    graph = loaded.graph.with_dtype("int8")
    for capacity in (128, 150, 200):
        assert tilings_bound(graph, loaded.sites, capacity) == 0


def test_weights_shared_by_far_layers_leave_other_bounds_as_they_are(tmp_path: Path) -> None:
    """Twelve layers each of which needs all of the one before, the first and the last by one weight."""

    def bound(*, shared: bool) -> int:
        net, value = Network(), "x"
        weights = [net.weight(64, 64) for _ in range(12)]
        for weight in [*weights[:-1], weights[0 if shared else -1]]:
            value = net.add("Transpose", net.add("MatMul", value, weight), perm=[1, 0])
        loaded = net.loaded(tmp_path, (64, 64))
        return tilings_bound(loaded.graph, loaded.sites, 8 * 1024)

    assert bound(shared=True) >= bound(shared=False) > 0


def test_a_gate_makes_its_map_wait(tmp_path: Path) -> None:
    """A map times what all of it decides: the map waits, whole, whatever is cut."""
    net = Network()
    value = net.conv("x", 4, 4)
    gate = net.conv(net.add("GlobalAveragePool", value), 4, 4)
    net.conv(net.add("Mul", value, gate), 4, 4)
    loaded = net.loaded(tmp_path, (1, 4, 16, 16))
    graph = loaded.graph.with_dtype("int8")
    # 1,024 bytes of map are alive and 4 of what decides; what does not fit is written and read.
    assert tilings_bound(graph, loaded.sites, 1028) == 0
    assert 2 * (1024 - 256) <= tilings_bound(graph, loaded.sites, 256) <= 2 * (1028 - 256)


def test_a_skip_past_heavy_weights_waits(tmp_path: Path) -> None:
    """Weights that do not fit hold up all pixels, so that what leads past them waits, joined without a copy or not."""
    net = Network()
    skip = net.add("Relu", "x")
    value = net.conv(net.conv(net.conv(skip, 4, 16, (3, 3)), 16, 16, (3, 3)), 16, 4, (3, 3))
    net.conv(net.add("Concat", value, skip, axis=1), 8, 4)
    loaded = net.loaded(tmp_path, (1, 4, 12, 12))
    graph = loaded.graph.with_dtype("int8")
    # 4 * 144 bytes of the skip.
    assert tilings_bound(graph, loaded.sites, 300) >= 2 * (576 - 300)


def test_a_row_and_a_column_are_not_all_of_a_map(tmp_path: Path) -> None:
    """The mean of each row and each column leaves a map: rows and columns in turns need half of it at a time."""
    size, room = 12, 110
    net = Network()
    value = net.add("Exp", "x")
    down, along = (net.add("ReduceMean", value, axes=[axis], keepdims=1) for axis in (0, 1))
    net.add("Sub", value, net.add("Add", down, along))
    loaded = net.loaded(tmp_path, (size, size))
    graph = loaded.graph.with_dtype("int8")
    made, down, along, both, left = (operator.name for operator in graph.operators)
    cuts = tuple(range(1, size))
    order: list[tuple[str, tuple[int, ...], int]] = []
    for k in range(size):
        corner = [(k, i) for i in range(k, size)] + [(i, k) for i in range(k + 1, size)]
        done = [(k, i) for i in range(k + 1)] + [(i, k) for i in range(k)]
        places = (made, corner), (down, [(0, k)]), (along, [(k, 0)]), (both, done), (left, done)
        order += [tile_key(name, at, 0) for name, each in places for at in each]
    each_way = dict.fromkeys((made, both, left), (cuts, cuts)) | {down: ((), cuts), along: (cuts, ())}
    tiling = Tiling(each_way, order=tuple(order))
    machine = cosma.Accelerator(scratchpad=room, alignment=1, weights="scratchpad", operands="resident")
    planned = plan_in_one_pass(build_problem(tile(graph, loaded.sites, tiling).graph, machine))
    assert planned is not None
    assert planned[0] == tilings_bound(graph, loaded.sites, room) == 0


@pytest.mark.filterwarnings("ignore:everything is streamed")
@pytest.mark.parametrize("seed", range(4))
def test_what_a_certificate_says_of_all_tilings_holds(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(5000 + seed)
    loaded = (random_maps if seed % 2 else random_tokens)(tmp_path, rng)
    graph = loaded.graph.with_dtype("int8")
    largest = max(t.size_bytes for t in graph.tensors.values())
    machine = cosma.Accelerator(
        scratchpad=max(4, largest), alignment=1, weights="scratchpad", fusion="epilogue"
    )
    plan = cosma.compile(tmp_path / "tiny.onnx", machine, dtype="int8", tiling="auto", effort=0.1)
    scopes = {bound.scope: bound.lower_bound for bound in plan.certificate.bounds}
    assert scopes["tilings"] <= plan.traffic.noncompulsory
    assert plan.certificate.lower_bound >= scopes["tilings"]


@pytest.mark.filterwarnings("ignore:everything is streamed")
def test_a_bound_above_the_plan_is_a_defect_that_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layers(tmp_path, 4, (3, 3, 3))
    monkeypatch.setattr("cosma.bounds.tilings.tilings_bound", lambda *_: 10**9)
    machine = cosma.Accelerator(scratchpad=4, alignment=1)
    with pytest.raises(cosma.PlanInvalidError):
        cosma.compile(tmp_path / "tiny.onnx", machine, dtype="int8", tiling="rows=1", effort=0.1)
