"""From a graph and a capacity to tilings that are worth planning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cosma.rewrite.tiling import Cuts, Tiling, even_cuts
from cosma.tiling.rows import RowGraph, channel_axis, row_axis

#: Stripes tried for a segment.
LADDER = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128)
#: Most operators of one segment.
LONGEST_SEGMENT = 64
#: Shares of the capacity that the estimate may fill.
SHARES = (0.95, 0.85, 0.75, 0.65, 0.55, 0.45, 0.35, 0.25)
#: Share of the capacity that the weights of one tile take at the most, to start from.
WEIGHT_SHARE = 0.125


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """Operators that run stripe by stripe.

    Attributes
    ----------
    begin, end
        Operators, half-open, by number.
    stripes
        How many.
    weight_share
        Share of the capacity that the weights of one tile may take; larger ones are cut along their channels.
    """

    begin: int
    end: int
    stripes: int
    weight_share: float = WEIGHT_SHARE


Segmentation = tuple[Segment, ...]


def choose_segments(rows: RowGraph, capacity_bytes: int, shares: Sequence[float] = SHARES) -> list[Segmentation]:
    """Cut the order given into segments by dynamic programming, once for each share of the capacity.

    The estimate sums what is live and knows no addresses, so that a share below one leaves room for them.

    Returns
    -------
    list
        Different segmentations, the boldest first.
    """
    found: list[Segmentation] = []
    for share in shares:
        segments = _choose(rows, int(capacity_bytes * share))
        if segments is not None and segments not in found:
            found.append(segments)
    return found


def tiling_of(rows: RowGraph, segments: Segmentation, capacity_bytes: int) -> Tiling:
    """Cuts of every operator of a segmentation."""
    cuts: dict[str, tuple[Cuts, ...]] = {}
    for segment in segments:
        cuts |= _cut_segment(rows, segment, capacity_bytes)
    groups = tuple(tuple(rows.access[v].operator.name for v in range(s.begin, s.end)) for s in segments)
    return Tiling(cuts, groups)


def _choose(rows: RowGraph, capacity: int) -> Segmentation | None:
    from cosma.tiling.kernels import FAR, best_segments

    maker, first_use, last_use = _lifetimes(rows)
    segments, cost = best_segments(
        np.array(LADDER, dtype=np.int64), LONGEST_SEGMENT, capacity, rows.size_bytes, rows.row_count, rows.is_input,
        rows.is_output, rows.height, rows.channels, rows.weight_bytes, rows.in_place, rows.start, rows.tensor,
        rows.stride, rows.window, rows.result_start, rows.result, maker, first_use, last_use,
    )  # fmt: skip
    if cost >= FAR:
        return None
    return tuple(Segment(begin, end, stripes) for begin, end, stripes in segments.tolist())


def _lifetimes(rows: RowGraph) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Producer, first and last reader of each activation; -1 where there is none."""
    count = len(rows.size_bytes)
    maker, first, last = (np.full(count, -1, dtype=np.int64) for _ in range(3))
    for v in range(rows.operator_count):
        maker[rows.result[rows.result_start[v] : rows.result_start[v + 1]]] = v
        for t in rows.tensor[rows.start[v] : rows.start[v + 1]].tolist():
            first[t] = v if first[t] < 0 else first[t]
            last[t] = v
    return maker, first, last


def _cut_segment(rows: RowGraph, segment: Segment, capacity: int) -> dict[str, tuple[Cuts, ...]]:
    """Cut a segment's operators so that each stripe computes just the rows that the stripe of its readers lacks."""
    begin, end, stripes = segment.begin, segment.end, segment.stripes
    most_weights = max(1, int(capacity * segment.weight_share))
    wanted: dict[int, list[int]] = {}  # by tensor: last row, exclusive, that readers within need for each stripe
    found: dict[str, tuple[Cuts, ...]] = {}
    for v in range(end - 1, begin - 1, -1):
        one = rows.access[v]
        shape = one.shapes.get(one.result, ())
        axis = row_axis(len(shape))
        height = int(rows.height[v])
        row_cuts: tuple[int, ...] = ()
        if stripes > 1 and height > 1:
            needs = [wanted[t] for t in rows.result[rows.result_start[v] : rows.result_start[v + 1]].tolist()
                     if t in wanted]  # fmt: skip
            stops = (
                [max(column) for column in zip(*needs, strict=True)] if needs else [*even_cuts(height, stripes), height]
            )
            row_cuts = tuple(sorted({stop for stop in stops if 0 < stop < height}))
            for name, boxes in _needs(rows, v, stops, axis).items():
                t = rows.tensor_names.index(name)
                wanted[t] = [max(a, b) for a, b in zip(wanted.get(t, boxes), boxes, strict=True)]
        channel = channel_axis(one)
        pieces = _weight_pieces(rows, v, most_weights)
        cuts: list[Cuts] = [()] * len(shape)
        if row_cuts:
            cuts[axis] = row_cuts
        if channel is not None and pieces > 1 and channel != axis:
            cuts[channel] = even_cuts(shape[channel], pieces)
        if any(cuts):
            found[one.operator.name] = tuple(cuts)
    return found


def _needs(rows: RowGraph, v: int, stops: list[int], axis: int) -> dict[str, list[int]]:
    """Last row, exclusive, of each operand that rows up to each stop need."""
    one = rows.access[v]
    shape = one.shapes[one.result]
    found: dict[str, list[int]] = {}
    for stop in stops:
        box = tuple((max(0, stop - 1), stop) if i == axis else (0, size) for i, size in enumerate(shape))
        for name, read in one.reads(box).items():
            if name in one.operator.inputs and len(read) > 1:
                found.setdefault(name, []).append(read[row_axis(len(read))][1])
    return {name: ends for name, ends in found.items() if len(ends) == len(stops)}


def _weight_pieces(rows: RowGraph, v: int, most: int) -> int:
    """Into how many pieces an operator is cut so that the weights of one take at most ``most`` bytes."""
    weight = int(rows.weight_bytes[v])
    return min(int(rows.channels[v]), -(-weight // most)) if weight > most else 1
