"""Random operators that move elements or interpolate between them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.access.case import OPSET, Array, Case, Rng, integer, pick, scalar, values


def transpose(rng: Rng, kind: str) -> Case:
    rank = integer(rng, 2, 4)
    order = {} if rng.random() < 0.2 else {"perm": [int(a) for a in rng.permutation(rank)]}
    return Case(kind, [values(rng, *(2, 3, 4, 5)[:rank])], order)


def concat(rng: Rng, kind: str) -> Case:
    axis = integer(rng, -3, 2)
    shapes = [[2, 3, 4] for _ in range(integer(rng, 1, 4))]
    for shape in shapes:
        shape[axis] = integer(rng, 1, 4)
    return Case(kind, [values(rng, *shape) for shape in shapes], {"axis": axis})


def slice_(rng: Rng, kind: str) -> Case:
    shape = (8, 9, 7)
    axes = [int(a) for a in rng.permutation(3)[: integer(rng, 1, 3)]]
    steps = [int(pick(rng, -3, -2, -1, 1, 2, 3)) for _ in axes]
    starts, ends = [], []
    for axis, step in zip(axes, steps, strict=True):
        low, high = integer(rng, 0, 2), shape[axis] - integer(rng, 1, 3)
        first, last = (low, high + 1) if step > 0 else (high, low - 1)
        far = 2**31 - 1 if step > 0 else -(2**31)
        last = far if last < 0 or rng.random() < 0.4 else last - pick(rng, 0, shape[axis] if last < shape[axis] else 0)
        starts.append(first - pick(rng, 0, shape[axis]))
        ends.append(last)
    written = [a - pick(rng, 0, 3) for a in axes]
    if min(steps) == max(steps) == 1 and rng.random() < 0.5:
        return Case(kind, [values(rng, *shape)], {"starts": starts, "ends": ends, "axes": written}, opset=9)
    bounds = [np.array(v, np.int64) for v in (starts, ends, written, steps)]
    return Case(kind, [values(rng, *shape), *bounds], parameters=(1, 2, 3, 4))


def pad(rng: Rng, kind: str) -> Case:
    mode = pick(rng, "constant", "constant", "reflect", "edge", "wrap")
    shape = (2, 5, 6)
    least = pick(rng, 0, -1)
    axes = sorted(int(a) for a in rng.permutation(3)[:2]) if rng.random() < 0.3 else [0, 1, 2]
    most = {"constant": 3, "edge": 3, "reflect": 1, "wrap": 2}[mode]
    amounts = [pick(rng, 0, integer(rng, least if shape[a] > 2 else 0, most)) for _ in range(2) for a in axes]
    opset = 19 if mode == "wrap" or len(axes) < 3 else OPSET
    operands: list[Array | None] = [values(rng, *shape), np.array(amounts, np.int64)]
    constant = scalar(0.5) if mode == "constant" and rng.random() < 0.5 else None
    if len(axes) < 3:
        operands += [constant, np.array([a - pick(rng, 0, 3) for a in axes], np.int64)]
        return Case(kind, operands, {"mode": mode}, parameters=(1, 3), opset=opset)
    return Case(kind, [*operands, *([] if constant is None else [constant])], {"mode": mode}, (1,), opset=opset)


def split(rng: Rng, kind: str) -> Case:
    axis = integer(rng, -3, 2)
    x = values(rng, 4, 6, 2)
    if rng.random() < 0.5 and x.shape[axis] > 2:
        sizes = np.array([1, x.shape[axis] - 1], np.int64)
        return Case(kind, [x, sizes], {"axis": axis}, parameters=(1,), results=2)
    return Case(kind, [x], {"axis": axis}, results=2)


def blocks(rng: Rng, kind: str) -> Case:
    if kind == "SpaceToDepth":
        return Case(kind, [values(rng, 2, 2, 6, 12)], {"blocksize": integer(rng, 2, 3)})
    size = integer(rng, 1, 3)
    mode = {"mode": pick(rng, "DCR", "CRD")} if rng.random() < 0.8 else {}
    return Case(kind, [values(rng, 2, 2 * size * size, 3, 4)], {"blocksize": size, **mode})


def gather(rng: Rng, kind: str) -> Case:
    indices = rng.integers(-7, 7, pick(rng, (), (3,), (2, 3)))
    axis = integer(rng, -3, 2)
    shape = [3, 4, 5]
    shape[axis] = 7
    known = pick(rng, (), (1,))
    return Case(kind, [values(rng, *shape), np.asarray(indices, np.int64)], {"axis": axis}, parameters=known)


def expand(rng: Rng, kind: str) -> Case:
    shape, to = pick(rng, ((3, 1), (2, 3, 4)), ((1, 3, 4), (2, 1, 4)), ((2, 3, 4), (3, 4)), ((4,), (2, 1)))
    return Case(kind, [values(rng, *shape), np.array(to, np.int64)], parameters=(1,))


def tile(rng: Rng, kind: str) -> Case:
    repeats = [integer(rng, 1, 3) for _ in range(3)]
    return Case(kind, [values(rng, 2, 3, 4), np.array(repeats, np.int64)], parameters=(1,))


def resize(rng: Rng, kind: str) -> Case:
    x = values(rng, 1, 2, integer(rng, 5, 14), integer(rng, 5, 14))
    if kind == "Upsample":
        scales = np.array([1, 1, *rng.choice([1.0, 1.5, 2.0, 2.3], 2)], np.float32)
        return Case(kind, [x, scales], {"mode": pick(rng, "nearest", "linear")}, parameters=(1,), opset=9)
    mode = pick(rng, "nearest", "linear", "cubic")
    few = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    opset = pick(rng, 10, 11, 13, 19)
    attributes: dict[str, Any] = {"mode": mode}
    if opset > 10:
        more = ("half_pixel_symmetric",) if opset == 19 else ()
        attributes["coordinate_transformation_mode"] = pick(rng, *few, *more)
        if mode == "nearest":
            attributes["nearest_mode"] = pick(rng, "round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        if mode == "cubic":
            attributes |= {"cubic_coeff_a": pick(rng, -0.5, -0.75), "exclude_outside": integer(rng, 0, 1)}
    elif mode == "cubic":
        attributes["mode"] = "nearest"
    if opset == 19 and mode != "nearest" and rng.random() < 0.2:
        attributes["antialias"] = 1
    scales = [float(v) for v in rng.choice([0.25, 0.3, 0.5, 0.6, 1.0, 1.5, 2.0, 2.3], 2)]
    sizes = [integer(rng, 1, 20), integer(rng, 1, 20)]
    if opset == 19 and rng.random() < 0.3:
        attributes["axes"] = [2, 3]
    else:
        scales, sizes = [1.0, 1.0, *scales], [1, 2, *sizes]
    roi = None if opset > 11 else np.zeros(0, np.float32)
    if opset > 10 and rng.random() < 0.5:
        if "axes" in attributes and rng.random() < 0.4:
            attributes["keep_aspect_ratio_policy"] = pick(rng, "not_larger", "not_smaller")
        operands = [x, roi, None if opset > 11 else np.zeros(0, np.float32), np.array(sizes, np.int64)]
        return Case(kind, operands, attributes, parameters=(3,), opset=opset)
    if opset == 10:
        return Case(kind, [x, np.array(scales, np.float32)], attributes, parameters=(1,), opset=10)
    return Case(kind, [x, roi, np.array(scales, np.float32)], attributes, parameters=(2,), opset=opset)
