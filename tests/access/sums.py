"""Random convolutions, pooling and products."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.access.case import Case, Rng, bytes_of, integer, pick, scalar, some_scales, values


def _window(rng: Rng, rank: int, most_pad: int = -1) -> dict[str, Any]:
    """Attributes of a window; ``most_pad`` is relative to its taps."""
    kernel = [integer(rng, 1, 3) for _ in range(rank)]
    found: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": [integer(rng, 1, 3) for _ in range(rank)],
        "dilations": [integer(rng, 1, 2) for _ in range(rank)],
    }
    if rng.random() < 0.3:
        found["auto_pad"] = str(pick(rng, "SAME_UPPER", "SAME_LOWER", "VALID"))
        found["dilations"] = [1] * rank
        found["strides"] = [min(one, taps) for one, taps in zip(found["strides"], kernel, strict=True)]
    else:
        found["pads"] = [integer(rng, 0, kernel[i % rank] + most_pad) for i in range(2 * rank)]
    return found


def conv(rng: Rng, kind: str) -> Case:
    rank = pick(rng, 1, 2, 2, 2, 3) if kind == "Conv" else 2
    groups, per_in, per_out = pick(rng, 1, 1, 2, 3), integer(rng, 1, 2), integer(rng, 1, 3)
    window = _window(rng, rank, most_pad=1)
    channels = groups * per_out
    x = (integer(rng, 1, 2), groups * per_in, *(integer(rng, 7, 10) for _ in range(rank)))
    w = (channels, per_in, *window["kernel_shape"])
    attributes = {**window, "group": groups}
    if kind == "ConvInteger":
        zeros = [scalar(7, np.uint8), scalar(3, np.uint8)]
        data = [bytes_of(rng, *x, signed=False), bytes_of(rng, *w, signed=False)]
        return Case(kind, [*data, *zeros[: integer(rng, 0, 2)]], attributes)
    if kind == "QLinearConv":
        scale = pick(rng, some_scales(rng, channels), scalar(0.02))
        operands = [bytes_of(rng, *x), scalar(0.05), scalar(3, np.int8), bytes_of(rng, *w), scale,
                    np.zeros(scale.shape, np.int8), scalar(0.3), scalar(-4, np.int8)]  # fmt: skip
        if rng.random() < 0.5:
            operands.append(rng.integers(-900, 900, channels).astype(np.int32))
        return Case(kind, operands, attributes)
    operands = [values(rng, *x), values(rng, *w), *([values(rng, channels)] if rng.random() < 0.5 else [])]
    if kind == "Conv":
        return Case(kind, operands, attributes)
    case = Case(kind, operands, {**attributes, "activation": "Relu"}, domain="com.microsoft")
    if rng.random() < 0.5:
        shape = case.run(operands)[0].shape
        case.operands = [*operands[:2], operands[2] if len(operands) > 2 else None, values(rng, *shape)]
    return case


def conv_transpose(rng: Rng, kind: str) -> Case:
    rank = integer(rng, 1, 2)
    groups, per_in, per_out = integer(rng, 1, 2), integer(rng, 1, 2), integer(rng, 1, 3)
    kernel = [integer(rng, 1, 3) for _ in range(rank)]
    strides = [integer(rng, 1, 3) for _ in range(rank)]
    found: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "group": groups}
    found["dilations"] = [integer(rng, 1, 2) for _ in range(rank)]
    size = [integer(rng, 4, 6) for _ in range(rank)]
    how = rng.random()
    if how < 0.5:
        found["pads"] = [integer(rng, 0, 1) for _ in range(2 * rank)]
        found["output_padding"] = [integer(rng, 0, max(0, strides[i] - 1)) for i in range(rank)]
    elif how < 0.65:
        found["auto_pad"] = pick(rng, "SAME_UPPER", "SAME_LOWER", "VALID")
    elif how < 0.8:
        found["output_shape"] = [s * n - integer(rng, 0, s - 1) for s, n in zip(strides, size, strict=True)]
        found["auto_pad"] = pick(rng, "NOTSET", "SAME_UPPER")
    x = values(rng, 1, groups * per_in, *size)
    w = values(rng, groups * per_in, per_out, *kernel)
    return Case(kind, [x, w, *([values(rng, groups * per_out)] if rng.random() < 0.7 else [])], found)


def pool(rng: Rng, kind: str) -> Case:
    rank = pick(rng, 1, 2, 2, 3)
    window = _window(rng, rank)
    opset = pick(rng, 11, 17, 19, 22)
    if opset < {"MaxPool": 10, "LpPool": 18, "AveragePool": 19}[kind]:
        window.pop("dilations")
    if kind == "LpPool" and opset < 18:
        window["p"] = integer(rng, 1, 2)
    if kind == "AveragePool":
        window["count_include_pad"] = integer(rng, 0, 1)
    if (kind != "LpPool" or opset >= 18) and "auto_pad" not in window:
        window["ceil_mode"] = integer(rng, 0, 1)
    indices = kind == "MaxPool" and rng.random() < 0.1
    x = values(rng, integer(rng, 1, 2), 2, *(integer(rng, 7, 11) for _ in range(rank)))
    return Case(kind, [x], window, opset=opset, results=1 + indices)


def global_pool(rng: Rng, kind: str) -> Case:
    return Case(kind, [values(rng, 2, 5, *(integer(rng, 2, 4) for _ in range(integer(rng, 1, 3))))])


def matmul(rng: Rng, kind: str) -> Case:
    m, k, n = (integer(rng, 1, 5) for _ in range(3))
    a = pick(rng, (k,), (m, k), (3, m, k), (2, 3, m, k), (1, m, k), (2, 1, m, k))
    b = pick(rng, (k,), (k, n), (3, k, n), (2, 1, k, n))
    if kind == "MatMul":
        return Case(kind, [values(rng, *((m, k) if len(a) == len(b) == 1 else a)), values(rng, *b)])
    # quantised kernels want matrices
    a, b = (m, k) if len(a) < 2 else a, (k, n) if len(b) < 2 else b
    if kind == "MatMulInteger":
        zeros = [scalar(7, np.uint8), pick(rng, scalar(3, np.uint8), bytes_of(rng, n, signed=False))]
        if len(b) > 2:
            zeros[1] = scalar(3, np.uint8)
        data = [bytes_of(rng, *a, signed=False), bytes_of(rng, *b, signed=False)]
        return Case(kind, [*data, *zeros[: integer(rng, 0, 2)]])
    scale = pick(rng, some_scales(rng, n), scalar(0.02)) if len(b) == 2 else scalar(0.02)
    return Case(kind, [bytes_of(rng, *a), scalar(0.05), scalar(2, np.int8), bytes_of(rng, *b), scale,
                       np.zeros(scale.shape, np.int8), scalar(0.4), scalar(-1, np.int8)])  # fmt: skip


def gemm(rng: Rng, kind: str) -> Case:
    m, k, n = (integer(rng, 2, 5) for _ in range(3))
    ta, tb = integer(rng, 0, 1), integer(rng, 0, 1)
    c = pick(rng, (m, n), (n,), (1, n), (m, 1), (), None)
    a, b = (k, m) if ta else (m, k), (n, k) if tb else (k, n)
    operands = [values(rng, *a), values(rng, *b), *([] if c is None else [values(rng, *c)])]
    return Case(kind, operands, {"transA": ta, "transB": tb, "alpha": 0.5, "beta": 2.0})


def einsum(rng: Rng, kind: str) -> Case:
    sizes = {label: integer(rng, 2, 5) for label in "bhijk"}
    terms, result = pick(
        rng, ("bhik,bhkj", "bhij"), ("bik,kj", "bij"), ("bhij,bhjk", "bihk"), ("ik,jk", "ji"), ("bij,bij", "bi"),
        ("bii", "bi"), ("ij", "ji"), ("bhi,hj,jk", "bik"),
    )  # fmt: skip
    operands = [values(rng, *(sizes[label] for label in term)) for term in terms.split(",")]
    return Case(kind, operands, {"equation": f"{terms.replace(',', ', ')} -> {result}"})
