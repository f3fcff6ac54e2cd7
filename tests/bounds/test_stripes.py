"""The bound over all tilings along rows and channels: never above the best plan of the finest tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import cosma
from cosma.bounds.stripes import stripe_bound
from cosma.problem import build_problem
from cosma.rewrite.tile import tile
from cosma.rewrite.tiling import Tiling, tiling_of_tiles
from cosma.tiling.given import rule_tiling


def random_network(tmp_path: Path, seed: int) -> Path:
    """Two to four small operators over rows: convolutions, pooling, elementwise sums and skips."""
    rng = np.random.default_rng(seed)
    channels, rows, columns = int(rng.integers(1, 3)), int(rng.integers(3, 6)), int(rng.integers(1, 3))
    nodes, weights, values = [], [], ["x"]
    for i in range(int(rng.integers(2, 5))):
        name, source = f"t{i}", values[int(rng.integers(max(0, len(values) - 2), len(values)))]
        kind = rng.random()
        if kind < 0.6:
            taps = int(rng.choice([1, 3]))
            weights.append(onnx.numpy_helper.from_array(np.ones((channels, channels, taps, 1), np.float32), f"w{i}"))
            nodes.append(helper.make_node("Conv", [source, f"w{i}"], [name], name=f"c{i}", pads=[taps // 2, 0] * 2))
        elif kind < 0.8 and len(values) > 1:
            other = values[int(rng.integers(0, len(values)))]
            nodes.append(helper.make_node("Add", [source, other], [name], name=f"a{i}"))
        else:
            nodes.append(
                helper.make_node("MaxPool", [source], [name], name=f"p{i}", kernel_shape=[3, 1], pads=[1, 0, 1, 0])
            )
        values.append(name)
    read = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes, "tiny", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, rows, columns])],
        [onnx.ValueInfoProto(name=name) for name in values[1:] if name not in read], weights,
    )  # fmt: skip
    path = tmp_path / f"tiny{seed}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


@pytest.mark.parametrize("rule", [{"rows": 1}, {"rows": 1, "channels": 2}, {"rows": 2}])
@pytest.mark.parametrize("seed", range(30))
def test_no_plan_of_any_tiles_goes_below(tmp_path: Path, seed: int, rule: dict[str, int]) -> None:
    loaded = cosma.load_onnx(random_network(tmp_path, seed))
    graph = loaded.graph.with_dtype("int8")
    sizes = sorted(t.size_bytes for t in graph.tensors.values())
    for capacity in (sizes[-1], sizes[-1] + sizes[-1] // 2):
        machine = cosma.Accelerator(scratchpad=capacity, alignment=1, operands="streamable", weights="stream")
        bound = stripe_bound(graph, loaded.sites, capacity)
        made = tile(graph, loaded.sites, rule_tiling(graph, loaded.sites, rule)).graph
        plan = cosma.compile(made, machine, strategy="exact", effort=2.0)
        assert bound <= plan.traffic.noncompulsory - build_problem(made, machine).constant_noncompulsory_bytes


def test_two_branches_that_wait_for_each_other_force_traffic(tmp_path: Path) -> None:
    """A sum of a map and of what all of its rows decide: the map waits, whole, whatever the stripes."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="c"),
        helper.make_node("GlobalAveragePool", ["a"], ["g"], name="gap"),
        helper.make_node("Conv", ["g", "v"], ["s"], name="gate"),
        helper.make_node("Mul", ["a", "s"], ["b"], name="scale"),
        helper.make_node("Conv", ["b", "u"], ["y"], name="out"),
    ]
    weights = [onnx.numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), name) for name in "wvu"]
    graph = helper.make_graph(
        nodes, "gated", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 16, 16])],
        [onnx.ValueInfoProto(name="y")], weights,
    )  # fmt: skip
    path = tmp_path / "gated.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    loaded = cosma.load_onnx(path)
    graph_int8 = loaded.graph.with_dtype("int8")
    # 1,024 bytes of map and 4 of the pooled row are alive; what does not fit is written and read.
    assert stripe_bound(graph_int8, loaded.sites, 1028) == 0
    assert 2 * (1028 - 256) - 2 <= stripe_bound(graph_int8, loaded.sites, 256) <= 2 * (1028 - 256)


