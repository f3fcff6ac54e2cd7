"""Operators as ONNX tests them: the size read off the model is the size of what the reference computes."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path

import numpy as np
import pytest

from cosma.errors import ModelLoadError
from cosma.frontend import load_onnx

#: Modules of ONNX's own tests for operators whose result's size takes some working out.
MODULES = (
    "affinegrid", "averagepool", "col2im", "compress", "concat", "conv", "convtranspose", "depthtospace", "einsum",
    "expand", "eyelike", "gru", "gathernd", "if_", "lstm", "layernormalization", "loop", "maxpool", "onehot", "pad",
    "rangeop", "reducemean", "resize", "scan", "slice", "split", "tile", "topk", "transpose",
)  # fmt: skip

#: What is refused, and rightly: sizes that are not in the model.
REFUSED = "string|of kind (sequence|optional)_type|not known in advance|only when the model runs"


def cases() -> list[object]:
    """Test cases of these operators; importing a module registers its cases, and other tests may have imported more."""
    package = importlib.import_module("onnx.backend.test.case.node")
    if not hasattr(package, "_NodeTestCases"):
        pytest.skip("this version of onnx keeps its test cases elsewhere")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in MODULES:
            importlib.import_module(f"onnx.backend.test.case.node.{module}")
    wanted = {"range" if module == "rangeop" else module.rstrip("_") for module in MODULES}
    return [
        case for case in package._NodeTestCases if any(n.op_type.lower() in wanted for n in case.model.graph.node)
    ]


def test_sizes_agree_with_the_reference(tmp_path: Path) -> None:
    path = tmp_path / "node.onnx"
    compared = refused = 0
    for case in cases():
        path.write_bytes(case.model.SerializeToString())  # type: ignore[attr-defined]
        try:
            tensors = load_onnx(path).graph.tensors
        except ModelLoadError as error:
            with pytest.raises(ModelLoadError, match=REFUSED):
                raise error from None
            refused += 1
            continue
        for value, array in zip(case.model.graph.output, case.data_sets[0][1], strict=True):  # type: ignore[attr-defined]
            if value.name in tensors and isinstance(array, np.ndarray):
                assert tensors[value.name].shape == array.shape, case.name  # type: ignore[attr-defined]
                compared += 1
    assert compared > 150
    assert refused < 60
