"""A graph whose every name is hostile, through every command and export that reads plans."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import xml.dom.minidom
from pathlib import Path

import pytest
from onnx import helper

from cosma import Accelerator, Graph, Operator, Tensor, TensorKind, compile, save_plan
from cosma.experiments.table import Table
from cosma.graph.json_format import save_graph
from tests.field.commands import cosma
from tests.field.test_escapes import ACTIVE
from tests.onnx_files import save_network
from tests.planning import diamond

#: Markup of rich, escapes, formulas, ends of scripts and comments, quotes, trigraphs, marks of direction, no end.
NAMES = (
    "[red]markup[/red]", "\x1b[31mred\x1b[0m", "=cmd|' /C calc'!A0", "</script><script>alert(1)</script>",
    "\"quotes' and `ticks`", "line\nfeed\r\n", "*/ int x; /*", "??/ \\ %s %n", "\u202egpj.exe", "]]><!--",
    "$x$ {{TITLE}}", "long" * 3000,
)  # fmt: skip


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    tensors = [Tensor("@in", 512, TensorKind.INPUT), Tensor("+w", 64, TensorKind.WEIGHT)]
    tensors += [Tensor(name, 512) for name in NAMES]
    operators, last = [], "@in"
    for name in NAMES:
        operators.append(Operator(f"-{name}", "[b]Conv", (last, "@in") if last != "@in" else (last,), (name,), ("+w",)))
        last = name
    tensors.append(Tensor("out", 512, TensorKind.OUTPUT))
    operators.append(Operator("end", "Add", (last, NAMES[0]), ("out",)))
    graph = Graph(tensors, operators, "[link=http://x]=model\x1b[0m")
    made = compile(graph, Accelerator(scratchpad="1600"), strategy="e2", off_chip=True)
    save_plan(made, folder / "plan.json")
    save_graph(graph, folder / "graph.json")
    return folder / "plan.json"


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of tiles: what it names besides are tiles, groups of operators and parts of tensors."""
    folder = tmp_path_factory.mktemp("tiled")
    nodes, weights, last = [], {}, "@in"
    for name in NAMES[1:-1]:
        weights[f"+w{name}"] = (2, 2, 3, 3)
        nodes.append(helper.make_node("Conv", [last, f"+w{name}"], [name], name=f"-{name}", pads=[1, 1, 1, 1]))
        last = name
    nodes.append(helper.make_node("Concat", [last, NAMES[1]], ["=out"], name="=cat", axis=1))
    model = save_network(folder / "=model.onnx", nodes, {"@in": (1, 2, 8, 8)}, weights, ["=out"])
    plan = compile(model, Accelerator(scratchpad="2KiB", weights="scratchpad"), tiling="stripes=2", effort=0.1)
    save_plan(plan, folder / "plan.json")
    return folder / "plan.json"


#: What no page and no figure may hold: control characters but line feeds and tabs, marks of direction.
UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
FIGURES = ("--bandwidth", "1GB", "--clock", "1e9", "--macs-per-cycle", "8")


