"""Concat, Split and Slice that copy nothing: planned, replayed by rules of the validator's own, executed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from onnx import helper

import cosma
from cosma.compiler import Limits, run_compile
from cosma.execute import run_plan
from cosma.plan.file import plan_from_json, plan_to_json
from cosma.problem import build_problem
from cosma.rewrite.join import join_copies
from tests.zero_copy.models import dense_block, random_model, record_of, save, shuffle, verdicts

LITTLE = Limits(effort=0.02)


def _plan(model: Path, *, zero_copy: bool = True, effort: float = 0.02, **changes: Any) -> cosma.Plan:
    accelerator = cosma.Accelerator(zero_copy=zero_copy, **changes)
    return run_compile(model, accelerator, limits=Limits(effort=effort)).plan


def _check(plan: cosma.Plan, model: Path) -> None:
    """Valid with the model's file and with its graph alone, the same again from its text, and equal when executed."""
    graph = cosma.load_onnx(model).graph
    for report in (cosma.replay(plan, graph, model=model), cosma.replay(plan, graph)):
        assert report.valid, report.lines()
    again = plan_from_json(plan_to_json(plan))
    assert plan_to_json(again) == plan_to_json(plan)
    assert run_plan(again, model).passed


def test_a_dense_block_fits_where_copies_do_not(tmp_path: Path) -> None:
    model = dense_block(tmp_path)
    with pytest.raises(cosma.InfeasibleError, match="Concat"):
        _plan(model, zero_copy=False, scratchpad=3072, operands="resident")
    for pieces in (None, 1, 2):
        plan = _plan(model, scratchpad=3072, operands="resident", pieces=pieces)
        assert [o.type for o in plan.graph.operators].count("Concat") == 0
        assert set(plan.graph.joins) == {"c1", "c2", "c3", "y"}
        assert plan.traffic.noncompulsory == 0
        _check(plan, model)


def test_what_is_saved_is_the_copies(tmp_path: Path) -> None:
    model = dense_block(tmp_path)
    copying = _plan(model, zero_copy=False, scratchpad=3072)
    joined = _plan(model, scratchpad=3072)
    assert copying.traffic.noncompulsory == 2048
    assert joined.traffic.noncompulsory == 0
    assert joined.traffic.compulsory == copying.traffic.compulsory == 1024 + 2048


def test_one_range_lies_side_by_side(tmp_path: Path) -> None:
    """With one piece, the tensors of each Concat are neighbours in memory when it is read."""
    plan = _plan(dense_block(tmp_path), scratchpad=4096, pieces=1)
    address = {i.tensor: i.address for i in plan.instructions if hasattr(i, "address")}
    order = plan.graph.joins["c3"].tensors
    ends = [address[name] + plan.graph.tensors[name].size_bytes for name in order]
    assert [address[name] for name in order[1:]] == ends[:-1]


def test_shuffled_channels(tmp_path: Path) -> None:
    model = shuffle(tmp_path)
    for pieces in (None, 2, 1):
        plan = _plan(model, scratchpad=8192, pieces=pieces)
        _check(plan, model)
        if pieces is None:
            assert set(plan.graph.joins) == {"p", "q", "r", "z", "w"}
            assert {o.type for o in plan.graph.operators} == {"Exp", "Relu", "Tanh", "Abs", "Softmax"}


