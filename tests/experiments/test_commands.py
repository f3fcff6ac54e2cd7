"""``cosma sweep``, ``table`` and ``plot`` as users run them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cosma.cli import main
from cosma.experiments import Experiment
from cosma.experiments.row import rows_to_csv
from tests.cli.test_commands import cosma
from tests.experiments.rows import row

Make = Callable[..., Experiment]


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cosma", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        return code if isinstance(code, int) else 0, *capsys.readouterr()

    return call


def test_sweep_table_and_plot(experiment: Make, run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    experiment("a", "b", strategies='["e1", "e2", "e3", { strategy = "existing", label = "ours" }]')
    assert run("sweep", "experiment.toml", "--jobs", "1")[0] == 0
    again = json.loads(run("sweep", "experiment.toml", "--json")[1])
    assert (again["cells"], again["ran"], again["failures"]) == (24, 0, [])
    assert (tmp_path / "experiment" / "rows.csv").is_file()
    records = json.loads(run("table", "experiment", "--format", "json")[1])
    assert {record["strategy"] for record in records["headline"]} == {"ours"}
    assert all(record["worse"] == 0 for record in records["reduction"])
    assert "| a | T | ours |" in run("table", "experiment", "--only", "models")[1]
    made = run("table", "experiment", "--only", "fronts", "-f", "csv", "-o", "fronts.csv")
    assert made == (0, "", "wrote fronts.csv\n")
    assert len((tmp_path / "fronts.csv").read_text().splitlines()) == 1 + 6
    assert run("plot", "experiment", "-f", "svg")[0] == 0
    figures = tmp_path / "experiment" / "figures"
    names = ("reductions", "gaps", "times", "performance", "fronts")
    assert sorted(p.name for p in figures.iterdir()) == sorted(f"{name}.svg" for name in names)
    again_drawn = cosma(tmp_path, "plot", "experiment", "--only", "gaps", "-o", "again", hash_seed="1")
    assert again_drawn.returncode == 0, again_drawn.stderr
    assert (tmp_path / "again" / "gaps.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "again" / "gaps.svg").read_bytes() == (figures / "gaps.svg").read_bytes()


def test_a_table_is_put_between_its_marks(experiment: Make, run: Run, tmp_path: Path) -> None:
    document = "# Title\n<!-- table: headline -->\nold\n<!-- end -->\ntail\n"
    (tmp_path / "README.md").write_text(document)
    rows = [row("a", "e1", 9), row("a", "auto", 3)]
    (tmp_path / "rows.csv").write_text(rows_to_csv(rows))
    for _ in range(2):
        assert run("table", "rows.csv", "--only", "headline", "--insert", "README.md")[0] == 0
        text = (tmp_path / "README.md").read_text()
        assert text.startswith("# Title\n<!-- table: headline -->\n| grid |")
        assert text.endswith("\n<!-- end -->\ntail\n")
        assert "66.7 %" in text
        assert "\nold\n" not in text
    code, _, error = run("table", "rows.csv", "--only", "proof", "--insert", "README.md")
    assert code == 2
    assert "<!-- table: proof -->" in error


def test_a_dry_run_says_what_would_run(experiment: Make, run: Run, tmp_path: Path) -> None:
    experiment("a", "b")
    code, out, _ = run("sweep", "experiment.toml", "--dry-run", "--json")
    outline = json.loads(out)
    assert (code, outline["cells"], outline["to_run"], len(outline["keys"])) == (0, 12, 12, 12)
    assert not (tmp_path / "experiment").exists()
    _, out, error = run("sweep", "experiment.toml", "--dry-run")
    assert "nothing was run" in error
    assert "existing" in out


def test_progress_and_estimate_are_shown_on_stderr(experiment: Make, run: Run) -> None:
    experiment("a")
    _, out, error = run("sweep", "experiment.toml", "--jobs", "1")
    assert "6/6 cells, 0 failed" in error
    assert "left" in error
    assert "cells," not in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sweep", "none.toml"], "no such file"),
        (["sweep", "experiment.toml", "--jobs", "0"], "--jobs"),
        (["table", "nowhere"], "nowhere"),
        (["table", "experiment.toml"], "results are"),
        (["table", "nowhere", "--only", "all"], "--only 'all' is unknown"),
        (["table", "nowhere", "-f", "xls"], "--format"),
        (["plot", "nowhere", "--only", "pie"], "--only 'pie' is unknown"),
        (["plot", "nowhere", "-f", "gif"], "--format"),
        (["compare", "nowhere", "nowhere", "--slowdown", "1"], "--slowdown"),
    ],
)
def test_wrong_use_is_refused(experiment: Make, run: Run, arguments: list[str], says: str) -> None:
    experiment("a")
    code, _, error = run(*arguments)
    assert code == 2
    assert says in error


def test_json_carries_the_reasons_of_failures(experiment: Make, run: Run) -> None:
    experiment("a", grids='[[grids]]\nname = "tight"\nscratchpad = [64]\noperands = "resident"\n')
    result = json.loads(run("sweep", "experiment.toml", "--json", "--jobs", "1")[1])
    assert result["statuses"] == {"infeasible": 2}
    assert all("does not fit" in failure["reason"] for failure in result["failures"])
