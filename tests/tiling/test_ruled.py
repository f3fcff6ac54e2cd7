"""Which operators a rule cuts, and whose tiles take turns."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

import cosma
from cosma.clock import Clock, never
from cosma.compiler.compile import run_compile
from cosma.compiler.fusion import fusion_choices
from cosma.compiler.limits import Limits, Progress, TilingWork, tiling_search
from cosma.compiler.modes import fitting_modes
from cosma.compiler.ruled import RuledTiling
from cosma.compiler.tilings import _cut_as_given
from cosma.compiler.turns import Turns, runs_of
from cosma.evaluation.evaluate import cost_bytes, new_tape
from cosma.evaluation.network import build_network
from cosma.frontend import LoadedModel
from cosma.problem import build_problem, noncompulsory_bytes
from cosma.rewrite.tile import tile
from cosma.tiling.given import parse_rule, rule_tiling
from cosma.validator import replay_instructions
from tests.execute.networks import Maker
from tests.onnx_files import save_network

MACHINE = cosma.Accelerator(scratchpad="24KiB", weights="scratchpad", operands="stationary", fusion="epilogue")


@pytest.fixture
def narrowing(tmp_path: Path) -> Path:
    """Large maps and light weights first, small maps and heavy weights last."""
    m = Maker()
    value = "x"
    for i, (outputs, inputs, stride) in enumerate([(8, 8, 1), (8, 8, 1), (32, 8, 4), (64, 32, 2), (64, 64, 1)]):
        weight = m.weight(f"w{i}", outputs, inputs, 3, 3)
        m.add("Conv", [value, weight], f"c{i}", pads=[1] * 4, strides=[stride] * 2)
        m.add("Relu", [f"c{i}"], f"r{i}")
        value = f"r{i}"
    return m.save(tmp_path / "narrowing.onnx", {"x": (1, 8, 64, 64)}, [value])


def search(path: Path, machine: cosma.Accelerator, rule: str, **limits: Any) -> tuple[LoadedModel, RuledTiling]:
    loaded = cosma.load_onnx(path)
    graph = loaded.graph.with_dtype("int8")
    tiling = rule_tiling(graph, loaded.sites, parse_rule(rule) or {})
    return loaded, RuledTiling(loaded, graph, tiling, machine.replace(fusion="none"), **limits)


@pytest.mark.parametrize("operands", ["stationary", "streamable", "resident"])
def test_an_order_costs_what_the_graph_in_that_order_does(narrowing: Path, operands: str) -> None:
    loaded, ruled = search(narrowing, MACHINE.replace(operands=operands, scratchpad="80KiB"), "rows=4")
    turns = Turns(loaded, ruled.base, ruled.tiling, ruled.accelerator)
    assert turns.fit
    for bounds in (frozenset(), frozenset({2}), frozenset({1, 4, 5}), frozenset(range(1, 10))):
        made = tile(ruled.base, loaded.sites, turns.in_turns(bounds)).graph
        made = fitting_modes(made, ruled.accelerator) if operands == "stationary" else made
        problem = build_problem(made, ruled.accelerator)
        net = build_network(problem, contract=False).network
        cost = cost_bytes(new_tape(net, range(problem.operator_count))) + problem.constant_noncompulsory_bytes
        assert turns.cost(bounds) == cost
        assert [turns.graph.operators[v].name for v in turns.order(bounds)] == [o.name for o in made.operators]


@pytest.mark.parametrize(("operands", "scratchpad"), [("stationary", 44), ("streamable", 28), ("resident", 72)])
def test_plans_along_turns_are_valid_and_move_no_more_than_is_said(
    narrowing: Path, operands: str, scratchpad: int
) -> None:
    machine = MACHINE.replace(operands=operands, scratchpad=scratchpad * 1024)
    loaded, ruled = search(narrowing, machine, "rows=4")
    turns = Turns(loaded, ruled.base, ruled.tiling, ruled.accelerator)
    assert turns.fit
    streaming = 0
    for bounds in (frozenset(), frozenset({2}), frozenset({1, 4, 5}), frozenset(range(1, 10))):
        modes = turns.modes(bounds)
        made = turns.plan(bounds, modes)
        assert made is not None
        graph, realised, free = made
        assert [o.name for o in free.operators] == [o.name for o in graph.operators]
        report = replay_instructions(graph, ruled.accelerator, realised.instructions)
        assert report.valid, report.violations
        problem = build_problem(graph, ruled.accelerator)
        assert report.traffic.noncompulsory == noncompulsory_bytes(problem, realised.decisions)
        said = turns.planned_bytes(bounds, modes)
        assert said is not None
        assert report.traffic.noncompulsory <= said
        streaming += report.traffic.streamed
    assert (streaming > 0) == (operands == "streamable")


def test_tiles_keep_their_turns_where_a_plan_takes_another_order(narrowing: Path) -> None:
    """Planning goes on by both orders: what moves least in one pass need not when planned with care."""
    loaded, ruled = search(narrowing, MACHINE.replace(scratchpad="44KiB"), "rows=4")
    turns = Turns(loaded, ruled.base, ruled.tiling, ruled.accelerator)
    bounds = frozenset({2})
    first, made = (turns.plan(bounds, turns.modes(bounds), effort) for effort in (0.0, 0.2))
    assert first is not None
    assert made is not None
    names = [turns.graph.operators[v].name for v in turns.order(bounds)]
    assert [o.name for o in first[0].operators] == [o.name for o in made[0].operators] == names
    order = made[1].decisions.order
    assert sorted(order) == list(range(len(names))) != list(order)
    moved = [replay_instructions(one[0], ruled.accelerator, one[1].instructions) for one in (first, made)]
    assert all(report.valid for report in moved)
    assert moved[1].traffic.noncompulsory < moved[0].traffic.noncompulsory


def test_runs_are_the_operators_between_bounds(narrowing: Path) -> None:
    graph = cosma.load_onnx(narrowing).graph
    names = [operator.name for operator in graph.operators]
    assert runs_of(graph, frozenset({7, 2})) == (tuple(names[:2]), tuple(names[2:7]), tuple(names[7:]))
    assert runs_of(graph, ()) == (tuple(names),)


def test_heavy_operators_stay_whole_and_the_rest_is_cut(narrowing: Path) -> None:
    """The last convolution has 36 KiB of weights on maps of 4 KiB: stripes would read them twice."""
    plan = cosma.compile(narrowing, MACHINE, dtype="int8", tiling="rows=4", strategy="existing", effort=0.3)
    tiles: dict[str, int] = {}
    for operator in plan.graph.operators:
        weight = plan.graph.tensors[operator.weights[0]]
        tiles[(weight.region.root if weight.region else weight.name)] = tiles.get(weight.name, 0) + 1
    assert tiles == {"w0": 16, "w1": 16, "w2": 4, "w3": 1, "w4": 1}
    loaded = cosma.load_onnx(narrowing)
    every = rule_tiling(plan_base(loaded), loaded.sites, {"rows": 4})
    cut = cosma.compile(narrowing, MACHINE, dtype="int8", tiling=every, strategy="existing", effort=0.3)
    assert plan.traffic.noncompulsory < cut.traffic.noncompulsory


def plan_base(loaded: LoadedModel) -> cosma.Graph:
    from cosma.rewrite.fuse import fuse

    return fuse(loaded.graph.with_dtype("int8")).graph


def test_where_nothing_is_gained_everything_is_cut(narrowing: Path) -> None:
    _, ruled = search(narrowing, MACHINE.replace(scratchpad="4MiB"), "rows=4")
    ruled.run()
    assert ruled.cost_bytes == 0
    assert ruled.best is not None
    assert ruled.best.tiling.cuts == ruled.tiling.cuts


def test_of_the_choices_to_fuse_the_one_that_moves_least_is_cut(narrowing: Path) -> None:
    """Whichever comes first."""
    loaded = cosma.load_onnx(narrowing)
    machine = MACHINE.replace(operands="streamable", scratchpad="8KiB")
    choices = fusion_choices(loaded.graph.with_dtype("int8"), machine.replace(scratchpad=1 << 40))
    rule = parse_rule("rows=4") or {}
    costs = {}
    for choice in choices:
        cut = rule_tiling(choice.graph, loaded.sites, rule)
        ruled = RuledTiling(loaded, choice.graph, cut, machine, effort=0.5)
        ruled.look()
        costs[choice.name] = ruled.cost_bytes
    assert len(set(costs.values())) == len(choices) == 2
    for order in (choices, choices[::-1]):
        found = _cut_as_given(loaded, loaded.graph.with_dtype("int8"), order, rule, machine, TilingWork(granted=0.5))
        assert found is not None
        assert found.name == min(costs, key=lambda name: costs[name])


def test_more_effort_changes_runs_and_never_for_the_worse(narrowing: Path) -> None:
    costs = []
    for effort in (0.0, 0.3, 2.0):
        _, ruled = search(narrowing, MACHINE, "rows=2", effort=effort)
        ruled.run()
        costs.append(ruled.cost_bytes)
    assert costs == sorted(costs, reverse=True)
    _, again = search(narrowing, MACHINE, "rows=2", effort=2.0)
    again.run()
    _, other = search(narrowing, MACHINE, "rows=2", effort=2.0)
    other.run()
    assert again.found == other.found


def test_a_first_plan_is_told_of_before_runs_are_chosen(narrowing: Path) -> None:
    seen: list[Progress] = []
    result = run_compile(
        narrowing, MACHINE, strategy="existing", dtype="int8", tiling="rows=2", limits=Limits(effort=1.0),
        sink=seen.append,
    )  # fmt: skip
    assert seen[0].phase == "tilings"
    assert seen[0].noncompulsory_bytes >= result.plan.traffic.noncompulsory
    assert max(progress.spent for progress in seen) <= 1.0


def test_a_plan_of_the_rule_for_another_size_is_a_start(narrowing: Path) -> None:
    small = cosma.compile(narrowing, MACHINE, dtype="int8", tiling="rows=4", strategy="existing", effort=0.3)
    larger = MACHINE.replace(scratchpad="40KiB")
    given: dict[str, Any] = {"dtype": "int8", "strategy": "existing", "starts": [small], "effort": 0.3}
    plan = cosma.compile(narrowing, larger, tiling="rows=4", **given)
    assert plan.traffic.noncompulsory <= small.traffic.noncompulsory
    with pytest.raises(cosma.CosmaError, match="network"):
        cosma.compile(narrowing, larger, tiling="rows=2", **given)


def test_a_rule_of_too_many_tiles_is_kept_as_it_is(narrowing: Path) -> None:
    _, ruled = search(narrowing, MACHINE, "rows=1", most_tiles=5)
    ruled.run()
    assert ruled.found is None


def test_tiles_lie_in_a_scratchpad_that_holds_no_whole_tensor(tmp_path: Path) -> None:
    m = Maker()
    m.add("Relu", ["x"], "y")
    path = m.save(tmp_path / "large.onnx", {"x": (1, 8, 64, 64)}, ["y"])
    machine = cosma.Accelerator(scratchpad="16KiB", operands="streamable")
    with pytest.warns(cosma.CosmaWarning, match="everything is streamed"):
        cosma.compile(path, machine, dtype="int8", strategy="e2", effort=0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = cosma.compile(path, machine, dtype="int8", strategy="e2", tiling="rows=8", effort=0.3)
    assert plan.traffic.noncompulsory == 0


def test_a_status_says_that_it_is_among_plans_of_whole_operators(narrowing: Path) -> None:
    from dataclasses import replace

    from cosma.cli.tables import plan_tables

    plan = cosma.compile(narrowing, MACHINE.replace(scratchpad="48KiB"), dtype="int8", strategy="e2", effort=0.3)
    assert plan.traffic.noncompulsory > 0
    for moved, said in ((0, False), (plan.traffic.noncompulsory, True)):
        traffic = replace(plan.traffic, compulsory=plan.traffic.total - moved)
        tables = plan_tables(replace(plan, traffic=traffic))
        cells = [cell for column in tables[0].columns for cell in map(str, column.cells)]
        assert any("among plans of whole operators" in cell for cell in cells) == said


def test_what_came_before_planning_counts_against_the_time_limit() -> None:
    search = tiling_search(Limits(time_limit_s=5.0), 0, None, never, time.monotonic() - 3.0)
    left = search.rest(Limits(time_limit_s=5.0)).time_limit_s
    assert left is not None
    assert 1.5 < left < 2.01
    judged = search.rest(Limits(time_limit_s=5.0), 1000).time_limit_s
    assert judged is not None
    assert judged < left - 0.1
    assert not search.clock.stop()
    assert search.clock.stop(1.5)


def test_no_more_choices_of_what_is_cut_are_tried_than_there_is_time_for(narrowing: Path) -> None:
    _, ruled = search(narrowing, MACHINE.replace(scratchpad="40KiB"), "rows=2", clock=Clock(60.0))
    ruled.look()
    assert ruled.made_s > 0
    _, hurried = search(narrowing, MACHINE.replace(scratchpad="40KiB"), "rows=2", clock=Clock(60.0), made_s=100.0)
    hurried.look()
    assert hurried.best is not None
    assert hurried.spent < ruled.spent


@pytest.mark.parametrize("operands", ["stationary", "resident"])
@pytest.mark.parametrize("fusion", ["none", "epilogue"])
def test_what_helps_tiles_that_do_not_fit_is_said_of_the_tiles(narrowing: Path, operands: str, fusion: str) -> None:
    """The scratchpad named is enough for the same tiling, and a byte less is not."""
    loaded = cosma.load_onnx(narrowing)
    machine = MACHINE.replace(operands=operands, fusion=fusion, scratchpad="1MiB")
    graph = fusion_choices(loaded.graph.with_dtype("int8"), machine)[0].graph
    tiling = rule_tiling(graph, loaded.sites, {"rows": 2})

    def plan(scratchpad: int) -> cosma.Plan:
        return cosma.compile(
            narrowing, machine.replace(scratchpad=scratchpad), dtype="int8", tiling=tiling, strategy="e2", effort=0
        )

    with pytest.raises(cosma.InfeasibleError) as caught:
        plan(1024)
    least = caught.value.smallest_capacity_bytes
    assert least is not None
    assert caught.value.remedies[0].value == least
    assert not any(remedy.setting == "fusion" for remedy in caught.value.remedies)
    assert plan(least).graph.is_tiled
    with pytest.raises(cosma.InfeasibleError):
        plan(least - machine.alignment)


def test_the_search_falls_back_on_rules_where_an_operator_cannot_be_cut(tmp_path: Path) -> None:
    """No tiling holds all tensors of the reversal, which has no rule of access and streams."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Relu", ["y"], ["r"]),
        helper.make_node("ReduceMax", ["r"], ["m"], axes=[0], keepdims=1),
        helper.make_node("ReverseSequence", ["v", "lengths"], ["s"], batch_axis=1, time_axis=0),
    ]  # fmt: skip
    weights = {"w": (64, 512), "lengths": np.full(512, 7, np.int64)}
    path = save_network(tmp_path / "reversal.onnx", nodes, {"x": (64, 64), "v": (64, 512)}, weights, ["m", "s"])
    machine = cosma.Accelerator(scratchpad="40KiB", weights="scratchpad")
    moved = {
        tiling: cosma.compile(path, machine, tiling=tiling, effort=0.5).traffic.noncompulsory
        for tiling in ("auto", "none", "channels=64")
    }
    assert moved["auto"] <= moved["channels=64"] < moved["none"]