def test_outputs_that_share_bytes_are_copied(tmp_path: Path) -> None:
    """Two graph outputs are two off-chip copies; a graph input is none of an output."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Tanh", ["x"], ["b"]),
        helper.make_node("Concat", ["a", "b"], ["y"], axis=1),
        helper.make_node("Concat", ["b", "a"], ["z"], axis=1),
        helper.make_node("Concat", ["x", "b"], ["w"], axis=1),
    ]
    shapes = {name: [1, 4, 8, 8] for name in ("y", "z", "w")}
    model = save(tmp_path, "outputs", nodes, {"x": [1, 2, 8, 8]}, shapes)
    plan = _plan(model, scratchpad=8192)
    assert set(plan.graph.joins) == {"y"}
    assert plan.traffic.compulsory == 512 + 3 * 1024
    _check(plan, model)


def test_what_is_read_twice_is_copied(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Concat", ["a", "a"], ["c"], axis=1),
        helper.make_node("Tanh", ["c"], ["y"]),
    ]
    model = save(tmp_path, "twice", nodes, {"x": [1, 2, 8, 8]}, {"y": [1, 4, 8, 8]})
    graph, sites = (loaded := cosma.load_onnx(model)).graph, loaded.sites
    assert join_copies(graph, sites).graph is graph


@pytest.mark.parametrize(
    ("starts", "ends", "steps", "joins"), [([1], [3], [1], True), ([0], [4], [2], False), ([-1], [-9], [-1], False)]
)
def test_slices_of_steps_are_copied(
    tmp_path: Path, starts: list[int], ends: list[int], steps: list[int], joins: bool
) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Slice", ["a", "s", "e", "i", "t"], ["b"]),
        helper.make_node("Tanh", ["b"], ["y"]),
    ]
    count = len(range(4)[slice(starts[0], ends[0], steps[0])])
    constants = {"s": starts, "e": ends, "i": [1], "t": steps}
    model = save(tmp_path, "slice", nodes, {"x": [1, 4, 4, 4]}, {"y": [1, count, 4, 4]}, constants)
    loaded = cosma.load_onnx(model)
    assert ("b" in join_copies(loaded.graph, loaded.sites).graph.joins) is joins


@pytest.mark.parametrize(
    ("seeds", "views", "operands"),
    [
        (range(12), False, ["streamable", "resident"]),
        ((*range(12, 20), 42, 84, 111, 122), False, ["streamable", "resident"]),
        (range(30), True, ["streamable", "resident"]),
        (range(100, 112), True, ["stationary"]),
    ],
)
def test_random_models(tmp_path: Path, seeds: Sequence[int], views: bool, operands: list[str]) -> None:
    """Never worse than copying, valid by both readings, equal when executed."""
    joined = 0
    for seed in seeds:
        made = random_model(tmp_path, seed, views=views)
        if made is None:
            continue
        model, size = made
        rng = random.Random(seed)
        settings = {
            "scratchpad": max(256, int(size * rng.choice([0.15, 0.3, 0.6]))) // 64 * 64,
            "operands": rng.choice(operands),
            "alignment": rng.choice([1, 16, 64]),
            "weights": rng.choice(["stream", "scratchpad"]),
            "fusion": rng.choice(["none", "epilogue"]),
            "pieces": rng.choice([None, 1, 2]),
        }
        try:
            copying = _plan(model, zero_copy=False, **settings)
        except cosma.InfeasibleError:
            copying = None
        try:
            plan = _plan(model, **settings)
        except cosma.InfeasibleError:
            assert copying is None
            continue
        joined += bool(plan.graph.joins)
        assert copying is None or plan.traffic.total <= copying.traffic.total
        _check(plan, model)
    assert joined


# -- mutations ------------------------------------------------------------------------------------------------------


def test_ranges_are_counted(tmp_path: Path) -> None:
    """A plan whose pieces lie anywhere is refused where one range is wanted; a moved neighbour too."""
    model = dense_block(tmp_path)
    plan = _plan(model, scratchpad=4096, pieces=1)
    record = record_of(plan)
    assert verdicts(record, model) == set()
    moved = next(i for i in record["instructions"] if i["do"] == "allocate" and i["tensor"] == "a3")
    moved["address"] = 4096 - 256
    assert "pieces-exceeded" in verdicts(record, model)
    record["accelerator"]["pieces"] = 2
    assert "pieces-exceeded" not in verdicts(record, model)


def test_parts_of_a_cut_may_be_too_many_ranges(tmp_path: Path) -> None:
    """Rows of several channels are never one range, wherever they lie."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Split", ["a"], ["p", "q"], axis=2),
        helper.make_node("Tanh", ["p"], ["pp"]),
        helper.make_node("Concat", ["q", "pp"], ["c"], axis=2),
        helper.make_node("Softmax", ["c"], ["y"], axis=1),
    ]
    model = save(tmp_path, "rows", nodes, {"x": [1, 4, 8, 8]}, {"y": [1, 4, 8, 8]})
    assert set(_plan(model, scratchpad=4096).graph.joins) == {"p", "q", "c"}
    assert not _plan(model, scratchpad=4096, pieces=1).graph.joins
    assert set(_plan(model, scratchpad=4096, pieces=2).graph.joins) == {"p", "q", "c"}


