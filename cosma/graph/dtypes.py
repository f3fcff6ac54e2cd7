"""Element types: their widths and which of them are floating-point."""

from __future__ import annotations

from math import prod

from cosma.errors import GraphError

#: Width of one element in bits, by ONNX's lower-case name. Strings have no fixed width and are left out.
WIDTH_BITS: dict[str, int] = {
    "bool": 8,
    "int2": 2, "uint2": 2, "int4": 4, "uint4": 4, "float4e2m1": 4,
    "int8": 8, "uint8": 8, "float8e4m3fn": 8, "float8e4m3fnuz": 8, "float8e5m2": 8, "float8e5m2fnuz": 8,
    "float8e8m0": 8,
    "int16": 16, "uint16": 16, "float16": 16, "bfloat16": 16,
    "int32": 32, "uint32": 32, "float32": 32, "float": 32,
    "int64": 64, "uint64": 64, "float64": 64, "double": 64, "complex64": 64,
    "complex128": 128,
}  # fmt: skip


def width_bits(dtype: str) -> int:
    """Bits one element takes; raises GraphError if the type is unknown or has no fixed width."""
    try:
        return WIDTH_BITS[dtype]
    except KeyError:
        raise GraphError(f"element type {dtype!r} is unknown; known are {', '.join(WIDTH_BITS)}") from None


def size_of(shape: tuple[int, ...], dtype: str) -> int:
    """Bytes a dense tensor takes; sub-byte elements are packed, the last byte rounded up."""
    return -(-prod(shape) * width_bits(dtype) // 8)


def is_floating(dtype: str) -> bool:
    """Whether an element type is floating-point (complex counts as not)."""
    return dtype.startswith(("float", "bfloat", "double"))
