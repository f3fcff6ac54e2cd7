"""What the README shows works as shown."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_library_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "0 optimal"
    assert any(line.startswith("execute  conv, streaming x") for line in lines)


def test_the_first_command_names_a_model_that_is_here() -> None:
    (model,) = re.findall(r"cosma compile (models/\S+) --scratchpad", README)
    assert (ROOT / model).is_file()


def test_every_command_shown_exists() -> None:
    from cosma.cli.app import COMMANDS

    shown = set(re.findall(r"^cosma (\w+) .*#", README, re.MULTILINE)) | set(re.findall(r"`cosma (\w+)", README))
    assert shown <= set(COMMANDS)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_page_of_a_package_names_files_that_come_with_its_sources() -> None:
    """Links within the repository would be dead there: a picture is left out, and a page is called by its file."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]
    page = README
    for one in build["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        page = re.sub(one["pattern"], one["replacement"], page)
    assert re.findall(r"\]\((?!https?:)[^)]*\)", page) == []
    named = re.findall(r"\(`([\w./]+)`\)", page)
    assert len(named) >= 8
    shipped = build["build"]["targets"]["sdist"]["include"]
    assert [name for name in named if name not in shipped and name.partition("/")[0] not in shipped] == []


def test_the_headline_is_that_of_the_results() -> None:
    results = (ROOT / "results/README.md").read_text()
    shown = re.findall(r"^\| [a-z].* \| (\d+) % \| (\d+) \| (\d+) % \|$", README, re.MULTILINE)
    made = re.findall(r"^\| [RWS] \| auto \|(.*)\|$", results, re.MULTILINE)
    cells = [[float(cell.strip(" %")) for cell in row.split("|")] for row in made]
    # Of a row of results: less than the best, cases compared, proven optimal.
    assert [tuple(map(int, row)) for row in shown] == [(round(row[5]), row[6], round(row[9])) for row in cells]


def test_the_headline_of_tiles_is_that_of_the_results() -> None:
    ((share, count),) = re.findall(r"DenseNet-121 \| (\d+) % \| (\d+) \|$", README, re.MULTILINE)
    with (ROOT / "results/tiles/cells.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["grid"] == "reference"]
    moved: dict[tuple[str, str], dict[str, int]] = {}
    for row in rows:
        if row["noncompulsory"]:
            moved.setdefault((row["model"], row["sram_kib"]), {})[row["method"]] = int(row["noncompulsory"])
    best = [min(cell[name] for name in ("e1", "e2", "e3") if name in cell) for cell in moved.values()]
    less = [1 - cell["tiles"] / theirs for cell, theirs in zip(moved.values(), best, strict=True)]
    assert min(less) >= 0
    assert (int(share), int(count)) == (round(100 * sum(less) / len(less)), len(less))