def test_unaligned_neighbours_are_copied(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Tanh", ["x"], ["b"]),
        helper.make_node("Concat", ["a", "b"], ["c"], axis=1),
        helper.make_node("Softmax", ["c"], ["y"], axis=1),
    ]
    model = save(tmp_path, "odd", nodes, {"x": [1, 3, 3, 3]}, {"y": [1, 6, 3, 3]})
    assert not _plan(model, scratchpad=1024, pieces=1).graph.joins
    assert set(_plan(model, scratchpad=1024, pieces=1, alignment=4).graph.joins) == {"c"}
    assert set(_plan(model, scratchpad=1024).graph.joins) == {"c"}


def test_homes_are_numbered(tmp_path: Path) -> None:
    loaded = cosma.load_onnx(dense_block(tmp_path))
    graph = join_copies(loaded.graph, loaded.sites).graph
    problem = build_problem(graph, cosma.Accelerator(scratchpad=4096, zero_copy=True, pieces=1))
    places = {problem.tensor_names[t]: place for t, place in problem.homes.items()}
    assert places == {"a0": (0, 0), "a1": (0, 1024), "a2": (0, 1280), "a3": (0, 1536)}
    assert not build_problem(graph, cosma.Accelerator(scratchpad=4096, zero_copy=True)).homes


@pytest.mark.parametrize("pieces", [None, 1])
def test_stationary_operands(tmp_path: Path, pieces: int | None) -> None:
    """Modes speak of operands that lie in pieces as of whole ones, and the judge holds them to it."""
    model = dense_block(tmp_path)
    for scratchpad in (2048, 2304, 3072):
        settings = {"scratchpad": scratchpad, "operands": "stationary", "fusion": "epilogue", "pieces": pieces}
        copying = _plan(model, zero_copy=False, **settings)
        plan = _plan(model, **settings)
        assert plan.graph.joins
        assert plan.traffic.total <= copying.traffic.total
        _check(plan, model)
    record = record_of(plan)
    reader = next(o for o in record["operators"] if o.get("joined") == ["c2"])
    assert reader["type"] == "ReduceMean+Tanh"
    record["operators"][record["operators"].index(reader)] = reader | {
        "mode": "wrong", "may_stream": ["a0", "a1", "a2"], "workspace": 0,
    }  # fmt: skip
    assert "mode-forbidden" in verdicts(record, model)


def test_a_join_is_explained_and_exported(tmp_path: Path) -> None:
    from cosma.export import c_header
    from cosma.report.explain import explain_tiled

    plan = _plan(dense_block(tmp_path), scratchpad=1024)
    story = explain_tiled(plan, "c2")
    assert story is not None
    assert [part for part, _, _ in story.parts] == ["a0", "a1", "a2"]
    header = c_header(plan)
    assert header.count('"c2"') == 1 + len(plan.graph.joins["c2"].pieces)


