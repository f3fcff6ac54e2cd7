"""Differences of plans: totals, tensors, order, addresses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cosma import Accelerator, Certificate, InputError, ScopedBound, compile, save_plan
from cosma.accelerator import PLANNING_FIELDS
from cosma.report.diff import diff_plans
from tests.report.test_explain import bow
from tests.report.test_trace import chain


def test_a_plan_against_itself() -> None:
    plan = compile(bow(), Accelerator(scratchpad="12KiB"), strategy="e2")
    found = diff_plans(plan, plan)
    assert not found.tensors
    assert not found.moved_operators
    assert not found.accelerators
    assert found.moved_tensors[0] == 0
    assert all(old == new for _, old, new in found.numbers)


def test_what_a_larger_scratchpad_saved() -> None:
    before = compile(bow(), Accelerator(scratchpad="12KiB", operands="resident"), strategy="auto", effort=1)
    after = compile(bow(), Accelerator(scratchpad="16KiB", operands="resident"), strategy="auto", effort=1)
    found = diff_plans(before, after)
    assert found.accelerators == (("scratchpad", "12288", "16384"),)
    (change,) = found.tensors
    assert (change.tensor, change.before, change.after) == ("skip", 8192, 0)
    assert change.how_before == "load, store"
    assert change.how_after == "kept"
    assert ("non-compulsory", 8192, 0) in found.numbers
    back = diff_plans(after, before)
    assert back.tensors[0].after == 8192


def test_every_setting_and_size_in_which_two_plans_differ_is_named() -> None:
    plan = compile(bow(), Accelerator(scratchpad="12KiB"), strategy="e2")
    other = {
        "scratchpad": 16384, "alignment": 16, "operands": "resident", "weights": "scratchpad", "reserved": 64,
        "in_place": False, "fusion": "epilogue", "min_transfer": 256, "zero_copy": True, "pieces": 2,
        "reserved_ranges": ((0, 64),),
    }  # fmt: skip
    assert set(other) == {"scratchpad", "reserved_ranges", *PLANNING_FIELDS}
    for name, value in other.items():
        changed = replace(plan, accelerator=replace(plan.accelerator, **{name: value}))
        ((setting, _, after),) = diff_plans(plan, changed).accelerators
        assert (setting, after) == (name, str(value))
    longer = replace(plan, dims={"batch": 4, "n": 2})
    assert diff_plans(plan, longer).accelerators == (("dimensions", "none", "batch=4, n=2"),)


def test_moved_operators_are_the_fewest() -> None:
    plan = compile(chain(12), Accelerator(scratchpad="64KiB"), strategy="e1")
    executes = [i for i in plan.instructions if i.do == "execute"]
    shuffled = replace(plan, instructions=(executes[3], *executes[:3], *executes[4:]))
    (moved,) = diff_plans(plan, shuffled).moved_operators
    assert moved == (executes[3].operator, 3, 0)


def test_a_bound_over_tilings_that_the_other_plan_beats_is_named() -> None:
    plan = compile(bow(), Accelerator(scratchpad="12KiB", operands="resident"), strategy="auto", effort=1)
    moved = plan.traffic.noncompulsory
    bounds = tuple(ScopedBound(scope, amount, "by hand") for scope, amount in (("tiling", 0), ("tilings", moved + 1)))
    wrong = replace(plan, model_sha256="0" * 64, certificate=Certificate(0, moved, "by hand", bounds=bounds))
    scopes = "lower bounds: that of the plan before is for plans of any tiling, that of the plan after for plans of"
    (remark,) = diff_plans(wrong, plan).remarks  # of another model, for all that is known
    assert remark.startswith(scopes)
    plan = replace(plan, model_sha256="0" * 64)
    _, remark = diff_plans(wrong, plan).remarks
    assert remark.startswith("before: its lower bound for any tiling, 8193 B, is false: the plan after moves 8192 B")
    _, remark = diff_plans(plan, wrong).remarks
    assert remark.startswith("after: its")
    smaller = replace(wrong, accelerator=wrong.accelerator.replace(scratchpad="11KiB"))
    for one, other in ((smaller, plan), (wrong, replace(plan, dtype="int8"))):
        assert not any("is false" in remark for remark in diff_plans(one, other).remarks)


def test_other_networks_are_refused() -> None:
    first = compile(bow(), Accelerator(scratchpad="64KiB"), strategy="e1")
    second = compile(chain(), Accelerator(scratchpad="64KiB"), strategy="e1")
    with pytest.raises(InputError, match="different networks"):
        diff_plans(first, second)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cosma.cli.diff import diff

    for name, capacity in (("a", "12KiB"), ("b", "16KiB")):
        plan = compile(bow(), Accelerator(scratchpad=capacity, operands="resident"), strategy="auto", effort=1)
        save_plan(plan, tmp_path / name)
    diff(tmp_path / "a", tmp_path / "b")
    said = capsys.readouterr().out
    assert "skip" in said
    assert "12 KiB" in said  # the scratchpad
    diff(tmp_path / "a", tmp_path / "b", json=True)
    assert json.loads(capsys.readouterr().out)["tensors"][0]["before"] == 8192
    (tmp_path / "c").write_text('{"format": "cosma-placement"}')
    with pytest.raises(InputError, match="of one kind"):
        diff(tmp_path / "a", tmp_path / "c")


def test_tiles_and_parts_count_for_what_was_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cosma.cli.diff import diff
    from cosma.plan.tiles import root_name, untiled_name

    model = Path(__file__).parents[2] / "models" / "zoo" / "zoo_squeezenet.onnx"
    machine = Accelerator(scratchpad="256KiB")
    whole = compile(model, machine, strategy="e2", dtype="int8")
    cut = compile(model, machine.replace(fusion="epilogue"), strategy="e2", dtype="int8", tiling="stripes=2")
    found = diff_plans(whole, cut)
    assert {c.operator for c in found.cuts} == {untiled_name(o) for o in cut.graph.operators if o.tile is not None}
    assert {(c.before, c.after) for c in found.cuts} == {(1, 2)}
    # What fusion absorbed is said to run in what absorbed it; nothing else is in one plan alone.
    absorbed = set(whole.schedule) - {untiled_name(o) for o in cut.graph.operators}
    assert {name for name, old, new in found.fused if old == name and new in whole.schedule} == absorbed
    assert absorbed
    assert found.only_before == found.only_after == ()
    roots = {root_name(tensor) for tensor in cut.graph.tensors.values()}
    assert {change.tensor for change in found.tensors} <= roots | set(whole.graph.tensors)
    assert sum(c.after - c.before for c in found.tensors) == cut.traffic.noncompulsory - whole.traffic.noncompulsory
    assert any(c.how_after.startswith("2 parts") for c in found.tensors)
    assert any("2 streams in" in c.how_after for c in found.tensors)
    assert {c.how_after for c in found.tensors if c.tensor not in roots} == {"does not exist"}
    back = diff_plans(cut, whole)
    assert {(c.before, c.after) for c in back.cuts} == {(2, 1)}
    assert {(name, new, old) for name, old, new in back.fused} == set(found.fused)
    for name, plan in (("a", whole), ("b", cut)):
        save_plan(plan, tmp_path / name)
    diff(tmp_path / "a", tmp_path / "b")
    said = capsys.readouterr().out
    assert "Operators cut into tiles differently" in said
    assert "[:, :, " not in said


def test_placements(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cosma.cli.diff import diff

    for name, placement in (("a", [[0, 0, 1, 1]]), ("b", [[0, 1, 0, 1]])):
        (tmp_path / name).write_text(
            json.dumps(
                {
                    "format": "cosma-placement", "version": 1, "topology": {"nodes": 1, "devices_per_node": 2},
                    "layers": 1, "experts": 4, "placement": placement, "replicas": None,
                    "metrics": {"crossing": 0.5 if name == "a" else 0.25}, "certificate": {},
                }
            )
        )  # fmt: skip
    diff(tmp_path / "a", tmp_path / "b")
    said = capsys.readouterr().out
    assert "2 of 4 experts moved" in said
    assert "crossing: 0.5 -> 0.25" in said
