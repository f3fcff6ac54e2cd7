"""Small networks as ONNX files, for tests that need a file and not a graph alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper


def save_network(
    path: Path,
    nodes: Iterable[NodeProto],
    inputs: Mapping[str, Sequence[int]],
    weights: Mapping[str, tuple[int, ...] | np.ndarray] | Sequence[TensorProto] = (),
    outputs: Iterable[str] = ("y",),
    *,
    element: int = TensorProto.FLOAT,
    opset: int = 17,
) -> Path:
    """Write nodes over inputs of one element type, and return the path; a weight given by its shape is of ones."""
    if isinstance(weights, Mapping):
        arrays = {n: np.ones(w, np.float32) if isinstance(w, tuple) else w for n, w in weights.items()}
        weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(
        list(nodes), path.stem, [helper.make_tensor_value_info(n, element, shape) for n, shape in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs], list(weights),
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path
