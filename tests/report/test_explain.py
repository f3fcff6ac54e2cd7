"""Explanations name the right step, the right holders and the right price."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cosma import Accelerator, Graph, InputError, Operator, Plan, Tensor, TensorKind, compile, replay, save_plan
from cosma.report.explain import explain_operator, explain_tensor, next_capacity
from cosma.studies.levers import levers

KIB = 1024


def bow() -> Graph:
    """A skip connection over a wide middle: 4 KiB skip, 8 KiB in the middle."""
    return Graph(
        [
            Tensor("x", 4 * KIB, TensorKind.INPUT),
            Tensor("skip", 4 * KIB),
            Tensor("wide", 8 * KIB),
            Tensor("narrow", 2 * KIB),
            Tensor("y", 4 * KIB, TensorKind.OUTPUT),
        ],
        [
            Operator("stem", "Conv", ("x",), ("skip",)),
            Operator("up", "Conv", ("skip",), ("wide",)),
            Operator("down", "Conv", ("wide",), ("narrow",)),
            Operator("join", "Concat", ("narrow", "skip"), ("y",)),
        ],
        "bow",
    )


@pytest.fixture(scope="module")
def plan() -> Plan:
    return compile(bow(), Accelerator(scratchpad="12KiB", operands="resident"), strategy="auto", effort=1)


def test_tensor_story(plan: Plan) -> None:
    assert plan.traffic.noncompulsory == 8 * KIB
    story = explain_tensor(plan, "skip")
    assert story.touches == (0, 1, 3)
    assert story.cost_bytes == story.moved_bytes == 8 * KIB
    (absence,) = story.absences
    assert (absence.begin, absence.end, absence.tightest) == (1, 3, 2)
    assert absence.cost_bytes == 8 * KIB
    assert absence.short_bytes == 2 * KIB  # 8 + 2 + 4 against 12
    assert [(h.tensor, h.reason) for h in absence.holders] == [("wide", "operand"), ("narrow", "result")]
    assert not explain_tensor(plan, "wide").absences


def test_next_capacity_is_where_traffic_drops(plan: Plan) -> None:
    assert next_capacity(plan) == (14 * KIB, "skip", 8 * KIB)
    for capacity, expected in ((14 * KIB - 64, 8 * KIB), (14 * KIB, 0)):
        other = compile(bow(), Accelerator(scratchpad=capacity, operands="resident"), strategy="auto")
        assert other.traffic.noncompulsory == expected
    assert next_capacity(compile(bow(), Accelerator(scratchpad="64KiB"), strategy="e2")) is None


def test_operator_story(plan: Plan) -> None:
    story = explain_operator(plan, "down")
    assert (story.step, story.occupied_bytes) == (2, 10 * KIB)
    assert [(name, space) for name, space, _ in story.touched] == [("wide", 8 * KIB), ("narrow", 2 * KIB)]
    assert all("scratchpad @" in where for *_, where in story.touched)
    assert not story.kept
    assert explain_operator(plan, "join").moved == (("load", "skip", 4 * KIB, False), ("store", "y", 4 * KIB, True))


def test_levers_are_what_the_quick_method_gives(plan: Plan) -> None:
    found = {lever.change: lever for lever in levers(plan)}
    streaming = found["stream operands and results"]
    other = compile(plan.graph, plan.accelerator.replace(operands="streamable"), strategy="e2")
    assert streaming.after == other.traffic.noncompulsory
    assert streaming.before == compile(plan.graph, plan.accelerator, strategy="e2").traffic.noncompulsory
    larger = compile(plan.graph, plan.accelerator.replace(scratchpad=14 * KIB), strategy="e2")
    lever = found["the next capacity that lets one more tensor stay"]
    assert (lever.setting, lever.value) == ("scratchpad", 14 * KIB)
    assert lever.after == larger.traffic.noncompulsory


def test_unknown_names_are_answered_with_close_ones(plan: Plan) -> None:
    with pytest.raises(InputError, match="did you mean 'narrow'"):
        explain_tensor(plan, "narow")
    with pytest.raises(InputError, match="no operator 'skip'"):
        explain_operator(plan, "skip")


def test_command_line(plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cosma.cli.explain import explain

    path = tmp_path / "plan.json"
    save_plan(plan, path)
    explain(path, None)
    said = capsys.readouterr().out
    assert "skip would stay and save 8192 B" in said
    assert "step 2: down (Conv)" in said
    explain(path, "skip")
    assert "2048 B short" in capsys.readouterr().out
    explain(path, "down")
    assert "10 KiB of 12 KiB taken" in capsys.readouterr().out
    explain(path, None, json=True)
    assert json.loads(capsys.readouterr().out)["next_capacity"] == {"bytes": 14336, "tensor": "skip", "saves": 8192}
    with pytest.raises(InputError, match="neither a tensor nor an operator"):
        explain(path, "nothing like it")


def test_explained_plan_is_the_replayed_one(plan: Plan) -> None:
    total = sum(explain_tensor(plan, name).cost_bytes for name in plan.graph.tensors)
    assert total == replay(plan).traffic.noncompulsory