@pytest.mark.parametrize(
    "command",
    [
        ("compile", "graph.json", "--scratchpad", "1600", "--effort", "0.1", "-v"),
        ("compile", "graph.json", "--scratchpad", "512", "--operands", "resident"),
        ("inspect", "graph.json"),
        ("curve", "graph.json", "--points", "2", "--strategy", "e2"),
        ("check", "plan.json"),
        ("report", "plan.json"),
        ("explain", "plan.json"),
        ("diff", "plan.json", "plan.json"),
        ("trace", "plan.json", *FIGURES),
    ],
)
def test_terminals_show_names_and_obey_none(plan: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    monkeypatch.chdir(plan.parent)
    done = cosma(*command)
    assert done.code in (0, 3), done.err
    for text in (done.out, done.err):
        assert not ACTIVE.search(text)
    assert "Traceback" not in done.err
    # What rich would take for markup stands there as it is written.
    shown = done.out + done.err
    assert "red]" not in shown or "[red]" in shown


@pytest.mark.parametrize("name", NAMES)
def test_each_can_be_asked_for(plan: Path, name: str) -> None:
    done = cosma("explain", plan, "--", name)
    assert done.code == 0, done.err
    assert not ACTIVE.search(done.out)
    assert "produced by" in done.out


def test_tables_start_no_formula_and_keep_their_columns(plan: Path, tmp_path: Path) -> None:
    options = ("-o", tmp_path / "i.csv", "--stays", tmp_path / "s.csv", "--off-chip", tmp_path / "o.csv")
    assert cosma("export", plan, *options).code == 0
    tables = ("--operators", tmp_path / "t.csv", "--summary", tmp_path / "u.csv", "-o", tmp_path / "trace.json")
    assert cosma("trace", plan, *FIGURES, *tables).code == 0
    json.loads((tmp_path / "trace.json").read_text())
    for name in "isotu":
        text = (tmp_path / f"{name}.csv").read_text(encoding="utf-8")
        rows = list(csv.reader(io.StringIO(text, newline="")))
        assert len(rows) > 1
        assert {len(row) for row in rows} == {len(rows[0])}, name
        for cell in (cell for row in rows for cell in row):
            assert not re.match(r"[=+@\t\r]|-[^0-9.]", cell), cell


def test_a_markdown_table_keeps_its_columns() -> None:
    cells = tuple((name + "|x",) for name in NAMES)
    lines = Table("t", "title", (("model", "text"),), cells).to_markdown().splitlines()
    assert len(lines) == 4 + len(NAMES)
    assert not any(ACTIVE.search(line) or "<script" in line for line in lines)


@pytest.mark.parametrize("kind", ["plan", "tiled"])
def test_pages_and_figures_are_whole(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    plan = request.getfixturevalue(kind)
    pytest.importorskip("matplotlib")
    pytest.importorskip("bokeh")
    options = ("-o", tmp_path / "p.html", "--figure", tmp_path / "f.svg", "--figure", tmp_path / "f.pdf")
    done = cosma("report", plan, *options, "--no-existing")
    assert done.code == 0, done.err
    figure = (tmp_path / "f.svg").read_text(encoding="utf-8")
    xml.dom.minidom.parseString(figure.encode())
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert not UNSEEN.search(page)
    assert not UNSEEN.search(figure)
    assert ("[red]markup" if kind == "plan" else "\\x1b[31mred") in page


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler here")
@pytest.mark.parametrize("language", [("c", "-std=c99"), ("c++", "-std=c++11")])
def test_a_header_compiles(plan: Path, tmp_path: Path, language: tuple[str, str]) -> None:
    assert cosma("export", plan, "-o", tmp_path / "plan.h").code == 0
    (tmp_path / "main.c").write_text('#include "plan.h"\nint main(void) { return 0; }\n')
    command = ["gcc", "-x", *language, "-Wall", "-Wtrigraphs", "-Werror", "-Wno-unused", "-fsyntax-only", "main.c"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:2000]


def test_sweeps_tables_and_plots_of_hostile_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, graphs, grids and strategies may be called anything; what is made of their rows stays whole."""
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    names = [name for name in NAMES if "/" not in name and len(name.encode()) < 200]
    for name in names:
        save_graph(Graph(diamond().tensors.values(), diamond().operators, name), tmp_path / f"{name}.json")
    grids = "".join(f"[[grids]]\nname = {json.dumps(name)}\nscratchpad = [\"1KiB\", \"2KiB\"]\n" for name in names[:3])
    chosen = ", ".join(f"{{ strategy = \"e2\", label = {json.dumps(name)} }}" for name in names[3:5])
    Path("x.toml").write_text(f'models = ["*.json"]\nstrategies = ["e1", {chosen}]\n{grids}', encoding="utf-8")
    commands = [("sweep", "x.toml", "-j", "1"), ("table", "x"), ("compare", "x", "x", "--slowdown", "1.000001")]
    for command in [*commands, ("sweep", "x.toml", "--dry-run"), ("plot", "x", "-f", "svg", "-o", "figures")]:
        done = cosma(*command)
        assert done.code in (0, 5), done.err
        assert not ACTIVE.search(done.out + done.err)
    assert cosma("table", "x", "-f", "csv", "-o", "t.csv").code == 0
    for path in ("t.csv", "x/rows.csv"):
        with open(path, encoding="utf-8", newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert len(cells) > 100
        assert not [cell for cell in cells if re.match(r"[=+@\t\r]|-[^0-9.]", cell)]
    assert {row["model"] for row in json.loads(cosma("table", "x", "--only", "models", "-f", "json").out)["models"]}
    drawn = list(Path("figures").glob("*.svg"))
    assert drawn
    for figure in drawn:
        text = figure.read_text(encoding="utf-8")
        xml.dom.minidom.parseString(text.encode())
        assert not UNSEEN.search(text)
