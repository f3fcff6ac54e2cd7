"""Small networks in ONNX, in memory and as files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Shape = Sequence[int | str]
#: Graph inputs and outputs by name: a shape, or an element type and a shape.
Values = Mapping[str, Shape] | Mapping[str, tuple[int, Shape | None]]
#: Weights by name: what they hold, or a shape, of ones.
Weights = Mapping[str, "tuple[int, ...] | np.ndarray[Any, Any]"] | Sequence[TensorProto]


def typed(array: np.ndarray[Any, Any]) -> tuple[int, tuple[int, ...]]:
    """Element type and shape of an array."""
    return helper.np_dtype_to_tensor_dtype(array.dtype), array.shape


def make_network(
    nodes: Iterable[NodeProto],
    inputs: Values,
    weights: Weights = (),
    outputs: Values | Iterable[str] = ("y",),
    *,
    element: int = TensorProto.FLOAT,
    opset: int = 17,
    ir_version: int = 8,
    name: str = "net",
) -> ModelProto:
    """Make a model; its nodes may be ONNX Runtime's own, and outputs given by their names have no type."""

    def stated(values: Values) -> list[onnx.ValueInfoProto]:
        pairs = {n: v if len(v) == 2 and not isinstance(v[1], int | str) else (element, v) for n, v in values.items()}
        return [helper.make_tensor_value_info(n, *pair) for n, pair in pairs.items()]

    if isinstance(weights, Mapping):
        arrays = {n: np.ones(w, np.float32) if isinstance(w, tuple) else w for n, w in weights.items()}
        weights = [numpy_helper.from_array(array, n) for n, array in arrays.items()]
    results = stated(outputs) if isinstance(outputs, Mapping) else [onnx.ValueInfoProto(name=n) for n in outputs]
    graph = helper.make_graph(list(nodes), name, stated(inputs), results, list(weights))
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def save_network(path: Path, *network: Any, **options: Any) -> Path:
    """Write a network, and return the path; see :func:`make_network`."""
    onnx.save(make_network(*network, name=path.stem, **options), path)
    return path
