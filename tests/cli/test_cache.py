"""``cosma cache`` at the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


def cosma(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cosma", "cache", *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "t.npz"
    np.savez(path, profile=rng.integers(0, 8, (200, 3)), eval_in=rng.integers(0, 8, (100, 3)))
    return path


def test_learns_on_one_part_and_reports_on_another(trace: Path) -> None:
    done = cosma(trace, "--share", "0.5", "--json", "--expert-size", "1MiB", "--bandwidth", "1GB")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["options"]["slots"] == 4
    assert list(report["reports"]) == ["eval_in"]
    part = report["reports"]["eval_in"]
    assert part["proven"]
    assert part["compulsory_fetches"] == 24
    best = part["results"][0]
    assert best["policy"] == "optimum"
    assert best["fetches"] == part["lower_bound_fetches"]
    assert best["stalled_s"] == pytest.approx(best["fetches"] * 2**20 / 1e9)
    assert best["moved_bytes"] == best["fetches"] * 2**20


def test_prints_a_table_and_the_bound(trace: Path) -> None:
    done = cosma(trace, "--slots", "4", "--policy", "lru", "--policy", "optimum", "--shared", "--one-by-one")
    assert done.returncode == 0, done.stderr
    assert "every schedule fetches at least" in done.stdout
    assert "proven" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--slots", "4", "--share", "0.5"], "once"),
        ([], "--slots N or --share S"),
        (["--share", "1.5"], "above 0"),
        (["--slots", "4", "--bandwidth", "1GB"], "--expert-size"),
        (["--slots", "4", "--policy", "mru"], "choose from"),
        (["--slots", "4", "--evaluate", "nothing"], "no array 'nothing'"),
        (["--slots", "2", "--batch", "4"], "experts at once"),
    ],
)
def test_bad_options_end_with_one_line(trace: Path, arguments: list[str], says: str) -> None:
    done = cosma(trace, *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
