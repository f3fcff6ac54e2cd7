"""Sparse constants as the dense tensors that operators read."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from cosma.frontend.evaluate import tensor_array
from cosma.frontend.nodes import readable
from cosma.frontend.values import EVALUATE_LIMIT

if TYPE_CHECKING:
    from onnx import SparseTensorProto, TensorProto

#: Most elements of the dense tensor for each stored value. It keeps the memory in proportion to the file; pruned
#: networks store one value in 2 to 20.
_MOST_EXPANSION = 64


def dense_tensor(sparse: SparseTensorProto, name: str = "") -> TensorProto:
    """The dense tensor that a sparse one stands for, named as the values are unless a name is given.

    Positions are linear, or one row of indices for each value. It has no content where the sparse one has none,
    contradicts itself, or is both large and nearly empty.
    """
    import numpy as np
    from onnx import TensorProto, numpy_helper

    dense = TensorProto(data_type=sparse.values.data_type, dims=sparse.dims)
    dense.name = name or readable(sparse.values.name)
    shape = tuple(sparse.dims)
    values, positions = tensor_array(sparse.values), tensor_array(sparse.indices)
    if values is None or positions is None or any(d < 0 for d in shape) or positions.dtype != np.int64:
        return dense
    indices = positions.astype(np.int64)
    count = prod(shape)
    if count > max(EVALUATE_LIMIT, _MOST_EXPANSION * values.size) or values.ndim != 1:
        return dense
    content = np.zeros(count, values.dtype)
    if indices.shape == (values.size, len(shape)) and indices.ndim == 2:
        strides = np.array([prod(shape[axis + 1 :]) for axis in range(len(shape))], np.int64)
        if ((indices < 0) | (indices >= np.array(shape))).any():
            return dense
        indices = indices @ strides
    if indices.shape != values.shape or ((indices < 0) | (indices >= count)).any():
        return dense
    content[indices] = values
    return numpy_helper.from_array(content.reshape(shape), dense.name)
