"""Oracles for packing: brute force over every address, first fit by scanning, and hypothesis strategies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import lcm

from hypothesis import strategies as st

from cosma.packing import Buffer, Forbidden, Gap, live_peak, parts_of


def occupancy(buffer: Buffer, offset: int) -> dict[int, int]:
    """Bit mask of occupied bytes per step."""
    return {
        step: ((1 << (part.high - part.low)) - 1) << (offset + part.low)
        for part in parts_of(buffer)
        for step in range(part.lower, part.upper)
    }


def fits(
    buffers: Sequence[Buffer], capacity: int, *, alignment: int = 1, forbidden: Sequence[Forbidden] = ()
) -> bool:
    """Whether any packing exists, by trying every address of every buffer."""
    taken: dict[int, int] = {}
    for area in forbidden:
        lower = 0 if area.lower is None else area.lower
        upper = 64 if area.upper is None else area.upper
        for step in range(lower, upper):
            taken[step] = taken.get(step, 0) | ((1 << (area.high - area.low)) - 1) << area.low
    rows: list[list[dict[int, int]]] = []
    for buffer in buffers:
        if buffer.size == 0:
            continue
        step = lcm(alignment, buffer.alignment)
        places = [buffer.offset] if buffer.offset is not None else range(0, capacity - buffer.size + 1, step)
        rows.append([occupancy(buffer, place) for place in places if place + buffer.size <= capacity])
    rows.sort(key=len)

    def place(k: int, busy: dict[int, int]) -> bool:
        if k == len(rows):
            return True
        for masks in rows[k]:
            if all(not busy.get(step, 0) & mask for step, mask in masks.items()):
                then = dict(busy)
                for step, mask in masks.items():
                    then[step] = then.get(step, 0) | mask
                if place(k + 1, then):
                    return True
        return False

    return place(0, taken)


def scan_first_fit(buffers: Sequence[Buffer], order: Sequence[int]) -> list[int]:
    """First fit by trying 0, step, 2 step, ... for each buffer in the given order."""
    busy: dict[int, int] = {}
    offsets = [0] * len(buffers)
    for k in order:
        buffer = buffers[k]
        offset = 0
        while any(busy.get(step, 0) & mask for step, mask in occupancy(buffer, offset).items()):
            offset += buffer.alignment
        offsets[k] = offset
        for step, mask in occupancy(buffer, offset).items():
            busy[step] = busy.get(step, 0) | mask
    return offsets


@st.composite
def buffer_sets(
    draw: st.DrawFn,
    *,
    most: int = 6,
    steps: int = 5,
    largest: int = 5,
    aligned: bool = False,
    staircase: bool = False,
    windows: bool = False,
    fixed: bool = False,
) -> list[Buffer]:
    """Sets of small buffers, with the extras asked for."""
    buffers = []
    for k in range(draw(st.integers(1, most))):
        lower = draw(st.integers(0, steps - 1))
        upper = draw(st.integers(lower + 1, steps))
        buffer = Buffer(f"b{k}", lower, upper, draw(st.integers(0, largest)))
        if aligned:
            buffer = replace(buffer, alignment=draw(st.sampled_from([1, 1, 2, 3, 4])))
        if (staircase or windows) and draw(st.booleans()):
            begin = draw(st.integers(lower, upper - 1))
            high = draw(st.integers(0, buffer.size))
            low = draw(st.integers(0, high)) if windows else 0
            window = (low, high) if draw(st.booleans()) else None
            buffer = replace(buffer, gaps=(Gap(begin, draw(st.integers(begin + 1, upper)), window),))
        if fixed and draw(st.integers(0, 3)) == 0:
            buffer = replace(buffer, offset=draw(st.integers(0, 4)) * buffer.alignment)
        buffers.append(buffer)
    return buffers


def tight(buffers: Sequence[Buffer], slack: int) -> int:
    """A capacity near the least that quick bounds do not refuse."""
    least = max((buffer.size + (buffer.offset or 0) for buffer in buffers), default=0)
    return max(live_peak(buffers), least) + slack
