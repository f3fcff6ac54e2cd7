"""Zero-copy under constraints: what they name keeps its place, and everything else need not be copied."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from onnx import helper

import cosma
from cosma.compiler import Limits, run_compile
from cosma.compiler.tilings import tiling_choices
from cosma.errors import CosmaWarning, InfeasibleError
from cosma.execute import run_plan
from cosma.plan.file import plan_from_json, plan_to_json
from cosma.rewrite.constraints import expand, resolve
from tests.brute_force import TooLargeError
from tests.constraints.brute import brute_force_forced
from tests.onnx_files import save_network
from tests.zero_copy.models import dense_block, random_model, shuffle

LITTLE = Limits(effort=0.02)
KINDS = (
    "excluded", "addresses", "alignments", "resident", "never_on_chip", "workspaces", "before", "in_place_forbidden",
    "in_place_permitted_types",
)  # fmt: skip


def _compile(model: Path, forced: cosma.Constraints | None, *, effort: float = 0.02, **settings: Any) -> cosma.Plan:
    accelerator = cosma.Accelerator(**({"zero_copy": True} | settings))
    return run_compile(model, accelerator, limits=Limits(effort=effort), constraints=forced).plan


def _check(plan: cosma.Plan, model: Path, forced: cosma.Constraints) -> None:
    """Valid by the constraints as they were given, the same again from its text, and equal when executed."""
    graph = cosma.load_onnx(model).graph
    report = cosma.replay(plan, graph, model=model)
    assert report.valid, report.lines()
    assert set(resolve(expand(forced, graph, plan.accelerator), plan.graph).entries) <= set(
        plan.accelerator.constraints.entries
    )
    again = plan_from_json(plan_to_json(plan))
    assert plan_to_json(again) == plan_to_json(plan)
    assert run_plan(again, model).passed


@pytest.mark.parametrize(
    "forced",
    [
        {"excluded": [(0, 256), (2048, 2304)]},
        {"workspaces": {"Tanh_a1": 100}},
        {"resident": ["a0"]},
        {"alignments": {"a?": 128}},
        {"before": [("ReduceMean_m0", "Tanh_a1")]},
        {"in_place_forbidden_types": ["Tanh"]},
    ],
)
@pytest.mark.parametrize("pieces", [None, 1])
def test_constraints_do_not_bring_copies_back(tmp_path: Path, forced: dict[str, Any], pieces: int | None) -> None:
    model = dense_block(tmp_path)
    constraints = cosma.Constraints(**forced)
    plan = _compile(model, constraints, scratchpad=3840, operands="resident", pieces=pieces)
    settles = {"resident", "alignments"} & forced.keys()
    if not (settles and pieces):
        assert set(plan.graph.joins) == {"c1", "c2", "c3", "y"}
    _check(plan, model, constraints)


@pytest.mark.parametrize(
    ("forced", "copied"),
    [
        ({"addresses": {"c2": 0}}, "c2"),
        ({"workspaces": {"Concat_c2": 64}}, "c2"),
        ({"before": [("Concat_c1", "Concat_c2")]}, "c2"),
        ({"in_place_forbidden": [("c2", "a0")]}, "c2"),
    ],
)
def test_what_is_to_lie_or_run_somewhere_is_copied(tmp_path: Path, forced: dict[str, Any], copied: str) -> None:
    model = dense_block(tmp_path)
    constraints = cosma.Constraints(**forced)
    plan = _compile(model, constraints, scratchpad=8192)
    assert copied in plan.graph.tensors
    assert {"c3", "y"} <= set(plan.graph.joins)
    _check(plan, model, constraints)


def test_pieces_take_over_what_is_asked_of_the_whole(tmp_path: Path) -> None:
    model = dense_block(tmp_path)
    constraints = cosma.Constraints(alignments={"c2": 128, "a0": 96}, never_on_chip=["c3"], resident=["x"])
    plan = _compile(model, constraints, scratchpad=3072)
    joins = {name: join.tensors for name, join in plan.graph.joins.items()}
    if joins:
        kept = plan.accelerator.constraints
        assert dict(kept.alignments) == {"a0": 384, "a1": 128, "a2": 128}
        assert set(kept.never_on_chip) == set(joins["c3"])
    _check(plan, model, constraints)


def test_a_plan_made_without_constraints_is_judged_by_them(tmp_path: Path) -> None:
    """What is asked of a join is asked of its pieces, where these lie in it."""
    plan = _compile(dense_block(tmp_path), None, scratchpad=4096)
    assert "c2" in plan.graph.joins
    asked = resolve(cosma.Constraints(addresses={"c2": 512}, in_place_forbidden=[("m2", "c2")]), plan.graph)
    assert dict(asked.addresses) == {"a0": 512, "a1": 1536, "a2": 1792}
    assert asked.in_place_forbidden == (("m2", "a0"), ("m2", "a1"), ("m2", "a2"))
    both = cosma.Constraints(addresses={"c2": 512, "c3": 0})
    with pytest.raises(cosma.ConstraintError, match=r"'a0' is to lie at 512, and as a part of 'c3' at 0"):
        resolve(both, plan.graph)


def test_what_existing_methods_leave_out_is_said(tmp_path: Path) -> None:
    model = dense_block(tmp_path)
    accelerator = cosma.Accelerator(scratchpad=8192, zero_copy=True)
    for strategy in ("e1", "existing"):
        with pytest.warns(CosmaWarning, match="zero-copy is left out"):
            plan = run_compile(model, accelerator, strategy=strategy).plan
        assert not plan.graph.joins
    plan = run_compile(model, accelerator, strategy="depth-first+belady+best-fit").plan
    assert plan.graph.joins
    assert cosma.replay(plan, model=model).valid


def test_the_smallest_scratchpad_is_that_without_copies(tmp_path: Path) -> None:
    model = dense_block(tmp_path)
    with pytest.raises(InfeasibleError) as refused:
        _compile(model, None, scratchpad=1024, operands="resident")
    least = refused.value.smallest_capacity_bytes
    assert least is not None
    assert {str(remedy) for remedy in refused.value.remedies} >= {f"scratchpad = {least}"}
    assert _compile(model, None, scratchpad=least, operands="resident").graph.joins
    with pytest.raises(InfeasibleError) as refused:
        _compile(model, None, scratchpad=least, operands="resident", zero_copy=False)
    assert "zero_copy = true" in {str(remedy) for remedy in refused.value.remedies}


def _draw(rng: random.Random, graph: cosma.Graph, capacity: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    tensors = [t.name for t in graph.tensors.values() if t.kind != "weight"]
    names = [o.name for o in graph.operators]
    for kind in rng.sample(KINDS, rng.randint(1, 3)):
        name, operator = rng.choice(tensors), rng.choice(graph.operators)
        match kind:
            case "excluded":
                start = rng.randrange(0, capacity // 2, 64)
                found[kind] = [(start, start + 64)]
            case "addresses":
                found[kind] = {name: rng.randrange(0, 256, 64)}
            case "alignments":
                found[kind] = {name: rng.choice([128, 192])}
            case "workspaces":
                found[kind] = {operator.name: 100}
            case "before":
                first, second = sorted(rng.sample(range(len(names)), 2)) if len(names) > 1 else (0, 0)
                found[kind] = [(names[first], names[second])] if first != second else []
            case "in_place_forbidden":
                found[kind] = [(operator.outputs[0], operator.inputs[0])]
            case "in_place_permitted_types":
                found[kind] = [operator.type]
            case _:
                found[kind] = [name]
    return found


@pytest.mark.parametrize("pieces", [None, 1])
@pytest.mark.filterwarnings("ignore:everything is streamed")
def test_random_models_under_random_constraints(tmp_path: Path, pieces: int | None) -> None:
    """Never worse than copying, valid, executed; and no bound above the best plan of the graph that was planned."""
    joined = compared = 0
    for seed in range(36):
        made = random_model(tmp_path, seed, views=seed % 2 == 1)
        if made is None:
            continue
        model, total = made
        rng = random.Random(seed)
        capacity = max(256, int(total * rng.choice([0.4, 0.6, 1.0])) // 64 * 64)
        graph = cosma.load_onnx(model).graph
        forced = cosma.Constraints(**_draw(rng, graph, capacity))
        operands = rng.choice(["streamable", "resident", "stationary"])
        settings = {"scratchpad": capacity, "operands": operands}
        plans = []
        for zero_copy in (True, False):
            try:
                plans.append(_compile(model, forced, zero_copy=zero_copy, pieces=pieces, **settings))
            except InfeasibleError:
                plans.append(None)
        plan, copying = plans
        if plan is None:
            assert copying is None, f"seed {seed}: only the plan that copies exists"
            continue
        _check(plan, model, forced)
        assert copying is None or plan.traffic.total <= copying.traffic.total, f"seed {seed}"
        joined += bool(plan.graph.joins)
        if pieces is None and operands != "stationary" and len(plan.graph.operators) <= 5:
            try:
                best = brute_force_forced(
                    plan.graph, plan.accelerator, plan.accelerator.constraints, most_states=4000
                ).noncompulsory_bytes
            except TooLargeError:
                continue
            assert best is not None
            assert plan.certificate.lower_bound <= best <= plan.traffic.noncompulsory, f"seed {seed}"
            compared += 1
    assert joined >= 5
    assert compared >= 3 or pieces is not None


def test_shuffled_channels_keep_to_a_place(tmp_path: Path) -> None:
    model = shuffle(tmp_path)
    for forced in ({"addresses": {"e": 0}}, {"addresses": {"z": 64}}, {"addresses": {"q": 128}, "resident": ["e"]}):
        constraints = cosma.Constraints(**forced)
        plan = _compile(model, constraints, scratchpad=8192)
        _check(plan, model, constraints)


@pytest.mark.parametrize(
    ("forced", "copied"),
    [
        ({"excluded": [(256, 512)], "workspaces": {"Tanh_*": 64}}, set()),
        ({"alignments": {"c2": 128}}, set()),
        ({"before": [("ReduceMean_m0", "Concat_c1")]}, {"c1"}),
        ({"in_place_forbidden": [("c2", "a0")]}, {"c2"}),
    ],
)
def test_tiles_that_were_asked_for_read_pieces_under_constraints(
    tmp_path: Path, forced: dict[str, Any], copied: set[str]
) -> None:
    """Tiles are tiles as asked for, move no more than those that copy, and keep to what is asked of the whole."""
    model = dense_block(tmp_path)
    loaded = cosma.load_onnx(model)
    constraints = cosma.Constraints(**forced)
    accelerator = cosma.Accelerator(scratchpad=1024, zero_copy=True)
    forced_there = accelerator.replace(constraints=expand(constraints, loaded.graph, accelerator))
    choices = tiling_choices(loaded, loaded.graph, forced_there, "rows=4")
    assert [set(choice.graph.joins) for choice in choices if choice.graph.joins] == [{"c1", "c2", "c3", "y"} - copied]
    plans = [
        run_compile(
            loaded, accelerator.replace(zero_copy=zero_copy), limits=LITTLE, tiling="rows=4", constraints=constraints
        ).plan
        for zero_copy in (True, False)
    ]
    assert all(any(operator.tile is not None for operator in plan.graph.operators) for plan in plans)
    assert plans[0].traffic.total <= plans[1].traffic.total
    _check(plans[0], model, constraints)


def test_pieces_give_way_to_the_constraints_alone_that_settle_them(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "u"], ["a"]),
        helper.make_node("MatMul", ["v", "a"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["y"]),
    ]
    weights = {"u": (12, 16), "v": (8, 8), "w": (16, 12)}
    model = save_network(tmp_path / "pieces.onnx", nodes, {"x": (8, 12)}, weights)
    # Each tile of the second product reads all tiles of the first, in many address ranges unless they lie side by side.
    settings: dict[str, Any] = {"scratchpad": 4096, "alignment": 4, "pieces": 1, "weights": "scratchpad"}

    def made(**forced: Any) -> cosma.Plan:
        accelerator = cosma.Accelerator(zero_copy=True, **settings)
        found = cosma.compile(model, accelerator, tiling="rows=2", effort=0.02, constraints=cosma.Constraints(**forced))
        assert cosma.replay(found, cosma.load_onnx(model).graph, model=model).valid
        return found

    free = made()
    assert free.traffic.noncompulsory == 0
    # What every plan keeps, and what concerns no piece, leaves all as it is.
    assert made(alignments={"x": 1}).traffic == free.traffic
    assert made(resident=["y"]).traffic.noncompulsory == 0
    with pytest.raises(InfeasibleError, match="not planned under this constraint: alignment 8 of 'x'"):
        made(alignments={"x": 8})
