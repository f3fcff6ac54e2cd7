"""Tiles: what they cover, what they read, what they cost to make."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import prod
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import cosma
from cosma.access.boxes import intersection, whole
from cosma.access.operator import operator_access
from cosma.errors import InputError
from cosma.frontend import LoadedModel
from cosma.rewrite.fuse import fuse
from cosma.rewrite.tile import tile
from cosma.rewrite.tiling import Tiling, even_cuts, step_cuts
from tests.onnx_files import save_network


def weight(name: str, *shape: int) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.ones(shape, np.float32), name)


def network(
    tmp_path: Path, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto], shape: list[int]
) -> LoadedModel:  # fmt: skip
    return cosma.load_onnx(save_network(tmp_path / "net.onnx", nodes, {"x": shape}, weights))


@pytest.fixture
def residual(tmp_path: Path) -> LoadedModel:
    """A convolution of three rows, a skip over it, a pooling of two rows, a head over all rows."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="c1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="r1"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="c2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c", "b"], ["d"], name="add"),
        helper.make_node("MaxPool", ["d"], ["e"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["e"], ["f"], name="gap"),
        helper.make_node("Conv", ["f", "w3"], ["y"], name="head"),
    ]
    return network(
        tmp_path, nodes, [weight("w1", 8, 3, 3, 3), weight("w2", 8, 8, 3, 3), weight("w3", 64, 8, 1, 1)], [1, 3, 16, 16]
    )


def random_tiling(loaded: LoadedModel, graph: cosma.Graph, rng: np.random.Generator) -> Tiling:
    cuts = {}
    for operator in graph.operators:
        access = operator_access(graph, loaded.sites, operator)
        shape = access.shapes[access.result]
        allowed = access.cuts()
        cuts[operator.name] = tuple(
            even_cuts(size, int(rng.integers(1, 5))) if ok and rng.random() < 0.6 else ()
            for size, ok in zip(shape, allowed, strict=True)
        )
    return Tiling(cuts)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("seed", range(25))
def test_tiles_cover_results_once_and_read_what_they_need(residual: LoadedModel, seed: int, fused: bool) -> None:
    graph = fuse(residual.graph).graph if fused else residual.graph
    tiling = random_tiling(residual, graph, np.random.default_rng(seed))
    made = tile(graph, residual.sites, tiling)
    new = made.graph
    assert sum(o.macs or 0 for o in new.operators) == sum(o.macs or 0 for o in graph.operators)
    for name, root in new.roots.items():
        parts = new.parts_of(name)
        assert sum(part.size_bytes for part in parts) == root.size_bytes
        covered = np.zeros(root.shape, dtype=int)
        for part in parts:
            assert part.region is not None
            covered[part.region.slices] += 1
        assert (covered == 1).all()
    for operator in graph.operators:
        access = operator_access(graph, residual.sites, operator)
        shape = access.shapes[access.result]
        tiles = [o for o in new.operators if made.lineage.operators[o.name] == (operator.name,)]
        boxes = [
            tuple(zip(o.tile.start, o.tile.stop, strict=True)) if o.tile is not None else whole(shape) for o in tiles
        ]
        assert sorted(boxes) == sorted(box for box, _ in tiling.pieces(operator.name, shape))
        for one, box in zip(tiles, boxes, strict=True):
            for name, need in access.reads(box).items():
                if name in new.roots:
                    held = [p for p in new.parts_of(name) if p.name in one.operands]
                    inside = [
                        intersection(tuple(zip(p.region.start, p.region.stop, strict=True)), need)
                        for p in new.parts_of(name) if p.region is not None
                    ]  # fmt: skip
                    assert sum(prod(b - a for a, b in i) for i in inside if i) == prod(b - a for a, b in need)
                    assert sum(p.region.count for p in held if p.region is not None) == prod(b - a for a, b in need)
                else:
                    assert name in one.operands


def test_halo_rows_are_parts_of_their_own(residual: LoadedModel) -> None:
    rows = ((), (), (8,), ())
    made = tile(residual.graph, residual.sites, Tiling({"c1": rows, "r1": rows, "c2": rows})).graph
    assert [p.region.start[2] for p in made.parts_of("b") if p.region] == [0, 7, 8, 9]
    c2 = [o for o in made.operators if o.tile is not None and o.tile.root == "c2"]
    assert [o.name for o in c2] == ["c2[:, :, 0:8, :]", "c2[:, :, 8:16, :]"]
    assert c2[0].inputs == ("b[:, :, 0:7, :]", "b[:, :, 7, :]", "b[:, :, 8, :]")


