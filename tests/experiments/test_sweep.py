"""Sweeps as a whole: isolation, limits, resuming, being killed, and what a cell costs beyond its work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from cosma.errors import CosmaError, InputError
from cosma.experiments import Cell, Experiment, load_experiment, load_rows, sweep
from cosma.experiments.isolated import Isolated
from cosma.experiments.local import Agenda
from cosma.experiments.run_cell import run_cell
from cosma.experiments.store import Store
from cosma.experiments.sweep import outline_folder
from cosma.plan.file import load_plan
from cosma.validator import replay
from tests.experiments.conftest import FAULTY

Make = Callable[..., Experiment]
Traces = Callable[[], int]
ROOT = Path(__file__).resolve().parents[2]
#: Columns that clocks, memory and processes decide.
NOISE = ("seconds", "seconds_first", "seconds_best", "cpu_seconds", "load_seconds", "rss")


def test_a_row_says_what_the_plan_says(experiment: Make, tmp_path: Path) -> None:
    result = sweep(experiment("a", head="keep_plans = true"), tmp_path / "out", jobs=1, quiet=True)
    assert result.statuses.keys() <= {"optimal", "feasible"}
    assert len(result.rows) == result.ran == result.cells == 6
    for row in result.rows:
        plan = load_plan(tmp_path / "out" / "plans" / f"{row.key}.json")
        report = replay(plan, plan.graph)
        assert not report.violations
        assert (row.total, row.noncompulsory) == (report.traffic.total, report.traffic.noncompulsory)
        assert (row.peak, row.scratchpad) == (report.peak_bytes, plan.accelerator.scratchpad)
        assert (row.lower_bound, row.gap, row.status) == (
            plan.certificate.lower_bound,
            plan.certificate.gap,
            plan.certificate.status,
        )


def test_each_fault_is_a_row_with_its_reason(experiment: Make, traces: Traces, tmp_path: Path) -> None:
    names = ("hang", "killed", "aborts", "exits", "greedy", "defect", "refused", "chatty", "good")
    made = experiment(
        *names,
        head='[limits]\nseconds = 8.0\nmemory = "1500MiB"\n',
        strategies='["e1"]',
        grids='[[grids]]\nname = "T"\nscratchpad = "1x"\n',
    )
    result = sweep(made, tmp_path / "out", jobs=2, quiet=True, runner=FAULTY)
    found = {row.model: (row.status, row.reason or "") for row in result.rows}
    expected = {
        "hang": ("timeout", "limit of 8 seconds"),
        "killed": ("crashed", "SIGKILL"),
        "aborts": ("crashed", "SIGABRT"),
        "exits": ("crashed", "exit code 7"),
        "greedy": ("memory", "1500 MiB"),
        "defect": ("error", "ZeroDivisionError: planted (faulty_cells.py:"),
        "refused": ("error", "planted"),
    }
    for name, (status, reason) in expected.items():
        assert found[name][0] == status, found[name]
        assert reason in found[name][1]
    assert found["good"][0] in ("optimal", "feasible")
    assert found["chatty"][0] in ("optimal", "feasible")


def test_running_again_runs_only_what_is_new(experiment: Make, traces: Traces, tmp_path: Path) -> None:
    def run(*names: str, strategies: str = '["e1"]', **options: bool) -> tuple[int, int]:
        before = traces()
        result = sweep(
            experiment(*names, strategies=strategies), tmp_path / "out", jobs=1, quiet=True, runner=FAULTY, **options
        )
        assert len(result.rows) == result.cells
        return result.ran, traces() - before

    assert run("a") == (3, 3)
    assert run("a") == (0, 0)
    assert run("a", "b") == (3, 3)
    assert run("a", "b", strategies='["e1", "e2"]') == (6, 6)
    assert run("b") == (0, 0)
    assert [row.model for row in load_rows(tmp_path / "out")] == ["b"] * 3
    assert run("a", fresh=True) == (3, 3)


def test_failures_stay_unless_retried_or_their_limit_was_raised(
    experiment: Make, traces: Traces, tmp_path: Path
) -> None:
    grid = '[[grids]]\nname = "T"\nscratchpad = "1x"\n'

    def ran(seconds: float, *, retry: bool = False) -> int:
        made = experiment("hang", "defect", head=f"[limits]\nseconds = {seconds}", strategies='["e1"]', grids=grid)
        return sweep(made, tmp_path / "out", jobs=1, quiet=True, retry=retry, runner=FAULTY).ran

    assert ran(0.2) == 2
    assert ran(0.2) == 0
    assert ran(0.3) == 1
    assert ran(0.3, retry=True) == 2


def test_the_plan_is_made_up_for_when_it_is_asked_for_later(experiment: Make, tmp_path: Path) -> None:
    assert sweep(experiment("a"), tmp_path / "out", jobs=1, quiet=True).ran == 6
    assert sweep(experiment("a", head="keep_plans = true"), tmp_path / "out", jobs=1, quiet=True).ran == 6
    assert sweep(experiment("a", head="keep_plans = true"), tmp_path / "out", jobs=1, quiet=True).ran == 0


def test_a_changed_model_is_another_model(experiment: Make, traces: Traces, tmp_path: Path) -> None:
    made = experiment("a", strategies='["e1"]')
    assert sweep(made, tmp_path / "out", jobs=1, quiet=True).ran == 3
    path = tmp_path / "nets" / "a.json"
    text = path.read_text()
    path.write_text(text + "\n")
    changed = run_cell(made.cells()[0]).row
    assert changed.status == "error"
    assert "changed" in (changed.reason or "")
    assert sweep(load_experiment(tmp_path / "experiment.toml"), tmp_path / "out", jobs=1, quiet=True).ran == 3


def test_rows_do_not_depend_on_the_number_of_processes(experiment: Make, tmp_path: Path) -> None:
    made = experiment("a", "b", "c")
    one, two = (
        [
            msgspec.structs.replace(row, **dict.fromkeys(NOISE))
            for row in sweep(made, tmp_path / str(jobs), jobs=jobs, quiet=True).rows
        ]
        for jobs in (1, 2)
    )
    assert one == two
    assert [row.point for row in one] == [cell.point() for cell in made.cells()]


def test_killed_at_any_moment_no_finished_cell_is_lost(experiment: Make, traces: Traces, tmp_path: Path) -> None:
    names = [f"slow_{i}" for i in range(12)]
    cells = len(experiment(*names, strategies='["e1"]', head="keep_plans = true").cells())
    code = (
        "import sys\nfrom cosma.experiments import load_experiment, sweep\n"
        f"sweep(load_experiment(sys.argv[1]), sys.argv[2], jobs=1, quiet=True, runner={FAULTY!r})\n"
    )
    out = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])}
    finished = 0
    for kill_after in (1, 8):
        arguments = [sys.executable, "-c", code, str(tmp_path / "experiment.toml"), str(out)]
        child = subprocess.Popen(arguments, env=environment)
        deadline = time.monotonic() + 60
        while _lines(out) < finished + kill_after and time.monotonic() < deadline:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        kept = load_rows(out)
        assert len(kept) >= finished + kill_after
        assert all((out / "plans" / f"{row.key}.json").is_file() for row in kept)
        finished = len(kept)
    assert finished < cells
    with open(out / "cells.jsonl", "ab") as log:
        log.write(b'{"key":"half a li')
    notes: list[str] = []
    result = sweep(load_experiment(tmp_path / "experiment.toml"), out, jobs=1, quiet=True, note=notes.append)
    assert result.ran == cells - finished
    assert len(result.rows) == cells
    assert any("torn" in text for text in notes)


def test_an_interrupt_keeps_what_is_finished_and_leaves_no_process(
    experiment: Make, traces: Traces, tmp_path: Path
) -> None:
    experiment("good", "hang", strategies='["e1"]')
    code = (
        "import sys, functools\nfrom cosma.cli import main\nimport cosma.experiments as e\n"
        f"e.sweep = functools.partial(e.sweep, runner={FAULTY!r})\n"
        "sys.argv = ['cosma', 'sweep', 'experiment.toml', '--jobs', '1']\nmain()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])}
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore interrupts, and so would their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while _lines(tmp_path / "experiment") < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = _children(child.pid)
    child.send_signal(signal.SIGINT)
    _, log = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "the same command goes on" in log
    assert {row.model for row in load_rows(tmp_path / "experiment")} == {"good"}
    assert workers
    assert not any(_alive(pid) for pid in workers)


def test_a_folder_serves_one_sweep_at_a_time(experiment: Make, tmp_path: Path) -> None:
    with Store(tmp_path / "out"), pytest.raises(InputError, match="another sweep"):
        sweep(experiment("a"), tmp_path / "out", jobs=1, quiet=True)
    assert sweep(experiment("a"), tmp_path / "out", jobs=1, quiet=True).ran == 6


def test_an_orphan_ends_with_its_parent(experiment: Make, traces: Traces) -> None:
    code = (
        "import os, sys, msgspec\n"
        "from cosma.experiments.cell import Cell\nfrom cosma.experiments.isolated import Isolated\n"
        f"worker = Isolated({FAULTY!r})\n"
        "cells = msgspec.json.decode(sys.stdin.buffer.read(), type=list[Cell])\n"
        "worker.run(cells[0]); print(worker.pid, flush=True); worker.run(cells[1])\n"
    )
    good, hang = (experiment(name, head="[limits]\nseconds = 60.0").cells()[0] for name in ("good", "hang"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])}
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    parent.stdin.write(msgspec.json.encode([good, hang]))
    parent.stdin.close()
    orphan = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while _alive(orphan) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(orphan)


def test_a_child_that_cannot_start_is_an_error() -> None:
    with Isolated("no_such_module:run") as worker, pytest.raises(CosmaError, match="no_such_module"):
        worker.run(_any_cell())


def test_cells_of_a_model_stay_with_a_process(experiment: Make) -> None:
    agenda = Agenda(experiment("a", "b", strategies='["e1"]').cells())
    first, second = agenda.next(None), agenda.next(None)
    assert first is not None
    assert second is not None
    assert first.path != second.path
    rest_of_first = [agenda.next(first.path) for _ in range(2)]
    assert {cell.path for cell in rest_of_first if cell} == {first.path}
    # Nothing of its own is left, so the first process helps the second.
    assert (helped := agenda.next(first.path)) is not None
    assert helped.path == second.path
    agenda.clear()
    assert agenda.next(second.path) is None


def test_a_cell_costs_little_beyond_its_work(experiment: Make, tmp_path: Path) -> None:
    sizes = ", ".join(str(1024 + 64 * i) for i in range(150))
    grids = f'[[grids]]\nname = "T"\nscratchpad = [{sizes}]\n'
    cells = experiment("a", strategies='["e1"]', grids=grids).cells()
    with Isolated() as worker, Store(tmp_path / "out") as store:
        store.add(worker.run(cells[0]).row)
        cpu_s, wall_s, own_s = time.process_time(), time.monotonic(), 0.0
        for cell in cells[1:]:
            row = worker.run(cell).row
            store.add(row)
            own_s += row.seconds or 0.0
        overhead_s = (time.monotonic() - wall_s - own_s) / (len(cells) - 1)
        assert (time.process_time() - cpu_s) / (len(cells) - 1) < 0.02
    assert overhead_s < 0.05


def test_the_outline_touches_nothing(experiment: Make, tmp_path: Path) -> None:
    made = experiment("a")
    outline = outline_folder(made, tmp_path / "out")
    assert (len(outline.cells), len(outline.waiting), outline.seconds_left) == (6, 6, None)
    assert not (tmp_path / "out").exists()
    sweep(made, tmp_path / "out", jobs=1, quiet=True)
    outline = outline_folder(experiment("a", "b"), tmp_path / "out")
    assert (len(outline.cells), len(outline.waiting)) == (12, 6)
    assert outline.seconds_left is not None


def _any_cell() -> Cell:
    return Cell(
        model="m", group="g", path="/none", model_sha256="0", grid="G", capacity="1", strategy="e1", label="e1",
        accelerator={},
    )  # fmt: skip


def _lines(folder: Path) -> int:
    log = folder / "cells.jsonl"
    return log.read_bytes().count(b"\n") if log.is_file() else 0


def _alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                found.append(int(entry.name))
    return found
