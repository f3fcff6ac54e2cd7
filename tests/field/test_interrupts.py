"""Ctrl-C and SIGTERM: every command ends soon, keeps what is finished, and says that it is partial."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from cosma.accelerator import Accelerator
from cosma.compiler import compile, run_compile
from cosma.errors import InputError
from cosma.graph import Graph, Operator, Tensor
from cosma.graph.json_format import save_graph
from cosma.studies.curve import make_curve
from tests.onnx_files import save_network
from tests.packing.hard import save_hard_buffers
from tests.planning import diamond

ROOT = Path(__file__).resolve().parents[2]
#: Where the diamond is not proven optimal at once.
TIGHT = Accelerator(scratchpad=384, operands="resident", in_place=False)
#: Seconds that a busy machine may take for anything.
LONG_S = 400.0


def knot(width: int = 14, depth: int = 10) -> Graph:
    """A network that takes long to plan well: layers of operators that read two of the layer before, at random."""
    random = np.random.default_rng(7)
    tensors, operators, before = [Tensor("x", 4096, "input")], [], ["x"]
    for layer in range(depth):
        names = [f"t{layer}_{i}" for i in range(width)]
        for name in names:
            reads = tuple(dict.fromkeys(random.choice(before, 2).tolist()))
            kind = "output" if layer == depth - 1 else "intermediate"
            tensors.append(Tensor(name, int(random.integers(8, 64)) * 64, kind))
            operators.append(Operator(f"v_{name}", "Mix", reads, (name,)))
        before = names
    used = {name for operator in operators for name in operator.inputs}
    unread = {t.name for t in tensors if t.kind == "intermediate"} - used
    ends = [Tensor(t.name, t.size_bytes, "output") if t.name in unread else t for t in tensors]
    return Graph(ends, operators, "knot")


class Running:
    """A command in a process of its own, with its standard error in a file that can be read while it runs."""

    def __init__(
        self, folder: Path, *arguments: str, code: str = "from cosma.cli import main; main()", module: bool = False
    ) -> None:
        (folder / "command.py").write_text(code)
        self.errors = folder / "stderr.txt"
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        command = ["-m", "command"] if module else ["-c", code]
        with self.errors.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, *command, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE,
                stderr=stream, text=True,
            )  # fmt: skip

    def until(self, state: Callable[[], bool]) -> None:
        """Wait until something holds, while the command runs."""
        begun = time.monotonic()
        while not state():
            assert self.process.poll() is None, self.errors.read_text()
            assert time.monotonic() - begun < LONG_S
            time.sleep(0.02)

    def end(self, *numbers: signal.Signals) -> tuple[int, str, str]:
        """Send signals one after the other, Ctrl-C if none is named; exit code, output, messages."""
        for number in numbers or (signal.SIGINT,):
            self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=LONG_S)
        return self.process.returncode, out, self.errors.read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_graph(knot(), tmp_path / "knot.json")
    return tmp_path


def test_while_modules_are_imported_there_is_one_line_or_none(folder: Path) -> None:
    # A module that takes long to import stands for all of them.
    (folder / "typer.py").write_text("import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(60)\n")
    code = "import sys; sys.path.insert(0, ''); from cosma.cli import main; main()"
    for number in (signal.SIGINT, signal.SIGTERM):
        running = Running(folder, "presets", code=code)
        running.until((folder / "begun").exists)
        status, out, errors = running.end(number)
        assert (status, out, errors) == (130, "", "interrupted\n")
        (folder / "begun").unlink()


@pytest.mark.parametrize("delay_s", [0.0, 0.03, 0.06, 0.1, 0.15, 0.25, 0.4])
def test_at_any_moment_there_is_no_traceback(folder: Path, delay_s: float) -> None:
    # What comes before, the start of the interpreter itself, is not ours.
    code = (
        "import pathlib\nfrom cosma.cli import interrupts, main\ninterrupts.listen()\n"
        "pathlib.Path('listening').touch()\nmain()"
    )
    options = ("--scratchpad", "12KiB", "--effort", "500", "-o", "plan.json")
    running = Running(folder, "compile", "knot.json", *options, code=code)
    running.until((folder / "listening").exists)
    time.sleep(delay_s)
    status, out, errors = running.end()
    assert status in (0, 130), errors
    assert "Traceback" not in errors
    assert "interrupted" in errors
    # One line where nothing was found; a kept plan is followed by what may help.
    assert errors.count("\n") <= (1 if status == 130 else 4)
    assert (status == 0) == (folder / "plan.json").exists() == bool(out)


# `timeout` sends SIGTERM twice, and launchers hand on a Ctrl-C that the command has from the terminal.
@pytest.mark.parametrize(
    "numbers", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGTERM, signal.SIGINT]], ids=["int", "term", "both"]
)
def test_curve_keeps_the_points_that_are_finished(folder: Path, numbers: list[signal.Signals]) -> None:
    # The third point waits, so that the interrupt comes while it is planned.
    code = (
        "import pathlib, cosma.studies.point_planner as c\nold = c.Planner.plan\n"
        "def slow(*a):\n    n = len(list(pathlib.Path('.').glob('done*')))\n"
        "    if n == 2:\n        pathlib.Path('waiting').touch()\n        import time; time.sleep(3600)\n"
        "    pathlib.Path(f'done{n}').touch()\n    return old(*a)\n"
        "c.Planner.plan = slow\nimport cosma.cli.interrupts as i\ni.BURST_S = 600.0\n"
        "from cosma.cli import main; main()"
    )
    running = Running(folder, "curve", "knot.json", "--strategy", "e2", "-o", "c.csv", "--json", code=code)
    running.until((folder / "waiting").exists)
    status, out, errors = running.end(*numbers)
    assert status == 0, errors
    assert "interrupted: this curve is partial, 2 of 16 points" in errors
    assert json.loads(out)["partial"] is True
    assert len((folder / "c.csv").read_text().splitlines()) == 3


def save_convolutions(folder: Path) -> None:
    """A chain of convolutions, for which tilings are searched."""
    nodes, weights, last = [], {}, "x"
    for i in range(6):
        weights[f"w{i}"] = (16, 16, 3, 3)
        nodes.append(helper.make_node("Conv", [last, f"w{i}"], [f"c{i}" if i < 5 else "y"], pads=[1, 1, 1, 1]))
        last = f"c{i}"
    save_network(folder / "convs.onnx", nodes, {"x": (1, 16, 32, 32)}, weights)


def test_a_search_for_tilings_may_lay_out_the_best_that_it_has(folder: Path) -> None:
    save_convolutions(folder)
    # The signal comes while changes are tried; what follows takes longer than a search may take to answer.
    code = (
        "import pathlib, time, cosma.cli.interrupts as i, cosma.compiler.searched as s, cosma.tiling.search as t\n"
        "change, plan = t.TilingSearch.change, s.best_along\n"
        "def changed(*a):\n    pathlib.Path('searching').touch()\n    time.sleep(0.05)\n    return change(*a)\n"
        "def planned(*a):\n    time.sleep(3 * i.GRACE_S)\n    return plan(*a)\n"
        "t.TilingSearch.change, s.best_along = changed, planned\nfrom cosma.cli import main; main()"
    )
    options = ("--scratchpad", "20KiB", "--weights", "scratchpad", "--tiling", "auto", "--effort", "3")
    running = Running(folder, "compile", "convs.onnx", *options, "-o", "p.json", code=code)
    running.until((folder / "searching").exists)
    status, _, errors = running.end()
    assert status == 0, errors
    assert "interrupted; this is the best plan so far" in errors
    assert json.loads((folder / "p.json").read_text())["stopped_by"] == "interrupt"


def test_the_first_point_of_a_curve_is_finished_with_the_best_plan(folder: Path) -> None:
    save_convolutions(folder)
    code = (
        "import pathlib, time, cosma.tiling.search as t\nold = t.TilingSearch.change\n"
        "def changed(*a):\n    pathlib.Path('searching').touch()\n    time.sleep(0.05)\n    return old(*a)\n"
        "t.TilingSearch.change = changed\nfrom cosma.cli import main; main()"
    )
    options = ("--weights", "scratchpad", "--tiling", "auto", "--from", "20KiB", "--effort", "3", "-o", "c.csv")
    running = Running(folder, "curve", "convs.onnx", *options, code=code)
    running.until((folder / "searching").exists)
    status, _, errors = running.end()
    assert status == 0, errors
    assert "interrupted: this curve is partial, 1 of 16 points" in errors
    assert len((folder / "c.csv").read_text().splitlines()) == 2


def test_what_is_found_is_written_however_long_that_takes(folder: Path) -> None:
    code = (
        "import pathlib, time, cosma.studies.curve_views as v\nold = v.curve_csv\n"
        "def slow(*a):\n    pathlib.Path('writing').touch()\n    time.sleep(3)\n    return old(*a)\n"
        "v.curve_csv = slow\nfrom cosma.cli import main; main()"
    )
    save_graph(diamond(), folder / "diamond.json")
    options = ("--strategy", "e2", "--points", "3", "-o", "c.csv", "--figure", "c.svg")
    running = Running(folder, "curve", "diamond.json", *options, code=code)
    running.until((folder / "writing").exists)
    status, out, errors = running.end()
    assert status == 0, errors
    assert "smallest feasible" in out
    assert len((folder / "c.csv").read_text().splitlines()) == 4
    assert (folder / "c.svg").exists()


def test_place_keeps_the_best_placement(folder: Path) -> None:
    trace = np.random.default_rng(3).integers(0, 16, size=(200, 4, 1))
    np.save(folder / "trace.npy", trace)
    code = (
        "import pathlib, time, cosma.placement.search as s\nold, calls = s.anneal, []\n"
        "def slow(*a, **k):\n    calls.append(1)\n    if len(calls) == 3:\n        pathlib.Path('waiting').touch()\n"
        "        time.sleep(60)\n    return old(*a, **k)\n"
        "s.anneal = slow\nfrom cosma.cli import main; main()"
    )
    running = Running(
        folder, "place", "trace.npy", "--nodes", "2", "--devices-per-node", "4", "--work", "10000",
        "--strategy", "search", "-o", "p.json", code=code,
    )  # fmt: skip
    running.until((folder / "waiting").exists)
    status, _, errors = running.end()
    assert status == 0, errors
    assert "this is the best placement so far" in errors
    record = json.loads((folder / "p.json").read_text())
    assert record["solver"]["stopped_by"] == "interrupt"


def test_pack_keeps_the_lowest_packing(folder: Path) -> None:
    save_hard_buffers(folder / "b.csv")
    code = (
        "import pathlib, time, cosma.packing.smallest as s\n"
        "def slow(*a):\n    pathlib.Path('searching').touch()\n    time.sleep(60)\n"
        "s.exact_packing = slow\nfrom cosma.cli import main; main()"
    )
    running = Running(folder, "pack", "b.csv", "--minimise", "-o", "out.csv", code=code)
    running.until((folder / "searching").exists)
    status, _, errors = running.end()
    assert status == 0, errors
    assert "interrupted: this is the lowest packing so far" in errors
    assert len((folder / "out.csv").read_text().splitlines()) == 121


def test_a_second_signal_ends_at_once_and_loses_nothing_written(folder: Path) -> None:
    (folder / "plan.json").write_text("kept")
    code = (
        "import pathlib, time, cosma.compiler.compile as c\n"
        "def stubborn(*a, **k):\n    pathlib.Path('begun').touch()\n"
        "    while True:\n        try:\n            time.sleep(60)\n        except KeyboardInterrupt:\n"
        "            pathlib.Path('ignored').touch()\n"
        "import cosma.compiler\ncosma.compiler.run_compile = stubborn\nfrom cosma.cli import main; main()"
    )
    running = Running(folder, "compile", "knot.json", "--scratchpad", "12KiB", "-o", "plan.json", code=code)
    running.until((folder / "begun").exists)
    running.process.send_signal(signal.SIGINT)
    running.until((folder / "ignored").exists)
    # What comes at once after the first is the same signal.
    while running.process.poll() is None:
        running.process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    assert (running.process.wait(), running.errors.read_text()) == (130, "interrupted\n")
    assert (folder / "plan.json").read_text() == "kept"


def test_a_command_without_results_to_keep_ends_with_130(folder: Path) -> None:
    code = (
        "import pathlib, time, cosma.cli.inspect_ as i\n"
        "def slow(*a):\n    pathlib.Path('begun').touch()\n    time.sleep(60)\n"
        "i.describe = slow\nfrom cosma.cli import main; main()"
    )
    running = Running(folder, "inspect", "knot.json", code=code)
    running.until((folder / "begun").exists)
    status, out, errors = running.end(signal.SIGTERM)
    assert (status, out, errors) == (130, "", "interrupted\n")


# -- the library ------------------------------------------------------------------------------------------


def raising(after: int) -> Callable[[object], None]:
    calls = 0

    def sink(_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == after:
            raise KeyboardInterrupt

    return sink


def test_the_library_hands_an_interrupt_to_its_caller() -> None:
    with pytest.raises(KeyboardInterrupt):
        run_compile(diamond(), TIGHT, sink=raising(1))
    result = run_compile(diamond(), TIGHT, sink=raising(1), on_interrupt="best")
    assert result.stopped_by == "interrupt"
    assert result.plan.stopped_by == "interrupt"
    assert not result.reproducible
    with pytest.raises(InputError, match="on_interrupt must be"):
        compile(diamond(), TIGHT, on_interrupt="ignore")  # type: ignore[arg-type]


def test_an_interrupt_before_the_first_plan_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cosma.compiler.run.CompileRun.offer_starts", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_compile(diamond(), TIGHT, on_interrupt="best")


def test_a_curve_in_the_library() -> None:
    def progress(done: int, of: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_curve(knot(6, 4), TIGHT, strategy="e2", effort=0.01, points=8, progress=progress)
    curve = make_curve(knot(6, 4), TIGHT, strategy="e2", effort=0.01, points=8, progress=progress, on_interrupt="best")
    assert curve.partial
    assert len(curve.points) == 2


def test_a_package_whose_import_is_interrupted_is_not_missing(tmp_path: Path) -> None:
    code = """