def test_what_strides_pass_over_is_no_part_of_its_own(tmp_path: Path) -> None:
    """A window of one with strides of two never reads the last of eight columns; tiles cut by rows read all eight."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "w"], ["y"], name="conv", strides=[2, 2]),
    ]
    loaded = network(tmp_path, nodes, [weight("w", 4, 4, 1, 1)], [1, 4, 8, 8])
    made = tile(loaded.graph, loaded.sites, Tiling({"conv": ((), (), (2,), ())})).graph
    parts = [tensor.region for tensor in made.tensors.values() if tensor.region and tensor.region.root == "r"]
    assert [(region.start, region.stop) for region in parts] == [
        ((0, 0, 0, 0), (1, 4, 3, 8)), ((0, 0, 3, 0), (1, 4, 4, 8)), ((0, 0, 4, 0), (1, 4, 8, 8)),
    ]  # fmt: skip
    first, last = (o for o in made.operators if o.name.startswith("conv"))
    assert first.inputs == ("r[:, :, 0:3, :]",)
    assert last.inputs == ("r[:, :, 4:8, :]",)


def test_order_is_depth_first(residual: LoadedModel) -> None:
    rows = ((), (), (4, 8, 12), ())
    made = tile(residual.graph, residual.sites, Tiling({"c1": rows, "r1": rows, "c2": rows, "add": rows})).graph
    order = [o.name for o in made.operators]
    assert order.index("c2[:, :, 0:4, :]") < order.index("c1[:, :, 8:12, :]")
    assert order.index("add[:, :, 0:4, :]") < order.index("c1[:, :, 8:12, :]")


def test_segments_run_one_after_another(residual: LoadedModel) -> None:
    rows = ((), (), (4, 8, 12), ())
    cuts = {"c1": rows, "r1": rows, "c2": rows, "add": rows}
    made = tile(residual.graph, residual.sites, Tiling(cuts, (("c1", "r1"), ("c2", "add")))).graph
    order = [o.name for o in made.operators]
    assert max(order.index(n) for n in order if n.startswith(("c1[", "r1["))) < order.index("c2[:, :, 0:4, :]")


def test_channels_cut_weights(residual: LoadedModel) -> None:
    made = tile(residual.graph, residual.sites, Tiling({"head": ((), (16, 32, 48), (), ())})).graph
    heads = [o for o in made.operators if o.tile is not None]
    assert [made.tensors[o.weights[0]].shape for o in heads] == [(16, 8, 1, 1)] * 4
    assert all(o.inputs == ("f",) for o in heads)


def test_parts_may_go_over_parts_at_the_same_place(residual: LoadedModel) -> None:
    rows = ((), (), (8,), ())
    made = tile(residual.graph, residual.sites, Tiling({"c1": rows, "r1": rows, "c2": rows, "add": rows})).graph
    plan = cosma.compile(made, cosma.Accelerator(scratchpad="64KiB", operands="resident"), strategy="e2")
    assert cosma.replay(plan).valid


@pytest.mark.parametrize(
    ("cuts", "says"),
    [
        ({"nobody": ((), (), (4,), ())}, "no operator 'nobody'"),
        ({"gap": ((), (), (), ())} | {"head": ((), (), (1,), ())}, "do not ascend"),
        ({"c1": ((), (), (8, 4), ())}, "do not ascend"),
        ({"c1": ((4,),)}, "4 axes"),
    ],
)
def test_wrong_tilings_are_refused(residual: LoadedModel, cuts: dict[str, tuple[tuple[int, ...], ...]], says: str):
    with pytest.raises(InputError, match=says):
        tile(residual.graph, residual.sites, Tiling(cuts))


def test_barriers_cannot_be_cut(tmp_path: Path) -> None:
    nodes = [helper.make_node("Softmax", ["x"], ["y"], name="s", axis=-1)]
    loaded = network(tmp_path, nodes, [], [4, 8])
    with pytest.raises(InputError, match=r"cannot be cut along axis 1 .* it can along \[0\]"):
        tile(loaded.graph, loaded.sites, Tiling({"s": ((), (4,))}))
    assert len(tile(loaded.graph, loaded.sites, Tiling({"s": ((2,), ())})).graph.operators) == 2


def test_heads_are_cut_through_reshape_and_transpose(tmp_path: Path) -> None:
    """Heads of attention: channels of the projection, an axis behind Reshape and Transpose."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["q"], name="project"),
        helper.make_node("Reshape", ["q", "s"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], name="t", perm=[0, 2, 1, 3]),
        helper.make_node("Softmax", ["t"], ["y"], name="soft", axis=-1),
    ]
    shape = onnx.numpy_helper.from_array(np.array([1, 6, 4, 8]), "s")
    loaded = network(tmp_path, nodes, [weight("w", 32, 32), shape], [1, 6, 32])
    heads = ((), (1, 2, 3), (), ())
    made = tile(loaded.graph, loaded.sites, Tiling({"project": ((), (), (8, 16, 24)), "t": heads, "soft": heads})).graph
    for k, (project, t, soft) in enumerate(product(*[[o for o in made.operators if o.tile and o.tile.root == n]
                                                     for n in ("project", "t", "soft")])):  # fmt: skip
        assert len(t.inputs) == len(soft.inputs) == len(project.weights) == 1, k
    first = next(o for o in made.operators if o.name == "t[:, 0, :, :]")
    assert first.inputs == ("q[:, :, 0:8]",)


