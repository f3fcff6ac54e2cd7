"""Contents for inputs and weights that nobody gave: random, bounded, the same for the same seed."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from cosma.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def numpy_dtype(element: int, name: str) -> np.dtype[Any]:
    """Element type of a tensor for NumPy.

    Raises
    ------
    InputError
        For elements narrower than a byte and for strings: they have no bytes of their own to place.
    """
    from onnx import helper

    from cosma.frontend.values import dtype_name
    from cosma.graph.dtypes import WIDTH_BITS

    known = dtype_name(element)
    if WIDTH_BITS.get(known, 0) < 8:
        raise InputError(f"tensor {name!r} holds {known} elements, which cannot be executed: they are not whole bytes")
    return np.dtype(helper.tensor_dtype_to_np_dtype(element))


def random_array(
    name: str, dtype: np.dtype[Any], shape: tuple[int, ...], seed: int, *, below: int = 2, weight: bool = False
) -> Array:
    """Random content for one tensor, a function of its name, type, shape and the seed.

    Floating-point inputs are standard normal. Weights of two and more dimensions are normal and scaled by
    their fan-in, so that values neither vanish nor overflow; vectors (scales, variances, biases) are within
    [0.5, 1.5). Eight-bit integers take their full range, wider ones lie within [0, below), so that they
    may serve as indices.
    """
    rng = np.random.default_rng([seed, crc32(name.encode("utf-8"))])
    if dtype == np.bool_:
        return rng.integers(0, 2, shape).astype(np.bool_)
    if np.issubdtype(dtype, np.integer):
        if dtype.itemsize == 1:
            info = np.iinfo(dtype)
            return rng.integers(info.min, int(info.max) + 1, shape).astype(dtype)
        return rng.integers(0, max(1, below), shape).astype(dtype)
    if weight and len(shape) < 2:
        return rng.uniform(0.5, 1.5, shape).astype(dtype)
    values = rng.standard_normal(shape, dtype=np.float32)
    if weight:
        fan_in = max(shape) if len(shape) == 2 else prod(shape[1:])
        values *= np.float32(1.4 / max(1, fan_in) ** 0.5)
    return np.asarray(values).astype(dtype)
