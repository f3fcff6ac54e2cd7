"""Which elements of an operand the elements of a result depend on, axis by axis, and whether evenly.

A *coupling* says for each axis of an operand that every element of the result needs all of it (None), or which axis of
the result it goes with. It is *even*: elements of operand and result can be matched, in fractions, so that each is
matched as much as any other of its tensor, and only with what depends on it. Then an even flow over the elements of the
operand can go on as an even flow over those of the result. A match by rank does it: position x of n goes with the
positions of the operand that cover the same share of its axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod

from cosma.access.boxes import Box, grouped_axes
from cosma.access.contractions import EinsteinSum, GeneralProduct, MatrixProduct
from cosma.access.elementwise import Elementwise
from cosma.access.movement import Transposition
from cosma.access.reductions import Normalisation, Reduction
from cosma.access.site import Access, Barrier, Shape, Site
from cosma.access.windows import Convolution, GlobalPooling, Pooling, Window, windows_of

#: For each axis of an operand, the axis of the result that it goes with; None where all of it is needed.
Coupling = tuple["int | None", ...]

#: Rules whose needs are linear in the position, but for the edges: a few positions tell of all.
_LINEAR = (
    Convolution, Elementwise, EinsteinSum, GeneralProduct, GlobalPooling, MatrixProduct, Normalisation, Pooling,
    Reduction, Transposition,
)  # fmt: skip
#: Longest axis of which every position is looked at where the rule is linear; not measured.
_ALL_LOOKED_AT = 16
#: Most positions looked at where the rule is not linear: a longer axis has no coupling; not measured.
_MOST_LOOKED_AT = 4096


def coupling_of(rule: Access, site: Site, position: int) -> Coupling | None:
    """Coupling of an operand; None where there is no even one, or some elements of the result read nothing of it."""
    operand = site.shape(position)
    result = site.results[0] if site.results else None
    if operand is None or result is None or 0 in operand or 0 in result:
        return None
    if isinstance(rule, Barrier):
        return (None,) * len(operand)
    middle = [size // 2 for size in result]
    base = _read(rule, site, position, middle)
    if base is None or len(base) != len(operand):
        return None
    found: list[int | None] = [None] * len(operand)
    for axis, size in enumerate(result):
        looked_at = _positions(size, linear=isinstance(rule, _LINEAR))
        if size == 1:
            continue
        if looked_at is None:
            return None
        boxes = [(x, _read(rule, site, position, [*middle[:axis], x, *middle[axis + 1 :]])) for x in looked_at]
        for k, length in enumerate(operand):
            spans = [(x, box[k]) for x, box in boxes if box is not None]
            if len(spans) < len(boxes):
                return None
            if all(span == base[k] for _, span in spans):
                continue
            if found[k] is not None or axis in found:
                return None
            found[k] = axis
            if any(x * length // size < low or -(-(x + 1) * length // size) > high for x, (low, high) in spans):
                return None
    whole = all(axis is not None or base[k] == (0, operand[k]) for k, axis in enumerate(found))
    return tuple(found) if whole else None


def _read(rule: Access, site: Site, position: int, at: Sequence[int]) -> Box | None:
    reads = rule.reads(site, tuple((x, x + 1) for x in at))
    return reads[position] if position < len(reads) else None


def _positions(size: int, *, linear: bool) -> list[int] | None:
    if size <= _ALL_LOOKED_AT or not linear:
        return list(range(size)) if size <= _MOST_LOOKED_AT else None
    middle = size // 2
    return [0, 1, 2, size // 4, middle - 1, middle, middle + 1, 3 * size // 4, size - 3, size - 2, size - 1]


def least_span(rule: Access, site: Site, position: int, axis: int, along: int, extent: int) -> int:
    """Least extent of an operand's axis that ``extent`` neighbours along an axis of the result need."""
    size = site.result[along]
    spans = []
    for low in (0, (size - extent) // 2, size - extent):
        box = [(s // 2, s // 2 + 1) for s in site.result]
        box[along] = (low, low + extent)
        read = rule.reads(site, tuple(box))[position]
        spans.append(0 if read is None else read[axis][1] - read[axis][0])
    return min(spans)


def through_views(extents: Sequence[int], seen: Shape, shape: Shape) -> list[int]:
    """Extents of a tensor that extents of a view of it cover at least."""
    if tuple(seen) == tuple(shape):
        return list(extents)
    found = [min(1, size) for size in shape]
    if prod(seen) == 0:
        return found
    for left, right in grouped_axes(seen, shape):
        if all(extents[a] >= seen[a] for a in left):
            for b in right:
                found[b] = shape[b]
        elif len(left) == len(right) == 1:
            found[right[0]] = extents[left[0]]
    return found


def weight_coupling(rule: Access, site: Site, position: int) -> Coupling | None:
    """For each axis of a weight, the axis of the result that it is cut with, one element for one; None: all is read.

    None as a whole where it is read in another way.
    """
    weight = site.shape(position)
    if weight is None or 0 in weight or 0 in site.result:
        return None
    if isinstance(rule, Barrier):
        return (None,) * len(weight)
    middle = [size // 2 for size in site.result]
    base = _read(rule, site, position, middle)
    if base is None or len(base) != len(weight) or not isinstance(rule, _LINEAR):
        return None
    found: list[int | None] = [None] * len(weight)
    for axis, size in enumerate(site.result):
        for x in _positions(size, linear=True) or ():
            box = _read(rule, site, position, [*middle[:axis], x, *middle[axis + 1 :]])
            if box is None:
                return None
            for k, span in enumerate(box):
                if span == base[k]:
                    continue
                if found[k] not in (None, axis) or span != (x, x + 1) or weight[k] != size:
                    return None
                found[k] = axis
    whole = all(axis is not None or base[k] == (0, weight[k]) for k, axis in enumerate(found))
    return tuple(found) if whole else None


def share_of_taps(site: Site, weight: Shape, extents: Sequence[int]) -> float:
    """Least share of a convolution's weight that any box of these extents of its result uses; 0 where it is not even.

    Elements at the edges do not use the taps that lie in the padding. Taps used and positions of the result must match
    evenly: by rank, the first taps with the last positions.
    """
    share = 1.0
    for window, size, extent in zip(windows_of(site, weight[2:]), site.result[2:], extents[2:], strict=True):
        near = min(extent, size, 2 * window.kernel)
        least = window.kernel
        # Most taps lie in the padding at an edge, unless the window is longer than the map and both its ends do.
        long = (window.kernel - 1) * window.dilation >= window.size
        for first in range(size - near + 1) if long else (0, size - near):
            positions = range(first, first + near)
            taps = [tap for tap in range(window.kernel) if any(_reaches(window, tap, at) for at in positions)]
            if not _evenly(taps, size, partial(_reaches, window)):
                return 0.0
            least = min(least, len(taps))
        share *= least / window.kernel
    return share


def _reaches(window: Window, tap: int, at: int) -> bool:
    return 0 <= at * window.stride - window.pad + tap * window.dilation < window.size


def _evenly(taps: Sequence[int], size: int, met: Callable[[int, int], bool]) -> bool:
    """Whether neighbouring taps match positions by rank, the first taps with the last positions."""
    count = len(taps)
    if not count or list(taps) != list(range(taps[0], taps[0] + count)):
        return False
    return all(
        met(taps[count - 1 - i], at)
        for at in range(size)
        for i in range(at * count // size, -(-(at + 1) * count // size))
    )


def met_by_taps(site: Site, weight: Shape) -> tuple[list[int], bool]:
    """What one tap of a convolution meets of its operand as its window moves.

    Returns the least extent along each axis of the windows, one where there are gaps; and whether taps and positions of
    the operand match evenly.
    """
    extents, even = [], True
    for window, size in zip(windows_of(site, weight[2:]), site.result[2:], strict=True):
        starts = [tap * window.dilation - window.pad for tap in range(window.kernel)]
        met = [range(max(0, start), min(window.size, start + size)) for start in starts]
        even = even and window.stride == 1 and all(
            window.size - 1 - at in met[i]
            for at in range(window.size)
            for i in range(
                (window.size - 1 - at) * window.kernel // window.size,
                -(-(window.size - at) * window.kernel // window.size),
            )
        )
        extents.append(min(map(len, met)) if window.stride == 1 else 1)
    return extents, even