import os, signal, time
import cosma.cli.app as app
from cosma.errors import SolverUnavailableError
def invoke():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    except KeyboardInterrupt:
        raise SolverUnavailableError("not installed")
app._invoke = invoke
from cosma.cli import main
main()
"""
    running = Running(tmp_path, code=code)
    assert running.process.wait(LONG_S) == 130
    assert running.errors.read_text() == "interrupted\n"


@pytest.mark.parametrize("interrupted", [True, False])
def test_a_kernel_left_half_made_by_an_interrupt_is_no_defect(tmp_path: Path, interrupted: bool) -> None:
    code = f"""
import os, signal, time, types
import cosma.cli.app as app
half = types.ModuleType("numba.half")
exec("def kernel(): raise RuntimeError('no compiled object yet')", half.__dict__)
def invoke():
    try:
        if {interrupted}:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
    except KeyboardInterrupt:
        pass
    half.kernel()
app._invoke = invoke
from cosma.cli import main
main()
"""
    running = Running(tmp_path, code=code)
    assert running.process.wait(LONG_S) == (130 if interrupted else 1)
    said = running.errors.read_text()
    assert ("interrupted while kernels were compiled" in said) is interrupted
    assert ("internal error: RuntimeError" in said) is not interrupted


def test_an_interrupt_out_of_evaluated_text_keeps_the_exit_code(folder: Path) -> None:
    # Compilers evaluate text that they make; `python -m` ends by a signal after that.
    code = (
        "import pathlib, time, cosma.cli.inspect_ as i\n"
        "def slow(*a):\n    eval(\"(pathlib.Path('begun').touch(), time.sleep(60))\", globals())\n"
        "i.describe = slow\nfrom cosma.cli import main; main()"
    )
    running = Running(folder, "inspect", "knot.json", code=code, module=True)
    running.until((folder / "begun").exists)
    status, out, errors = running.end()
    assert (status, out, errors) == (130, "", "interrupted\n")


def test_an_interrupt_where_python_ignores_exceptions_is_raised_again(folder: Path) -> None:
    # Finalizers stand for callbacks of compilers: what is raised in one is printed and lost.
    code = (
        "import pathlib, time, cosma.cli.inspect_ as i\n"
        "class Held:\n    def __del__(self):\n        pathlib.Path('begun').touch()\n        time.sleep(60)\n"
        "def slow(*a):\n    Held()\n    try:\n        time.sleep(60)\n"
        "    except KeyboardInterrupt:\n        pathlib.Path('raised').touch()\n        raise\n"
        "i.describe = slow\nfrom cosma.cli import main; main()"
    )
    running = Running(folder, "inspect", "knot.json", code=code)
    running.until((folder / "begun").exists)
    status, out, errors = running.end()
    assert (status, out, errors) == (130, "", "interrupted\n")
    assert (folder / "raised").exists()
