"""What a terminal shows while a compile works, and what a compile says at its end."""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cosma
from cosma.cli import progress as shown
from cosma.cli.compile_ import closing_line, existing_rows
from cosma.compiler import Progress, run_compile
from cosma.graph.json_format import save_graph
from tests.planning import diamond

TIGHT = cosma.Accelerator(scratchpad=384, operands="resident")
ROOT = Path(__file__).resolve().parents[2]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_line_ticks_and_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(shown, "TICK_S", 0.02)
    monkeypatch.setenv("COLUMNS", "200")
    with shown.ProgressLine(quiet=False) as line:
        line(Progress("search", 2048, 1024, 1.0, 3.0, 10.0))
        time.sleep(0.3)
    frames = terminal.getvalue().split("\r")
    assert any("effort 3.0 of 10, search: non-compulsory 2048 B, bound 1024 B, gap 50.0 %" in f for f in frames)
    assert len({frame.strip() for frame in frames if "search" in frame}) >= 2, "the seconds go on by themselves"
    assert frames[-2].strip() == ""
    assert frames[-1] == ""


def test_the_line_shows_life_before_there_is_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(shown, "TICK_S", 0.02)
    with shown.ProgressLine(quiet=False):
        time.sleep(0.3)
    frames = terminal.getvalue().split("\r")
    assert sum("s, reading and preparing" in frame for frame in frames) >= 2
    assert frames[-1] == ""


def test_the_line_fits_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "40")
    with shown.ProgressLine(quiet=False) as line:
        line(Progress("search and bounds", 2048, 1024, 1.0, 3.0, 10.0))
    assert max(map(len, terminal.getvalue().split("\r"))) <= 39


@pytest.mark.parametrize("quiet", [False, True])
def test_kernels_that_are_compiled_are_announced_once(monkeypatch: pytest.MonkeyPatch, quiet: bool) -> None:
    """Also where the first of them brings numba along."""
    messages = io.StringIO()
    monkeypatch.setattr(sys, "stderr", messages)
    with shown.ProgressLine(quiet=quiet):
        numba = importlib.import_module("cosma.compiled").numba
        numba.njit(lambda x: x + 1)(1)
        numba.njit(lambda x: x + 2)(1)
    numba.njit(lambda x: x + 3)(1)
    assert messages.getvalue().count(shown.COMPILING) == (0 if quiet else 1)


def test_workshop_words_need_verbose(tmp_path: Path) -> None:
    save_graph(diamond(), tmp_path / "diamond.json")

    def compiled(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cosma", "compile", "diamond.json", "--scratchpad", "384", "-o", "my plan.json",
             *options],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    plain, verbose = compiled(), compiled("-v")
    assert plain.returncode == verbose.returncode == 0, plain.stderr + verbose.stderr
    everything = plain.stdout + plain.stderr
    assert "order as given, LRU" in plain.stdout
    assert "proven optimal" in plain.stderr
    assert "wrote my plan.json" in plain.stderr
    assert "cosma report 'my plan.json' -o report.html" in plain.stderr
    for word in ("found by", "nominal", "best replacement", "forced liveness"):
        assert word not in everything
    assert "found by" in verbose.stderr


def test_the_gain_is_that_of_the_two_totals() -> None:
    result = run_compile(diamond(), TIGHT)
    rows = existing_rows(result)
    assert rows[0][0].strip() == "order as given, LRU"
    mine, theirs = result.plan.traffic.total, result.existing["e1"].total
    if mine < theirs:
        assert f"{100 * (1 - mine / theirs):.1f} % less" in rows[0][2]
    else:
        assert "as much as this plan" in rows[0][2]
    assert closing_line(result).startswith(("proven optimal", "stopped because the effort"))


def test_advice_fits_the_strategy(tmp_path: Path) -> None:
    """An existing method searches nothing: more effort is no help, another strategy is."""
    save_graph(diamond(), tmp_path / "diamond.json")
    done = subprocess.run(
        [sys.executable, "-m", "cosma", "compile", "diamond.json", "--scratchpad", "384", "--operands", "resident",
         "--no-in-place", "--strategy", "e1", "-o", "plan.json"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "without a search" in done.stderr
    assert "--strategy auto" in done.stderr
    assert "effort" not in done.stderr
