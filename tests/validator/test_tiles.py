"""Tiles judged by the model's own nodes: what they leave unread, and whether they cover their operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import cosma
from cosma import Plan
from cosma.access.boxes import intersection, region_of_result, slices
from cosma.access.table import ACCESS, access_of
from cosma.execute import run_plan
from cosma.frontend import LoadedModel
from cosma.graph import Graph, Operator, Region, Tensor
from cosma.graph.semantics import ELEMENTWISE
from cosma.rewrite.tiling import Tiling
from cosma.validator.needs import Needs
from cosma.validator.place import NoRuleError, Place, hull_of
from cosma.validator.regions import MOVES, RULES, wanted
from cosma.validator.tiles import hull_of_places, places_of_box
from tests.access.sites import MAKERS, draws, poisoned, random_box
from tests.execute.networks import FAMILIES
from tests.execute.test_run import write_model
from tests.execute.test_tiles import tiled_plan
from tests.onnx_files import save_network


def changed(
    plan: Plan, operator: Callable[[Operator], Operator] = lambda o: o, tensor: Callable[[Tensor], Tensor] = lambda t: t
) -> Plan:
    graph = plan.graph
    made = Graph(map(tensor, graph.tensors.values()), map(operator, graph.operators), graph.name, graph.roots.values())
    return replace(plan, graph=made)


def verdicts(plan: Plan, path: Path) -> set[str]:
    report = cosma.replay(plan, cosma.load_onnx(path).finest_graph, model=path)
    return {violation.verdict.value for violation in report.violations}


def test_whatever_can_be_cut_can_be_judged() -> None:
    assert not {*ACCESS, *ELEMENTWISE} - set(RULES)


@pytest.mark.parametrize("kind", MAKERS)
def test_nothing_but_what_is_asked_for_matters(kind: str) -> None:
    """The judge asks for enough, for poison elsewhere changes nothing, and for no more than tiles are made to read."""
    pytest.importorskip("onnxruntime")
    for seed in draws(kind, 25, 3):
        _ask(kind, np.random.default_rng(7000 + seed))


def _ask(kind: str, rng: np.random.Generator) -> None:
    case = MAKERS[kind](rng, kind)
    plain = case.run(case.operands)
    site = case.site(plain)
    rule = access_of(site)
    place = place_of(case, plain)
    there = [k for k in range(case.results) if k not in case.absent]
    for _ in range(3):
        box = random_box(rng, plain[0].shape, rule.cuts(site))
        for number, result in zip(there, plain, strict=True):
            part = region_of_result(box, plain[0].shape, result.shape)
            try:
                asked = dict(wanted(place, number, part))
            except NoRuleError:
                assert not any(rule.cuts(site))  # all of everything must be read, and is
                return
            for i, read in asked.items():
                if 0 in site.operands[i]:
                    continue
                made = rule.reads(site, box)[i]
                assert made is not None
                assert intersection(made, read) == read or i in case.parameters, (i, made, read)
            operands = [
                o if o is None or i in case.parameters
                else poisoned(o, asked.get(i, ((0, 0),) * o.ndim), rng)
                for i, o in enumerate(case.operands)
            ]  # fmt: skip
            found = case.run(operands)[there.index(number)]
            np.testing.assert_allclose(found[slices(part)], result[slices(part)], rtol=1e-4, atol=1e-4)


def place_of(case, results: Sequence[np.ndarray]) -> Place:
    """A case of the access rules as the judge sees a node."""
    names = ["" if o is None else f"i{k}" for k, o in enumerate(case.operands)]
    node = helper.make_node(case.type, names, case.outputs(), domain=case.domain, **case.attributes)

    def moved() -> np.ndarray:
        operands = list(case.operands)
        assert operands[0] is not None
        operands[0] = np.arange(1, operands[0].size + 1, dtype=np.float64).reshape(operands[0].shape)
        if case.type == "Pad" and len(operands) > 2 and operands[2] is not None:
            operands[2] = np.array(0.0)
        return np.rint(case.run(operands)[0]).astype(np.int64) - 1

    return Place(
        node,
        {a.name: helper.get_attribute_value(a) for a in node.attribute},
        tuple(None if o is None else o.shape for o in case.operands),
        case.result_shapes(results),
        lambda i: case.operands[i] if i in case.parameters else None,
        moved,
        case.opset,
    )


@pytest.fixture(scope="module", params=["cnn", "separable", "transformer", "quantised", "branches", "integers"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Plan]]:
    path = FAMILIES[request.param](tmp_path_factory.mktemp("judge") / "net.onnx")
    return path, [tiled_plan(path, seed, seed % 2 == 1) for seed in (11, 12, 13)]


def tiles_of(plan: Plan) -> list[Operator]:
    return [operator for operator in plan.graph.operators if operator.tile is not None]


def test_plans_of_tiles_are_valid(case: tuple[Path, list[Plan]]) -> None:
    for plan in case[1]:
        assert verdicts(plan, case[0]) == set()


@pytest.mark.parametrize("change", [{"type": "Sin"}, {"covers": ()}], ids=str)
def test_a_tile_of_another_type_or_nodes_is_refused(case: tuple[Path, list[Plan]], change: dict[str, object]) -> None:
    tiles = tiles_of(case[1][0])
    for tile in (tiles[0], tiles[len(tiles) // 2], tiles[-1]):
        if sum(other.tile.root == tile.tile.root for other in tiles) > 1:
            wrong = changed(case[1][0], lambda o, tile=tile: replace(tile, **change) if o is tile else o)
            assert "tiles-wrong" in verdicts(wrong, case[0])


def test_an_operand_less_is_refused(case: tuple[Path, list[Plan]]) -> None:
    """Halo rows, weights, scales: whatever a tile reads, it needs, or the numbers are right without it."""
    pytest.importorskip("onnxruntime")
    path, plans = case
    rng = np.random.default_rng(5)
    tried = spared = 0
    for plan in plans:
        tiles = [tile for tile in tiles_of(plan) if tile.operands]
        for i in rng.permutation(len(tiles))[:12]:
            tile = tiles[i]
            gone = str(rng.choice(tile.operands))
            less = replace(
                tile,
                inputs=tuple(n for n in tile.inputs if n != gone),
                weights=tuple(n for n in tile.weights if n != gone),
            )
            wrong = changed(plan, lambda o, tile=tile, less=less: less if o is tile else o)
            found = verdicts(wrong, path)
            if not found:
                # What lies between the elements of a head is read for being in one box with them.
                assert run_plan(wrong, path).passed, (tile.name, gone)
                spared += 1
                continue
            tried += 1
            assert found & {"region-unread", "model-mismatch", "tiles-wrong"}, (tile.name, gone, found)
            others = {n for t in tiles_of(plan) if t is not tile and t.tile.root == tile.tile.root for n in t.operands}
            if gone in others:
                assert "region-unread" in found, (tile.name, gone, found)
    assert spared * 5 < tried


def test_what_another_tile_reads_is_refused(case: tuple[Path, list[Plan]]) -> None:
    path, plans = case
    tried = 0
    for plan in plans:
        for one in tiles_of(plan)[:40]:
            for other in tiles_of(plan):
                if other.tile.root == one.tile.root and other.weights != one.weights:
                    swapped = replace(one, weights=other.weights)
                    assert "region-unread" in verdicts(
                        changed(plan, lambda o, one=one, swapped=swapped: swapped if o is one else o), path
                    )
                    tried += 1
                    break
            if tried >= 4:
                return


def test_tiles_in_another_place_are_refused(case: tuple[Path, list[Plan]]) -> None:
    path, plans = case
    for plan in plans:
        tile, twin = next(
            (a, b) for a in tiles_of(plan) for b in tiles_of(plan) if a.tile.root == b.tile.root and a.tile != b.tile
        )
        again = changed(plan, lambda o, tile=tile, twin=twin: replace(o, tile=twin.tile) if o is tile else o)
        assert "tiles-wrong" in verdicts(again, path)
        axis = next(i for i, (a, b) in enumerate(zip(tile.tile.start, twin.tile.start, strict=True)) if a != b)
        moved = Region(
            tile.tile.root,
            [a + (i == axis) for i, a in enumerate(tile.tile.start)],
            [b + (i == axis) for i, b in enumerate(tile.tile.stop)],
        )
        assert "tiles-wrong" in verdicts(
            changed(plan, lambda o, tile=tile, moved=moved: replace(o, tile=moved) if o is tile else o), path
        )
        # A tile is missing; another one says that it writes what is left.
        both = replace(twin, outputs=(*twin.outputs, *tile.outputs))
        kept = [both if o is twin else o for o in plan.graph.operators if o is not tile]
        graph = Graph(plan.graph.tensors.values(), kept, plan.graph.name, plan.graph.roots.values())
        assert "tiles-wrong" in verdicts(replace(plan, graph=graph), path)


def test_a_part_in_another_place_is_refused(case: tuple[Path, list[Plan]]) -> None:
    path, plans = case
    for plan in plans:
        parts = [t for t in plan.graph.tensors.values() if t.region is not None]
        one = next(p for p in parts if any(q.region.root == p.region.root and q is not p and q.shape == p.shape
                                           for q in parts))  # fmt: skip
        other = next(q for q in parts if q.region.root == one.region.root and q is not one and q.shape == one.shape)
        regions = {one.name: other.region, other.name: one.region}
        wrong = changed(plan, tensor=lambda t, regions=regions: replace(t, region=regions.get(t.name, t.region)))
        assert verdicts(wrong, path) & {"region-unread", "tiles-wrong"}


def test_operators_without_a_rule_read_everything(tmp_path: Path) -> None:
    """Somebody cuts an operator that nobody can say anything of: each tile must read all of its operands."""
    nodes = [helper.make_node("Relu", ["x"], ["r"], name="r"), helper.make_node("Trilu", ["r"], ["y"], name="t")]
    path = save_network(tmp_path / "net.onnx", nodes, {"x": [4, 6]})
    loaded = cosma.load_onnx(path)
    x, r, y = (loaded.graph.tensors[name] for name in "xry")
    halves = [((0, 0), (2, 6)), ((2, 0), (4, 6))]

    def part(root: Tensor, i: int) -> Tensor:
        return replace(root, name=f"{root.name}{i}", shape=(2, 6), size_bytes=48, region=Region(root.name, *halves[i]))

    def plan_with(reads: tuple[tuple[str, ...], ...]) -> Plan:
        operators = [Operator("r", "Relu", ["x"], ["r0", "r1"], covers=["r"])] + [
            Operator(f"t{i}", "Trilu", reads[i], [f"y{i}"], covers=["y"], tile=Region("t", *halves[i])) for i in (0, 1)
        ]
        parts = [part(root, i) for root in (r, y) for i in (0, 1)]
        made = Graph([x, *parts], operators, "net", [r, y])
        return cosma.compile(made, cosma.Accelerator(scratchpad="4KiB"), strategy="e2")

    assert verdicts(plan_with((("r0", "r1"), ("r0", "r1"))), path) == set()
    assert verdicts(plan_with((("r0", "r1"), ("r1",))), path) == {"region-unread"}


def _channels(tmp_path: Path, constant: Sequence[onnx.NodeProto], weights: Sequence[TensorProto]) -> LoadedModel:
    nodes = [*constant, helper.make_node("MatMul", ["x", "w"], ["y"], name="m")]
    return cosma.load_onnx(save_network(tmp_path / "n.onnx", nodes, {"x": [4, 8]}, weights))


def test_a_square_weight_that_is_turned_is_read_whole(tmp_path: Path) -> None:
    """A computed constant of its source's shape need not have its source's places."""
    stored = numpy_helper.from_array(np.arange(64, dtype=np.int8).reshape(8, 8), "q")
    scale = numpy_helper.from_array(np.float32(0.1), "s")
    dequantise = helper.make_node("DequantizeLinear", ["q", "s"], ["w0"])
    tiling = Tiling({"m": ((), (4,))})
    accelerator = cosma.Accelerator(scratchpad="4KiB", weights="scratchpad")
    for turned in (False, True):
        last = helper.make_node("Transpose" if turned else "Identity", ["w0"], ["w"])
        loaded = _channels(tmp_path, [dequantise, last], [stored, scale])
        plan = cosma.compile(loaded, accelerator, strategy="e2", tiling=tiling)
        assert verdicts(plan, tmp_path / "n.onnx") == set()
        read = {tuple(w for w in o.weights if w.startswith("q")) for o in plan.graph.operators}
        assert read == ({("q",)} if turned else {("q[:, 0:4]",), ("q[:, 4:8]",)})
        # Parts that only look right are refused.
        if turned:
            halves = [((0, 0), (8, 4)), ((0, 4), (8, 8))]
            q = plan.graph.tensors["q"]
            parts = [replace(q, name=f"q{i}", shape=(8, 4), size_bytes=32, region=Region("q", *halves[i]))
                     for i in (0, 1)]  # fmt: skip
            tiles = tiles_of(plan)
            operators = [replace(t, weights=tuple(f"q{i}" if w == "q" else w for w in t.weights))
                         for i, t in enumerate(tiles)]  # fmt: skip
            tensors = [t for t in plan.graph.tensors.values() if t.name != "q"] + parts
            graph = Graph(tensors, operators, "net", [*plan.graph.roots.values(), q])
            wrong = cosma.compile(graph, accelerator, strategy="e2")
            assert verdicts(wrong, tmp_path / "n.onnx") == {"region-unread"}


def test_models_of_functions_and_views_are_judged(tmp_path: Path) -> None:
    """A Dropout that does nothing, a Reshape whose shape is computed, weights without content."""
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[1,8,16] x) => (float[1,8,16] y)
    <float[16,16] w1, float[16,16] w2>
    {
        a = MatMul (x, w1)
        d = Dropout (a)
        shape = Shape (d)
        r = Relu (d)
        z = Reshape (r, shape)
        y = MatMul (z, w2)
    }
    """
    path = write_model(tmp_path, text)
    loaded = cosma.load_onnx(path)
    rows = ((), (4,), ())
    tiling = Tiling({o.name: rows for o in loaded.graph.operators})
    plan = cosma.compile(loaded, cosma.Accelerator(scratchpad="8KiB"), strategy="e2", tiling=tiling)
    assert len(tiles_of(plan)) == 2 * len(loaded.graph.operators)
    assert verdicts(plan, path) == set()
    last = tiles_of(plan)[-1]
    other = next(p.name for p in plan.graph.parts_of("r") if p.name not in last.inputs)
    wrong = changed(plan, lambda o: replace(o, inputs=(other,)) if o is last else o)
    assert "region-unread" in verdicts(wrong, path)


