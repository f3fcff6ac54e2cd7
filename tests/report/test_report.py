"""Timelines add up to the plan; pages, figures and text show it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from cosma import Accelerator, Graph, Operator, Plan, Tensor, TensorKind, compile, load_plan, save_plan
from cosma.plan.timeline import Ending, Origin, timeline_of
from cosma.report.text import render_text
from tests.onnx_files import save_network

ROOT = Path(__file__).resolve().parents[2]
NASTY = "</script><script>document.title='broken'</script><b>&\"'{{TITLE}}"


def ladder(rungs: int = 12) -> Graph:
    """Two rails that are joined at every rung, with a long skip that must be spilled."""
    tensors = [Tensor("x", 4096, TensorKind.INPUT), Tensor(NASTY, 8192), Tensor("w", 1000, TensorKind.WEIGHT)]
    operators = [Operator("stem", "Conv", ("x",), (NASTY,), ("w",))]
    last = NASTY
    for i in range(rungs):
        tensors += [Tensor(f"a{i}", 8192), Tensor(f"b{i}", 8192), Tensor(f"c{i}", 8192)]
        operators += [
            Operator(f"left{i}", "Conv", (last,), (f"a{i}",), ("w",)),
            Operator(f"right{i}", "Relu", (last,), (f"b{i}",)),
            Operator(f"join{i}", "Add", (f"a{i}", f"b{i}"), (f"c{i}",)),
        ]
        last = f"c{i}"
    tensors.append(Tensor("y", 8192, TensorKind.OUTPUT))
    operators.append(Operator("end", "Mul", (last, NASTY), ("y",)))
    return Graph(tensors, operators, NASTY)


MODES = [
    {"scratchpad": "26KiB", "operands": "resident"},
    {"scratchpad": "17KiB"},
    {"scratchpad": "30KiB", "in_place": False, "weights": "scratchpad"},
    {"scratchpad": "64KiB"},
]


@pytest.fixture(scope="module", params=range(len(MODES)))
def plan(request: pytest.FixtureRequest) -> Plan:
    return compile(ladder(), Accelerator(**MODES[request.param]), strategy="e2")


def test_timeline_adds_up_to_the_plan(plan: Plan) -> None:
    timeline = timeline_of(plan)
    assert [step.operator for step in timeline.steps] == list(plan.schedule)
    assert sum(step.noncompulsory for step in timeline.steps) == plan.traffic.noncompulsory
    assert sum(step.compulsory for step in timeline.steps) == plan.traffic.compulsory
    assert sum(timeline.cost.values()) == plan.traffic.noncompulsory
    assert max(step.occupied_bytes for step in timeline.steps) == plan.peak_bytes
    for i, step in enumerate(timeline.steps):
        here = [s for s in timeline.stays if s.start <= i < s.end and not (s.in_place_of and s.start == i)]
        assert sum(s.space_bytes for s in here) == step.occupied_bytes
        here.sort(key=lambda s: s.address)
        assert all(a.address + a.space_bytes <= b.address for a, b in pairwise(here))


def test_spills_reloads_and_takeovers_are_told_apart() -> None:
    timeline = timeline_of(compile(ladder(), Accelerator(scratchpad="26KiB", operands="resident"), strategy="e2"))
    skip = [s for s in timeline.stays if s.tensor == NASTY]
    assert [s.origin for s in skip] == [Origin.PRODUCED, Origin.RELOADED]
    assert [s.ending for s in skip] == [Ending.SPILLED, Ending.DONE]
    assert timeline.cost[NASTY] == 2 * 8192
    assert timeline.cost["w"] == 12 * 1000
    joined = next(s for s in timeline.stays if s.origin is Origin.TAKEOVER)
    assert any(s.tensor == joined.in_place_of and s.ending is Ending.TAKEN for s in timeline.stays)
    assert timeline.stays[0].origin is Origin.LOADED


def test_text_says_what_matters(plan: Plan) -> None:
    text = render_text(plan, 80)
    assert f"{plan.traffic.noncompulsory:,} B" in text
    assert plan.certificate.method in text
    assert plan.accelerator.describe() in text
    assert "Memory map" in text
    rows = [line for line in text.splitlines() if re.match(r" *[\d.]+ [KM]?i?B \|", line)]
    assert len(rows) == 16
    assert all(len(row) <= 80 for row in rows)


def test_page_is_self_contained_and_survives_hostile_names(plan: Plan, tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    from cosma.report.html import render_html

    page = render_html(plan)
    assert len(page.encode()) < 3_000_000
    assert "<script>document" not in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=[\"']?(https?:)?//", page)
    assert "{{" not in page.split("<footer>")[1].split("<script>")[0]


def test_same_plan_same_page_in_every_process(tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    save_plan(compile(ladder(), Accelerator(scratchpad="17KiB"), strategy="e2"), tmp_path / "plan.json")
    pages = []
    for seed in ("1", "2"):
        run = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from cosma.report.html import render_html; from cosma import load_plan;"
                "sys.stdout.write(render_html(load_plan(sys.argv[1])))",
                str(tmp_path / "plan.json"),
            ],
            capture_output=True, check=True, cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )  # fmt: skip
        pages.append(run.stdout)
    assert pages[0] == pages[1]


def test_figures_are_images_and_repeat(plan: Plan) -> None:
    pytest.importorskip("matplotlib")
    from cosma.report.figure import render_figure

    png = render_figure(plan, "png", dpi=50)
    assert png.startswith(b"\x89PNG")
    assert png == render_figure(plan, "png", dpi=50)
    svg = render_figure(plan, "svg")
    assert svg == render_figure(plan, "svg")
    assert b"occupied" in svg


def test_largest_model_in_seconds_and_megabytes(tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    import time

    from cosma.report.html import render_html

    # The largest of all is not in the project's own zoo; the next one is.
    path = ROOT.parent / "shared" / "models" / "open" / "nasnet_mobile_cl_legacy.onnx"
    path = path if path.exists() else ROOT / "models" / "zoo" / "nasnet_mobile_cl.onnx"
    plan = compile(path, Accelerator(scratchpad="1MiB"), strategy="e2")
    began = time.process_time()
    page = render_html(plan)
    assert time.process_time() - began < 5
    assert len(page.encode()) < 3_000_000
    assert len(plan.graph.operators) > 1500


def test_a_step_that_dwarfs_all_others_is_cut_and_named() -> None:
    pytest.importorskip("bokeh")
    from cosma.report.charts import plan_figures

    tensors = [Tensor("x", 1024, "input"), Tensor("large", "8MiB", "weight"), Tensor("y", 1024, "output")]
    names = ["x", *(f"a{i}" for i in range(60)), "y"]
    weights = [*(f"w_{name}" for name in names[1:-1]), "large"]
    tensors += [Tensor(name, 1024) for name in names[1:-1]] + [Tensor(name, 4096, "weight") for name in weights[:-1]]
    operators = [
        Operator(b, "Conv", (a,), (b,), (weight,)) for (a, b), weight in zip(pairwise(names), weights, strict=True)
    ]
    for size, told in (("8MiB", 2), (4096, 0)):
        tensors[1] = Tensor("large", size, "weight")
        plan = compile(Graph(tensors, operators), Accelerator(scratchpad="4KiB"), strategy="e1")
        titles = [figure.title.text for figure in plan_figures(plan, timeline_of(plan)).children]
        assert sum("\n1 step off the scale, up to 8" in title for title in titles) == told


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("bokeh")
    from cosma.cli.report import report

    path = tmp_path / "plan.json"
    save_plan(compile(ladder(), Accelerator(scratchpad="17KiB"), strategy="e2"), path)
    report(path, tmp_path / "r.html", [tmp_path / "r.png", tmp_path / "r.svg"], text=False, width=100)
    assert capsys.readouterr().out == ""
    assert (tmp_path / "r.html").read_text().startswith("<!DOCTYPE html>")
    report(path, None, None, text=False, width=90)
    assert "Memory map" in capsys.readouterr().out
    assert load_plan(path).model_name == NASTY


def test_page_with_two_plans_existing_methods_and_time(tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    import base64
    import json
    import zlib

    from cosma.cli.report import report
    from cosma.errors import InputError

    for name, mode in (("a", MODES[1]), ("b", MODES[3])):
        save_plan(compile(ladder(), Accelerator(**mode), strategy="e1"), tmp_path / f"{name}.json")
    target = tmp_path / "r.html"
    report(tmp_path / "a.json", target, None, text=False, width=100, compare=tmp_path / "b.json",
           accelerator="ethos-u65-mid")  # fmt: skip
    page = target.read_text()
    assert len(page) < 3_000_000
    views = json.loads(zlib.decompress(base64.b64decode(re.search(r'const packed = "(.*)";\n', page).group(1))))
    assert len(views) == 2
    for view in views:
        times = view["data"]["time"]
        assert len(times) == len(view["data"]["steps"]) + 1
        assert times == sorted(times)
    plan = load_plan(tmp_path / "a.json")
    streamed = [row for row in views[0]["data"]["transfers"] if row[1] >= 2]
    sizes = [tensor[1] for tensor in views[0]["data"]["tensors"]]
    assert sum(sizes[row[0]] for row in streamed) == plan.traffic.streamed
    row = re.search(r"<td>e1: .*?</tr>", page).group(0)
    assert f'data-value="{plan.traffic.noncompulsory}"' in row
    assert "<td>total traffic</td>" in page
    with pytest.raises(InputError, match="give -o"):
        report(tmp_path / "a.json", None, None, text=True, width=100, compare=tmp_path / "b.json")


def test_existing_methods_are_what_they_give_alone() -> None:
    from cosma.studies.existing import existing_plans

    plan = compile(ladder(), Accelerator(scratchpad="17KiB"), strategy="e2")
    found = {row.name: row for row in existing_plans(plan)}
    assert list(found) == ["e1", "e2", "e3"]
    assert found["e2"].noncompulsory_bytes == plan.traffic.noncompulsory
    assert found["e2"].peak_bytes == plan.peak_bytes


def test_existing_methods_stand_beside_a_tiled_plan_uncut_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnx import helper

    from cosma import load_onnx
    from cosma.compiler import run_compile
    from cosma.report.html import render_html
    from cosma.studies.existing import existing_plans

    # The pooling is no tile, and reads the tiles' parts.
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Abs", ["a"], ["b"])]
    nodes += [helper.make_node("Add", ["b", "x"], ["c"]), helper.make_node("GlobalAveragePool", ["c"], ["y"])]
    path = save_network(tmp_path / "three.onnx", nodes, {"x": [1, 2, 32, 32]})
    machine = Accelerator(scratchpad="20KiB", operands="streamable", in_place=False)
    result = run_compile(load_onnx(path), machine, tiling="stripes=4")
    (last,) = [one for one in result.plan.graph.operators if one.type == "GlobalAveragePool"]
    assert last.tile is None
    assert len(last.inputs) == 4
    found = {(row.name, row.uncut): row for row in existing_plans(result.plan)}
    assert set(found) == {(name, uncut) for name in ("e1", "e2", "e3") for uncut in (False, True)}
    for name, traffic in result.existing.items():
        assert found[name, True].total_bytes == traffic.total
    assert found["e1", True].total_bytes > result.plan.traffic.total
    page = render_html(result.plan, existing=tuple(found.values()))
    assert "e1: uncut, order as given" in page
    # The same share as `cosma compile` prints: of all traffic.
    most, own = found["e1", True].total_bytes, result.plan.traffic.total
    assert f"<td>{100 * (most - own) / most:.1f} % less</td>" in page
    assert "e1: with these tiles, order as given" in page
    # Many tiles are not planned anew where whole operators fit.
    monkeypatch.setattr("cosma.studies.existing.MOST_TILES", 0)
    few = existing_plans(result.plan)
    assert set(few) == {row for row in found.values() if row.uncut}
    assert "these tiles" not in render_html(result.plan, existing=few)
