"""What regions of results depend on whose elements are moved or interpolated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.validator.place import Box, NoRuleError, Place, Shape, Span, Wanted, hull_of

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]


def moved(place: Place, result: int, box: Box) -> Wanted:
    """By running the node on the positions of its operand's elements; -1 stands for what comes from elsewhere."""
    positions = place.moved()
    if positions is None:
        raise NoRuleError
    found = positions[tuple(slice(a, b) for a, b in box)].reshape(-1)
    found = found[found >= 0]
    others = place.everything_of(*range(1, len(place.node.input)))
    return [*([(0, hull_of(found, place.shape(0)))] if found.size else []), *others]


def concatenation(place: Place, result: int, box: Box) -> Wanted:
    """Each operand where it lies in the result; those outside of the region not at all."""
    axis = int(place.attributes.get("axis", 1)) % len(box)
    found: Wanted = []
    offset = 0
    for i in range(len(place.node.input)):
        size = place.shape(i)[axis]
        start, stop = max(box[axis][0] - offset, 0), min(box[axis][1] - offset, size)
        if start < stop:
            found.append((i, (*box[:axis], (start, stop), *box[axis + 1 :])))
        offset += size
    return found


def quantised_concatenation(place: Place, result: int, box: Box) -> Wanted:
    """Scale and zero point of the result; operands in threes, each with its own, where the region meets them."""
    axis = int(place.attributes["axis"]) % len(box)
    found, begin = place.everything_of(0, 1), 0
    for i in range(2, len(place.node.input), 3):
        end = begin + place.shape(i)[axis]
        low, high = max(begin, box[axis][0]), min(end, box[axis][1])
        if low < high:
            found.append((i, (*box[:axis], (low - begin, high - begin), *box[axis + 1 :])))
            found += place.everything_of(i + 1, i + 2)
        begin = end
    return found


def split(place: Place, result: int, box: Box) -> Wanted:
    """The region, moved to where the result lies in the operand."""
    axis = int(place.attributes.get("axis", 0)) % len(box)
    before = 0
    for shape in place.results[:result]:
        if shape is None:
            raise NoRuleError
        before += shape[axis]
    span = (box[axis][0] + before, box[axis][1] + before)
    return [(0, (*box[:axis], span, *box[axis + 1 :])), *place.everything_of(1)]


def gather(place: Place, result: int, box: Box) -> Wanted:
    """Indices at the region; of the table the rows that known indices name, else all."""
    table, indices = place.shape(0), place.shape(1)
    axis = int(place.attributes.get("axis", 0)) % len(table)
    inner = box[axis : axis + len(indices)]
    rows: Span = (0, table[axis])
    known = place.content(1)
    if known is not None:
        chosen = np.asarray(known)[tuple(slice(a, b) for a, b in inner)]
        chosen = np.where(chosen < 0, chosen + table[axis], chosen)
        rows = (int(chosen.min()), int(chosen.max()) + 1)
    return [(0, (*box[:axis], rows, *box[axis + len(indices) :])), (1, inner)]


def resize(place: Place, result: int, box: Box) -> Wanted:
    """Elements that the mode interpolates between, or the nearest one."""
    data, shape = place.shape(0), place.results[0]
    assert shape is not None
    old = place.node.op_type == "Upsample" or place.opset < 11
    mode = place.attributes.get("mode", b"nearest").decode()
    where = place.attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    nearest = place.attributes.get("nearest_mode", b"round_prefer_floor").decode()
    if old:
        where = "asymmetric"
    plain = place.attributes.get("keep_aspect_ratio_policy", b"stretch") == b"stretch" and not place.attributes.get(
        "antialias", 0
    )
    if not plain or where not in _WHERE or nearest not in _NEAREST:
        raise NoRuleError
    scales = _scales(place, old, data, shape)
    spans = []
    for (start, stop), size, given, scale in zip(box, data, shape, scales, strict=True):
        if size == given and scale == 1.0:
            spans.append((start, stop))
            continue
        at = _coordinates(np.arange(start, stop, dtype=np.float64), where, size, given, scale)
        first, last = float(at.min()), float(at.max())
        if mode == "nearest" and not old:
            pick = _NEAREST[nearest]
            low, high = int(pick(first)), int(pick(last))
        elif mode == "cubic":
            low, high = int(np.floor(first)) - 1, int(np.floor(last)) + 2
        else:
            low, high = int(np.floor(first)), int(np.ceil(last))
        low, high = min(max(low, 0), size - 1), min(max(high, 0), size - 1)
        spans.append((low, max(low, high) + 1))
    return [(0, tuple(spans)), *place.everything_of(*range(1, len(place.node.input)))]


_WHERE = frozenset({"half_pixel", "half_pixel_symmetric", "asymmetric", "align_corners", "pytorch_half_pixel"})
_NEAREST: Mapping[str, Callable[[float], float]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
}


def _coordinates(at: Array, where: str, size: int, given: int, scale: float) -> Array:
    if where == "asymmetric":
        return np.asarray(at / scale)
    if where == "align_corners":
        return np.asarray(at * (size - 1) / (given - 1)) if given > 1 else np.zeros_like(at)
    if where == "pytorch_half_pixel" and given == 1:
        return np.zeros_like(at)
    half = np.asarray((at + 0.5) / scale - 0.5)
    return half + (size - given / scale) / 2 if where == "half_pixel_symmetric" else half


def _scales(place: Place, old: bool, data: Shape, shape: Shape) -> list[float]:
    position = 1 if old else 2
    if "scales" in place.attributes:
        return [float(v) for v in place.attributes["scales"]]
    if "height_scale" in place.attributes:
        return [1.0, 1.0, *(float(place.attributes[name]) for name in ("height_scale", "width_scale"))]
    found = place.content(position) if place.has(position) else None
    scales = [b / a for a, b in zip(data, shape, strict=True)]
    axes = place.values("axes") or tuple(range(len(shape)))
    if found is not None and np.asarray(found).size == len(axes):
        for axis, scale in zip(axes, np.asarray(found).reshape(-1), strict=True):
            scales[axis] = float(scale)
    return scales