def test_regions_go_exactly_through_what_only_moves_elements(tmp_path: Path) -> None:
    """Windows as exporters write them: a Pad by nothing between Reshapes, and transposed axes of one element."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="relu"),
        helper.make_node("Reshape", ["a", "grid"], ["b"]),
        helper.make_node("Pad", ["b", "nothing"], ["c"]),
        helper.make_node("Reshape", ["c", "windows"], ["d"]),
        helper.make_node("Transpose", ["d"], ["e"], perm=[0, 1, 3, 2, 4, 5]),
        helper.make_node("Reshape", ["e", "rows"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"], name="product"),
    ]
    constants = {"grid": [1, 4, 4, 6], "nothing": [0] * 8, "windows": [1, 1, 4, 1, 4, 6], "rows": [1, 16, 6]}
    weights = {name: np.array(value) for name, value in constants.items()} | {"w": (6, 5)}
    path = save_network(tmp_path / "net.onnx", nodes, {"x": [1, 16, 6]}, weights)
    loaded = cosma.load_onnx(path)
    assert [operator.name for operator in loaded.graph.operators] == ["relu", "product"]
    # Five rows of sixteen end within a row of the grid of four by four.
    cuts = dict.fromkeys(("relu", "product"), ((), (5, 10), ()))
    plan = cosma.compile(loaded, cosma.Accelerator(scratchpad="8KiB"), strategy="e2", tiling=Tiling(cuts))
    tile = next(t for t in tiles_of(plan) if t.name.startswith("product"))
    assert tile.inputs == ("a[:, 0:5, :]",)
    assert verdicts(plan, path) == set()
    wrong = changed(plan, lambda o: replace(o, inputs=("a[:, 5:10, :]",)) if o is tile else o)
    assert "region-unread" in verdicts(wrong, path)


def test_a_weight_repeated_once_is_read_in_parts(tmp_path: Path) -> None:
    """Embeddings of queries as exporters write them: unsqueezed, expanded and tiled to what they are already."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="relu"),
        helper.make_node("Unsqueeze", ["queries", "first"], ["q1"]),
        helper.make_node("Expand", ["q1", "shape"], ["q2"]),
        helper.make_node("Tile", ["q2", "once"], ["q3"]),
        helper.make_node("Add", ["a", "q3"], ["y"], name="add"),
    ]
    constants = {"first": [0], "shape": [1, 1, 1], "once": [1, 1, 1]}
    weights = {name: np.array(value) for name, value in constants.items()} | {"queries": (8, 6)}
    path = save_network(tmp_path / "net.onnx", nodes, {"x": [1, 8, 6]}, weights)
    loaded = cosma.load_onnx(path)
    cuts = dict.fromkeys(("relu", "add"), ((), (4,), ()))
    machine = cosma.Accelerator(scratchpad="8KiB", weights="scratchpad")
    plan = cosma.compile(loaded, machine, strategy="e2", tiling=Tiling(cuts))
    tile = next(t for t in tiles_of(plan) if t.name.startswith("add"))
    assert tile.weights == ("queries[0:4, :]",)
    assert verdicts(plan, path) == set()
    wrong = changed(plan, lambda o: replace(o, weights=("queries[4:8, :]",)) if o is tile else o)
    assert "region-unread" in verdicts(wrong, path)


