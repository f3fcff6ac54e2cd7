"""Operators that select with constant indices: plans bring what is selected, and never more than without parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper, parser

import cosma
from cosma import Accelerator, InfeasibleError
from cosma.execute import run_plan
from cosma.frontend import load_onnx

KIB = 1 << 10


def write(folder: Path, text: str, weights: dict[str, np.ndarray[Any, Any]] | None = None) -> Path:
    model = parser.parse_model('<ir_version: 10, opset_import: ["" : 20]>' + text)
    for name, array in (weights or {}).items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def scan(name: str, count: int) -> str:
    """Nodes that gather each step of a tensor and add it to a state."""
    lines = [f"g{i} = Gather<axis = 1>({name}, i{i})" for i in range(count)]
    lines += ["h0 = Neg(g0)", *(f"h{i} = Add(h{i - 1}, g{i})" for i in range(1, count))]
    return "\n".join(lines)


def steps(folder: Path, count: int = 32, width: int = 1024) -> Path:
    """Write a state-space scan unrolled: Exp of all steps, then each step is gathered and added to the state."""
    nodes = scan("e", count)
    text = f"g (float[1,{count},{width}] x) => (float[1,{width}] h{count - 1}) {{ e = Exp(x)\n {nodes} }}"
    return write(folder, text, {f"i{i}": np.array(i, np.int64) for i in range(count)})


def checked(path: Path, accelerator: Accelerator, **options: Any) -> cosma.Plan:
    """Plan, check against the file's nodes, and execute."""
    loaded = load_onnx(path)
    plan = cosma.compile(loaded, accelerator, **{"effort": 1.0, **options})
    graph = loaded.finest_graph if plan.dtype is None else loaded.finest_graph.with_dtype(plan.dtype)
    assert cosma.replay(plan, graph, model=path).violations == ()
    assert cosma.replay(plan, graph).violations == ()
    report = run_plan(plan, path)
    assert report.passed
    assert report.whole.verdict == "equal"
    return plan


@pytest.mark.parametrize("options", [{}, {"weights": "scratchpad"}, {"fusion": "epilogue"}], ids=str)
def test_a_recurrence_reads_one_step_at_a_time(tmp_path: Path, options: dict[str, Any]) -> None:
    plan = checked(steps(tmp_path), Accelerator(scratchpad=64 * KIB, **options))
    # Whole, each of the 32 steps reads 128 KiB again: 4,325,376 bytes.
    assert plan.traffic.noncompulsory <= 139_264
    assert plan.graph.roots.keys() == {"e"}
    assert "tensors cut as here" in plan.certificate.method


def test_elements_counted_narrower_keep_their_parts(tmp_path: Path) -> None:
    plan = checked(steps(tmp_path), Accelerator(scratchpad=16 * KIB), dtype="int8")
    assert {part.size_bytes for part in plan.graph.parts_of("e")} == {1024}
    assert plan.traffic.noncompulsory <= 139_264 // 4


def test_where_nothing_is_spilled_tensors_stay_whole(tmp_path: Path) -> None:
    plan = checked(steps(tmp_path), Accelerator(scratchpad=512 * KIB))
    assert plan.traffic.noncompulsory == 0
    assert plan.graph.roots == {}


def test_existing_methods_know_no_parts(tmp_path: Path) -> None:
    plan = checked(steps(tmp_path, 4), Accelerator(scratchpad=8 * KIB), strategy="e2")
    assert plan.graph.roots == {}


def test_resident_operands_fit_with_the_part_that_is_read(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        f"g (float[1,8,1024] x) => (float[1,1024] h7) {{ {scan('x', 8)} }}",
        {f"i{i}": np.array(i, np.int64) for i in range(8)},
    )
    plan = checked(path, Accelerator(scratchpad=16 * KIB, operands="resident"))
    assert plan.traffic.noncompulsory == 0
    assert plan.graph.roots.keys() == {"x"}
    with pytest.raises(InfeasibleError, match="does not fit"):
        cosma.compile(path, Accelerator(scratchpad=4 * KIB, operands="resident"))


def test_a_plan_with_parts_is_a_start(tmp_path: Path) -> None:
    path = steps(tmp_path, 16)
    small = checked(path, Accelerator(scratchpad=24 * KIB))
    assert small.graph.roots
    larger = checked(path, Accelerator(scratchpad=32 * KIB), starts=[small], effort=0.1)
    assert larger.traffic.total <= small.traffic.total
    cosma.save_plan(small, tmp_path / "small.json")
    again = cosma.compile(path, Accelerator(scratchpad=24 * KIB), starts=[tmp_path / "small.json"], effort=0.1)
    assert again.traffic.total <= small.traffic.total


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    path = steps(tmp_path, 8)
    accelerator = Accelerator(scratchpad=12 * KIB)
    texts = []
    for i in (0, 1):
        cosma.save_plan(cosma.compile(path, accelerator, effort=0.3), tmp_path / f"{i}.json")
        texts.append((tmp_path / f"{i}.json").read_text())
    assert texts[0] == texts[1]
    assert '"version": 2' in texts[0]
