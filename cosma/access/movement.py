"""Operators that only move elements: each region of the result comes from a box of the operand, or a few."""

from __future__ import annotations

from math import ceil, floor, prod

import numpy as np

from cosma.access.boxes import Box, slices
from cosma.access.site import Access, Site, TileNode


def _all(site: Site) -> tuple[Box | None, ...]:
    return tuple(site.all_of(i) for i in range(len(site.operands)))


class Transposition(Access):
    """Transpose."""

    def _order(self, site: Site) -> tuple[int, ...]:
        return site.integers("perm", tuple(reversed(range(len(site.result)))))

    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """Return the region with its axes in the operand's order."""
        found = list(box)
        for i, axis in enumerate(self._order(site)):
            found[axis] = box[i]
        return (tuple(found),)


class Concatenation(Access):
    """Concat: each operand where it lies in the result; operands outside the region are not read.

    Parameters
    ----------
    first
        Position of the first that is joined; what stands before is read whole.
    each
        Operands for each that is joined: itself, and what it is scaled by.
    """

    def __init__(self, first: int = 0, each: int = 1) -> None:
        self._first, self._each = first, each

    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """Return the part of the region that lies in each operand."""
        axis = site.integer("axis", 1) % len(site.result)
        found: list[Box | None] = [site.all_of(i) for i in range(len(site.operands))]
        offset = 0
        for i in range(self._first, len(site.operands), self._each):
            shape = site.operands[i]
            if shape is None:
                continue
            start, stop = max(box[axis][0], offset), min(box[axis][1], offset + shape[axis])
            span = (start - offset, stop - offset)
            if start < stop:
                found[i] = (*box[:axis], span, *box[axis + 1 :])
            else:
                found[i : i + self._each] = [None] * self._each
            offset += shape[axis]
        return tuple(found)


class Selection(Access):
    """Slice with constant bounds."""

    def _bounds(self, site: Site) -> list[tuple[int, int]] | None:
        """First element and step along each axis."""
        operand = site.operands[0]
        if operand is None:
            return None
        starts, steps = self._values(site, 1, "starts"), self._values(site, 4, "steps")
        axes = self._values(site, 3, "axes")
        if starts is None:
            return None
        axes = axes if axes is not None else tuple(range(len(starts)))
        steps = steps if steps is not None else (1,) * len(starts)
        found = [(0, 1)] * len(operand)
        for start, axis, step in zip(starts, axes, steps, strict=True):
            size = operand[axis]
            first = start + size if start < 0 else start
            first = min(max(first, 0), size) if step > 0 else min(max(first, 0), size - 1)
            found[axis] = (first, step)
        return found

    def _values(self, site: Site, position: int, name: str) -> tuple[int, ...] | None:
        if position in site.contents:
            return tuple(int(v) for v in site.contents[position])
        value = site.part.attribute(name)
        return tuple(int(v) for v in value) if isinstance(value, tuple) else None

    def cuts(self, site: Site) -> tuple[bool, ...]:
        """Every axis, where the bounds are known."""
        return (self._bounds(site) is not None,) * len(site.result)

    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """Return the elements between the first and the last that the region selects."""
        bounds = self._bounds(site)
        if bounds is None:
            return _all(site)
        spans = []
        for (first, step), (start, stop) in zip(bounds, box, strict=True):
            a, b = first + start * step, first + (stop - 1) * step
            spans.append((min(a, b), max(a, b) + 1))
        return (tuple(spans), *(site.all_of(i) for i in range(1, len(site.operands))))

    def tile(self, site: Site, box: Box) -> TileNode | None:
        """Return a selection of all that was sliced, by the same steps."""
        bounds = self._bounds(site)
        if bounds is None or 1 not in site.contents:
            return None
        axes = tuple(range(len(box)))
        starts = tuple(0 if step > 0 else -1 for _, step in bounds)
        ends = tuple((2**31 if step > 0 else -(2**31)) for _, step in bounds)
        return TileNode(contents={1: starts, 2: ends, 3: axes, 4: tuple(step for _, step in bounds)})


