"""Explanations of tiles: how an operator is cut, what limits it, and what other cuts cost when they are tried."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

import cosma
from cosma.plan.timeline import timeline_of
from cosma.report.explain_tiling import barriers_of, explain_cut
from cosma.studies.tiling_levers import cut_trials, untiled_graph

MACHINE = cosma.Accelerator(scratchpad="4KiB", operands="resident", weights="scratchpad", fusion="epilogue")


@pytest.fixture(scope="module")
def plan(gated_file: Path) -> cosma.Plan:
    return cosma.compile(gated_file, MACHINE, dtype="int8", tiling="stripes=4", strategy="existing")


def test_how_it_is_cut_and_what_fills_the_scratchpad(gated_file: Path, plan: cosma.Plan) -> None:
    timeline = timeline_of(plan)
    source = cosma.load_onnx(gated_file)
    barriers = barriers_of(untiled_graph(plan, source), source.sites)
    story = explain_cut(plan, "c2", timeline, barriers)
    assert story is not None
    assert [(a.axis, a.tiles, a.smallest, a.largest) for a in story.axes] == [(2, 4, 4, 4)]
    assert "c1" in story.group
    parts = (story.own_bytes, story.own_weight_bytes, story.kept_map_bytes, story.kept_weight_bytes)
    assert sum(parts) == story.occupied_bytes <= story.capacity_bytes == 4096
    assert sum(size for _, size in story.largest) == story.kept_map_bytes + story.kept_weight_bytes
    assert story.own_weight_bytes == 576
    assert story.occupied_bytes == max(
        step.occupied_bytes for step in timeline.steps if plan.graph.operator(step.operator).type == "Conv"
        and step.operator.startswith("c2")
    )  # fmt: skip
    # The pool waits for every row, and says why.
    (pool,) = (reader for reader in story.readers if reader.operator == "gap")
    assert pool.tensor == "b"
    assert pool.barrier
    assert "c2" not in barriers
    assert explain_cut(plan, "nobody", timeline) is None


def test_steps_of_a_sum_are_a_cut(gated_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cosma.cli.explain import explain

    cuts = tmp_path / "cuts.toml"
    cuts.write_text('[[cut]]\noperator = "c2"\naxis = "sum"\ntiles = 2\n')
    plan = cosma.compile(gated_file, MACHINE.replace(scratchpad="8KiB"), dtype="int8", tiling=cuts, strategy="existing")
    story = explain_cut(plan, "c2")
    assert story is not None
    assert [(a.axis, a.tiles, a.smallest, a.largest) for a in story.axes] == [("sum", 2, 4, 4)]
    cosma.save_plan(plan, tmp_path / "plan.json")
    explain(tmp_path / "plan.json", "c2")
    assert "cut along the axis that it sums over into 2 steps of 4 elements" in capsys.readouterr().out


def test_what_is_largest_is_the_limit(gated_file: Path) -> None:
    plan = cosma.compile(gated_file, MACHINE, dtype="int8", tiling="rows=1", strategy="existing")
    story = explain_cut(plan, "scale", timeline_of(plan))
    assert story is not None
    # The map of 2 KiB waits for its gate.
    assert story.limit == "maps kept"
    assert story.largest[0][0] == "b"


def test_other_cuts_are_tried_not_guessed(gated_file: Path, plan: cosma.Plan) -> None:
    source = cosma.load_onnx(gated_file)
    trials = list(cut_trials(plan, source, "c2"))
    words = [trial.change for trial in trials]
    assert words[0] == "as it is"
    assert [w.split(" ")[:2] for w in words[1:3]] == [["3", "stripes"], ["5", "stripes"]]
    assert words[3:] == ["its weights in 2 parts"]
    assert trials[0].tiles == len(plan.graph.operators)
    assert trials[1].tiles < trials[0].tiles < trials[2].tiles
    assert trials[3].tiles == trials[0].tiles + 4
    assert all(t.noncompulsory_bytes is None or t.noncompulsory_bytes >= 0 for t in trials)
    assert trials == list(cut_trials(plan, source, "c2"))


def test_the_plans_own_tiles_cost_what_the_plan_does(gated_file: Path) -> None:
    """Where the plan was made in one pass, so is the trial, along its own order."""
    made = cosma.compile(gated_file, MACHINE.replace(scratchpad="3KiB"), dtype="int8", tiling="auto", effort=0.2)
    assert any(operator.tile is not None for operator in made.graph.operators)
    first = next(cut_trials(made, cosma.load_onnx(gated_file), "c2"))
    assert first.noncompulsory_bytes == made.traffic.noncompulsory
    finest = cosma.compile(gated_file, MACHINE, dtype="int8", tiling="rows=1", strategy="existing")
    words = [trial.change for trial in cut_trials(finest, cosma.load_onnx(gated_file), "c2")]
    assert not any(word.startswith("17 stripes") for word in words)


def test_a_cut_that_does_not_fit_says_so(gated_file: Path) -> None:
    source = cosma.load_onnx(gated_file)
    tight = cosma.compile(
        gated_file, MACHINE.replace(scratchpad="2560"), dtype="int8", tiling="stripes=4", strategy="existing"
    )
    found = {trial.change: trial.noncompulsory_bytes for trial in cut_trials(tight, source, "c2")}
    assert found["as it is"] is not None
    coarse = cosma.compile(gated_file, MACHINE, dtype="int8", tiling="stripes=2", strategy="existing")
    fewer = {trial.change: trial for trial in cut_trials(coarse, source, "c2")}
    assert any(trial.noncompulsory_bytes is None for words, trial in fewer.items() if words.startswith("1 stripe"))


def test_tiles_that_stream_are_tried_streaming(gated_file: Path) -> None:
    """In so little room the plan's own tiles do not fit with all that they touch."""
    machine = MACHINE.replace(operands="stationary", scratchpad="1536")
    plan = cosma.compile(gated_file, machine, dtype="int8", tiling="stripes=4", strategy="existing")
    assert plan.traffic.streamed
    with pytest.raises(cosma.InfeasibleError):
        cosma.compile(gated_file, MACHINE.replace(scratchpad="1536"), dtype="int8", tiling="stripes=4")
    first = next(cut_trials(plan, cosma.load_onnx(gated_file), "c2"))
    assert first.noncompulsory_bytes is not None
    assert first.tiles == len(plan.graph.operators)


def test_the_command_says_it(
    gated_file: Path, plan: cosma.Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cosma.cli.explain import explain

    cosma.save_plan(plan, tmp_path / "plan.json")
    explain(tmp_path / "plan.json", "c2", model=gated_file)
    out = capsys.readouterr().out
    assert "along axis 2 into 4 tiles of 4 elements" in out
    assert "as it is" in out
    assert "its group ends where gap reads b" in out
    explain(tmp_path / "plan.json", "c2", model=None)
    assert "--model" in capsys.readouterr().err


def test_another_model_is_refused(gated_file: Path, plan: cosma.Plan, tmp_path: Path) -> None:
    from cosma.cli.explain import explain

    cosma.save_plan(plan, tmp_path / "plan.json")
    other = onnx.load(gated_file)
    other.graph.name = "another"
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(cosma.InputError, match="SHA-256"):
        explain(tmp_path / "plan.json", "c2", model=tmp_path / "other.onnx")
