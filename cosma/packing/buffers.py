"""What is packed: buffers with fixed lifetimes, their gaps, and address ranges that may not be used.

Every interval is half-open, in time (steps) and in address (bytes).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from math import lcm
from typing import TYPE_CHECKING, SupportsIndex

import cosma.door as door
from cosma.errors import InputError
from cosma.text import short_repr
from cosma.units import align_up, format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Gap:
    """A span of a buffer's life in which it occupies only part of its bytes, or none.

    Parameters
    ----------
    lower, upper
        The steps ``[lower, upper)`` in which the gap applies.
    window
        The bytes ``[low, high)`` of the buffer, counted from its own address, that stay occupied in that
        span; ``None`` when nothing does. (MiniMalloc writes this ``lower-upper@low:high``.)
    """

    lower: int
    upper: int
    window: tuple[int, int] | None = None

    if TYPE_CHECKING:  # what callers may write; dataclass makes the constructor, and __post_init__ converts

        def __init__(
            self, lower: SupportsIndex, upper: SupportsIndex, window: Iterable[SupportsIndex] | None = ...
        ) -> None: ...

    def __post_init__(self) -> None:
        _whole(self, "gap", "lower", "upper")
        if self.window is not None:
            window = door.integers(self.window, "gap: window")
            if len(window) != 2:
                raise InputError(f"gap: window must be two numbers, low and high, not {door.shown(self.window)}")
            object.__setattr__(self, "window", window)


@dataclass(frozen=True, slots=True)
class Buffer:
    """A contiguous piece of memory needed from one step to another.

    A chain of in-place results is one buffer of the largest size with gaps whose windows shrink to what is
    left; a tensor that is spilled and loaded again at another address is two buffers.

    Parameters
    ----------
    id
        Unique name.
    lower, upper
        Lifetime ``[lower, upper)`` in steps.
    size
        Bytes; a buffer of zero bytes is given address 0, or its own where it is fixed, and takes no part.
    alignment
        The address is a multiple of it.
    offset
        Fixed address, or ``None`` when the engine chooses.
    hint
        Address to try first; ``None`` for no preference.
    gaps
        Spans in which less than the whole is occupied; they do not overlap in time.
    """

    __repr__ = short_repr

    id: str
    lower: int
    upper: int
    size: int
    alignment: int = 1
    offset: int | None = None
    hint: int | None = None
    gaps: tuple[Gap, ...] = ()

    if TYPE_CHECKING:  # as above

        def __init__(
            self,
            id: str,
            lower: SupportsIndex,
            upper: SupportsIndex,
            size: door.Size,
            alignment: door.Size = ...,
            offset: door.Size | None = ...,
            hint: door.Size | None = ...,
            gaps: Iterable[Gap] = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        put = object.__setattr__
        if type(self.id) is not str or not self.id.isascii():
            put(self, "id", door.text(self.id, "buffer: id"))
        if not (
            type(self.lower) is type(self.upper) is type(self.size) is type(self.alignment) is int
            and -door.MOST <= min(self.lower, self.size, self.alignment) <= self.upper <= door.MOST
            and max(self.size, self.alignment) <= door.MOST
        ):
            _whole(self, f"buffer {self.id!r}", "lower", "upper")
            _bytes(self, f"buffer {self.id!r}", "size", "alignment")
        if self.offset is not None or self.hint is not None:
            given = (name for name in ("offset", "hint") if getattr(self, name) is not None)
            _bytes(self, f"buffer {self.id!r}", *given)
        if self.gaps != ():
            put(self, "gaps", door.sequence(self.gaps, Gap, f"buffer {self.id!r}: gaps"))


@dataclass(frozen=True, slots=True)
class Forbidden:
    """An address range ``[low, high)`` no buffer may touch, always or in the steps ``[lower, upper)``."""

    low: int
    high: int
    lower: int | None = None
    upper: int | None = None

    if TYPE_CHECKING:  # as above

        def __init__(
            self,
            low: door.Size,
            high: door.Size,
            lower: SupportsIndex | None = ...,
            upper: SupportsIndex | None = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        _bytes(self, "forbidden range", "low", "high")
        _whole(self, "forbidden range", *(name for name in ("lower", "upper") if getattr(self, name) is not None))


def _whole(record: Gap | Buffer | Forbidden, where: str, *fields: str) -> None:
    """Take whole numbers of either sign: ranges are checked where the records are used."""
    for field in fields:
        value = getattr(record, field)
        if type(value) is not int or abs(value) > door.MOST:
            object.__setattr__(record, field, door.integer(value, f"{where}: {field}"))


def _bytes(record: Buffer | Forbidden, where: str, *fields: str) -> None:
    """Take numbers of bytes, also as text."""
    for field in fields:
        value = getattr(record, field)
        if type(value) is not int or abs(value) > door.MOST:
            taken = door.size(value, f"{where}: {field}") if isinstance(value, str) else None
            object.__setattr__(record, field, taken if taken is not None else door.integer(value, f"{where}: {field}"))


@dataclass(frozen=True, slots=True)
class Part:
    """A rectangle of a buffer: in steps ``[lower, upper)`` the bytes ``[low, high)`` from its address."""

    lower: int
    upper: int
    low: int
    high: int


def parts_of(buffer: Buffer) -> list[Part]:
    """Cut a buffer into the rectangles it really occupies, in order of time; empty ones are left out."""
    if buffer.size == 0:
        return []
    if not buffer.gaps:
        return [Part(buffer.lower, buffer.upper, 0, buffer.size)]
    parts: list[Part] = []
    cursor = buffer.lower
    for gap in sorted(buffer.gaps, key=lambda gap: gap.lower):
        if cursor < gap.lower:
            parts.append(Part(cursor, gap.lower, 0, buffer.size))
        if gap.window is not None and gap.window[0] < gap.window[1]:
            parts.append(Part(gap.lower, gap.upper, gap.window[0], gap.window[1]))
        cursor = gap.upper
    if cursor < buffer.upper:
        parts.append(Part(cursor, buffer.upper, 0, buffer.size))
    return parts


def check_buffer(buffer: Buffer) -> None:
    """Refuse a buffer that cannot mean anything.

    Raises InputError with the buffer's id, the field and what it should be.
    """
    plain = buffer.offset is None and buffer.hint is None and not buffer.gaps
    if plain and buffer.lower < buffer.upper and buffer.size >= 0 and buffer.alignment >= 1:
        return
    name = f"buffer {buffer.id!r}"
    if buffer.lower >= buffer.upper:
        raise InputError(
            f"{name}: lifetime [{buffer.lower}, {buffer.upper}) ends before it starts; "
            "lower must be less than upper (upper is the first step after the last use)"
        )
    if buffer.size < 0:
        raise InputError(f"{name}: size {buffer.size} is negative; give a number of bytes")
    if buffer.alignment < 1:
        raise InputError(f"{name}: alignment {buffer.alignment} is not a positive number of bytes")
    if buffer.offset is not None and (buffer.offset < 0 or buffer.offset % buffer.alignment):
        raise InputError(
            f"{name}: fixed offset {buffer.offset} is negative or no multiple of its alignment {buffer.alignment}"
        )
    if buffer.hint is not None and buffer.hint < 0:
        raise InputError(f"{name}: hint {buffer.hint} is negative")
    if buffer.gaps:
        _check_gaps(buffer, name)


def _check_gaps(buffer: Buffer, name: str) -> None:
    cursor = buffer.lower
    for gap in sorted(buffer.gaps, key=lambda gap: gap.lower):
        if not (cursor <= gap.lower < gap.upper <= buffer.upper):
            raise InputError(
                f"{name}: gap [{gap.lower}, {gap.upper}) is empty, overlaps another gap or lies outside the "
                f"lifetime [{buffer.lower}, {buffer.upper})"
            )
        if gap.window is not None and not 0 <= gap.window[0] <= gap.window[1] <= buffer.size:
            raise InputError(
                f"{name}: window {gap.window[0]}:{gap.window[1]} of gap [{gap.lower}, {gap.upper}) is not "
                f"within the buffer's {buffer.size} bytes"
            )
        cursor = gap.upper


def check_buffers(buffers: Sequence[Buffer], forbidden: Iterable[Forbidden] = (), alignment: int = 1) -> None:
    """Refuse a set of buffers with a meaningless member, two equal ids or a meaningless forbidden range.

    Refused as well are a fixed address that is no multiple of the common alignment, and more bytes than 64-bit sums
    hold, each buffer rounded up to what its address must be a multiple of. Raises InputError with the id and what is
    wrong.
    """
    seen: set[str] = set()
    total = 0
    for buffer in buffers:
        check_buffer(buffer)
        if buffer.offset is not None and buffer.offset % alignment:
            raise InputError(
                f"buffer {buffer.id!r}: fixed offset {buffer.offset} is no multiple of the alignment {alignment}"
            )
        total += align_up(buffer.size, lcm(alignment, buffer.alignment))
        if total > door.MOST:
            raise InputError(
                f"buffer {buffer.id!r}: the buffers up to this one take {format_size(total)} with their alignments, "
                f"more than cosma counts ({format_size(door.MOST)})"
            )
        if buffer.id in seen:
            raise InputError(f"buffer {buffer.id!r}: two buffers have this id; ids are unique")
        seen.add(buffer.id)
    for area in forbidden:
        always = area.lower is None and area.upper is None
        timed = area.lower is not None and area.upper is not None and area.lower < area.upper
        if not (0 <= area.low < area.high) or not (always or timed):
            raise InputError(
                f"forbidden range [{area.low}, {area.high}) in steps [{area.lower}, {area.upper}): addresses and "
                "steps need low < high, and either both steps or none"
            )


def live_peak(buffers: Iterable[Buffer]) -> int:
    """Most bytes occupied at one step: a lower bound on the height of every packing."""
    return fullest_step(door.sequence(buffers, Buffer, "buffers"))[1]


def fullest_step(buffers: Iterable[Buffer]) -> tuple[int, int]:
    """The first of the steps at which most bytes are occupied, and these bytes."""
    change: dict[int, int] = {}
    for buffer in buffers:
        if not buffer.gaps:
            change[buffer.lower] = change.get(buffer.lower, 0) + buffer.size
            change[buffer.upper] = change.get(buffer.upper, 0) - buffer.size
            continue
        for part in parts_of(buffer):
            change[part.lower] = change.get(part.lower, 0) + part.high - part.low
            change[part.upper] = change.get(part.upper, 0) - part.high + part.low
    steps = sorted(change)
    live = list(accumulate(change[step] for step in steps))
    peak = max(live, default=0)
    return (steps[live.index(peak)], peak) if peak else (0, 0)


def tallest(buffers: Iterable[Buffer]) -> int:
    """Bytes the largest single buffer needs, a fixed one counted from address 0; one of zero bytes needs none."""
    return max((buffer.size + (buffer.offset or 0) for buffer in buffers if buffer.size), default=0)
