"""The next capacity at which a plan keeps one more tensor: shown by the plan that does, not by sizes alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cosma.lowering import lift_with_addresses, slots_of, try_realise
from cosma.lowering.emit import emit
from cosma.plan.timeline import timeline_of
from cosma.problem import build_problem
from cosma.problem.decisions import Decisions, Residency
from cosma.report.explain import kept_out
from cosma.units import align_up
from cosma.validator import replay_instructions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.accelerator import Accelerator
    from cosma.plan import Plan
    from cosma.plan.instructions import Instruction
    from cosma.plan.timeline import Timeline
    from cosma.problem import Problem
    from cosma.report.explain import Absence

#: Tensors tried, least short first; on 3,801 operators one takes 0.2 s.
TRIED = 12
#: Of these, how many have everything laid out anew within what they need by size, and the packing work of each; not
#: measured.
PACKED, PACKING_UNITS = 2, 10_000


@dataclass(frozen=True, slots=True)
class OneMore:
    """A plan in which one tensor stays where it leaves now, and all else happens at the same steps."""

    #: The capacity, without what the accelerator reserves.
    capacity_bytes: int
    #: The tensor, and the time in which it is away now.
    tensor: str
    absence: Absence
    #: Non-compulsory bytes of such a plan, replayed.
    noncompulsory_bytes: int


def next_capacity(plan: Plan, timeline: Timeline | None = None) -> OneMore | None:
    """Find the smallest capacity, of those tried, at which a plan keeps one more tensor than this one does.

    The tensors that are least short of room are tried: first where all others keep their addresses, then laid out anew
    where size alone would need less. Returns None where no tensor left for lack of room, or no plan was found.
    """
    away = kept_out(plan, timeline if timeline is not None else timeline_of(plan))[:TRIED]
    if not away:
        return None
    room, align = plan.accelerator.capacity_bytes, plan.accelerator.alignment
    # Above all addresses of today there is room for any tensor.
    problem = _problem(plan, room + max(align_up(plan.graph.tensors[name].size_bytes, align) for name, _ in away))
    number = {name: t for t, name in enumerate(problem.tensor_names)}
    decisions, addresses = lift_with_addresses(problem, plan.instructions)
    placed = dict(zip(decisions.residencies, addresses, strict=True))
    longer = [_kept(problem, decisions, number[name], absence) for name, absence in away]
    found: list[tuple[int, int, list[int]]] = []
    for i, after in enumerate(longer):
        lying = _addresses(problem, after, placed, number[away[i][0]], away[i][1].begin)
        spaces = [int(problem.space_bytes[stay.tensor]) for stay in after.residencies]
        top = max(address + space for address, space in zip(lying, spaces, strict=True))
        found.append((align_up(top, align), i, lying))
    tried = (
        _replayed(plan, away, capacity, i, emit(problem, longer[i], lying)) for capacity, i, lying in sorted(found)
    )
    best = next((one for one in tried if one is not None), None)
    for i, (_, absence) in enumerate(away[:PACKED]):
        capacity = align_up(room + absence.short_bytes, align)
        if best is not None and capacity >= best.capacity_bytes:
            break
        packed = try_realise(_problem(plan, capacity), longer[i], work_limit=PACKING_UNITS)
        one = None if packed is None else _replayed(plan, away, capacity, i, packed.instructions)
        if one is not None:
            return one
    return best


def _problem(plan: Plan, capacity: int) -> Problem:
    return build_problem(plan.graph, _with_room(plan.accelerator, capacity))


def _with_room(accelerator: Accelerator, capacity: int) -> Accelerator:
    return accelerator.replace(scratchpad=capacity + accelerator.reserved)


def _kept(problem: Problem, decisions: Decisions, tensor: int, absence: Absence) -> Decisions:
    """Decisions in which a tensor stays while it is away now."""
    before = next((r for r in decisions.residencies if r.tensor == tensor and r.start <= absence.begin < r.end), None)
    behind = next((r for r in decisions.residencies if r.tensor == tensor and r.start <= absence.end < r.end), None)
    made = int(problem.producer[tensor]) == decisions.order[absence.begin]
    first = before or Residency(tensor, absence.begin, absence.begin + 1, loaded=not made)
    stays = [replace(first, end=absence.end + 1 if behind is None else behind.end)]
    for r in decisions.residencies:
        if r is before or r is behind:
            continue
        # What took over the tensor's space for good needs its own now.
        lost = before is not None and r.in_place_of == tensor and r.start + 1 == before.end
        stays.append(replace(r, in_place_of=None) if lost else r)
    return Decisions(decisions.order, tuple(sorted(stays, key=lambda r: (r.start, r.tensor))))


def _addresses(
    problem: Problem, decisions: Decisions, placed: dict[Residency, int], tensor: int, step: int
) -> list[int]:
    """Addresses of all stays: what shares the tensor's space moves to the lowest hole, all else lies as before."""
    stays = decisions.residencies
    slots = slots_of(problem, decisions)
    index = next(i for i, r in enumerate(stays) if r.tensor == tensor and r.start <= step < r.end)
    moved = next(slot for slot in slots.members if index in slot)
    known = {(r.tensor, r.start): address for r, address in placed.items()}
    found = [known.get((r.tensor, r.start), 0) for r in stays]
    low = min(slots.shifts.get(i, 0) for i in moved)
    barred: list[tuple[int, int]] = []
    inside = set(moved)
    for i in moved:
        shift, space = slots.shifts.get(i, 0) - low, int(problem.space_bytes[stays[i].tensor])
        for k, other in enumerate(stays):
            if k not in inside and other.start < stays[i].end and stays[i].start < other.end:
                size = int(problem.space_bytes[other.tensor])
                barred.append((found[k] - shift - space, found[k] + size - shift))
    base = 0
    for below, above in sorted(barred):
        if below < base < above or (base == 0 and below < 0 < above):
            base = above
    for i in moved:
        found[i] = base + slots.shifts.get(i, 0) - low
    return found


def _replayed(
    plan: Plan, away: Sequence[tuple[str, Absence]], capacity: int, i: int, instructions: Sequence[Instruction]
) -> OneMore | None:
    """A candidate, if its plan is valid and moves less; None otherwise."""
    report = replay_instructions(plan.graph, _with_room(plan.accelerator, capacity), instructions)
    if not report.valid or report.traffic.noncompulsory >= plan.traffic.noncompulsory:
        return None
    return OneMore(capacity, *away[i], report.traffic.noncompulsory)
