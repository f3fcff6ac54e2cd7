"""Plans in TensorFlow Lite files, executed by TensorFlow Lite Micro's own interpreter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cosma
from cosma.export import offline_tflite, tflite_graph

pytest.importorskip("tflite_micro", reason="the extra microcontrollers is not installed")

from tests.export.tflite_models import MODELS, Writer

#: Sets the input, invokes, prints where the arena went; in a process of its own, as TFLM writes to the terminal.
RUN = """
import sys, numpy as np
from tflite_micro.python.tflite_micro import runtime
model, arena, result = open(sys.argv[1], "rb").read(), int(sys.argv[2]), sys.argv[3]
interpreter = runtime.Interpreter.from_bytes(model, arena_size=arena)
shape = interpreter.get_input_details(0)["shape"]
interpreter.set_input(np.random.default_rng(7).normal(size=shape).astype(np.float32), 0)
interpreter.invoke()
np.save(result, interpreter.get_output(0))
interpreter.print_allocations()
"""
AMPLE = 1 << 20


@dataclass(frozen=True)
class Run:
    """What an inference yielded, and the bytes of the arena for activations (head) and all else (tail)."""

    output: Any
    head: int
    tail: int


def run(model: bytes, folder: Path, arena: int = AMPLE) -> Run | None:
    """Run a model; None where the arena is too small."""
    file, result = folder / "model.tflite", folder / "output.npy"
    file.write_bytes(model)
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(file), str(arena), str(result)], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    if done.returncode:
        assert "Failed to" in done.stderr or "too small" in done.stderr, done.stderr
        return None
    sizes = [int(re.search(rf"Arena allocation {part} (\d+) bytes", done.stderr)[1]) for part in ("head", "tail")]  # type: ignore[index]
    return Run(np.load(result), *sizes)


def plan_for(model: bytes, scratchpad: int) -> cosma.Plan:
    accelerator = cosma.Accelerator(scratchpad=scratchpad, alignment=16, operands="resident", in_place=False)
    return cosma.compile(tflite_graph(model), accelerator, effort=0.2)


@pytest.mark.parametrize(
    ("name", "scratchpad", "own"), [("residual", 4096, 5120), ("dense", 10240, 10240), ("branches", 5632, 16896)]
)
def test_the_interpreter_runs_in_the_arena_of_the_plan(name: str, scratchpad: int, own: int, tmp_path: Path) -> None:
    """Outputs are those of TFLM's own planner, the arena is just what the plan needs, and a smaller one is refused."""
    model = MODELS[name]()
    plan = plan_for(model, scratchpad)
    assert plan.traffic.noncompulsory == 0
    before = run(model, tmp_path)
    planned = offline_tflite(plan, model)
    after = run(planned, tmp_path)
    assert before is not None
    assert after is not None
    assert np.array_equal(before.output, after.output)
    assert np.ptp(after.output) > 0
    assert before.head == own
    assert after.head == plan.peak_bytes == scratchpad
    least = after.head + after.tail
    again = run(planned, tmp_path, least)
    assert again is not None
    assert np.array_equal(again.output, before.output)
    assert run(planned, tmp_path, least - 16) is None


def test_operators_come_in_the_order_of_the_plan(tmp_path: Path) -> None:
    model = MODELS["branches"]()
    plan = plan_for(model, 5632)
    graph = tflite_graph(offline_tflite(plan, model))
    kinds = [name.partition(":")[2] for name in plan.schedule]
    assert [operator.type for operator in graph.operators] == kinds
    assert [operator.outputs for operator in graph.operators] == [
        plan.graph.operator(name).outputs for name in plan.schedule
    ]
    assert list(plan.schedule) != [operator.name for operator in plan.graph.operators]


def test_a_wrong_offset_shows(tmp_path: Path) -> None:
    """The interpreter takes the offsets that are written: two tensors at one place give other numbers."""
    model = MODELS["residual"]()
    before = run(model, tmp_path)
    wrong = run(_moved(offline_tflite(plan_for(model, 8192), model), "a0", "x"), tmp_path)
    assert before is not None
    assert wrong is not None
    assert not np.array_equal(before.output, wrong.output)


