"""Tiles along every kind of axis, each changed in every way there is: the judge names what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cosma
from cosma.graph import Accumulation, Graph, Operator, Region
from cosma.plan import Plan
from cosma.rewrite.tiling import REDUCED, Tiling
from tests.execute.networks import Maker
from tests.validator.test_tiles import changed, verdicts


def maps(path: Path) -> Path:
    """Two images: a plain convolution, a depthwise one and a pointwise one."""
    m = Maker()
    m.add("Conv", ["x", m.weight("w1", 8, 6, 3, 3), m.weight("b1", 8)], "a", pads=[1, 1, 1, 1])
    m.add("Conv", ["a", m.weight("w2", 8, 1, 3, 3), m.weight("b2", 8)], "b", pads=[1, 1, 1, 1], group=8)
    m.add("Conv", ["b", m.weight("w3", 12, 8, 1, 1), m.weight("b3", 12)], "y")
    return m.save(path, {"x": (2, 6, 8, 8)}, ["y"])


def attention(path: Path) -> Path:
    """Heads through Reshape and Transpose, as exporters write them."""
    m = Maker(1)
    heads = m.constant("heads", np.array([0, 0, 4, 8]))
    for name, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        m.add("MatMul", ["x", m.weight(f"w{name}", 32, 32)], f"{name}1")
        m.add("Reshape", [f"{name}1", heads], f"{name}2")
        m.add("Transpose", [f"{name}2"], name, perm=order)
    m.add("MatMul", ["q", "k"], "scores")
    m.add("Softmax", ["scores"], "shares", axis=-1)
    m.add("MatMul", ["shares", "v"], "mixed")
    m.add("Transpose", ["mixed"], "back", perm=[0, 2, 1, 3])
    m.add("Reshape", ["back", m.constant("flat", np.array([0, 0, 32]))], "joined")
    m.add("MatMul", ["joined", m.weight("wo", 32, 32)], "y")
    return m.save(path, {"x": (2, 12, 32)}, ["y"])


#: Axis that is cut, and at which positions, by a part of the names of operators.
AXES: dict[str, tuple[Callable[[Path], Path], dict[str, tuple[int, tuple[int, ...]]]]] = {
    "rows": (maps, {"n_a": (2, (3, 5)), "n_b": (2, (2, 5)), "n_y": (2, (4,))}),
    "columns": (maps, {"n_a": (3, (3, 5)), "n_b": (3, (2, 5)), "n_y": (3, (4,))}),
    "channels": (maps, {"n_a": (1, (3, 5)), "n_b": (1, (3, 5)), "n_y": (1, (4, 8))}),
    "batch": (maps, {"n_a": (0, (1,)), "n_b": (0, (1,)), "n_y": (0, (1,))}),
    "heads": (attention, {"n_q1": (2, (8, 16)), "n_k1": (2, (8, 16)), "n_v1": (2, (8, 16)), "n_scores": (1, (1, 2)),
                          "n_shares": (1, (1, 2)), "n_mixed": (1, (1, 2))}),
    "tokens": (attention, {"n_q1": (1, (4, 8)), "n_scores": (2, (4, 8)), "n_shares": (2, (4, 8)),
                           "n_mixed": (2, (4, 8)), "n_y": (1, (4,))}),
    "sequences": (attention, {"n_q1": (0, (1,)), "n_scores": (0, (1,)), "n_mixed": (0, (1,)), "n_y": (0, (1,))}),
}  # fmt: skip


@pytest.fixture(scope="module", params=AXES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan, dict[str, int]]:
    network, asked = AXES[request.param]
    path = network(tmp_path_factory.mktemp("cut") / "net.onnx")
    loaded = cosma.load_onnx(path)
    tiling = Tiling({
        name: tuple(at if i == axis else () for i in range(len(loaded.graph.tensors[name[2:]].shape or ())))
        for name, (axis, at) in asked.items()
    })  # fmt: skip
    accelerator = cosma.Accelerator(scratchpad="64KiB", weights="scratchpad", operands="resident")
    plan = cosma.compile(loaded, accelerator, strategy="e2", tiling=tiling)
    assert verdicts(plan, path) == set()
    return path, plan, {name: axis for name, (axis, _) in asked.items()}


def groups(plan: Plan) -> dict[str, list[Operator]]:
    """Tiles of each operator that is cut, in the order of their regions."""
    found: dict[str, list[Operator]] = {}
    for one in plan.graph.operators:
        if one.tile is not None:
            found.setdefault(one.tile.root, []).append(one)
    return {name: sorted(tiles, key=lambda t: t.tile.start) for name, tiles in found.items()}


def put(plan: Plan, old: Operator, new: Operator) -> Plan:
    return changed(plan, lambda o: new if o is old else o)


def test_a_tile_twice_or_in_another_place_is_refused(case: tuple[Path, Plan, dict[str, int]]) -> None:
    path, plan, axes = case
    assert len(groups(plan)) == len(axes)
    for name, (one, other, *_) in groups(plan).items():
        assert one.tile is not None
        assert "tiles-wrong" in verdicts(put(plan, one, replace(one, tile=other.tile)), path)
        start, stop = list(one.tile.start), list(one.tile.stop)
        stop[axes[name]] -= 1 if stop[axes[name]] - start[axes[name]] > 1 else -1
        assert "tiles-wrong" in verdicts(put(plan, one, replace(one, tile=Region(name, start, stop))), path)


def test_extents_that_cannot_be_are_refused_before_anything_is_laid_out_by_them(
    case: tuple[Path, Plan, dict[str, int]],
) -> None:
    """A tile or a root of 2**40 rows: no memory is taken for it, with the file of the model or without."""
    path, plan, axes = case
    for name, tiles in groups(plan).items():
        assert tiles[-1].tile is not None
        stop = list(tiles[-1].tile.stop)
        stop[axes[name]] = 2**40
        wrong = put(plan, tiles[-1], replace(tiles[-1], tile=Region(name, tiles[-1].tile.start, stop)))
        assert "tiles-wrong" in verdicts(wrong, path)
        assert "tiles-wrong" in {v.verdict.value for v in cosma.replay(wrong).violations}
    for name, root in plan.graph.roots.items():
        huge = replace(root, shape=(2**40, *(root.shape or ())[1:]))
        graph = plan.graph
        roots = [huge if one.name == name else one for one in graph.roots.values()]
        made = replace(plan, graph=Graph(graph.tensors.values(), graph.operators, graph.name, roots))
        assert "part-size" in verdicts(made, path)
        assert "part-size" in {v.verdict.value for v in cosma.replay(made).violations}


def test_a_tile_that_reads_what_another_does_is_refused(case: tuple[Path, Plan, dict[str, int]]) -> None:
    path, plan, _ = case
    tried = 0
    for one, other, *_ in groups(plan).values():
        for field in ("inputs", "weights"):
            if getattr(one, field) != getattr(other, field):
                wrong = put(plan, one, replace(one, **{field: getattr(other, field)}))
                assert "region-unread" in verdicts(wrong, path), (one.name, field)
                tried += 1
    assert tried >= len(groups(plan)) / 2


def test_a_tile_that_reads_a_part_less_is_refused(case: tuple[Path, Plan, dict[str, int]]) -> None:
    path, plan, _ = case
    for tiles in groups(plan).values():
        for one in tiles:
            for gone in one.operands:
                less = replace(
                    one, inputs=tuple(n for n in one.inputs if n != gone),
                    weights=tuple(n for n in one.weights if n != gone),
                )  # fmt: skip
                found = verdicts(put(plan, one, less), path)
                elsewhere = any(gone in t.operands for t in tiles if t is not one)
                part = plan.graph.tensors[gone].region is not None
                expected = {"region-unread"} if elsewhere or part else {"region-unread", "model-mismatch"}
                assert found & expected, (one.name, gone, found)


def test_a_tile_left_out_is_refused(case: tuple[Path, Plan, dict[str, int]]) -> None:
    path, plan, _ = case
    for one, other, *_ in groups(plan).values():
        both = replace(other, outputs=(*other.outputs, *one.outputs))
        kept = [both if o is other else o for o in plan.graph.operators if o is not one]
        graph = Graph(plan.graph.tensors.values(), kept, plan.graph.name, plan.graph.roots.values())
        assert "tiles-wrong" in verdicts(replace(plan, graph=graph), path)


def test_parts_that_have_changed_places_are_refused(case: tuple[Path, Plan, dict[str, int]]) -> None:
    path, plan, _ = case
    tried = 0
    for root in plan.graph.roots.values():
        parts = [t for t in plan.graph.tensors.values() if t.region is not None and t.region.root == root.name]
        pair = next(((a, b) for i, a in enumerate(parts) for b in parts[i + 1 :] if a.shape == b.shape), None)
        if pair is not None:
            regions = {pair[0].name: pair[1].region, pair[1].name: pair[0].region}
            wrong = changed(plan, tensor=lambda t, r=regions: replace(t, region=r.get(t.name, t.region)))
            assert verdicts(wrong, path) & {"region-unread", "tiles-wrong"}, root.name
            tried += 1
    assert tried


# -- partial sums ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    path = maps(tmp_path_factory.mktemp("sums") / "net.onnx")
    tiling = Tiling(
        {"n_a": ((), (4,), (), ()), "n_y": ((1,), (), (), ())}, sums={"n_a": (2, 4), "n_y": (3, 6)},
        loops={"n_y": (0, REDUCED, 1, 2, 3)},
    )  # fmt: skip
    accelerator = cosma.Accelerator(scratchpad="64KiB", weights="scratchpad", operands="resident")
    plan = cosma.compile(cosma.load_onnx(path), accelerator, strategy="e2", tiling=tiling)
    assert verdicts(plan, path) == set()
    return path, plan


def chains(plan: Plan) -> list[list[Operator]]:
    """Steps over each region in the order that they add, which may go through the axis backwards."""
    found: dict[Region, list[Operator]] = {}
    for one in plan.graph.operators:
        if one.accumulation is not None and one.tile is not None:
            steps = found.setdefault(one.tile, [])
            assert one.accumulation.sums == (steps[-1].outputs if steps else ())
            steps.append(one)
    return list(found.values())


def summing(step: Operator, start: int, stop: int, before: tuple[str, ...]) -> Operator:
    """The step over another interval, or adding to something else."""
    assert step.accumulation is not None
    inputs = tuple(n for n in step.inputs if n not in step.accumulation.sums)
    return replace(step, inputs=(*inputs, *before), accumulation=Accumulation(start, stop, before))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("adds to nothing", "tiles-wrong"), ("adds to the first again", "tiles-wrong"),
        ("interval of the step before", "tiles-wrong"), ("interval too long", "tiles-wrong"),
        ("interval too short", "tiles-wrong"), ("beyond the axis", "tiles-wrong"),
        ("operands of the step before", "region-unread"), ("a chain of another region", "tiles-wrong"),
        ("two steps over one interval", "tiles-wrong"),
    ],
)  # fmt: skip
def test_sums_that_are_no_chain_are_refused(sums: tuple[Path, Plan], change: str, expected: str) -> None:
    path, plan = sums
    assert len(chains(plan)) == 4
    for i, (first, second, third) in enumerate(chains(plan)):
        spans = [(s.accumulation.start, s.accumulation.stop) for s in (first, second, third)]
        if change == "adds to nothing":
            wrong = put(plan, third, summing(third, *spans[2], ()))
        elif change == "adds to the first again":
            wrong = put(plan, third, summing(third, *spans[2], first.outputs))
        elif change == "interval of the step before":
            wrong = put(plan, third, summing(third, *spans[1], second.outputs))
        elif change == "interval too long":
            wrong = put(plan, second, summing(second, spans[1][0], spans[1][1] + 1, first.outputs))
        elif change == "interval too short":
            wrong = put(plan, second, summing(second, spans[1][0], spans[1][1] - 1, first.outputs))
        elif change == "beyond the axis":
            last = max((first, second, third), key=lambda s: s.accumulation.stop)
            start, stop = last.accumulation.start, last.accumulation.stop
            wrong = put(plan, last, summing(last, start, stop + 1, last.accumulation.sums))
        elif change == "operands of the step before":
            swapped = replace(
                third, weights=second.weights,
                inputs=(*(n for n in second.inputs if n not in first.outputs), *second.outputs),
            )  # fmt: skip
            wrong = put(plan, third, swapped)
        elif change == "a chain of another region":
            other = next(c for k, c in enumerate(chains(plan)) if k != i and c[0].tile.root == first.tile.root)
            wrong = put(plan, third, summing(third, *spans[2], other[1].outputs))
        else:
            wrong = changed(
                plan,
                lambda o, f=first, s=second, spans=spans: summing(f, *spans[1], ()) if o is f
                else summing(s, *spans[1], f.outputs) if o is s else o,
            )  # fmt: skip
        assert expected in verdicts(wrong, path), first.name


def test_steps_over_a_part_of_a_whole_result_are_refused(tmp_path: Path) -> None:
    """They write all of it, and read what one row needs."""
    m = Maker()
    m.add("Softmax", ["a"], "x", axis=-1)
    m.add("MatMul", ["x", m.weight("w", 8, 6)], "y")
    path = m.save(tmp_path / "net.onnx", {"a": (4, 8)}, ["y"])
    accelerator = cosma.Accelerator(scratchpad="4KiB", weights="scratchpad", operands="resident")
    tiling = Tiling({"n_x": ((1, 2, 3), ())}, sums={"n_y": (4,)})
    plan = cosma.compile(path, accelerator, strategy="e2", tiling=tiling, effort=0)
    assert verdicts(plan, path) == set()
    first = {t.name for t in plan.graph.tensors.values() if t.region is None or t.region.start[0] == 0}

    def of_a_row(one: Operator) -> Operator:
        if one.accumulation is None or one.tile is None:
            return one
        row = Region(one.tile.root, one.tile.start, (1, *one.tile.stop[1:]))
        return replace(one, tile=row, inputs=tuple(name for name in one.inputs if name in first))

    assert "tiles-wrong" in verdicts(changed(plan, of_a_row), path)
