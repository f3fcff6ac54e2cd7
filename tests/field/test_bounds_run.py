"""Results planned for the most they can hold are executed with what they hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import parser

from cosma import Accelerator, InputError, Plan, PlanInvalidError, compile
from cosma.execute import execute_plan, run_plan

UNIQUE = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[6] x) => (float[K] y, float[6] z)
{
    u = Unique (x)
    y = Exp (u)
    z = Relu (x)
}
"""
X = np.array([2, 1, 1, 3, 4, 3], np.float32)


def planned(folder: Path, text: str, **options: object) -> tuple[Plan, Path]:
    path = folder / "net.onnx"
    path.write_bytes(parser.parse_model(text).SerializeToString())
    return compile(path, Accelerator(scratchpad="4KiB"), strategy="e1", **options), path  # type: ignore[arg-type]


@pytest.mark.parametrize("kernels", [None, "reference"])
@pytest.mark.parametrize("operands", ["resident", "streamable"])
def test_fewer_elements_than_planned(tmp_path: Path, kernels: str | None, operands: str) -> None:
    plan, path = planned(tmp_path, UNIQUE)
    accelerator = Accelerator(scratchpad="512", operands=operands)
    plan = compile(path, accelerator, strategy="e1")
    assert plan.graph.tensors["y"].size_bytes == 24
    report = run_plan(plan, path, inputs={"x": X}, kernels=kernels)  # type: ignore[arg-type]
    assert report.passed
    assert report.whole.verdict == "equal"
    assert {check.name: check.size_bytes for check in report.outputs} == {"y": 16, "z": 24}
    outputs = execute_plan(plan, path, inputs={"x": X}).outputs
    np.testing.assert_allclose(np.asarray(outputs["y"]), np.exp([1, 2, 3, 4]), rtol=1e-6)


def test_as_many_elements_as_planned(tmp_path: Path) -> None:
    plan, path = planned(tmp_path, UNIQUE)
    report = run_plan(plan, path, inputs={"x": np.arange(6, dtype=np.float32)})
    assert report.passed
    assert report.outputs[0].size_bytes == 24


def test_more_elements_than_the_bound_that_was_given(tmp_path: Path) -> None:
    plan, path = planned(tmp_path, UNIQUE, bounds={"u": 3})
    with pytest.raises(PlanInvalidError, match=r"yields float32\[4\] as 'u', .* float32\[3\]: .* a larger bound"):
        run_plan(plan, path, inputs={"x": X})
    assert run_plan(plan, path, inputs={"x": np.minimum(X, 2)}).passed


def test_what_was_computed_from_the_most_cannot_be_executed_with_less(tmp_path: Path) -> None:
    text = UNIQUE.replace("float[K] y", "float[K] y, int64[1] s").replace("y = Exp", "s = Shape (u)\n    y = Exp")
    plan, path = planned(tmp_path, text)
    with pytest.raises(InputError, match=r"reads the shape of 'u', which has \[4\] .* planned for at most \[6\]"):
        run_plan(plan, path, inputs={"x": X})
    assert run_plan(plan, path, inputs={"x": np.arange(6, dtype=np.float32)}).passed
