"""Residencies as buffers to pack: a slot of in-place takeovers is one buffer that shrinks.

What must lie side by side (see :mod:`cosma.problem.homes`) is one slot too, as long as an operator wants it so: one
buffer that grows and shrinks as its members come and go.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import lcm
from typing import TYPE_CHECKING

from cosma.packing import Buffer, Forbidden, Gap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cosma.problem import Decisions, Problem


@dataclass(frozen=True, slots=True)
class Slots:
    """What must be packed for some decisions."""

    #: One per slot of residencies that share an address; its id is the decimal index into ``members``.
    buffers: tuple[Buffer, ...]
    #: Indices of the residencies of each slot, in order of time.
    members: tuple[tuple[int, ...], ...]
    #: By residency that does not lie where its slot begins: how far behind, in bytes.
    shifts: Mapping[int, int] = field(default_factory=dict)


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
    if problem.runs:
        return _joined(problem, decisions, slots)
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
    if problem.places is not None:
        buffers = [_placed(problem, decisions, slot, b) for slot, b in zip(slots, buffers, strict=True)]
    return Slots(tuple(buffers), tuple(tuple(slot) for slot in slots))


def _placed(problem: Problem, decisions: Decisions, slot: Sequence[int], buffer: Buffer) -> Buffer:
    """Give a buffer the address and the alignment of its members."""
    places = problem.places
    assert places is not None
    tensors = [decisions.residencies[i].tensor for i in slot]
    offset = next((places.address[t] for t in tensors if t in places.address), None)
    return replace(buffer, offset=offset, alignment=lcm(*(places.alignment.get(t, 1) for t in tensors)))


def excluded_from(problem: Problem) -> tuple[Forbidden, ...]:
    """Address ranges that no buffer may touch."""
    places = problem.places
    return () if places is None else tuple(Forbidden(low, high) for low, high in places.excluded)


def apart(problem: Problem, decisions: Decisions) -> Decisions:
    """Give up takeovers by which a slot would have no address; the same where there are none.

    A chain of takeovers can bring together two fixed addresses, or one and an alignment that it is no multiple of.
    """
    places = problem.places
    if places is None or not places.address:
        return decisions
    at: dict[tuple[int, int], tuple[int | None, int]] = {}
    found = []
    for r in decisions.residencies:  # sorted by start, so an operand comes before its result
        address, step = places.address.get(r.tensor), places.alignment.get(r.tensor, 1)
        if r.in_place_of is not None:
            theirs, their_step = at[r.in_place_of, r.start + 1]
            shared, shared_step = theirs if address is None else address, lcm(step, their_step)
            clash = address is not None and theirs is not None and address != theirs
            if clash or (shared is not None and shared % shared_step):
                r = replace(r, in_place_of=None)
            else:
                address, step = shared, shared_step
        at[r.tensor, r.end] = address, step
        found.append(r)
    if all(a is b for a, b in zip(found, decisions.residencies, strict=True)):
        return decisions
    return replace(decisions, residencies=tuple(found))


def _joined(problem: Problem, decisions: Decisions, chains: Sequence[Sequence[int]]) -> Slots:
    """Slots in which members of a run lie side by side."""
    residencies = decisions.residencies
    chain_of = {i: k for k, chain in enumerate(chains) for i in chain}
    group = list(range(len(chains)))

    def find(k: int) -> int:
        while group[k] != k:
            group[k] = group[group[k]]
            k = group[k]
        return k

    for i, k in _linked(problem, decisions):
        a, b = sorted((find(chain_of[i]), find(chain_of[k])))
        group[b] = a
    rows: dict[int, list[int]] = {}
    for k in range(len(chains)):
        rows.setdefault(find(k), []).append(k)
    buffers, members = [], []
    shifts: dict[int, int] = {}
    for number, row in enumerate(rows.values()):
        places = {
            k: next((problem.homes[t][1] for i in chains[k] if (t := residencies[i].tensor) in problem.homes), 0)
            for k in row
        }
        lowest = min(places.values())
        own = sorted((i for k in row for i in chains[k]), key=lambda i: (residencies[i].start, residencies[i].tensor))
        at = {i: places[chain_of[i]] - lowest for i in own}
        shifts |= {i: shift for i, shift in at.items() if shift}
        buffers.append(_buffer(str(number), problem, decisions, at))
        members.append(tuple(own))
    return Slots(tuple(buffers), tuple(members), shifts)


def _linked(problem: Problem, decisions: Decisions) -> list[tuple[int, int]]:
    """Pairs of residencies that an operator wants side by side."""
    stays: dict[int, list[int]] = {}
    for i, r in enumerate(decisions.residencies):
        if r.tensor in problem.homes:
            stays.setdefault(r.tensor, []).append(i)
    found = []
    for step, operator in enumerate(decisions.order):
        for row in problem.runs.get(operator, ()):
            there = [
                i for t in row for i in stays.get(t, ())
                if decisions.residencies[i].start <= step < decisions.residencies[i].end
            ]  # fmt: skip
            found += list(pairwise(there))
    return found


def _buffer(name: str, problem: Problem, decisions: Decisions, at: Mapping[int, int]) -> Buffer:
    """A buffer over the residencies of a slot: at each step up to the highest byte that is taken.

    What is free below is not offered to others: the complete search takes only what begins at a buffer's own address.
    """
    spans = []
    for i, low in at.items():
        r = decisions.residencies[i]
        space = int(problem.space_bytes[r.tensor])
        begin = r.start + 1 if r.in_place_of is not None else r.start
        if begin < r.end:
            spans.append((begin, r.end, low, low + space))
    if not spans:
        first, last = (min(decisions.residencies[i].start for i in at), max(decisions.residencies[i].end for i in at))
        return Buffer(name, first, last, 0)
    size = max(high for *_, high in spans)
    edges = sorted({edge for begin, end, *_ in spans for edge in (begin, end)})
    gaps: list[Gap] = []
    for begin, end in pairwise(edges):
        there = [high for b, e, _, high in spans if b <= begin and end <= e]
        window = (0, max(there)) if there else None
        if window == (0, size):
            continue
        if gaps and gaps[-1].upper == begin and gaps[-1].window == window:
            gaps[-1] = Gap(gaps[-1].lower, end, window)
        else:
            gaps.append(Gap(begin, end, window))
    return Buffer(name, edges[0], edges[-1], size, gaps=tuple(gaps))