def test_cost_is_linear_in_tiles(residual: LoadedModel) -> None:
    """Sixteen times the tiles touch sixteen times the parts, not more."""
    counts = []
    for rows in (1, 16):
        cuts = {n: ((), (), even_cuts(16, rows), ()) for n in ("c1", "r1", "c2", "add")}
        made = tile(residual.graph, residual.sites, Tiling(cuts)).graph
        counts.append(sum(len(o.operands) + len(o.outputs) for o in made.operators if o.tile or rows == 1))
    assert counts[1] < 2.2 * 16 * counts[0]


def test_cuts_are_even_or_by_step() -> None:
    assert even_cuts(10, 3) == (3, 6)
    assert even_cuts(2, 8) == (1,)
    assert even_cuts(5, 1) == ()
    assert step_cuts(10, 4) == (4, 8)
    assert step_cuts(8, 8) == ()


def test_operators_may_list_what_dequantises_after_its_reader(tmp_path: Path) -> None:
    """A fused operator covers its first node first; what it reads is found in the order that nodes compute."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="d"),
        helper.make_node("Conv", ["d", "w1"], ["c"], name="c", pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["y"], name="y"),
    ]
    scale = onnx.numpy_helper.from_array(np.float32(0.1), "s")
    zero = onnx.numpy_helper.from_array(np.int8(0), "z")
    loaded = network(tmp_path, nodes, [scale, zero, weight("w1", 8, 3, 3, 3)], [1, 3, 16, 16])
    conv = next(o for o in loaded.graph.operators if "Conv" in o.type)
    for covers in (conv.covers, conv.covers[::-1]):
        changed = [replace(o, covers=covers) if o is conv else o for o in loaded.graph.operators]
        graph = cosma.Graph(loaded.graph.tensors.values(), changed)
        made = tile(graph, loaded.sites, Tiling({conv.name: ((), (), (8,), ())})).graph
        tiles = [o for o in made.operators if o.tile is not None]
        assert [o.inputs for o in tiles] == [
            ("q[:, :, 0:7, :]", "q[:, :, 7:9, :]"), ("q[:, :, 7:9, :]", "q[:, :, 9:16, :]")
        ]  # fmt: skip


def test_what_cannot_be_parts_stays_whole(tmp_path: Path) -> None:
    """Indices that select rows of a table are one tensor, and so is what is packed."""
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], name="i", to=TensorProto.INT64),
        helper.make_node("Gather", ["t", "i"], ["g"], name="g"),
        helper.make_node("Relu", ["g"], ["y"], name="y"),
    ]
    loaded = network(tmp_path, nodes, [weight("t", 5000, 16)], [1, 16])
    assert any(tensor.rows is not None for tensor in loaded.graph.tensors.values())
    with pytest.raises(InputError, match="barrier"):
        tile(loaded.graph, loaded.sites, Tiling({"i": ((), (8,))}))
    made = tile(loaded.graph, loaded.sites, Tiling(dict.fromkeys(("g", "y"), ((), (8,), ())))).graph
    assert [o.inputs for o in made.operators if o.name.startswith("g[")] == [("i",)] * 2
    plan = cosma.compile(loaded, cosma.Accelerator(scratchpad="64KiB"), strategy="e2",
                         tiling=Tiling(dict.fromkeys(("g", "y"), ((), (8,), ()))))  # fmt: skip
    assert cosma.replay(plan).valid
