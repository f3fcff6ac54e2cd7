"""An independent check of a packing: no solver, no kernel, no shared arithmetic."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cosma.door as door
from cosma.packing.buffers import Buffer, Forbidden, parts_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence



@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule of a packing.

    Parameters
    ----------
    verdict
        ``missing``, ``negative``, ``capacity``, ``alignment``, ``fixed``, ``forbidden`` or ``overlap``.
    ids
        The buffers concerned.
    message
        What, where, needed against available.
    """

    verdict: str
    ids: tuple[str, ...]
    message: str


def verify(
    buffers: Sequence[Buffer],
    offsets: Mapping[str, int],
    capacity: door.Size,
    *,
    alignment: door.Size = 1,
    forbidden: Sequence[Forbidden] = (),
) -> list[Violation]:
    """Check every rule of a packing and return what is broken; an empty list means valid.

    Buffers of zero bytes occupy nothing and are not looked at. Overlaps are found by a sweep over time.
    """
    buffers = door.sequence(buffers, Buffer, "buffers")
    forbidden = door.sequence(forbidden, Forbidden, "forbidden")
    offsets = {
        name: door.integer(at, f"offsets[{name!r}]", most=door.UNLIMITED)
        for name, at in door.mapping(offsets, "offsets").items()
    }
    capacity = door.size(capacity, "capacity", most=2 * door.UNLIMITED)
    alignment = door.size(alignment, "alignment", least=1)
    violations: list[Violation] = []
    placed: list[Buffer] = []
    for buffer in buffers:
        if buffer.size == 0:
            continue
        if buffer.id not in offsets:
            violations.append(Violation("missing", (buffer.id,), f"buffer {buffer.id!r} has no address"))
            continue
        placed.append(buffer)
        violations.extend(_alone(buffer, offsets[buffer.id], capacity, alignment, forbidden))
    violations.extend(_overlaps(placed, offsets))
    return violations


def _alone(
    buffer: Buffer, offset: int, capacity: int, alignment: int, forbidden: Sequence[Forbidden]
) -> list[Violation]:
    found: list[Violation] = []

    def report(verdict: str, message: str) -> None:
        found.append(Violation(verdict, (buffer.id,), f"buffer {buffer.id!r} at {offset}: {message}"))

    if offset < 0:
        report("negative", "the address is negative")
    if offset + buffer.size > capacity:
        report("capacity", f"it ends at {offset + buffer.size}, beyond the capacity of {capacity}")
    for step in {alignment, buffer.alignment}:
        if offset % step and buffer.offset is None:
            report("alignment", f"the address is no multiple of {step}")
    if buffer.offset is not None and buffer.offset != offset:
        report("fixed", f"its address is fixed at {buffer.offset}")
    for area in forbidden:
        for part in parts_of(buffer):
            apart = area.lower is not None and (part.upper <= area.lower or part.lower >= (area.upper or 0))
            if not apart and offset + part.low < area.high and area.low < offset + part.high:
                report("forbidden", f"it touches the forbidden range [{area.low}, {area.high})")
                break
    return found


def _apart(events: Sequence[tuple[int, int, int]], parts: Sequence[tuple[str, int, int]]) -> bool:
    """Whether no two parts overlap; those alive are kept by address, so that only neighbours are compared."""
    lows: list[int] = []
    highs: list[int] = []
    for _, starts, index in events:
        _, low, high = parts[index]
        if low == high:
            continue
        at = bisect_left(lows, low)
        if not starts:
            del lows[at], highs[at]
            continue
        if (at < len(lows) and lows[at] < high) or (at and highs[at - 1] > low):
            return False
        lows.insert(at, low)
        highs.insert(at, high)
    return True


def _overlaps(buffers: Sequence[Buffer], offsets: Mapping[str, int]) -> list[Violation]:
    events: list[tuple[int, int, int]] = []
    parts: list[tuple[str, int, int]] = []
    for buffer in buffers:
        base = offsets[buffer.id]
        for part in parts_of(buffer):
            events.append((part.lower, 1, len(parts)))
            events.append((part.upper, 0, len(parts)))
            parts.append((buffer.id, base + part.low, base + part.high))
    events.sort()
    if _apart(events, parts):
        return []
    live: set[int] = set()
    reported: set[tuple[str, str]] = set()
    violations: list[Violation] = []
    for step, starts, index in events:
        if not starts:
            live.discard(index)
            continue
        name, low, high = parts[index]
        for other in sorted(live):
            rival, rival_low, rival_high = parts[other]
            if low < rival_high and rival_low < high and (rival, name) not in reported and rival != name:
                reported.add((rival, name))
                violations.append(
                    Violation(
                        "overlap",
                        (rival, name),
                        f"buffers {rival!r} [{rival_low}, {rival_high}) and {name!r} [{low}, {high}) overlap from "
                        f"step {step}",
                    )
                )
        live.add(index)
    return violations