def any_tiling(graph: cosma.Graph, rng: np.random.Generator, axes: tuple[int, ...]) -> Tiling:
    """Cuts at any positions along some axes, each operator by itself."""
    cuts = {}
    for operator in graph.operators:
        shape = graph.tensors[operator.outputs[0]].shape
        assert shape is not None
        kind = operator.type.partition("+")[0]
        allowed = [axis for axis in axes if not (kind == "MaxPool" and axis == 1 and shape[1] == 1)]
        cuts[operator.name] = tuple(
            tuple(at for at in range(1, size) if axis in allowed and rng.random() < 0.5)
            for axis, size in enumerate(shape)
        )
    return Tiling(cuts)


@pytest.mark.filterwarnings("ignore:everything is streamed")
@pytest.mark.parametrize("seed", range(40))
def test_no_compile_of_any_tiles_goes_below(tmp_path: Path, seed: int) -> None:
    """What a certificate says of all tilings, beside plans of tilings of all kinds; nothing is clipped."""
    path = random_network(tmp_path, seed)
    loaded = cosma.load_onnx(path)
    rng = np.random.default_rng(1000 + seed)
    graph = loaded.graph.with_dtype("int8")
    largest = max(t.size_bytes for t in graph.tensors.values())
    for share in (0.6, 1.0, 1.4):
        capacity = max(1, int(largest * share))
        machine = cosma.Accelerator(scratchpad=capacity, alignment=1, operands="streamable", weights="scratchpad")
        plan = cosma.compile(path, machine, dtype="int8", tiling=any_tiling(graph, rng, (1, 2)), effort=0.2)
        if not any(operator.tile for operator in plan.graph.operators):
            continue
        scopes = {bound.scope: bound.lower_bound for bound in plan.certificate.bounds}
        assert scopes["tiling"] <= plan.traffic.noncompulsory
        assert scopes["rows"] <= plan.traffic.noncompulsory
        assert stripe_bound(graph, loaded.sites, capacity) <= plan.traffic.noncompulsory


@pytest.mark.filterwarnings("ignore:everything is streamed")
def test_a_bound_above_the_plan_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = random_network(tmp_path, 3)
    monkeypatch.setattr("cosma.bounds.stripes.stripe_bound", lambda *_: 10**9)
    machine = cosma.Accelerator(scratchpad=4, alignment=1)
    plan = cosma.compile(path, machine, dtype="int8", tiling="rows=1", effort=0.1)
    assert plan.traffic.noncompulsory > 0
    assert {b.scope: b.lower_bound for b in plan.certificate.bounds}["rows"] == 10**9


@pytest.mark.filterwarnings("ignore:everything is streamed")
def test_columns_are_beyond_the_bound(tmp_path: Path) -> None:
    """A bound over rows and channels says nothing of plans that cut columns too, and is left out."""
    path = random_network(tmp_path, 4)
    graph = cosma.load_onnx(path).graph
    machine = cosma.Accelerator(scratchpad=4, alignment=1)
    name = graph.operators[0].name
    shape = graph.tensors[graph.operators[0].outputs[0]].shape
    assert shape is not None
    assert shape[3] > 1
    for axis, scopes in ((2, {"tiling", "rows"}), (3, {"tiling"})):
        cuts = tuple((1,) if i == axis else () for i in range(4))
        plan = cosma.compile(path, machine, dtype="int8", tiling=Tiling({name: cuts}), effort=0.1)
        assert {bound.scope for bound in plan.certificate.bounds} == scopes


def shape_of(path: Path, tensor: str) -> tuple[int, ...]:
    return cosma.load_onnx(path).graph.tensors[tensor].shape or ()


@pytest.mark.filterwarnings("ignore:everything is streamed")
def test_sums_in_steps_are_beyond_the_bound(tmp_path: Path) -> None:
    paths = [random_network(tmp_path, seed) for seed in range(20)]
    path, conv = next(
        (path, operator)
        for path in paths
        for operator in cosma.load_onnx(path).graph.operators
        if operator.type == "Conv" and shape_of(path, operator.outputs[0])[1] == 2
    )
    tiling = Tiling({conv.name: ((), (), (1,), ())}, sums={conv.name: (1,)})
    plan = cosma.compile(path, cosma.Accelerator(scratchpad=4, alignment=1), dtype="int8", tiling=tiling, effort=0.1)
    assert plan.traffic.noncompulsory > 0
    assert {bound.scope for bound in plan.certificate.bounds} == {"tiling"}
    again = tiling_of_tiles(plan.graph)
    assert (again.cuts, again.sums) == (tiling.cuts, tiling.sums)
