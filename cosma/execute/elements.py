"""Elements as bytes: NumPy's type for each of ONNX's, packed elements, and contents that are made up."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from cosma.errors import InputError
from cosma.graph.dtypes import WIDTH_BITS

if TYPE_CHECKING:

    from cosma.arrays import Array, Bytes


def numpy_dtype(element: int, name: str) -> np.dtype[Any]:
    """Element type of a tensor for NumPy; a type of its own (``ml_dtypes``) where NumPy has none.

    Raises InputError for strings, which have no bytes of their own to place.
    """
    from onnx import helper

    from cosma.frontend.values import dtype_name

    known = dtype_name(element)
    if known not in WIDTH_BITS:
        raise InputError(f"tensor {name!r} holds {known} elements, which have no fixed width: it cannot be executed")
    return np.dtype(helper.tensor_dtype_to_np_dtype(element))


def bits_of(element: int) -> int:
    """Bits that one element takes in memory; those below 8 are packed."""
    from cosma.frontend.values import dtype_name

    return WIDTH_BITS[dtype_name(element)]


def size_bytes(element: int, shape: tuple[int, ...]) -> int:
    """Bytes that a tensor takes in memory, the last one rounded up."""
    return -(-prod(shape) * bits_of(element) // 8)


def as_bytes(array: Array) -> Bytes:
    """Bytes of a contiguous array of whole-byte elements, not a copy."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def to_bytes(array: Array, element: int) -> Bytes:
    """Bytes of an array as they lie in memory: narrow elements packed, the first in the lowest bits."""
    bits = bits_of(element)
    if bits >= 8:
        return as_bytes(array)
    per_byte = 8 // bits
    codes = as_bytes(array) & np.uint8((1 << bits) - 1)
    padded = np.zeros(-(-len(codes) // per_byte) * per_byte, np.uint8)
    padded[: len(codes)] = codes
    packed = np.zeros(len(padded) // per_byte, np.uint8)
    for i in range(per_byte):
        packed |= padded[i::per_byte] << np.uint8(i * bits)
    return packed


def to_array(data: Bytes, element: int, shape: tuple[int, ...], name: str) -> Array:
    """Bytes read as elements: the bytes themselves where elements are whole bytes, else a copy unpacked."""
    dtype, bits = numpy_dtype(element, name), bits_of(element)
    if bits >= 8:
        return data.view(dtype).reshape(shape)
    per_byte, count = 8 // bits, prod(shape)
    mask = np.uint8((1 << bits) - 1)
    codes = np.stack([(data >> np.uint8(i * bits)) & mask for i in range(per_byte)], axis=-1).reshape(-1)[:count]
    return np.ascontiguousarray(codes).view(dtype).reshape(shape)


def is_writable_in_place(element: int) -> bool:
    """Whether an array over a tensor's bytes is those bytes, so that writing to it writes to them."""
    return bits_of(element) >= 8


def is_numpy_type(dtype: np.dtype[Any]) -> bool:
    """Whether an element type is one of NumPy's own, not one that another package registers."""
    return dtype.isbuiltin == 1


def is_signed_integer(dtype: np.dtype[Any]) -> bool:
    """Whether elements are signed integers, those narrower than a byte included."""
    return dtype.kind == "i" or dtype.name in ("int2", "int4")


def is_integer(dtype: np.dtype[Any]) -> bool:
    """Whether elements are integers, those narrower than a byte included."""
    return dtype.kind in "iu" or dtype.name in ("int2", "int4", "uint2", "uint4")


def is_floating(dtype: np.dtype[Any]) -> bool:
    """Whether elements are real floating-point numbers, those that NumPy has no type for included."""
    return dtype.kind == "f" or not (is_numpy_type(dtype) or is_integer(dtype))


def random_array(
    name: str, dtype: np.dtype[Any], shape: tuple[int, ...], seed: int, *, below: int = 2, weight: bool = False
) -> Array:
    """Random content for one tensor, a function of its name, type, shape and the seed.

    Floating-point inputs are standard normal. Weights of two and more dimensions are normal and scaled by
    their fan-in, so that values neither vanish nor overflow; vectors (scales, variances, biases) are within
    [0.5, 1.5). Integers of at most eight bits take their full range, wider ones lie within [0, below), so that
    they may serve as indices.
    """
    rng = np.random.default_rng([seed, crc32(name.encode("utf-8"))])
    if dtype == np.bool_:
        return rng.integers(0, 2, shape).astype(np.bool_)
    if is_integer(dtype):
        if dtype.itemsize == 1:
            bits = int(dtype.name.lstrip("uint"))
            lowest = -(1 << (bits - 1)) if is_signed_integer(dtype) else 0
            return np.asarray(rng.integers(lowest, lowest + (1 << bits), shape)).astype(dtype)
        return rng.integers(0, max(1, below), shape).astype(dtype)
    if weight and len(shape) < 2:
        return np.asarray(rng.uniform(0.5, 1.5, shape)).astype(dtype)
    values = rng.standard_normal(shape, dtype=np.float32)
    if weight:
        fan_in = max(shape) if len(shape) == 2 else prod(shape[1:])
        values *= np.float32(1.4 / max(1, fan_in) ** 0.5)
    return np.asarray(values).astype(dtype)
