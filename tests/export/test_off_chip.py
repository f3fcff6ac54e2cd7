"""Where tensors lie off-chip: packed over time as small as can be, in plan, header and CSV; damage is refused."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from cosma import Accelerator, Graph, InfeasibleError, Operator, Plan, Tensor, compile, replay
from cosma.export import c_header, lay_out, off_chip_csv
from cosma.graph.json_format import save_graph
from cosma.plan.file import plan_from_json, plan_to_json
from cosma.plan.off_chip import Area, OffChip, off_chip_lifetimes
from cosma.validator import Verdict
from tests.field.commands import cosma
from tests.random_graphs import Shape, random_instance


def spilling() -> Plan:
    """A plan whose intermediates must go off-chip: two that wait at the same time, and one later in their bytes."""
    graph = Graph(
        [
            Tensor("x", 64, "input"), Tensor("w", 48, "weight"), Tensor("a", 64), Tensor("b", 64), Tensor("c", 64),
            Tensor("d", 64), Tensor("e", 64), Tensor("f", 64), Tensor("y", 64, "output"),
        ],
        [
            Operator("one", "Conv", ["x"], ["a"], ["w"]),
            Operator("two", "Conv", ["a"], ["b"]),
            Operator("three", "Conv", ["b"], ["c"]),
            Operator("four", "Conv", ["a", "c"], ["d"]),
            Operator("five", "Conv", ["d"], ["e"]),
            Operator("six", "Conv", ["e"], ["f"]),
            Operator("seven", "Conv", ["d", "f"], ["y"]),
        ],
    )  # fmt: skip
    return compile(
        graph, Accelerator(scratchpad=128, alignment=16, in_place=False), strategy="exact", effort=0.2, off_chip=True
    )


def test_what_is_spilled_at_different_times_shares_bytes() -> None:
    plan = spilling()
    layout = plan.off_chip
    assert layout is not None
    spans = off_chip_lifetimes(plan.graph, plan.instructions)
    assert set(layout.spilled.offsets) == set(spans)
    assert len(spans) >= 2
    assert layout.spilled.size_bytes < 64 * len(spans)
    assert layout.minimal
    assert layout.areas["inputs"] == Area(64, {"x": 0})
    assert layout.areas["weights"] == Area(48, {"w": 0})
    assert layout.areas["outputs"] == Area(64, {"y": 0})
    assert replay(plan).valid


def test_files_keep_the_layout() -> None:
    plan = spilling()
    text = plan_to_json(plan)
    record = json.loads(text)
    assert record["version"] == 2
    assert record["off_chip"]["size"] == plan.off_chip.spilled.size_bytes  # type: ignore[union-attr]
    again = plan_from_json(text)
    assert again.off_chip == plan.off_chip
    assert plan_to_json(again) == text
    assert json.loads(plan_to_json(replace(plan, off_chip=None)))["version"] == 1


def changed(plan: Plan, **offsets: int) -> Plan:
    assert plan.off_chip is not None
    spilled = replace(plan.off_chip.spilled, offsets={**plan.off_chip.spilled.offsets, **offsets})
    return replace(plan, off_chip=replace(plan.off_chip, spilled=spilled))


def test_each_kind_of_damage_has_its_verdict() -> None:
    plan = spilling()
    layout = plan.off_chip
    assert layout is not None
    name, offset = next(iter(layout.spilled.offsets.items()))

    def verdicts(other: Plan) -> set[str]:
        return {v.verdict for v in replay(other).violations}

    assert Verdict.OFF_CHIP_MISALIGNED in verdicts(changed(plan, **{name: offset + 8}))
    assert verdicts(changed(plan, **{name: 1024})) == {Verdict.OFF_CHIP_OUT_OF_BOUNDS}
    assert verdicts(changed(plan, none=0)) == {Verdict.UNKNOWN_NAME}
    rest = {key: at for key, at in layout.spilled.offsets.items() if key != name}
    without = replace(layout, spilled=replace(layout.spilled, offsets=rest))
    assert verdicts(replace(plan, off_chip=without)) == {Verdict.OFF_CHIP_ABSENT}
    no_input = replace(layout, areas={**layout.areas, "inputs": Area(64)})
    assert verdicts(replace(plan, off_chip=no_input)) == {Verdict.OFF_CHIP_ABSENT}
    lie = replace(layout, lower_bound=layout.spilled.size_bytes + 1)
    assert verdicts(replace(plan, off_chip=lie)) == {Verdict.CERTIFICATE_MISMATCH}


def test_tensors_that_lie_there_at_the_same_time_may_not_overlap() -> None:
    found = 0
    for seed in range(40):
        try:
            graph, accelerator = random_instance(seed, Shape(operators=12))
            plan = compile(graph, accelerator, strategy="e1", off_chip=True)
        except InfeasibleError:
            continue
        assert replay(plan).valid
        assert plan.off_chip is not None
        spilled = plan.off_chip.spilled
        if plan.off_chip.minimal and len(set(spilled.offsets.values())) > 1:
            piled = replace(spilled, offsets=dict.fromkeys(spilled.offsets, 0))
            bad = replay(replace(plan, off_chip=replace(plan.off_chip, spilled=piled)))
            assert Verdict.OFF_CHIP_OVERLAP in {v.verdict for v in bad.violations}
            found += 1
    assert found >= 3


def test_the_area_is_never_smaller_than_what_lies_there_at_once() -> None:
    for seed in range(30):
        try:
            plan = compile(*random_instance(seed, Shape(operators=12)), strategy="e1")
        except InfeasibleError:
            continue
        layout = lay_out(plan)
        spans = off_chip_lifetimes(plan.graph, plan.instructions)
        size = {name: plan.graph.tensors[name].size_bytes for name in spans}
        at_once = [
            sum(size[name] for name, (start, end) in spans.items() if start <= i < end)
            for i in range(len(plan.instructions))
        ]
        most = max(at_once, default=0)
        assert most <= layout.lower_bound <= layout.spilled.size_bytes
        assert layout == lay_out(plan)


def test_header_and_csv_say_where() -> None:
    plan = spilling()
    assert plan.off_chip is not None
    rows = {row["tensor"]: row for row in csv.DictReader(off_chip_csv(plan).splitlines())}
    for name, offset in plan.off_chip.spilled.offsets.items():
        assert int(rows[name]["offset"]) == offset
        assert int(rows[name]["start"]) < int(rows[name]["end"])
    assert rows["w"]["area"] == "weights"
    header = c_header(plan)
    index = list(plan.graph.tensors).index("y")
    assert f"{{{index}u, 0u, 3u, 0u}}" in header
    assert f"{{{plan.off_chip.spilled.size_bytes}u, 64u, 48u, 64u}}" in header
    assert off_chip_csv(replace(plan, off_chip=None)) == off_chip_csv(plan)


def test_on_the_command_line(tmp_path: Path) -> None:
    save_graph(spilling().graph, tmp_path / "net.json")
    plan, table = tmp_path / "plan.json", tmp_path / "off.csv"
    done = cosma("compile", tmp_path / "net.json", "--scratchpad", "128", "--alignment", "16", "--off-chip", "-o", plan)
    assert done.code == 0, done.err
    assert json.loads(plan.read_text())["off_chip"]["areas"]["inputs"] == {"size": 64, "offsets": {"x": 0}}
    assert cosma("check", plan, tmp_path / "net.json").code == 0
    assert cosma("export", plan, "--off-chip", table).code == 0
    assert table.read_text().startswith("area,tensor,bytes,offset,start,end\n")
    record = json.loads(plan.read_text())
    record["off_chip"]["areas"]["inputs"]["offsets"]["x"] = 16
    plan.write_text(json.dumps(record))
    done = cosma("check", plan)
    assert done.code == 4
    assert "off-chip-out-of-bounds" in done.out + done.err
    del record["off_chip"]["areas"]["inputs"]
    plan.write_text(json.dumps(record))
    done = cosma("check", plan)
    assert done.code == 4
    assert "off-chip-absent" in done.out + done.err


@pytest.mark.parametrize("size", [-1, 1 << 63])
def test_areas_have_sizes(size: int) -> None:
    with pytest.raises(Exception, match="off-chip area: size"):
        OffChip(Area(size), 0)
