"""A real Dask scheduler and real workers on the loopback interface, one of which dies in the middle."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cosma.errors import InputError
from cosma.experiments import Experiment, load_rows, sweep
from tests.experiments.conftest import FAULTY

pytest.importorskip("distributed")

ROOT = Path(__file__).resolve().parents[2]
Make = Callable[..., Experiment]


def _address(file: Path) -> str:
    """Wait until the scheduler has written the whole of its file: it exists before it is filled."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            return str(json.loads(file.read_text())["address"])
        time.sleep(0.05)
    raise TimeoutError(f"no scheduler wrote {file} within two minutes")


@pytest.fixture
def cluster(tmp_path: Path, traces: Callable[[], int]) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Start a scheduler and two workers, each a process of its own; yield the address and the workers."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])}

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments],
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    file = tmp_path / "scheduler.json"
    here = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    scheduler = start("scheduler", *here, "--scheduler-file", str(file))
    options = ("--scheduler-file", str(file), "--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "0")
    processes = [scheduler]
    try:
        address = _address(file)
        workers = [start("worker", *options, "--name", f"worker{i}") for i in range(2)]
        processes += workers
        yield address, workers
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_worker_killed_in_the_middle_costs_no_cell(
    cluster: tuple[str, list[subprocess.Popen[bytes]]], experiment: Make, tmp_path: Path
) -> None:
    address, workers = cluster
    made = experiment(*(f"slow_{i}" for i in range(15)), strategies='["e1"]', head="keep_plans = true")
    log = tmp_path / "out" / "cells.jsonl"
    killed_at: list[int] = []

    def kill_one() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            done = log.read_bytes().count(b"\n") if log.is_file() else 0
            if done >= 5:
                workers[0].send_signal(signal.SIGKILL)
                killed_at.append(done)
                return
            time.sleep(0.01)

    killer = threading.Thread(target=kill_one)
    killer.start()
    result = sweep(made, tmp_path / "out", dask=address, quiet=True, runner=FAULTY)
    killer.join()
    assert workers[0].wait(timeout=20) == -signal.SIGKILL
    assert killed_at
    assert killed_at[0] < 45
    assert len(result.rows) == 45
    assert all(row.planned for row in result.rows), [row.reason for row in result.rows if not row.planned]
    assert len(list((tmp_path / "out" / "plans").iterdir())) == 45
    assert load_rows(tmp_path / "out") == result.rows
    # What was computed on the cluster is what this machine computes.
    local = sweep(made, tmp_path / "local", jobs=1, quiet=True)
    assert [row.plan_sha256 for row in local.rows] == [row.plan_sha256 for row in result.rows]


def test_a_cell_that_kills_its_process_leaves_the_worker_alone(
    cluster: tuple[str, list[subprocess.Popen[bytes]]], experiment: Make, tmp_path: Path
) -> None:
    address, workers = cluster
    names, head = ("killed", "hang", "good"), 'grids = ["R"]\n[limits]\nseconds = 8.0'
    made = experiment(*names, strategies='["e1"]', head=head, grids="")
    result = sweep(made, tmp_path / "out", dask=address, quiet=True, runner=FAULTY)
    statuses = {row.model: row.status for row in result.rows}
    assert (statuses["killed"], statuses["hang"]) == ("crashed", "timeout")
    assert statuses["good"] in ("optimal", "feasible")
    assert [worker.poll() for worker in workers] == [None, None]


def test_a_local_cluster_is_started_on_request(experiment: Make, tmp_path: Path) -> None:
    result = sweep(experiment("a"), tmp_path / "out", dask="local", jobs=1, quiet=True)
    assert len(result.rows) == 6
    assert all(row.planned for row in result.rows)


def test_no_scheduler_is_an_input_error(experiment: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosma.experiments.cluster.CONNECT_LIMIT_S", 1.0)
    with pytest.raises(InputError, match="no scheduler answers"):
        sweep(experiment("a"), tmp_path / "out", dask="tcp://127.0.0.1:9", quiet=True)
