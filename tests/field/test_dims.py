"""Dimensions from the field, bound on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import onnx
from onnx import TensorProto, helper


def cosma(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    return subprocess.run(
        [sys.executable, "-c", "from cosma.cli import main; main()", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def relu(folder: Path, shape: list[int | str]) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
    onnx.save(helper.make_model(graph), folder / "m.onnx")


def test_the_hint_can_be_pasted_and_helps(tmp_path: Path) -> None:
    for shape, hint in (
        (["batch-size", "seq-len"], "--dim batch-size=1 --dim seq-len=1"),
        (["s0", "floor(s0/2)"], "--dim s0=1"),
        (["?", "?"], "--dim x.0=1 --dim x.1=1"),
        (["batch size", 2], "--dim 'batch size'=1"),
    ):
        relu(tmp_path, shape)
        done = cosma(tmp_path, "inspect", "m.onnx")
        assert done.returncode == 2
        assert done.stderr.endswith(f"bind each, for example {hint}\n"), done.stderr
        command = f"{sys.executable} -m cosma inspect m.onnx --json {hint}"
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        again = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert again.returncode == 0, again.stderr


def test_a_cache_may_be_empty_on_the_command_line(tmp_path: Path) -> None:
    past = helper.make_tensor_value_info("past", TensorProto.FLOAT, ["B", "P", 4])
    now = helper.make_tensor_value_info("now", TensorProto.FLOAT, ["B", "S", 4])
    cache = helper.make_tensor_value_info("cache", TensorProto.FLOAT, ["B", "P + S", 4])
    concat = helper.make_node("Concat", ["past", "now"], ["cache"], axis=1)
    onnx.save(helper.make_model(helper.make_graph([concat], "g", [past, now], [cache])), tmp_path / "m.onnx")
    sizes = ("--dim", "B=1", "--dim", "S=4", "--dim", "P=0")
    done = cosma(tmp_path, "compile", "m.onnx", "--scratchpad", "4KiB", *sizes, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["traffic"]["compulsory"] == 128
