"""Windows: convolutions and pooling, along batch, channels and every spatial axis."""

from __future__ import annotations

from dataclasses import dataclass

from cosma.access.boxes import Box
from cosma.access.site import Access, Contraction, Shape, Site, TileNode, along


@dataclass(frozen=True, slots=True)
class Window:
    """A window along one spatial axis."""

    #: Taps of the window, step between windows, distance between taps.
    kernel: int
    stride: int
    dilation: int
    #: Elements of padding before the first.
    pad: int
    #: Extent of the operand.
    size: int

    def needs(self, start: int, stop: int) -> tuple[int, int, int, int]:
        """Operand interval that results ``[start, stop)`` need, and the padding before and behind it."""
        first = start * self.stride - self.pad
        last = (stop - 1) * self.stride - self.pad + (self.kernel - 1) * self.dilation + 1
        low, high = min(max(first, 0), self.size), max(min(last, self.size), 0)
        if low >= high:  # a window that lies in the padding alone; keep one element, so that the slice is not empty
            low = min(max(low, 0), max(self.size - 1, 0))
            high = min(low + 1, self.size)
        return low, high, low - first, last - high


def windows_of(site: Site, kernel: tuple[int, ...]) -> list[Window]:
    """Return the windows of the operator along each spatial axis, with automatic padding resolved."""
    operand, result = site.operands[0], site.result
    assert operand is not None
    rank = len(operand) - 2
    strides, dilations = site.integers("strides", (1,) * rank), site.integers("dilations", (1,) * rank)
    pads = site.integers("pads", (0,) * (2 * rank))
    auto = site.text("auto_pad", "NOTSET")
    found = []
    for i in range(rank):
        pad = pads[i]
        if auto == "VALID":
            pad = 0
        elif auto in ("SAME_UPPER", "SAME_LOWER"):
            reach = (kernel[i] - 1) * dilations[i] + 1
            total = max(0, (result[i + 2] - 1) * strides[i] + reach - operand[i + 2])
            pad = total // 2 if auto == "SAME_UPPER" else total - total // 2
        found.append(Window(kernel[i], strides[i], dilations[i], pad, operand[i + 2]))
    return found


def _pads(needs: list[tuple[int, int, int, int]]) -> tuple[int, ...]:
    return tuple(n[2] for n in needs) + tuple(n[3] for n in needs)