class Padding(Access):
    """Pad by constants; other modes need elements near the border, which the rule leaves to the whole axis."""

    def _pads(self, site: Site) -> list[int] | None:
        """Elements before the first, by axis."""
        operand = site.operands[0]
        if operand is None:
            return None
        stated = site.part.attribute("pads") is not None
        values = site.integers("pads", ()) if stated else site.contents.get(1)
        if values is None:
            return None
        if 3 in site.contents:
            before = [0] * len(operand)
            half = len(values) // 2
            for axis, pad in zip(site.contents[3], values[:half], strict=True):
                before[int(axis)] = int(pad)
            return before
        return [int(v) for v in values[: len(operand)]] if len(values) == 2 * len(operand) else None

    def cuts(self, site: Site) -> tuple[bool, ...]:
        """Return every axis under constant padding, else those that stay as they are."""
        pads, operand = self._pads(site), site.operands[0]
        if pads is None or operand is None:
            return (False,) * len(site.result)
        constant = site.text("mode", "constant") == "constant"
        return tuple(constant or (size == site.result[i] and not pads[i]) for i, size in enumerate(operand))

    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """Return the elements of the region that are not padding."""
        pads, operand = self._pads(site), site.operands[0]
        if pads is None or operand is None:
            return _all(site)
        cut = self.cuts(site)
        spans = []
        for i, (start, stop) in enumerate(box):
            low, high = max(0, start - pads[i]), min(operand[i], stop - pads[i])
            if not cut[i]:
                low, high = 0, operand[i]
            elif low >= high:  # all padding: keep one element, so that the slice is not empty
                low = min(max(low, 0), max(0, operand[i] - 1))
                high = min(low + 1, operand[i])
            spans.append((low, high))
        return (tuple(spans), *(site.all_of(i) for i in range(1, len(site.operands))))

    def tile(self, site: Site, box: Box) -> TileNode | None:
        """Return padding of what was sliced, explicit on edge tiles."""
        pads, operand = self._pads(site), site.operands[0]
        if pads is None or operand is None or 1 not in site.contents:
            return None
        read = self.reads(site, box)[0]
        assert read is not None
        before, behind = [], []
        for i, ((start, stop), (low, high)) in enumerate(zip(box, read, strict=True)):
            beside = high + pads[i] <= start or low + pads[i] >= stop  # all padding: the element kept is cropped
            before.append(stop - start if beside else low + pads[i] - start)
            behind.append(low - high if beside else stop - (high + pads[i]))
        contents: dict[int, tuple[float, ...]] = {1: (*before, *behind)}
        if 3 in site.contents:
            contents[3] = tuple(range(len(box)))
        if site.text("mode", "constant") != "constant" and any(
            box[i] != (0, site.result[i]) for i, cut in enumerate(self.cuts(site)) if not cut
        ):
            return None
        return TileNode(contents=contents)


class Splitting(Access):
    """Split: the same region of every result; the axis that is split is needed whole."""

    def cuts(self, site: Site) -> tuple[bool, ...]:
        """Return every axis but the one that is split."""
        axis = site.integer("axis", 0) % len(site.result)
        return tuple(i != axis for i in range(len(site.result)))

    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """Return the region, whole along the axis that is split."""
        operand = site.operands[0]
        assert operand is not None
        axis = site.integer("axis", 0) % len(operand)
        first = (*box[:axis], (0, operand[axis]), *box[axis + 1 :])
        return (first, *(site.all_of(i) for i in range(1, len(site.operands))))

    def tile(self, site: Site, box: Box) -> TileNode | None:
        """Return the operator itself on the slice."""
        axis = site.integer("axis", 0) % len(box)
        return TileNode() if box[axis] == (0, site.result[axis]) else None