@pytest.mark.parametrize("seed", range(60))
def test_elements_side_by_side_are_told_by_their_ends(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape, other = [((2, 6, 8), (12, 2, 4)), ((4, 6), (3, 8)), ((1, 5, 3), (15,)), ((3, 1, 4), (2, 6))][seed % 4]
    box = random_box(rng, shape, (True,) * len(shape))
    inside = np.arange(np.prod(shape)).reshape(shape)[slices(box)].reshape(-1)
    places = places_of_box(box, shape)
    assert np.array_equal(np.asarray(places), inside)
    assert hull_of_places(places, other) == hull_of(inside, other)


def test_constants_of_nodes_may_lie_in_a_file_that_is_missing(tmp_path: Path) -> None:
    """Graphs are shared without their constants, which older exporters write as nodes: here the rows that are read."""
    value = numpy_helper.from_array(np.array([[3, 1, 0, 2]]), "value")
    nodes = [
        helper.make_node("Constant", [], ["rows"], value=value),
        helper.make_node("Gather", ["x", "rows"], ["y"], name="g"),
    ]
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 16])],
    )  # fmt: skip
    path = tmp_path / "net.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path, save_as_external_data=True, location="net.data", size_threshold=0, convert_attribute=True)
    (tmp_path / "net.data").unlink()
    loaded = cosma.load_onnx(path)
    accelerator = cosma.Accelerator(scratchpad="4KiB", weights="scratchpad")
    plan = cosma.compile(loaded, accelerator, strategy="e2", tiling=Tiling({"g": ((), (2,), (8,))}))
    assert len(tiles_of(plan)) == 4
    assert verdicts(plan, path) == set()


@pytest.mark.parametrize("kind", MOVES)
def test_places_of_moved_elements_are_those_of_kernels(kind: str, tmp_path: Path) -> None:
    """Padding by what is no zero, or by less than nothing, included."""
    pytest.importorskip("onnxruntime")
    for seed in range(30):
        case = MAKERS[kind](np.random.default_rng(4000 + seed), kind)
        path = tmp_path / f"{seed}.onnx"
        case.save(path, constant=True)
        model = onnx.load(path)
        found = Needs(model, {"i0": case.operands[0].shape}).moved(model.graph.node[0])
        plain = case.run(case.operands)
        np.testing.assert_array_equal(found, place_of(case, plain).moved(), err_msg=f"{case}")