class Convolution(Contraction):
    """Conv and its quantised and fused forms.

    Parameters
    ----------
    per_output
        Positions of operands with one value per output channel, or one for all.
    """

    def __init__(self, weight: int = 1, bias: int = 2, per_output: tuple[int, ...] = ()) -> None:
        self._weight, self._bias, self._per_output = weight, bias, per_output

    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """Rows of the windows, channels of the groups, weights of the output channels."""
        operand, weight = site.operands[0], site.operands[self._weight]
        assert operand is not None
        assert weight is not None
        needs = [w.needs(*span) for w, span in zip(windows_of(site, weight[2:]), box[2:], strict=True)]
        found: list[Box | None] = [site.all_of(i) for i in range(len(site.operands))]
        channels = _channels_of_groups(site, box[1], weight)
        found[0] = (box[0], channels, *((low, high) for low, high, _, _ in needs))
        found[self._weight] = (box[1], *((0, size) for size in weight[1:]))
        for i in (self._bias, *self._per_output):
            shape = site.shape(i)
            if shape is not None and shape == (site.result[1],) and shape != (1,):
                found[i] = (box[1],)
        if site.part.type == "FusedConv" and site.shape(3) is not None:  # what is added to the sum
            found[3] = box
        return tuple(found)

    def reduced(self, site: Site) -> int:
        """Input channels, where there is one group: those of several are no box.

        Nor has a result partial sums that is quantised or activated at once.
        """
        weight = site.operands[self._weight]
        plain = site.part.type in ("Conv", "ConvInteger") and site.integer("group", 1) == 1
        return weight[1] if plain and weight is not None else 0

    def narrowed(
        self, site: Site, reads: tuple[Box | None, ...], span: tuple[int, int], *, first: bool
    ) -> tuple[Box | None, ...]:
        """Channels of the operand and of the weight; the first partial sum adds the bias."""
        found = list(reads)
        found[0] = along(reads[0], 1, span)
        found[self._weight] = along(reads[self._weight], 1, span)
        if not first and 0 <= self._bias < len(found):
            found[self._bias] = None
        return tuple(found)

    def tile(self, site: Site, box: Box) -> TileNode | None:
        """Explicit pads; as many groups as the channels of the tile make; beside a tile of padding alone, a crop."""
        weight = site.operands[self._weight]
        assert weight is not None
        windows = windows_of(site, weight[2:])
        needs = [w.needs(*span) for w, span in zip(windows, box[2:], strict=True)]
        groups = site.integer("group", 1)
        per_group = weight[0] // max(1, groups)
        start, stop = box[1]
        first, last = start // per_group, (stop - 1) // per_group + 1
        if last - first > 1 and (start % per_group or stop % per_group):
            return None  # parts of several groups: no kernel has groups of different sizes
        # A tile of padding alone keeps one element, which may lie before or behind its windows: the kernel then yields
        # more results than the tile has.
        beside = any(min(need[2:]) < 0 for need in needs)
        skipped = [-(min(need[2], 0) // w.stride) for w, need in zip(windows, needs, strict=True)]
        pads = (
            *(need[2] + skip * w.stride for w, need, skip in zip(windows, needs, skipped, strict=True)),
            *(max(behind, 0) for _, _, _, behind in needs),
        )
        return TileNode({"pads": pads, "auto_pad": "NOTSET", "group": last - first}, (0, 0, *skipped) if beside else ())


def _channels_of_groups(site: Site, channels: tuple[int, int], weight: Shape) -> tuple[int, int]:
    """Input channels that output channels need: those of their groups."""
    per_group = weight[0] // max(1, site.integer("group", 1))
    first, last = channels[0] // per_group, (channels[1] - 1) // per_group + 1
    return first * weight[1], last * weight[1]


class TransposedConvolution(Access):
    """ConvTranspose: results ``[p, q)`` need the operand elements whose windows reach them."""

    def cuts(self, site: Site) -> tuple[bool, ...]:
        """Every axis; none where a result larger than all windows is asked for, which is filled up on either side."""
        return (self._pads(site) is not None,) * len(site.result)

    def _spans(self, site: Site, box: Box) -> list[tuple[int, int, int]]:
        """Operand interval along each spatial axis, and where its first result lies."""
        operand, weight = site.operands[0], site.operands[1]
        assert operand is not None
        assert weight is not None
        rank = len(operand) - 2
        strides, dilations = site.integers("strides", (1,) * rank), site.integers("dilations", (1,) * rank)
        found = []
        for i, pad in enumerate(self._pads(site) or ()):
            start, stop = box[i + 2]
            reach = (weight[i + 2] - 1) * dilations[i]
            low = max(0, -((reach - start - pad) // strides[i]))
            high = min(operand[i + 2], (stop - 1 + pad) // strides[i] + 1)
            if low >= high:
                low = min(max(0, low), operand[i + 2] - 1)
                high = low + 1
            found.append((low, high, low * strides[i] - pad))
        return found

    def _pads(self, site: Site) -> list[int] | None:
        """What is cut off before the first result along each spatial axis; None where that is not defined."""
        operand, weight = site.operands[0], site.operands[1]
        assert operand is not None
        assert weight is not None
        rank = len(operand) - 2
        stated, auto = site.part.attribute("output_shape") is not None, site.text("auto_pad", "NOTSET")
        if not stated and auto in ("NOTSET", "VALID"):
            return list(site.integers("pads", (0,) * rank)[:rank]) if auto == "NOTSET" else [0] * rank
        strides, dilations = site.integers("strides", (1,) * rank), site.integers("dilations", (1,) * rank)
        extra = site.integers("output_padding", (0,) * rank)
        totals = [
            strides[i] * (operand[i + 2] - 1) + extra[i] + (weight[i + 2] - 1) * dilations[i] + 1 - site.result[i + 2]
            for i in range(rank)
        ]
        if min(totals, default=0) < 0:
            return None
        # ONNX: SAME_UPPER puts the odd element behind; everything else, an output_shape included, before.
        return [total // 2 if auto == "SAME_UPPER" else total - total // 2 for total in totals]

    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """Operand elements whose windows reach the region, input channels of the groups."""
        operand, weight = site.operands[0], site.operands[1]
        if operand is None or weight is None or not all(self.cuts(site)):
            return tuple(site.all_of(i) for i in range(len(site.operands)))
        groups = site.integer("group", 1)
        first, last = box[1][0] // weight[1], (box[1][1] - 1) // weight[1] + 1
        per_group = weight[0] // groups
        channels = (first * per_group, last * per_group)
        within = box[1] if groups == 1 else (0, weight[1])
        if last - first == 1:
            within = (box[1][0] - first * weight[1], box[1][1] - first * weight[1])
        spans = tuple((low, high) for low, high, _ in self._spans(site, box))
        found: list[Box | None] = [site.all_of(i) for i in range(len(site.operands))]
        found[0] = (box[0], channels, *spans)
        found[1] = (channels, within, *((0, size) for size in weight[2:]))
        if site.shape(2) is not None:
            found[2] = (box[1],)
        return tuple(found)

    def tile(self, site: Site, box: Box) -> TileNode | None:
        """Compute all that the slice reaches, and crop."""
        weight = site.operands[1]
        if weight is None or not all(self.cuts(site)):
            return None
        first, last = box[1][0] // weight[1], (box[1][1] - 1) // weight[1] + 1
        if last - first > 1 and (box[1][0] % weight[1] or box[1][1] % weight[1]):
            return None
        rank = len(box) - 2
        spans = self._spans(site, box)
        crop = tuple(start - origin for (start, _), (_, _, origin) in zip(box[2:], spans, strict=True))
        if min(crop, default=0) < 0:
            return None
        # Rows that no window reaches but output_padding adds: the kernel must yield them too.
        dilations, strides = site.integers("dilations", (1,) * rank), site.integers("strides", (1,) * rank)
        extra = []
        for i, (low, high, origin) in enumerate(spans):
            end = origin + (high - low - 1) * strides[i] + (weight[i + 2] - 1) * dilations[i] + 1
            extra.append(max(0, box[i + 2][1] - end))
            if extra[-1] and extra[-1] >= max(strides[i], dilations[i]):
                return None
        return TileNode(
            {"pads": (0,) * (2 * rank), "output_padding": tuple(extra), "auto_pad": "NOTSET", "output_shape": None,
             "group": last - first},
            (0, 0, *crop),
        )  # fmt: skip


class Pooling(Access):
    """MaxPool, AveragePool, LpPool and their quantised forms: a window along every spatial axis, channel by channel."""

    def cuts(self, site: Site) -> tuple[bool, ...]:
        """Every axis; none where indices are a result, which count positions of the whole operand."""
        alone = sum(shape is not None for shape in site.results) == 1
        return (alone and site.integer("storage_order", 0) == 0,) * len(site.result)

    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """Rows of the windows."""
        if not all(self.cuts(site)):
            return tuple(site.all_of(i) for i in range(len(site.operands)))
        found: list[Box | None] = [site.all_of(i) for i in range(len(site.operands))]
        found[0] = (*box[:2], *((low, high) for low, high, _, _ in self._needs(site, box)))
        return tuple(found)

    def _needs(self, site: Site, box: Box) -> list[tuple[int, int, int, int]]:
        windows = windows_of(site, site.integers("kernel_shape", ()))
        return [w.needs(*span) for w, span in zip(windows, box[2:], strict=True)]

    def tile(self, site: Site, box: Box) -> TileNode | None:
        """Explicit pads; a window that hangs over the end for rounding up stays one that is cut off there."""
        if not all(self.cuts(site)):
            return None
        needs = self._needs(site, box)
        pads = list(_pads(needs))
        ceil = 0
        rank = len(needs)
        kernel = site.integers("kernel_shape", ())
        given = site.integers("pads", (0,) * (2 * rank))
        auto = site.text("auto_pad", "NOTSET")
        for i in range(rank):
            behind = pads[rank + i]
            allowed = given[rank + i] if auto == "NOTSET" else behind
            if behind > allowed:  # from rounding up: no padding that AveragePool may count
                pads[rank + i] = min(allowed, behind)
                ceil = 1
        if min(pads, default=0) < 0 or any(p >= k for p, k in zip(pads, kernel * 2, strict=True)):
            return None
        if ceil and any(not _rounds_to(n, pads, i, site, box) for i, n in enumerate(needs)):
            return None
        rounding = {"ceil_mode": ceil} if ceil or site.part.attribute("ceil_mode") is not None else {}
        return TileNode({"pads": tuple(pads), "auto_pad": "NOTSET", **rounding})


def _rounds_to(need: tuple[int, int, int, int], pads: list[int], axis: int, site: Site, box: Box) -> bool:
    """Whether pooling a slice with rounding up yields as many windows as the tile has."""
    rank = len(pads) // 2
    stride = site.integers("strides", (1,) * rank)[axis]
    dilation = site.integers("dilations", (1,) * rank)[axis]
    reach = (site.integers("kernel_shape", ())[axis] - 1) * dilation + 1
    size = need[1] - need[0]
    count = -(-(size + pads[axis] + pads[rank + axis] - reach) // stride) + 1
    if (count - 1) * stride >= size + pads[axis]:
        count -= 1
    start, stop = box[axis + 2]
    return count == stop - start


class GlobalPooling(Access):
    """Pooling over all spatial axes: batch and channels can be cut."""

    def cuts(self, site: Site) -> tuple[bool, ...]:
        """Batch and channels."""
        return (True, True, *(False,) * (len(site.result) - 2))

    def reads(self, site: Site, box: Box) -> tuple[Box | None, ...]:
        """All rows of the channels."""
        operand = site.operands[0]
        assert operand is not None
        found: list[Box | None] = [site.all_of(i) for i in range(len(site.operands))]
        found[0] = (*box[:2], *((0, size) for size in operand[2:]))
        return tuple(found)