class Interpolation(Access):
    """Resize and Upsample: each element of the result needs the operand elements around its position."""

    def _scales(self, site: Site) -> list[float] | None:
        operand = site.operands[0]
        if operand is None or site.text("coordinate_transformation_mode", "") == "tf_crop_and_resize":
            return None
        if site.integer("antialias", 0) or site.text("keep_aspect_ratio_policy", "stretch") != "stretch":
            return None
        position = 1 if site.part.type == "Upsample" or (site.opset < 11 and not site.part.domain) else 2
        given: object = site.contents.get(position) or site.part.attribute("scales")
        height, width = (site.part.attribute(name) for name in ("height_scale", "width_scale"))
        if isinstance(height, float) and isinstance(width, float):  # the first opset
            given = (1.0, 1.0, height, width)
        axes = [a % len(operand) for a in site.integers("axes", tuple(range(len(operand))))]
        scales = [r / o if o else 1.0 for o, r in zip(operand, site.result, strict=True)]
        if isinstance(given, tuple):
            for axis, scale in zip(axes, given, strict=True):
                scales[axis] = float(scale)
        return scales

    def cuts(self, site: Site) -> tuple[bool, ...]:
        """Every axis, where scales are known."""
        return (self._scales(site) is not None,) * len(site.result)

    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """Return the elements around the positions of the region, with the reach of the mode."""
        scales, operand = self._scales(site), site.operands[0]
        if scales is None or operand is None:
            return _all(site)
        reach = {"nearest": 1, "linear": 1, "cubic": 2}.get(site.text("mode", "nearest"), 1)
        spans = []
        for i, (start, stop) in enumerate(box):
            if operand[i] == site.result[i] and scales[i] == 1.0:
                spans.append((start, stop))
                continue
            first = self._position(site, i, start, scales[i])
            last = self._position(site, i, stop - 1, scales[i])
            low = min(max(0, floor(first) - reach + 1 - (reach == 1)), operand[i] - 1)
            high = max(min(operand[i], ceil(last) + reach + 1), low + 1)
            spans.append((low, high))
        return (tuple(spans), *(site.all_of(i) for i in range(1, len(site.operands))))

    def _position(self, site: Site, axis: int, element: int, scale: float) -> float:
        """Coordinate in the operand of an element of the result."""
        operand, size = site.operands[0], site.result[axis]
        assert operand is not None
        default = "asymmetric" if site.part.type == "Upsample" or site.opset < 11 else "half_pixel"
        mode = site.text("coordinate_transformation_mode", default)
        if mode == "asymmetric":
            return element / scale
        if mode == "align_corners":
            return element * (operand[axis] - 1) / (size - 1) if size > 1 else 0.0
        if mode == "pytorch_half_pixel" and size == 1:
            return 0.0
        # What rounding the size down cuts off is cut off on both sides alike.
        centred = operand[axis] / 2 * (1 - size / (scale * operand[axis])) if mode == "half_pixel_symmetric" else 0.0
        return centred + (element + 0.5) / scale - 0.5

    def tile(self, site: Site, box: Box) -> TileNode | None:
        """None: kernels take positions from the extents of the whole operand."""
        return None


