"""Ctrl-C and SIGTERM in commands that try one thing after the other: what has been tried is told."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np

from cosma.accelerator import Accelerator
from cosma.compiler import compile
from cosma.plan.file import save_plan
from tests.field.test_interrupts import Running, knot


def test_cache_keeps_the_policies_that_have_run(tmp_path: Path) -> None:
    np.save(tmp_path / "trace.npy", np.random.default_rng(3).integers(0, 8, size=(40, 2, 1)))
    code = (
        "import pathlib, time, cosma.caching.service as s\nold, calls = s._Bench.run, []\n"
        "def slow(*a):\n    calls.append(1)\n    if len(calls) == 3:\n        pathlib.Path('waiting').touch()\n"
        "        time.sleep(60)\n    return old(*a)\n"
        "s._Bench.run = slow\nfrom cosma.cli import main; main()"
    )
    running = Running(tmp_path, "cache", "trace.npy", "--slots", "3", "--json", code=code)
    running.until((tmp_path / "waiting").exists)
    status, out, errors = running.end(signal.SIGTERM)
    assert status == 0, errors
    assert "interrupted; these are the policies that have run so far" in errors
    record = json.loads(out)
    assert record["stopped_by"] == "interrupt"
    assert [len(report["results"]) for report in record["reports"].values()] == [2]


def test_explain_says_what_it_did_not_try(tmp_path: Path) -> None:
    plan = compile(knot(6, 3), Accelerator(scratchpad="12KiB"), strategy="e1")
    save_plan(plan, tmp_path / "plan.json")
    code = (
        "import pathlib, time, cosma.studies.levers as l\nold, calls = l.run_compile, []\n"
        "def slow(*a, **k):\n    calls.append(1)\n    if len(calls) == 2:\n        pathlib.Path('waiting').touch()\n"
        "        time.sleep(60)\n    return old(*a, **k)\n"
        "l.run_compile = slow\nfrom cosma.cli import main; main()"
    )
    running = Running(tmp_path, "explain", "plan.json", code=code)
    running.until((tmp_path / "waiting").exists)
    status, out, errors = running.end(signal.SIGTERM)
    assert status == 0, errors
    assert errors.endswith("interrupted: what would help was not tried to the end\n")
    assert "Tensors that cost most" in out
    assert "a longer search, all else as it is" in out
