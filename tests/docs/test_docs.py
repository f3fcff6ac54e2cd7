"""The documentation builds without a warning, its schema is the reader's, its examples run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import cosma
from cosma import load_plan, replay
from cosma.export.schema import plan_schema_json

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.skipif(
    not all(find_spec(name) for name in ("sphinx", "furo", "myst_nb", "latex2mathml", "matplotlib", "scipy")),
    reason="the extra docs is not installed",
)
def test_builds_without_warnings(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(tmp_path / "trees"),
         str(DOCS), str(tmp_path / "html")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "html" / "tutorial.html").exists()
    assert (tmp_path / "html" / "plan.schema.json").exists()
    formulas = (tmp_path / "html" / "problem.html").read_text()
    assert "<math" in formulas
    assert "mathjax.js" not in formulas.lower()
    assert "cdn." not in formulas
    assert (tmp_path / "html" / "commands" / "compile.html").read_text().count("non-compulsory") > 1
    assert "scratchpad" in (tmp_path / "html" / "api.html").read_text()
    # The notebook was executed: it shows a plan, a figure and a curve.
    notebook = (tmp_path / "html" / "notebook.html").read_text()
    assert "beyond the compulsory" in notebook
    assert "<svg" in notebook
    assert notebook.count("<img") >= 1
    pages = (tmp_path / "html").rglob("*.html")
    assert not [page for page in pages if re.search(r'(?:src|href)="https?://[^"]*\.(?:js|css)', page.read_text())]


def test_every_command_has_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    from cosma.cli.app import COMMANDS

    monkeypatch.syspath_prepend(str(DOCS))
    import write_commands

    assert set(write_commands.EXAMPLES) == set(COMMANDS)


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_modules_that_pages_name_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    root = DOCS.parent
    files = re.findall(r"`(cosma/[\w/]+\.py)`", text)
    assert [name for name in files if not (root / name).is_file()] == []
    for name in re.findall(r"`(cosma(?:\.[a-z_]+)+)`", text):
        path = root / name.replace(".", "/")
        # A name may end in a function of a module.
        found = (path, path.with_suffix(".py"), path.parent, path.parent.with_suffix(".py"))
        known = name.removeprefix("cosma.") in cosma.__all__
        assert known or any(each.exists() and each != root / "cosma" for each in found), name


def test_schema_is_the_readers() -> None:
    assert (DOCS / "plan.schema.json").read_text() == plan_schema_json()


def test_schema_takes_plans_and_refuses_others() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(plan_schema_json())
    checker = jsonschema.Draft202012Validator(schema)
    plan = json.loads((DOCS / "example_plan.json").read_text())
    checker.validate(plan)
    checker.validate(plan | {"unknown": 1})
    for change in (
        {"version": 3},
        {"peak": -1},
        {"instructions": [{"do": "load", "tensor": "x"}]},
        {"instructions": [{"do": "jump"}]},
        {"tensors": [{"name": "x", "bytes": 1, "kind": "thing"}]},
    ):
        assert not checker.is_valid(plan | change), change


def test_example_plan_is_valid() -> None:
    assert replay(load_plan(DOCS / "example_plan.json")).valid


def test_visitor_example_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plan.json").write_text((DOCS / "example_plan.json").read_text())
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "exporting.md").read_text(), re.S)
    exec(compile(code, "exporting.md", "exec"), {})
    assert capsys.readouterr().out.splitlines() == [
        "dma_in('x', 0, 4096)",
        "run('conv': 0x0, off-chip, 0x1000)",
        "run('relu': 0x1000, 0x1000)",
        "dma_out('y', 4096, 8192)",
    ]


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_commands_named_in_the_docs_exist(page: Path) -> None:
    from cosma.cli.app import COMMANDS

    text = page.read_text()
    fenced = "\n".join(re.findall(r"```\n(.*?)```", text, re.S))
    named = {*re.findall(r"^cosma ([a-z]+)", fenced, re.M), *re.findall(r"`cosma ([a-z]+)", text)}
    assert named <= set(COMMANDS), named - set(COMMANDS)


def test_the_public_names_are_documented() -> None:
    import cosma

    page = (DOCS / "api.md").read_text()
    assert {name for name in cosma.__all__ if f" cosma.{name}\n" not in page} <= {"Instruction"}


def test_every_page_is_in_the_sidebar_once() -> None:
    index = (DOCS / "index.md").read_text()
    listed = re.findall(r"^([a-z_/]+)$", "\n".join(re.findall(r"```{toctree}\n(.*?)```", index, re.S)), re.M)
    assert len(listed) == len(set(listed))
    pages = {page.stem for page in (*DOCS.glob("*.md"), *DOCS.glob("*.ipynb"))}
    assert pages - {"index"} == {name for name in listed if "/" not in name}
