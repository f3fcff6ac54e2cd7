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
