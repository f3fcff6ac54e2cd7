"""The experiments that are kept in ``results/``, and the table that guards against regressions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from cosma.experiments import load_experiment, load_rows
from cosma.experiments.compare import compare, contradictions

RESULTS = Path(__file__).resolve().parents[2] / "results"
EXPERIMENTS = sorted(RESULTS.glob("*.toml"))


def test_there_are_experiments() -> None:
    assert {"ci", "headline", "nas", "open"} <= {path.stem for path in EXPERIMENTS}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_expands(path: Path) -> None:
    if path.stem == "open" and not (RESULTS.parents[1] / "shared" / "models").is_dir():
        pytest.skip("the folder of shared models is not beside the repository")
    cells = load_experiment(path).cells()
    assert {"e1", "e2", "e3", "auto"} <= {cell.label for cell in cells}


def test_the_headline_covers_the_zoo_on_the_three_grids() -> None:
    experiment = load_experiment(RESULTS / "headline.toml")
    zoo = {path.stem for path in (RESULTS.parent / "models" / "zoo").glob("*.onnx")}
    assert {model.name for model in experiment.models} == zoo
    assert len(experiment.points) == 4 + 4 + 6
    assert len({point.grid for point in experiment.points}) == 3


def test_the_kept_table_has_exactly_the_cells_of_its_experiment() -> None:
    kept = load_rows(RESULTS / "ci" / "rows.csv")
    assert [row.point for row in kept] == [cell.point() for cell in load_experiment(RESULTS / "ci.toml").cells()]
    assert all(row.planned for row in kept)
    assert not contradictions(kept)


@pytest.mark.parametrize("column", ["noncompulsory", "lower_bound", "status"])
def test_a_regression_planted_in_any_cell_is_found(column: str) -> None:
    kept = load_rows(RESULTS / "ci" / "rows.csv")
    assert not compare(kept, kept)
    planted = 0
    for i, row in enumerate(kept):
        if column == "noncompulsory":
            worse = msgspec.structs.replace(row, noncompulsory=(row.noncompulsory or 0) + 1, status="feasible")
        elif column == "lower_bound":
            if not row.lower_bound:
                continue
            worse = msgspec.structs.replace(row, lower_bound=row.lower_bound - 1, status="feasible")
        else:
            worse = msgspec.structs.replace(row, status="timeout", noncompulsory=None, lower_bound=None)
        found = compare(kept, [*kept[:i], worse, *kept[i + 1 :]])
        assert [d.regression for d in found] == [True], (row, found)
        planted += 1
    assert planted


def test_the_command_refuses_an_unknown_name() -> None:
    command = [sys.executable, str(RESULTS / "make.py"), "nothing"]
    environment = os.environ | {"PYTHONPATH": str(RESULTS.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "headline" in done.stderr
