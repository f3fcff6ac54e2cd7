"""Residencies as buffers to pack: a slot of in-place takeovers is one buffer that shrinks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cosma.packing import Buffer, Gap

if TYPE_CHECKING:
    from cosma.problem import Decisions, Problem


@dataclass(frozen=True, slots=True)
class Slots:
    """What must be packed for some decisions.

    Attributes
    ----------
    buffers
        One per slot of residencies that share an address; its id is the decimal index into ``members``.
    members
        Indices of the residencies of each slot, in order of time.
    """

    buffers: tuple[Buffer, ...]
    members: tuple[tuple[int, ...], ...]


def slots_of(problem: Problem, decisions: Decisions) -> Slots:
    """Group residencies into slots and shape each as a buffer over steps.

    The operand that is taken over at step ``s`` occupies its full space through step ``s``; from ``s + 1`` on
    only the result's space is taken.
    """
    residencies = decisions.residencies
    ending = {(r.tensor, r.end): i for i, r in enumerate(residencies)}
    slot_of: dict[int, list[int]] = {}
    slots: list[list[int]] = []

    def begin(i: int) -> list[int]:
        slot_of[i] = [i]
        slots.append(slot_of[i])
        return slot_of[i]

    for i, residency in enumerate(residencies):  # sorted by start and tensor
        if residency.in_place_of is not None:
            operand = ending[residency.in_place_of, residency.start + 1]
            # An operand that is loaded for this very step may come behind its result.
            slot_of[i] = slot_of[operand] if operand in slot_of else begin(operand)
            slot_of[i].append(i)
        elif i not in slot_of:
            begin(i)
    buffers = []
    for number, slot in enumerate(slots):
        first = residencies[slot[0]]
        size = int(problem.space_bytes[first.tensor])
        gaps = []
        for i in slot[1:]:
            residency = residencies[i]
            space = int(problem.space_bytes[residency.tensor])
            if space < size and residency.start + 1 < residency.end:
                gaps.append(Gap(residency.start + 1, residency.end, (0, space)))
        last = residencies[slot[-1]]
        buffers.append(Buffer(str(number), first.start, last.end, size, gaps=tuple(gaps)))
    return Slots(tuple(buffers), tuple(tuple(slot) for slot in slots))