class DepthToSpaceRule(Access):
    """DepthToSpace: rows and columns come from rows and columns, channels from all channels."""

    def cuts(self, site: Site) -> tuple[bool, ...]:
        """Batch, rows and columns."""
        return (True, False, True, True)

    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """Return the rows and columns behind those of the region."""
        operand, block = site.operands[0], site.integer("blocksize", 1)
        assert operand is not None
        spans = tuple((start // block, (stop - 1) // block + 1) for start, stop in box[2:])
        return ((box[0], (0, operand[1]), *spans),)

    def tile(self, site: Site, box: Box) -> TileNode | None:
        """Compute whole blocks and crop."""
        block = site.integer("blocksize", 1)
        if box[1] != (0, site.result[1]):
            return None
        return TileNode(crop=(0, 0, *(start % block for start, _ in box[2:])))


class SpaceToDepthRule(Access):
    """SpaceToDepth: rows and columns come from rows and columns, channels from all channels."""

    def cuts(self, site: Site) -> tuple[bool, ...]:
        """Batch, rows and columns."""
        return (True, False, True, True)

    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """Return the blocks of the region."""
        operand, block = site.operands[0], site.integer("blocksize", 1)
        assert operand is not None
        return ((box[0], (0, operand[1]), *((start * block, stop * block) for start, stop in box[2:])),)

    def tile(self, site: Site, box: Box) -> TileNode | None:
        """Return the operator itself on the slice."""
        return TileNode() if box[1] == (0, site.result[1]) else None


class Lookup(Access):
    """Gather: the axis looked up from the first to the last index of the region, all of it where they are unknown."""

    def _chosen(self, site: Site, box: Box) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]] | None:
        """Indices of a region as numbers that are not negative; None where they are unknown."""
        table, indices = site.operands[0], site.operands[1]
        assert table is not None
        assert indices is not None
        axis = site.integer("axis", 0) % len(table)
        given = site.contents.get(1)
        if given is None or len(given) != prod(indices):
            return None
        chosen = np.array(given, np.int64).reshape(indices)[slices(box[axis : axis + len(indices)])]
        return np.where(chosen < 0, chosen + table[axis], chosen)

    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """Return the region of the indices, and of the table what they name and lies between."""
        table, indices = site.operands[0], site.operands[1]
        assert table is not None
        assert indices is not None
        axis = site.integer("axis", 0) % len(table)
        behind = axis + len(indices)
        chosen = self._chosen(site, box)
        rows = (0, table[axis]) if chosen is None or not chosen.size else (int(chosen.min()), int(chosen.max()) + 1)
        return ((*box[:axis], rows, *box[behind:]), box[axis:behind])

    def tile(self, site: Site, box: Box) -> TileNode | None:
        """Return a lookup in the slice, by indices that count from its start where they are known."""
        chosen = self._chosen(site, box)
        if chosen is None or not chosen.size:
            return TileNode()
        return TileNode(contents={1: tuple((chosen - chosen.min()).ravel().tolist())})


class Repetition(Access):
    """Expand: as broadcasting."""

    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """Return the operand at the region."""
        from cosma.access.elementwise import broadcast

        operand = site.operands[0]
        assert operand is not None
        return (broadcast(box, operand, site.result), *(site.all_of(i) for i in range(1, len(site.operands))))

    def tile(self, site: Site, box: Box) -> TileNode | None:
        """Return an expansion to the region's shape."""
        return TileNode(contents={1: tuple(stop - start for start, stop in box)})


class Tiles(Access):
    """Tile: the operand over and over along each axis."""

    def cuts(self, site: Site) -> tuple[bool, ...]:
        """Return every axis; none in the first opsets, whose operands are others."""
        return (site.opset > 5,) * len(site.result)

    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """Return the region within the operand, all along an axis where it runs over an end."""
        operand = site.operands[0]
        assert operand is not None
        spans = [
            (start % size, (stop - 1) % size + 1) if start // size == (stop - 1) // size else (0, size)
            for (start, stop), size in zip(box, operand, strict=True)
        ]
        return (tuple(spans), *(site.all_of(i) for i in range(1, len(site.operands))))

    def tile(self, site: Site, box: Box) -> TileNode | None:
        """Repeat the slice as often as the region runs over an end, and crop."""
        operand, read = site.operands[0], self.reads(site, box)[0]
        assert operand is not None
        assert read is not None
        skipped = tuple(start % size - low for (start, _), size, (low, _) in zip(box, operand, read, strict=True))
        repeats = (
            -(-(skip + stop - start) // (high - low))
            for skip, (start, stop), (low, high) in zip(skipped, box, read, strict=True)
        )
        return TileNode(contents={1: tuple(repeats)}, crop=skipped)
