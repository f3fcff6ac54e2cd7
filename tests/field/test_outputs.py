"""Outputs go where the user means, inputs are files, and what cannot be written is one clear line."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cosma.graph.json_format import save_graph
from tests.field.commands import cosma
from tests.planning import diamond

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_graph(diamond(), tmp_path / "diamond.json")
    return tmp_path


def plan_into(target: object, *more: str) -> tuple[int, str, str]:
    done = cosma("compile", "diamond.json", "--scratchpad", "384", "--strategy", "e2", "-o", str(target), *more)
    return done.code, done.out, done.err


def shell(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line in which ``cosma`` is the command, in a real shell."""
    script = f'cosma() {{ "{sys.executable}" -m cosma "$@"; }}; set -o pipefail; {line}'
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_holds_the_plan_and_nothing_else(folder: Path, name: str) -> None:
    code, out, err = plan_into(name)
    assert code == 0, err
    assert json.loads(out)["format"] == "cosma-plan"
    assert "lower bound" in err
    assert os.listdir(folder) == ["diamond.json"]


def test_standard_output_redirected_to_a_file(folder: Path) -> None:
    making = "cosma compile diamond.json --scratchpad 384 --strategy e2 -o /dev/stdout"
    done = shell(folder, f"{making} > plan.json && cosma check plan.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("valid: ")


def test_two_outputs_cannot_share_a_place(folder: Path) -> None:
    assert plan_into("-", "--json")[0] == 2
    assert plan_into("plan.json")[0] == 0
    done = cosma("export", "plan.json", "-o", "-", "--stays", "-")
    assert done.code == 2
    assert "--output and --stays both go to standard output" in done.err
    done = cosma("export", "plan.json", "-o", "a.csv", "--stays", "./a.csv")
    assert done.code == 2
    assert not Path("a.csv").exists()


def test_links_are_followed_and_stay_links(folder: Path) -> None:
    Path("kept").mkdir()
    Path("kept/plan.json").write_text("old")
    os.chmod("kept/plan.json", 0o640)
    Path("link.json").symlink_to("kept/plan.json")
    Path("new.json").symlink_to("kept/new.json")
    for name in ("link.json", "new.json"):
        assert plan_into(name)[0] == 0
        assert Path(name).is_symlink()
        assert json.loads(Path(name).read_text())["format"] == "cosma-plan"
    assert stat.S_IMODE(os.stat("kept/plan.json").st_mode) == 0o640
    assert sorted(os.listdir("kept")) == ["new.json", "plan.json"]
    Path("round.json").symlink_to("round.json")
    assert plan_into("round.json")[0] == 2


def test_a_pipe_is_written_through(folder: Path) -> None:
    os.mkfifo("pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(Path("pipe").read_text()), daemon=True)
    reader.start()
    assert plan_into("pipe")[0] == 0
    reader.join(30)
    assert json.loads(read[0])["format"] == "cosma-plan"
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)


def test_a_device_is_written_through(folder: Path) -> None:
    try:
        os.mknod("null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod("full", 0o600 | stat.S_IFCHR, os.makedev(1, 7))
        Path("null").write_bytes(b"x")
    except OSError:
        pytest.skip("devices can be made by root alone")
    code, _, err = plan_into("null")
    assert code == 0, err
    assert stat.S_ISCHR(os.stat("null").st_mode)
    code, _, err = plan_into("full")
    assert code == 2
    assert "No space left on device; the plan is kept in " in err
    rescued = Path(err.strip().rpartition(" ")[2])
    assert json.loads(rescued.read_text())["format"] == "cosma-plan"
    rescued.unlink()
    assert stat.S_ISCHR(os.stat("full").st_mode)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compile", "diamond.json", "--scratchpad", "384", "-o", "plan.xyz"), "unknown ending '.xyz'; use .json"),
        (("compile", "diamond.json", "--scratchpad", "384", "-o", "."), "is a folder"),
        (("compile", "diamond.json", "--scratchpad", "384", "-o", "none/plan.json"), "folder none does not exist"),
        (("curve", "diamond.json", "--figure", "curve.gif"), "--figure: cannot write curve.gif: unknown ending"),
        (("curve", "diamond.json", "-o", "none/a.csv"), "folder none does not exist"),
        (("report", "none.json", "-o", "page.pdf"), "--figure page.pdf draws a figure"),
        (("export", "none.json", "-o", "plan.docx"), "unknown ending '.docx'"),
        (("trace", "none.json", "-o", "trace.csv"), "unknown ending '.csv'"),
        (("pack", "none.csv", "--minimise", "--figure", "a.bmp"), "unknown ending '.bmp'"),
        (("place", "none.npy", "--nodes", "1", "--devices-per-node", "2", "--figure", "a.xyz"), "unknown ending"),
        (("place", "none.npy", "--nodes", "1", "--devices-per-node", "2", "-o", "no/a.json"), "folder no does not"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_any_work(
    folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = cosma(*arguments)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert os.listdir(folder) == ["diamond.json"]


def test_a_read_only_file_is_not_replaced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("plan.json").write_text("kept")
    # Root may write anything: the answer of the system is played.
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK)
    code, _, err = plan_into("plan.json")
    assert (code, Path("plan.json").read_text()) == (2, "kept")
    assert "may not be written to" in err
    code, _, err = plan_into("other.json")
    assert code == 2
    assert "is read-only" in err


@pytest.mark.parametrize(
    "command",
    ["presets", "presets --json", "inspect diamond.json", "compile diamond.json --scratchpad 384 --strategy e2 -o -"],
)
def test_a_reader_that_leaves_is_no_error(folder: Path, command: str) -> None:
    done = shell(folder, f"cosma {command} | head -1 > /dev/null; echo ${{PIPESTATUS[0]}}")
    assert done.stdout == "0\n"
    assert "error" not in done.stderr
    assert "Traceback" not in done.stderr
    done = shell(folder, f"cosma {command} | true; echo ${{PIPESTATUS[0]}}")
    assert done.stdout == "0\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["presets", "inspect diamond.json --json", "--version", "--help"])
def test_a_full_disk_behind_standard_output_is_one_line(folder: Path, command: str) -> None:
    done = shell(folder, f"cosma {command} > /dev/full")
    assert done.returncode == 2
    assert done.stderr == "error: cannot write standard output: No space left on device\n"


@pytest.mark.parametrize(
    "command",
    [
        "inspect {}.onnx", "inspect {}.json", "compile {}.onnx --scratchpad 1KiB", "check {}.json", "report {}.json",
        "run {}.json x.onnx", "pack {}.csv --minimise", "place {}.npy", "place {}.npz", "place {}.jsonl",
        "compile diamond.json --accelerator ./{}.toml", "sweep {}.toml", "diff {}.json {}.json", "explain {}.json",
        "compile diamond.json --scratchpad 1KiB --start {}.json", "export {}.json -o -", "trace {}.json",
    ],
)  # fmt: skip
def test_a_pipe_is_no_input(folder: Path, command: str) -> None:
    for suffix in ("onnx", "json", "csv", "npy", "npz", "jsonl", "toml"):
        os.mkfifo(f"pipe.{suffix}")
    done = cosma(*command.format("pipe", "pipe").split())
    assert done.code == 2, done.err
    assert "is a pipe, not a regular file" in done.err
    assert done.err.count("\n") == 1


def test_a_large_file_is_not_read_whole(folder: Path) -> None:
    with Path("plan.json").open("wb") as stream:
        stream.truncate(2**40)
    done = cosma("check", "plan.json")
    assert done.code == 2
    assert "has 1099511627776 bytes; files of more than" in done.err
