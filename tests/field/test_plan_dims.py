"""A plan keeps the sizes it was made for, and whoever reads it with its model takes them from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cosma import Accelerator, InputError, compile, replay
from cosma.execute import run_plan
from cosma.plan.file import load_plan, plan_from_json, plan_to_json
from tests.field.commands import cosma

MODEL = Path(__file__).parent / "data" / "dynamic_batch.onnx"


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    assert cosma("compile", MODEL, "--dim", "batch=2", "--scratchpad", "8KiB", "-o", path).code == 0
    return path


def test_the_file_names_the_sizes(plan_file: Path) -> None:
    assert json.loads(plan_file.read_text())["dims"] == {"batch": 2}
    plan = load_plan(plan_file)
    assert plan.dims == {"batch": 2}
    assert plan_from_json(plan_to_json(plan)) == plan


@pytest.mark.parametrize("command", ["check", "run"])
def test_commands_take_the_sizes_from_the_plan(plan_file: Path, command: str) -> None:
    assert cosma(command, plan_file, MODEL).code == 0
    assert cosma(command, plan_file, MODEL, "--dim", "batch=2").code == 0
    refused = cosma(command, plan_file, MODEL, "--dim", "batch=1")
    assert refused.code == 2
    assert refused.err == "error: the plan was made for batch=2, not for batch=1\n"


def test_trace_takes_them_too(plan_file: Path) -> None:
    figures = ["--bandwidth", "1GB", "--clock", "1e9", "--macs-per-cycle", "64"]
    assert cosma("trace", plan_file, "--model", MODEL, *figures).code == 0
    assert cosma("trace", plan_file, "--model", MODEL, "--dim", "batch=3", *figures).code == 2


def test_in_the_library() -> None:
    plan = compile(MODEL, Accelerator(scratchpad="8KiB"), strategy="e1", dims={"batch": 3})
    assert plan.dims == {"batch": 3}
    assert replay(plan).valid
    assert run_plan(plan, MODEL).equal
    with pytest.raises(InputError, match="made for batch=3, not for batch=2"):
        run_plan(plan, MODEL, dims={"batch": 2})


def test_a_plan_without_sizes_has_no_such_key() -> None:
    plan = compile(MODEL.parent / "shape_only_slice.onnx", Accelerator(scratchpad="4KiB"), strategy="e1")
    assert "dims" not in json.loads(plan_to_json(plan))