def _moved(model: bytes, name: str, onto: str) -> bytes:
    """Put a tensor where another one is, in the offsets that a file carries."""
    import flatbuffers

    schema = Writer().schema
    content = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(bytearray(model), 0))
    (entry,) = (m for m in content.metadata if m.name == b"OfflineMemoryAllocation")
    names = [tensor.name.decode() for tensor in content.subgraphs[0].tensors]
    values = np.frombuffer(bytes(bytearray(content.buffers[entry.buffer].data)), "<i4").copy()
    assert values[:3].tolist() == [1, 0, len(names)]
    values[3 + names.index(name)] = values[3 + names.index(onto)]
    content.buffers[entry.buffer].data = list(values.tobytes())
    builder = flatbuffers.Builder(1024)
    builder.Finish(content.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_command(tmp_path: Path) -> None:
    """The plan of a file, by the library; the file with its offsets, by the command."""
    from typer.testing import CliRunner

    from cosma.cli.app import app
    from cosma.plan.file import save_plan

    model = MODELS["residual"]()
    (tmp_path / "model.tflite").write_bytes(model)
    plan = plan_for(model, 4096)
    save_plan(plan, tmp_path / "plan.json")
    paths = [str(tmp_path / name) for name in ("plan.json", "model.tflite", "planned.tflite")]
    command = ["export", paths[0], "--tflite", paths[1], "-o", paths[2]]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert (tmp_path / "planned.tflite").read_bytes() == offline_tflite(plan, model)
    lone = CliRunner().invoke(app, command[:4])
    assert lone.exit_code != 0


def test_graphs_of_files() -> None:
    graph = tflite_graph(MODELS["dense"](), "dense")
    assert [o.type for o in graph.operators][:3] == ["CONV_2D", "CONCATENATION", "CONV_2D"]
    assert [t.name for t in graph.of_kind(cosma.TensorKind.INPUT)] == ["x"]
    assert graph.tensors["y"].kind == "output"
    assert graph.tensors["d0.w"].kind == "weight"
    assert graph.tensors["c1"].size_bytes == 8 * 8 * 8 * 4


def skipping(begin: str) -> bytes:
    """Four convolutions in a row, and a sum of the last with another."""
    w, rng, shape = Writer(), np.random.default_rng(1), [1, 8, 8, 4]
    x = w.tensor("x", shape)
    a = w.conv("a", x, shape, 4, rng)
    b = w.conv("b", a, shape, 4, rng)
    c = w.conv("c", b, shape, 4, rng)
    d = w.conv("d", c, shape, 4, rng)
    return w.pack([x], [w.add("y", d, {"a": a, "c": c}[begin], shape)])


def test_a_plan_for_a_file_that_is_wired_otherwise_is_refused() -> None:
    plan = plan_for(skipping("c"), 8192)
    assert offline_tflite(plan, skipping("c"))
    with pytest.raises(cosma.InputError, match="the plan is for another file"):
        offline_tflite(plan, skipping("a"))


def test_an_input_that_is_an_output_is_refused() -> None:
    w, rng, shape = Writer(), np.random.default_rng(1), [1, 8, 8, 4]
    x = w.tensor("x", shape)
    with pytest.raises(cosma.InputError, match="'x' is an input and an output as well"):
        tflite_graph(w.pack([x], [w.conv("a", x, shape, 4, rng), x]))


def test_what_is_refused() -> None:
    model = MODELS["dense"]()
    with pytest.raises(cosma.CosmaError, match="it has no 'TFL3' at byte 4"):
        tflite_graph(b"\x08\x07" + bytes(30))
    with pytest.raises(cosma.CosmaError, match="TensorFlow Lite file"):
        tflite_graph(model[:200])
    with pytest.raises(cosma.InputError, match="the plan is for another file"):
        offline_tflite(plan_for(MODELS["residual"](), 8192), model)
    accelerator = cosma.Accelerator(scratchpad=4096, alignment=16)
    with pytest.raises(cosma.InputError, match="TFLM"):
        offline_tflite(cosma.compile(tflite_graph(model), accelerator, effort=0.1), model)
