"""Small models, loaded by cosma and run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from cosma.frontend import LoadedModel, load_onnx
from tests.onnx_files import make_network, typed

Array = np.ndarray[Any, Any]
Load = Callable[..., LoadedModel]
Shapes = dict[str, tuple[int, ...]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a model message, or its text, through a file."""

    def loader(model: onnx.ModelProto | str, **options: Any) -> LoadedModel:
        path = tmp_path / "model.onnx"
        message = onnx.parser.parse_model(model) if isinstance(model, str) else model
        path.write_bytes(message.SerializeToString())
        return load_onnx(path, **options)

    return loader


def single(
    node: onnx.NodeProto, inputs: Mapping[str, Array], constants: Mapping[str, Array], opset: int
) -> onnx.ModelProto:
    """A model of one node whose results are the outputs, none of them with a shape."""
    inputs = {name: typed(array) for name, array in inputs.items()}
    return make_network([node], inputs, constants, filter(None, node.output), opset=opset, ir_version=9)


def planned(loaded: LoadedModel, names: Sequence[str]) -> Shapes:
    """Shapes cosma gives to tensors."""
    shapes = {}
    for name in names:
        shape = loaded.graph.tensors[loaded.aliases.get(name, name)].shape
        assert shape is not None
        shapes[name] = shape
    return shapes


def executed(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> tuple[Shapes, dict[str, str]]:
    """Shapes and element types that ONNX Runtime yields."""
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    arrays = dict(zip(names, session.run(names, dict(inputs)), strict=True))
    return {n: a.shape for n, a in arrays.items()}, {n: str(a.dtype) for n, a in arrays.items()}
