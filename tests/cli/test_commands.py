"""The command line as users run it, in a folder of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from onnx import helper

from cosma.graph.json_format import save_graph
from tests.field.commands import cosma as here
from tests.onnx_files import save_network
from tests.planning import diamond


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_graph(diamond(), tmp_path / "diamond.json")
    return tmp_path


def cosma(folder: Path, *arguments: str, hash_seed: str = "random") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "PYTHONHASHSEED": hash_seed}
    return subprocess.run(
        [sys.executable, "-c", "from cosma.cli import main; main()", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_compile_then_check(folder: Path) -> None:
    done = cosma(folder, "compile", "diamond.json", "--scratchpad", "384", "--operands", "resident", "-o", "plan.json")
    assert done.returncode == 0, done.stderr
    for word in ("diamond on scratchpad 384 B", "non-compulsory", "lower bound", "optimal", "compulsory"):
        assert word in done.stdout
    assert "\x1b" not in done.stdout
    checked = cosma(folder, "check", "plan.json", "diamond.json")
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.startswith("valid: ")


def test_tiles_that_would_need_more_ranges_are_told_of(folder: Path) -> None:
    """Whole operators are planned where no tiles have so few ranges, and it is said what would help."""
    nodes = [
        helper.make_node("Conv", ["x", "expand"], ["a"]),
        helper.make_node("Conv", ["a", "depthwise"], ["b"], pads=[1, 1, 1, 1], group=12),
        helper.make_node("Conv", ["b", "project"], ["c"]),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    weights = {"expand": (12, 2, 1, 1), "depthwise": (12, 1, 3, 3), "project": (2, 12, 1, 1)}
    save_network(folder / "bottleneck.onnx", nodes, {"x": [1, 2, 12, 12]}, weights)
    for pieces, tiled in (((), True), (("--pieces", "1"), False)):
        options = ("--scratchpad", "512", "--weights", "scratchpad", "--dtype", "int8", "--effort", "0.05", *pieces)
        done = here("compile", folder / "bottleneck.onnx", "--tiling", "auto", *options, "-o", folder / "cut.json")
        assert done.code == 0, done.err
        checked = here("check", folder / "cut.json", folder / "bottleneck.onnx").out
        assert re.search(r"^valid: .* instructions, [\d,]+ tiles of 4 operators,", checked) if tiled else (
            ", 4 operators, " in checked
        )
        assert bool(re.search(r"^ tiles +\d", done.out, re.MULTILINE)) is tiled
        assert ("a larger --pieces" in done.err) is not tiled


def test_json_everywhere(folder: Path) -> None:
    compiled = answer(cosma(folder, "compile", "diamond.json", "--scratchpad", "384", "--json", "-o", "plan.json"))
    assert compiled["traffic"]["noncompulsory"] == 32
    assert compiled["certificate"]["status"] == "optimal"
    assert compiled["costliest"] == [{"tensor": "w", "noncompulsory": 32}]
    assert answer(cosma(folder, "check", "plan.json", "--json"))["valid"] is True
    facts = answer(cosma(folder, "inspect", "diamond.json", "--json"))
    assert facts["operators"] == 5
    capacities = {row["mode"]: row["smallest_feasible"] for row in facts["capacities"]}
    assert capacities["operands resident, weights stream, no in-place"] == 384
    # Everything may stream: the least that a curve plans for, too.
    assert capacities["operands streamable, weights stream, in-place"] == 64
    listed = answer(cosma(folder, "presets", "--json"))
    assert "gemmini-256k" in {a["name"] for a in listed["accelerators"]}
    assert {"auto", "e1"} <= {s["name"] for s in listed["strategies"]}


def test_same_input_same_bytes_whatever_the_hash_seed(folder: Path) -> None:
    plans = []
    for seed in ("0", "1"):
        options = ("--scratchpad", "256", "--effort", "1", "-o", f"{seed}.json")
        done = cosma(folder, "compile", "diamond.json", *options, hash_seed=seed)
        assert done.returncode == 0, done.stderr
        plans.append((folder / f"{seed}.json").read_bytes())
    assert plans[0] == plans[1]


def test_an_invalid_plan_is_refused_by_name(folder: Path) -> None:
    cosma(folder, "compile", "diamond.json", "--scratchpad", "384", "--operands", "resident", "-o", "plan.json")
    plan = json.loads((folder / "plan.json").read_text())
    plan["instructions"] = [i for i in plan["instructions"] if i["do"] != "store"]
    (folder / "bad.json").write_text(json.dumps(plan))
    done = cosma(folder, "check", "bad.json")
    assert done.returncode == 4
    assert "output-not-stored" in done.stderr or "tensor-lost" in done.stderr
    assert json.loads(cosma(folder, "check", "bad.json", "--json").stdout)["valid"] is False


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("compile", "diamond.json"), 2, "no accelerator"),
        (("compile", "diamond.json", "--scratchpad", "much"), 2, "cannot read 'much'"),
        (("compile", "diamond.json", "--accelerator", "warp"), 2, "neither a preset nor"),
        (("compile", "nothing.onnx", "--scratchpad", "1KiB"), 2, "no such file"),
        (("compile", "diamond.json", "--scratchpad", "1KiB", "--strategy", "x"), 2, "strategy 'x'"),
        (("compile", "diamond.json", "--scratchpad", "1KiB", "--dim", "N"), 2, "--dim 'N'"),
        (("compile", "diamond.json", "--scratchpad", "1KiB", "--dim", "N=-1"), 2, "--dim 'N=-1'"),
        (("compile", "diamond.json", "--scratchpad", "1KiB", "-o", "no/plan.json"), 2, "cannot write"),
        (("compile", "diamond.json", "--scratchpad", "128", "--operands", "resident"), 3, "does not fit"),
        (("compile", "diamond.json", "--scratchpad", "1KiB", "-o", "diamond.json"), 2, "would replace"),
        (("compile", "diamond.json", "--scratchpad", "1KiB", "--dim", "N=2"), 2, "nothing can be bound"),
        (("curve", "diamond.json", "-o", "diamond.csv", "--from", "0", "--to", "0"), 2, "is empty"),
        (("compile", "--no-such-option"), 2, "No such option"),
        (("check", "diamond.json"), 2, "not a cosma-plan file"),
        (("launch",), 2, "No such command"),
    ],
)
def test_bad_input_gets_one_message_and_its_exit_code(
    folder: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = cosma(folder, *arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert sorted(p.name for p in folder.iterdir()) == ["diamond.json"]


def test_a_trace_is_of_the_plan_and_leaves_it_alone(folder: Path) -> None:
    """A model that is another one is no source of multiply-accumulates, and no output replaces what is read."""
    from cosma import Graph, Operator, Tensor

    other = Graph([Tensor("p", 64, "input"), Tensor("q", 64, "output")], [Operator("other", "Relu", ["p"], ["q"])])
    save_graph(other, folder / "other.json")
    cosma(folder, "compile", "diamond.json", "--scratchpad", "384", "-o", "plan.json")
    plan = (folder / "plan.json").read_bytes()
    figures = ("--bandwidth", "1GB", "--clock", "1e9")
    for options, message in (
        (("--macs-per-cycle", "1", "--model", "other.json"), "not the model that the plan was made from"),
        (("--macs-per-cycle", "1", "-o", "plan.json"), "--output would replace"),
        (("--macs-per-cycle", "1e-320"), "not finite"),
    ):
        done = cosma(folder, "trace", "plan.json", *figures, *options)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
    assert cosma(folder, "trace", "plan.json", *figures, "--macs-per-cycle", "1", "--model", "diamond.json",
                 "-o", "trace.json").returncode == 0  # fmt: skip
    assert (folder / "plan.json").read_bytes() == plan
    again = cosma(folder, "compile", "diamond.json", "--scratchpad", "384", "--start", "plan.json", "-o", "plan.json")
    assert again.returncode == 0, again.stderr


def test_debug_shows_the_traceback(folder: Path) -> None:
    done = cosma(folder, "--debug", "check", "diamond.json")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_presets_override(folder: Path) -> None:
    done = answer(
        cosma(folder, "compile", "diamond.json", "--accelerator", "nvdla-small", "--alignment", "32", "--no-in-place",
              "--fusion", "epilogue", "--reserved", "1KiB", "--weights", "scratchpad", "--json")
    )  # fmt: skip
    assert done["accelerator"] == {
        "name": "nvdla-small", "scratchpad": 131072, "alignment": 32, "operands": "streamable",
        "weights": "scratchpad", "reserved": 1024, "in_place": False, "fusion": "epilogue", "min_transfer": 0,
        "zero_copy": None, "pieces": None,
    }  # fmt: skip
    assert done["operators"] == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_the_best_plan(folder: Path, number: signal.Signals) -> None:
    model = Path(__file__).resolve().parents[2] / "models/zoo/train_resnet20_b8.onnx"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-c", "from cosma.cli import main; main()", "compile", str(model)]
    options = ["--scratchpad", "256KiB", "--effort", "500", "-o", "plan.json"]
    for patience in (6, 18, 54):
        running = subprocess.Popen([*command, *options], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(timeout=patience)
        running.send_signal(number)
        _, messages = running.communicate(timeout=120)
        if running.returncode != 130:  # a busy machine may have no plan yet
            break
    assert running.returncode == 0, messages
    assert "interrupted" in messages
    assert cosma(folder, "check", "plan.json").returncode == 0


def test_compile_starts_from_plans(folder: Path) -> None:
    mode = ("--operands", "resident", "--json")
    first = answer(cosma(folder, "compile", "diamond.json", "--scratchpad", "384", *mode, "-o", "a.json"))
    assert "starts" not in first
    fixed = ("compile", "diamond.json", "--scratchpad", "448", *mode, "--strategy", "existing")
    second = cosma(folder, *fixed, "--start", "a.json", "-o", "b.json")
    assert answer(second)["traffic"]["noncompulsory"] <= first["traffic"]["noncompulsory"]
    assert answer(second)["starts"] == [{"plan": "a.json", "used": "plan", "why": ""}]
    assert second.stderr == "--scratchpad 448 is 448 bytes; write 448KiB for kibibytes\nwrote b.json\n"
    assert len(answer(second)["solver"]["starts"]) == 1
    narrow = cosma(folder, "compile", "diamond.json", "--scratchpad", "64", "--start", "a.json", "--start", "b.json")
    assert narrow.returncode == 0
    assert "start 1 (a.json) is not valid here, so only its order is used: instruction" in narrow.stderr
    assert "start 2 (b.json) is not valid here" in narrow.stderr


def test_bad_starts_are_bad_input(folder: Path) -> None:
    assert cosma(folder, "compile", "diamond.json", "--scratchpad", "384", "-o", "a.json").returncode == 0
    other = json.loads((folder / "a.json").read_text())
    other["operators"][1]["type"] = "Gelu"
    (folder / "other.json").write_text(json.dumps(other))
    (folder / "broken.json").write_text("{")
    again = ("compile", "diamond.json", "--scratchpad", "384")
    for given, message in (
        (("--start", "other.json"), "another network: operator 'left' is Gelu(a) -> b there, Relu(a) -> b here"),
        (("--start", "broken.json"), "broken.json: not a cosma-plan file"),
        (("--start", "none.json"), "none.json"),
        (("--start", "a.json", "--strategy", "e2"), "starts are for the strategies auto"),
        (("--start", "a.json", "--export-model", "m.mps"), "--export-model"),
    ):
        done = cosma(folder, *again, *given)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert not (folder / "m.mps").exists()
