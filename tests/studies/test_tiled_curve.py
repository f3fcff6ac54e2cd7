"""Curves with tiles: beside whole operators, never above them, down to the scratchpad that moves nothing twice."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import cosma
from cosma.parameters.compiler import AutoParameters, CompileParameters
from cosma.studies.curve import make_curve
from cosma.studies.curve_views import curve_csv, curve_text, render_curve
from cosma.studies.point_planner import Planner
from cosma.studies.points import TILE_COLUMNS, Curve

MACHINE = cosma.Accelerator(scratchpad="1MiB", operands="resident", weights="scratchpad")


@pytest.fixture(scope="module")
def gated(gated_file: Path) -> cosma.LoadedModel:
    return cosma.load_onnx(gated_file)


def draw(model: cosma.LoadedModel, **options: Any) -> Curve:
    given: dict[str, Any] = {"dtype": "int8", "effort": 0.05, "points": 7, "tiling": "auto", **options}
    return make_curve(model, MACHINE, **given)


def test_tiles_and_whole_operators_in_one_curve(gated: cosma.LoadedModel) -> None:
    curve = draw(gated)
    assert 4 <= len(curve.points) <= 7
    for a, b in pairwise(curve.points):
        assert a.capacity_bytes < b.capacity_bytes
        assert a.noncompulsory_bytes >= b.noncompulsory_bytes
        assert a.bound_bytes >= b.bound_bytes
    for p in curve.points:
        assert p.tiles is not None
        assert p.tiles.transfers >= 2  # the input and the output at the least, streamed or not
        assert p.whole is not None
        assert p.bound_bytes <= p.noncompulsory_bytes
        assert p.tiles.bound_bytes <= p.noncompulsory_bytes
        if p.whole.noncompulsory_bytes is not None:
            assert p.bound_bytes <= p.whole.bound_bytes <= p.whole.noncompulsory_bytes
            assert p.noncompulsory_bytes <= p.whole.noncompulsory_bytes
    # Tiles begin where whole operators do not fit, and need less to move nothing twice.
    assert curve.points[0].capacity_bytes < curve.smallest_bytes
    assert curve.points[0].whole == replace(curve.points[0].whole, noncompulsory_bytes=None)
    assert curve.once_bytes is not None
    assert curve.once_whole_bytes is not None
    assert curve.once_bytes < curve.once_whole_bytes
    # The gate waits for a map of 2 KiB.
    assert curve.never_once_bytes is None or curve.never_once_bytes < 2048 < curve.once_bytes
    assert draw(gated, points=4) == draw(gated, points=4)


def test_rows_and_summary_agree_on_whole_operators(gated: cosma.LoadedModel) -> None:
    """From which capacity whole operators move nothing twice is what the rows say, too."""
    curve = draw(gated, points=5)
    assert curve.once_whole_bytes is not None
    for p in curve.points:
        if p.whole is not None and p.capacity_bytes >= curve.once_whole_bytes:
            assert p.whole.noncompulsory_bytes == 0


def test_what_moves_nothing_twice_is_a_plan_for_that_size(gated: cosma.LoadedModel) -> None:
    planner = Planner(gated, MACHINE, "auto", 0.1, 0, "int8", "auto")
    planner = replace(planner, source=replace(gated, graph=gated.graph.with_dtype("int8")))
    planner.plan(16 * 1024)
    assert planner.known[16 * 1024].noncompulsory_bytes == 0
    least = planner.room(16 * 1024)
    assert least == planner.known[16 * 1024].suffices_bytes < 16 * 1024
    plan = replace(planner.plans[16 * 1024], accelerator=MACHINE.replace(scratchpad=least))
    assert cosma.replay(plan).valid
    assert not cosma.replay(replace(plan, accelerator=MACHINE.replace(scratchpad=least - 64))).valid


def test_tables_and_figures_hold_both(gated: cosma.LoadedModel) -> None:
    curve = draw(gated, points=5)
    rows = list(csv.DictReader(io.StringIO(curve_csv(curve))))
    assert set(TILE_COLUMNS) <= set(rows[0])
    assert [int(row["noncompulsory"]) for row in rows] == [p.noncompulsory_bytes for p in curve.points]
    assert all(int(row["tiles"]) >= int(row["operators"]) == 7 for row in rows)
    assert curve_text(curve).count("\n") == len(curve.points)
    pytest.importorskip("matplotlib")
    picture = render_curve(curve, "svg")
    assert b"plan of whole operators" in picture
    assert b"lower bound for any tiling" in picture


def test_an_interrupt_keeps_finished_points(gated: cosma.LoadedModel) -> None:
    def stop(done: int, of: int) -> None:
        if done >= 2:
            raise KeyboardInterrupt

    curve = draw(gated, progress=stop, on_interrupt="best")
    assert curve.partial
    assert 2 <= len(curve.points) < 5
    with pytest.raises(KeyboardInterrupt):
        draw(gated, progress=stop)


def test_a_rule_gives_a_curve_too(gated: cosma.LoadedModel) -> None:
    curve = draw(gated, tiling="rows=4", points=4)
    assert curve.tiling == "rows=4"
    assert all(p.tiles is not None and p.tiles.count > 7 for p in curve.points)


def test_compiles_go_on_from_plans_of_tiles(gated: cosma.LoadedModel) -> None:
    small = MACHINE.replace(scratchpad="3KiB")
    start = cosma.compile(gated, small, dtype="int8", tiling="auto", effort=1.0)
    assert any(operator.tile for operator in start.graph.operators)
    for size in ("3KiB", "3136", "3584"):
        plan = cosma.compile(
            gated, MACHINE.replace(scratchpad=size), dtype="int8", tiling="auto", effort=0.0, starts=[start]
        )
        assert plan.traffic.noncompulsory <= start.traffic.noncompulsory
    whole = cosma.compile(gated, MACHINE.replace(scratchpad="5KiB"), dtype="int8", effort=0.2)
    tiled = cosma.compile(
        gated, MACHINE.replace(scratchpad="5KiB"), dtype="int8", tiling="auto", effort=0.0, starts=[whole]
    )
    assert tiled.traffic.noncompulsory <= whole.traffic.noncompulsory


def test_tiles_that_do_not_fit_are_no_start(gated: cosma.LoadedModel) -> None:
    start = cosma.compile(gated, MACHINE.replace(scratchpad="8KiB"), dtype="int8", tiling="stripes=2", effort=0.1)
    with pytest.raises(cosma.InputError, match="do not fit"):
        cosma.compile(gated, MACHINE.replace(scratchpad="1536"), dtype="int8", tiling="auto", starts=[start])


def test_many_tiles_are_planned_anew_along_a_start(gated: cosma.LoadedModel) -> None:
    """Where a search is too dear, a larger scratchpad still keeps more of a given plan's tensors."""
    streaming = MACHINE.replace(operands="streamable")
    start = cosma.compile(gated, streaming.replace(scratchpad="1792"), dtype="int8", tiling="stripes=8", effort=0.05)
    assert start.traffic.noncompulsory > 0
    none_searched = CompileParameters(auto=AutoParameters(most_tiles=0))
    ample = cosma.compile(start.graph, streaming, starts=[start], effort=0.05, parameters=none_searched)
    assert ample.traffic.noncompulsory == 0


def test_the_bound_over_tilings_holds_whatever_is_fused(gated: cosma.LoadedModel) -> None:
    fused = MACHINE.replace(fusion="epilogue")
    curve = make_curve(gated, fused, dtype="int8", effort=0.05, points=5, tiling="auto", lowest=2048, highest=6144)
    assert len(curve.points) >= 3
    assert all(p.bound_bytes <= p.noncompulsory_bytes for p in curve.points)


def test_curves_of_tiles_in_modes(gated: cosma.LoadedModel) -> None:
    moded = MACHINE.replace(operands="stationary", fusion="epilogue")
    curve = make_curve(gated, moded, dtype="int8", effort=0.05, points=4, tiling="auto", lowest=1024, highest=6144)
    assert len(curve.points) >= 2
    for a, b in pairwise(curve.points):
        assert a.noncompulsory_bytes >= b.noncompulsory_bytes
    assert all(p.bound_bytes <= p.noncompulsory_bytes for p in curve.points)
    # What streams needs less room than what lies whole in the scratchpad.
    assert curve.points[0].capacity_bytes < 3072
