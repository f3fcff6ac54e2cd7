"""Random quantised operators of ONNX Runtime, with channels second or last."""

from __future__ import annotations

import numpy as np

from tests.access.case import Array, Case, Rng, bytes_of, integer, pick, scalar, some_scales, values
from tests.access.sums import conv, gemm, pool


def conversion(scale: float = 0.05, zero: int = 2) -> list[Array]:
    return [scalar(scale), scalar(zero, np.int8)]


def _last(array: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(array, 1, -1))


def quantised_conv(rng: Rng, kind: str) -> Case:
    case = conv(rng, kind)
    if rng.random() < 0.4:
        assert case.operands[0] is not None
        case.operands[0] = _last(case.operands[0])
        case.attributes["channels_last"], case.domain = 1, "com.microsoft"
    return case


def quantised_pool(rng: Rng, kind: str) -> Case:
    case = pool(rng, "MaxPool" if kind == "NhwcMaxPool" else "AveragePool")
    rank = 2
    window = {
        name: value[: rank * (2 if name == "pads" else 1)] if isinstance(value, list) else value
        for name, value in case.attributes.items() if name not in ("dilations", "storage_order")
    }  # fmt: skip
    for name in ("kernel_shape", "strides"):
        window[name] = (window[name] * 2)[:rank]
    if "pads" in window:
        window["pads"] = [integer(rng, 0, taps - 1) for taps in window["kernel_shape"] * 2]
    x = bytes_of(rng, 2, 3, integer(rng, 7, 11), integer(rng, 7, 11))
    if kind == "NhwcMaxPool":
        return Case(kind, [_last(x)], window, domain="com.microsoft")
    last = integer(rng, 0, 1)
    operands = [_last(x) if last else x, *conversion(), *conversion(0.04, -3)]
    return Case(kind, operands, {**window, "channels_last": last}, domain="com.microsoft")


def quantised_global_pool(rng: Rng, kind: str) -> Case:
    last = integer(rng, 0, 1)
    x = bytes_of(rng, 2, 5, integer(rng, 2, 4), 3)
    operands = [_last(x) if last else x, *conversion(), *conversion(0.02, 1)]
    return Case(kind, operands, {"channels_last": last}, domain="com.microsoft")


def scaled_matmul(rng: Rng, kind: str) -> Case:
    m, k, n = (integer(rng, 1, 5) for _ in range(3))
    rows = pick(rng, (m, k), (3, m, k))
    each = rng.random() < 0.6
    scale = some_scales(rng, n) if each else scalar(0.02)
    zero = [bytes_of(rng, *scale.shape)] if rng.random() < 0.7 else [None]
    bias = [values(rng, n)] if rng.random() < 0.5 else []
    if kind == "DynamicQuantizeMatMul":
        return Case(kind, [values(rng, *rows), bytes_of(rng, k, n), scale, *zero, *bias], domain="com.microsoft")
    operands = [bytes_of(rng, *rows), bytes_of(rng, k, n), scalar(0.05), scale, scalar(2, np.int8), *zero, *bias]
    return Case(kind, operands, domain="com.microsoft")


def quantised_gemm(rng: Rng, kind: str) -> Case:
    drawn = gemm(rng, "Gemm")
    a, b = drawn.operands[0], drawn.operands[1]
    assert a is not None
    assert b is not None
    attributes = {name: drawn.attributes[name] for name in ("transA", "transB", "alpha")}
    columns = b.shape[0] if attributes["transB"] else b.shape[1]
    scale = pick(rng, some_scales(rng, columns), scalar(0.02))
    operands: list[Array | None] = [bytes_of(rng, *a.shape), *conversion(), bytes_of(rng, *b.shape), scale,
                                    np.zeros(scale.shape, np.int8)]  # fmt: skip
    operands.append(pick(rng, None, rng.integers(-900, 900, pick(rng, (columns,), (1, columns))).astype(np.int32)))
    return Case(kind, [*operands, *(conversion(0.3) if rng.random() < 0.6 else [])], attributes, domain="com.microsoft")


def quantised_softmax(rng: Rng, kind: str) -> Case:
    rank = integer(rng, 2, 4)
    attributes = {"opset": pick(rng, 11, 13)}
    if rng.random() < 0.8:
        attributes["axis"] = integer(rng, -rank, rank - 1)
    x = bytes_of(rng, *(3, 4, 5, 2)[:rank])
    return Case(kind, [x, *conversion(), *conversion(1 / 256, -128)], attributes, domain="com.microsoft")


def quantised_concat(rng: Rng, kind: str) -> Case:
    axis = integer(rng, -3, 2)
    operands: list[Array | None] = [*conversion(0.06)]
    for _ in range(integer(rng, 1, 4)):
        shape = [2, 3, 4]
        shape[axis] = integer(rng, 1, 4)
        operands += [bytes_of(rng, *shape), *conversion(float(pick(rng, 0.03, 0.06)), integer(rng, -3, 3))]
    return Case(kind, operands, {"axis": axis}, domain="com.microsoft")
