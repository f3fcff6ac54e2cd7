"""ONNX's own tests of its operators, as cases to plan and to execute.

The suite is part of the ``onnx`` package: one small model a case, with inputs and the outputs they give.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, numpy_helper

from cosma import Accelerator, CosmaError, compile
from cosma.execute import execute_plan
from cosma.execute.kernels import KernelName
from cosma.execute.run import second_reading

#: Version of ``onnx`` whose suite the tables are about; another has other cases.
VERSION = "1.23"
#: Folders of models in the package's test data that bring weights, inputs and outputs along.
FOLDERS = ("simple", "pytorch-converted", "pytorch-operator")
#: Everything fits: what is tested is the reading and the execution, not the search.
ACCELERATOR = Accelerator(scratchpad="1MiB")


@dataclass(frozen=True, slots=True)
class Case:
    """One case: a model, inputs by name, the outputs they give in order, and how exactly."""

    name: str
    model: ModelProto
    inputs: dict[str, Any]
    outputs: tuple[Any, ...]
    rtol: float
    atol: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a case.

    Attributes
    ----------
    kind
        ``equal``, ``different`` (from the suite's outputs), ``refused`` (not planned), ``not executed``.
    message
        Why, where it is not ``equal``.
    """

    kind: str
    message: str = ""


@cache
def node_cases() -> tuple[Case, ...]:
    """The tests of single operators, with the forms in which functions are written out."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collected = collect_testcases(None)
    cases = []
    for case in collected:
        inputs, outputs = case.data_sets[0]
        names = [value.name for value in case.model.graph.input]
        given = dict(zip(names, map(_content, inputs), strict=False))
        cases.append(Case(case.name, case.model, given, tuple(map(_content, outputs)), case.rtol, case.atol))
    return tuple(cases)


@cache
def folder_cases() -> tuple[Case, ...]:
    """The models of :data:`FOLDERS`."""
    data = Path(onnx.__file__).parent / "backend" / "test" / "data"
    cases = []
    for folder in FOLDERS:
        for path in sorted((data / folder).iterdir()):
            model = onnx.load(path / "model.onnx")
            first = path / "test_data_set_0"
            inputs = [_read(first / f"input_{i}.pb", value) for i, value in enumerate(_given(model))]
            outputs = [_read(first / f"output_{i}.pb", value) for i, value in enumerate(model.graph.output)]
            names = [value.name for value in _given(model)]
            given = dict(zip(names, inputs, strict=True))
            cases.append(Case(f"{folder}/{path.name}", model, given, tuple(outputs), 1e-3, 1e-7))
    return tuple(cases)


def run_case(case: Case, folder: Path, kernels: KernelName | None) -> Outcome:
    """Plan a case, execute the plan in the arena on the suite's inputs, compare with the suite's outputs.

    The second reader must agree as well, where it can read the model.
    """
    path = folder / "case.onnx"
    path.write_bytes(case.model.SerializeToString())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            plan = compile(path, ACCELERATOR, strategy="e1", dims=_sizes(case))
        except CosmaError as error:
            return Outcome("refused", str(error))
        try:
            done = execute_plan(plan, path, inputs=case.inputs, kernels=kernels)
            reading = second_reading(done, kernels)
        except CosmaError as error:
            return Outcome("not executed", str(error))
    if done.planned.difference is not None:
        return Outcome("different", f"from the run without a plan: {done.planned.difference}")
    names = [value.name for value in case.model.graph.output]
    for name, expected in zip(names, case.outputs, strict=True):
        message = difference(done.outputs[name], expected, case)
        if message:
            return Outcome("different", f"{name}: {message}")
    if reading.verdict == "different":
        return Outcome("different", f"from the whole model run by {reading.reader}: {reading.outputs}")
    return Outcome("equal")


def _sizes(case: Case) -> dict[str, int]:
    """Sizes of the dynamic dimensions that the suite's inputs have."""
    sizes: dict[str, int] = {}
    for value in case.model.graph.input:
        given = case.inputs.get(value.name)
        shape = given.shape if isinstance(given, np.ndarray) else ()
        for dim, size in zip(value.type.tensor_type.shape.dim, shape, strict=False):
            if dim.dim_param:
                sizes[dim.dim_param] = size
    return sizes


def difference(found: Any, expected: Any, case: Case) -> str:
    """How a result differs from the expected one in type, shape or value; empty if it does not."""
    if isinstance(found, list):
        if not isinstance(expected, list) or len(found) != len(expected):
            return "a sequence of another length"
        return "; ".join(filter(None, (difference(a, b, case) for a, b in zip(found, expected, strict=True))))
    wanted = np.asarray(expected)
    if found.dtype != wanted.dtype or found.shape != wanted.shape:
        return f"{found.dtype}{list(found.shape)}, not {wanted.dtype}{list(wanted.shape)}"
    if found.dtype.isbuiltin != 1:
        found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    try:
        np.testing.assert_allclose(found, wanted, rtol=case.rtol, atol=case.atol)
    except AssertionError as error:
        return " ".join(str(error).split())[:300]
    return ""


def _content(value: Any) -> Any:
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _given(model: ModelProto) -> list[Any]:
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _read(path: Path, value: Any) -> Any:
    if value.type.HasField("sequence_type"):
        sequence = onnx.SequenceProto()
        sequence.ParseFromString(path.read_bytes())
        return numpy_helper.to_list(sequence)
    tensor = TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(tensor)
