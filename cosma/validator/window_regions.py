"""What regions of convolutions and pooling depend on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cosma.validator.place import Box, NoRuleError, Place, Rule, Shape, Span, Wanted, all_of


def _taps(place: Place, kernel: Sequence[int], box: Box, result: Shape) -> list[Span]:
    """Rows, columns... that windows touch, without padding."""
    data, count = place.shape(0), len(kernel)
    step, gap = (place.values(name) or (1,) * count for name in ("strides", "dilations"))
    auto = place.attributes.get("auto_pad", b"NOTSET").decode()
    given = place.values("pads") or (0,) * (2 * count)
    found = []
    for i in range(count):
        reach = 1 + (kernel[i] - 1) * gap[i]
        before = given[i]
        if auto.startswith("SAME"):
            lacking = max(0, (result[i + 2] - 1) * step[i] + reach - data[i + 2])
            before = lacking // 2 if auto == "SAME_UPPER" else (lacking + 1) // 2
        elif auto == "VALID":
            before = 0
        taps = np.arange(*box[i + 2])[:, None] * step[i] - before + np.arange(kernel[i])[None, :] * gap[i]
        inside = taps[(taps >= 0) & (taps < data[i + 2])]  # the others read padding
        found.append((int(inside.min()), int(inside.max()) + 1) if inside.size else (0, 0))
    return found


def _nonempty(spans: Sequence[Span]) -> Box | None:
    return None if any(a >= b for a, b in spans) else tuple(spans)


def convolution(weight: int, bias: int | None, along: Sequence[int]) -> Rule:
    """Taps of the windows, input channels of the groups, weights of the output channels.

    ``weight`` and ``bias``, if there is one, are positions; ``along`` are those of operands with a value for each
    output channel.
    """

    def rule(place: Place, result: int, box: Box) -> Wanted:
        data, kernel, shape = place.shape(0), place.shape(weight), place.results[0]
        assert shape is not None
        groups = int(place.attributes.get("group", 1))
        outputs, inputs = kernel[0] // groups, data[1] // groups
        channels = (box[1][0] // outputs * inputs, ((box[1][1] - 1) // outputs + 1) * inputs)
        read = _nonempty([box[0], channels, *_taps(place, kernel[2:], box, shape)])
        found: Wanted = [] if read is None else [(0, read)]
        found.append((weight, (box[1], *all_of(kernel[1:]))))
        others = [i for i in range(len(place.node.input)) if place.has(i) and i not in (0, weight)]
        for i in others:
            given = place.shape(i)
            per_channel = i == bias or i in along
            if per_channel and given == (shape[1],):
                found.append((i, (box[1],)))
            elif i == len(place.node.input) - 1 and place.node.op_type == "FusedConv" and given == shape:
                found.append((i, box))
            else:
                found.append((i, all_of(given)))
        return found

    return rule


def transposed_convolution(place: Place, result: int, box: Box) -> Wanted:
    """Elements whose taps reach the region."""
    data, kernel, shape = place.shape(0), place.shape(1), place.results[0]
    assert shape is not None
    count = len(kernel) - 2
    step, gap = (place.values(name) or (1,) * count for name in ("strides", "dilations"))
    given, extra = place.values("pads") or (0,) * (2 * count), place.values("output_padding") or (0,) * count
    auto = place.attributes.get("auto_pad", b"NOTSET").decode()
    spans = []
    for i in range(count):
        reach = 1 + (kernel[i + 2] - 1) * gap[i]
        before = given[i]
        if "output_shape" in place.attributes or auto.startswith("SAME"):
            total = step[i] * (data[i + 2] - 1) + extra[i] + reach - shape[i + 2]
            before = total // 2 if auto == "SAME_UPPER" else total - total // 2
        elif auto == "VALID":
            before = 0
        # Element e reaches results e * step - before + tap * gap.
        elements = np.arange(data[i + 2])[:, None] * step[i] - before + np.arange(kernel[i + 2])[None, :] * gap[i]
        hit = np.flatnonzero(((elements >= box[i + 2][0]) & (elements < box[i + 2][1])).any(axis=1))
        spans.append((int(hit[0]), int(hit[-1]) + 1) if len(hit) else (0, 0))
    groups = int(place.attributes.get("group", 1))
    outputs, inputs = kernel[1], kernel[0] // groups
    first, last = box[1][0] // outputs, (box[1][1] - 1) // outputs
    channels = (first * inputs, (last + 1) * inputs)
    within = (box[1][0] % outputs, (box[1][1] - 1) % outputs + 1) if first == last else (0, outputs)
    read = _nonempty([box[0], channels, *spans])
    found: Wanted = [] if read is None else [(0, read)]
    found.append((1, (channels, within, *all_of(kernel[2:]))))
    return [*found, *([(2, (box[1],))] if place.has(2) else [])]


def pooling(place: Place, result: int, box: Box) -> Wanted:
    """Taps of the windows, channel by channel."""
    shape = place.results[0]
    if sum(bool(name) for name in place.node.output) != 1 or shape is None:
        raise NoRuleError  # indices count positions in the whole operand
    kernel = place.values("kernel_shape")
    if kernel is None:
        raise NoRuleError
    read = _nonempty([*box[:2], *_taps(place, kernel, box, shape)])
    return [*([] if read is None else [(0, read)]), *place.everything_of(*range(1, len(place.node.input)))]


def global_pooling(place: Place, result: int, box: Box) -> Wanted:
    """All rows and columns of the channels."""
    read = (*box[:2], *all_of(place.shape(0)[2:]))
    return [(0, read), *place.everything_of(*range(1, len(place.node.input)))]


def channels_last(rule: Rule) -> Rule:
    """A rule for maps with channels second, of a node that may have them last; weights are the same in both."""

    def turned(place: Place, result: int, box: Box) -> Wanted:
        if place.node.op_type != "NhwcMaxPool" and not place.attributes.get("channels_last", 0):
            return rule(place, result, box)
        rank = len(box)
        second = [0, rank - 1, *range(1, rank - 1)]
        last = [0, *range(2, rank), 1]

        def inside(shape: Shape | None) -> Shape | None:
            return None if shape is None else tuple(shape[i] for i in second)

        same = replace(
            place, operands=(inside(place.operands[0]), *place.operands[1:]), results=tuple(map(inside, place.results))
        )
        found = rule(same, result, tuple(box[i] for i in second))
        return [(i, tuple(read[k] for k in last) if i == 0 else read) for i, read in found]

    return turned
