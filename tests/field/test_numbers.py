"""What is no number, or none that makes sense, given to every option of every command that takes one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from onnx import helper

from cosma import Accelerator, compile, save_plan
from cosma.cli.app import app
from cosma.graph.json_format import save_graph
from tests.field.commands import cosma
from tests.onnx_files import save_network
from tests.planning import diamond

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
DEVICES = ("--nodes", "1", "--devices-per-node", "2")
COPIES = (*DEVICES, "--work", "1000")
FIGURES = ("--bandwidth", "1GB", "--clock", "1e9", "--macs-per-cycle", "8")
#: A line of each command with an option of numbers that is taken as it stands.
LINES = {
    "compile": ("graph.json", "--scratchpad", "2KiB", "--effort", "0.01"),
    "inspect": ("graph.json",),
    "curve": ("graph.json", "--strategy", "e1", "--points", "2"),
    "pack": ("buffers.csv", "--capacity", "1KiB"),
    "report": ("plan.json", "--accelerator", "ethos-u55-hiend", "--model", "graph.json", "-o", "page.html"),
    "trace": ("plan.json", *FIGURES, "--model", "graph.json"),
    "check": ("plan.json", "graph.json", "--prove"),
    "run": ("conv.json", "conv.onnx"),
    "export": ("plan.json", "-o", "plan.h"),
    "sweep": ("sweep.toml", "--dry-run"),
    "compare": ("rows.csv", "rows.csv"),
    "trace-info": ("trace.npy",),
    "place": ("trace.npy", *COPIES, "--current", "now.json", "--max-moves", "1"),
    "place-front": ("trace.npy", *COPIES, "--replicas-per-device", "0"),
    "place-windows": ("trace.npy", *COPIES, "--windows", "2", "--max-moves", "1"),
    "cache": ("trace.npy", "--slots", "2"),
}  # fmt: skip
#: Metavars of options that take numbers, sizes, or several of them.
NUMBERS = {
    "N", "S", "HZ", "X", "RATIO", "SHARE", "DEPTH", "SIZE", "SIZE|RANGES", "N,N,...", "C,C,...", "RATIO,...", "L,K",
    "NAME=N", "TENSOR=N",
}  # fmt: skip
#: All others, so that no option of numbers is overlooked.
WORDS = {
    "NAME", "FILE", "DIR", "ARRAY", "TYPE", "OUTPUT=INPUT", "each|mean", "png|svg|pdf", "none|epilogue",
    "stream|scratchpad", "resident|streamable|stationary", "none|auto|RULE|FILE.toml", "local|tcp://HOST:PORT",
    "MODEL", "MODEL.tflite", "X.npz", "PLAN.json", "OTHER.json", "REPORT.html", "NAME|FILE.toml",
}  # fmt: skip
OPTIONS = [
    (name, max(one.opts, key=len))
    for name, command in COMMANDS.items()
    for one in command.params
    if one.param_type_name == "option" and one.metavar in NUMBERS
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("numbers")
    save_graph(diamond(), made / "graph.json")
    save_plan(compile(diamond(), Accelerator(scratchpad="2KiB"), strategy="e1"), made / "plan.json")
    conv = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    model = save_network(made / "conv.onnx", [conv], {"x": (1, 2, 8, 8)}, {"w": (2, 2, 3, 3)}, ["y"])
    save_plan(compile(model, Accelerator(scratchpad="2KiB"), strategy="e1"), made / "conv.json")
    np.save(made / "trace.npy", np.random.default_rng(1).integers(0, 8, size=(64, 3, 1)))
    (made / "buffers.csv").write_text("id,lower,upper,size\na,0,2,64\nb,1,3,64\n")
    (made / "sweep.toml").write_text(
        'models = ["graph.json"]\nstrategies = ["e1"]\n[[grids]]\nname = "g"\nscratchpad = "2KiB"\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        assert cosma("sweep", "sweep.toml", "-o", "rows", "-j", "1").code == 0
        (made / "rows.csv").write_bytes((made / "rows" / "rows.csv").read_bytes())
        assert cosma("place", "trace.npy", *COPIES, "-o", "now.json").code == 0
    return made


def test_every_option_is_known_to_take_numbers_or_words() -> None:
    seen = {
        str(one.metavar)
        for command in COMMANDS.values()
        for one in command.params
        if one.param_type_name == "option" and one.metavar is not None
    }
    assert {name for name in seen - NUMBERS - WORDS if not name.startswith("FILE.")} == set()
    assert {name for name, _ in OPTIONS} == set(LINES)


@pytest.mark.parametrize("name", sorted(LINES))
def test_the_lines_are_taken_as_they_stand(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    done = cosma(name, *LINES[name])
    assert done.code == 0, done.err


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_what_is_no_number_is_refused_in_a_line(
    folder: Path, name: str, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    line = [*LINES[name]]
    if option in line:
        del line[line.index(option) : line.index(option) + 2]
    for value in ("nan", "-1", "inf", "many", "", "9" * 30):
        done = cosma(name, *line, f"{option}={value}")
        assert done.code == 2 or (done.code == 0 and value == "9" * 30), (value, done)
        if done.code == 2:
            _, error, message = done.err.rpartition("error: ")
            assert error, (value, done.err)
            # Two lines of usage follow where the parser refuses a value.
            assert len(message) < 400
            assert len(message.splitlines()) <= 3