def test_views_with_other_axes_of_size_one(tmp_path: Path) -> None:
    """A projection is seen with a batch before it is split; a step is gathered by a scalar, which drops its axis."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Unsqueeze", ["a", "front"], ["b"]),
        helper.make_node("Split", ["b", "sizes"], ["p", "q", "r"], axis=2),
        helper.make_node("Tanh", ["p"], ["u"]),
        helper.make_node("Softmax", ["q"], ["v"], axis=-1),
        helper.make_node("Squeeze", ["second", "front"], ["row"]),
        helper.make_node("Gather", ["r", "row"], ["s"], axis=1),
        helper.make_node("Abs", ["s"], ["w"]),
    ]
    constants = {"front": [0], "sizes": [4, 4, 8], "second": [1]}
    model = save(
        tmp_path, "views", nodes, {"x": [4, 16]}, {"u": [1, 4, 4], "v": [1, 4, 4], "w": [1, 8]}, constants
    )
    plan = _plan(model, scratchpad=1024)
    assert set(plan.graph.joins) == {"p", "q", "r", "s"}
    assert plan.graph.joins["s"].tensors == ("a[1, 8:16]",)
    _check(plan, model)


def test_rows_that_a_gather_mixes_are_copied(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Gather", ["a", "rows"], ["b"], axis=0),
        helper.make_node("Tanh", ["b"], ["y"]),
    ]
    for rows, joins in (([1, 2], True), ([2, 1], False), ([-2, -1], True), ([0, 2], False)):
        model = save(tmp_path, "rows", nodes, {"x": [4, 16]}, {"y": [2, 16]}, {"rows": rows})
        loaded = cosma.load_onnx(model)
        assert ("b" in join_copies(loaded.graph, loaded.sites).graph.joins) is joins


@pytest.mark.parametrize("tiling", ["auto", "rows=2"])
@pytest.mark.parametrize("pieces", [None, 1])
def test_beside_tiles(tmp_path: Path, tiling: str, pieces: int | None) -> None:
    """Tiles read pieces where operands may be in any number of ranges; else a plan has tiles or joins."""
    both = 0
    for model in (dense_block(tmp_path), shuffle(tmp_path)):
        for scratchpad in (512, 1024):
            accelerator = cosma.Accelerator(scratchpad=scratchpad, zero_copy=True, pieces=pieces)
            plan = run_compile(model, accelerator, limits=LITTLE, tiling=tiling).plan
            tiles = any(o.tile is not None for o in plan.graph.operators)
            both += bool(plan.graph.joins) and tiles
            _check(plan, model)
            copies = accelerator.replace(zero_copy=False)
            try:
                copying = run_compile(model, copies, limits=LITTLE, tiling=tiling).plan
            except cosma.InfeasibleError:
                continue
            assert plan.traffic.total <= copying.traffic.total
    assert bool(both) is (pieces is None)


def test_the_planner_chooses_pieces_for_tiles_alone(tmp_path: Path) -> None:
    """Unless it is said, a plan without tiles copies, and so does one of tiles that were given."""
    model = dense_block(tmp_path)
    joins = {
        (zero_copy, tiling): bool(
            run_compile(
                model, cosma.Accelerator(scratchpad=640, zero_copy=zero_copy), limits=LITTLE, tiling=tiling
            ).plan.graph.joins
        )
        for zero_copy in (None, True, False) for tiling in ("none", "rows=2", "auto")
    }  # fmt: skip
    assert {key for key, found in joins.items() if found} == {
        (None, "auto"), (True, "none"), (True, "rows=2"), (True, "auto")
    }  # fmt: skip


def test_joins_without_tiles_must_be_asked_for(tmp_path: Path) -> None:
    """By a plan's own accelerator: what it does not say is that Concats of tiles alone may be left out."""
    model = dense_block(tmp_path)
    whole = record_of(_plan(model, scratchpad=4096))
    tiled = record_of(run_compile(model, cosma.Accelerator(scratchpad=640), limits=LITTLE, tiling="auto").plan)
    assert "zero_copy" not in tiled["accelerator"]
    assert any("pieces" in root for root in tiled["roots"])
    for record, zero_copy, wrong in (
        (whole, True, False), (whole, None, True), (whole, False, True),
        (tiled, True, False), (tiled, None, False), (tiled, False, True),
    ):  # fmt: skip
        record["accelerator"].pop("zero_copy", None)
        if zero_copy is not None:
            record["accelerator"]["zero_copy"] = zero_copy
        assert ("zero-copy-forbidden" in verdicts(record, model)) is wrong


def test_tilings_name_operators_that_copy_nothing(tmp_path: Path) -> None:
    """What a tiling says of a Concat counts where that is an operator."""
    model = dense_block(tmp_path)
    file = tmp_path / "cuts.toml"
    file.write_text('[[cut]]\noperator = "*"\naxis = 2\ntiles = 4\n')
    accelerator = cosma.Accelerator(scratchpad=640, zero_copy=True)
    plan = run_compile(model, accelerator, limits=LITTLE, tiling=file).plan
    assert plan.graph.joins
    assert all(o.type != "Concat" for o in plan.graph.operators)
    _check(plan, model)


def test_a_plan_of_pieces_in_tiles_is_one_to_start_from(tmp_path: Path) -> None:
    model = dense_block(tmp_path)
    first = run_compile(model, cosma.Accelerator(scratchpad=512), limits=LITTLE, tiling="auto").plan
    assert first.graph.joins
    again = run_compile(model, cosma.Accelerator(scratchpad=576), limits=LITTLE, tiling="auto", starts=[first]).plan
    assert again.traffic.total <= first.traffic.total
    _check(again, model)


def test_constraints_keep_tiles_copying(tmp_path: Path) -> None:
    """They name tensors by where these lie, which pieces of pieces do not have names for."""
    model = dense_block(tmp_path)
    constraints = cosma.Constraints(resident=("a0",))
    plan = run_compile(
        model, cosma.Accelerator(scratchpad=2048, constraints=constraints), limits=LITTLE, tiling="stripes=2"
    ).plan
    assert not plan.graph.joins
    _check(plan, model)
