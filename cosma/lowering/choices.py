"""Decisions as choices that can be undone one by one: what gives way where addresses run out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.lowering.runs import settle_runs
from cosma.problem import Touches, decisions_from_gaps, touches_of
from cosma.problem.rules import arrival_bytes, departure_bytes, may_stream, store_bytes

if TYPE_CHECKING:

    from cosma.arrays import Bools, Ints
    from cosma.lowering.buffers import Slots
    from cosma.problem import Decisions, Problem, Residency


@dataclass(frozen=True, slots=True, order=True)
class Choice:
    """One choice that can be undone: a takeover, a lone resident touch, or a kept gap."""

    #: Traffic that undoing it adds.
    cost_bytes: int
    #: Order among equals: choices that occupy longest come first.
    rank: int
    #: Result that would get space of its own, or -1.
    takeover: int = -1
    #: Touch that would be streamed, or -1.
    touch: int = -1
    #: Gap in which the tensor would leave, or -1.
    gap: int = -1


@dataclass(frozen=True, slots=True)
class GapForm:
    """Decisions as one truth value per gap, plus takeovers: the form in which single choices are undone."""

    order: tuple[int, ...]
    touches: Touches
    keep: Bools
    resident_touches: set[int]
    takeovers: dict[int, int]

    @classmethod
    def of(cls, problem: Problem, decisions: Decisions) -> GapForm:
        """Read decisions; a residency that ends between two touches is cut back to the earlier one."""
        touches = touches_of(problem, decisions.order)
        keep = np.zeros(len(touches.step), dtype=np.bool_)
        alone: set[int] = set()
        for r in decisions.residencies:
            first = int(touches.start[r.tensor])
            row = touches.of(r.tensor)
            low, high = np.searchsorted(row, [r.start, r.end])
            keep[first + low : first + max(low, high - 1)] = True
            if high == low + 1:
                alone.add(int(first + low))
        takeovers = {r.tensor: r.in_place_of for r in decisions.residencies if r.in_place_of is not None}
        return cls(decisions.order, touches, keep, alone, takeovers)

    def without(self, *choices: Choice) -> GapForm:
        """The same with some choices undone."""
        keep = self.keep.copy()
        for choice in choices:
            if choice.gap >= 0:
                keep[choice.gap] = False
        results = {choice.takeover for choice in choices}
        return GapForm(
            self.order,
            self.touches,
            keep,
            self.resident_touches - {choice.touch for choice in choices},
            {result: operand for result, operand in self.takeovers.items() if result not in results},
        )

    def keeping(self, *choices: Choice) -> GapForm:
        """The same with some more gaps kept."""
        keep = self.keep.copy()
        for choice in choices:
            keep[choice.gap] = True
        return GapForm(self.order, self.touches, keep, self.resident_touches, self.takeovers)

    def decisions(self, problem: Problem) -> Decisions:
        """Turn the choices back into residencies; what lies side by side is there whole, or not at all."""
        found = decisions_from_gaps(
            problem,
            self.order,
            self.keep,
            takeovers=self.takeovers,
            touches=self.touches,
            resident_touches=self.resident_touches,
        )
        return settle_runs(problem, found)


@dataclass(frozen=True, slots=True)
class Place:
    """Slots that are in each other's way in the steps ``[lower, upper)``."""

    lower: int
    upper: int
    slots: set[int]


def undoable(
    problem: Problem, form: GapForm, decisions: Decisions, slots: Slots, place: Place, occupancy: Ints
) -> list[Choice]:
    """List the choices among the slots of a place that can be undone there, cheapest first.

    A takeover is undone only where its result fits beside the operand, so that no step ever exceeds the
    capacity.
    """
    found: list[Choice] = []
    for i in (i for number in sorted(place.slots) for i in slots.members[number]):
        r = decisions.residencies[i]
        if r.start >= place.upper or r.end <= place.lower:
            continue
        space = int(problem.space_bytes[r.tensor])
        apart = r.in_place_of is not None and int(occupancy[r.start]) + space <= problem.capacity_bytes
        if apart and place.lower <= r.start:
            found.append(Choice(0, 0, takeover=r.tensor))
        row = form.touches.of(r.tensor)
        low, high = (int(x) for x in np.searchsorted(row, [r.start, r.end]))
        touch = _lone_touch(problem, form, r, low, high)
        if touch is not None:
            found.append(touch)
        found += [
            _gap(problem, form, r, k, high)
            for k in range(low, high - 1)
            if row[k] < place.upper and row[k + 1] >= place.lower
        ]
    return sorted(found)


def leave(problem: Problem, form: GapForm, residency: Residency, lower: int, upper: int) -> Choice | None:
    """Find the choice to undo so that a residency is not there in ``[lower, upper)``, if a single one is enough."""
    row = form.touches.of(residency.tensor)
    low, high = (int(x) for x in np.searchsorted(row, [residency.start, residency.end]))
    k = int(np.searchsorted(row, lower)) - 1
    if low <= k < high - 1 and row[k + 1] >= upper:
        return _gap(problem, form, residency, k, high)
    return _lone_touch(problem, form, residency, low, high)


def _gap(problem: Problem, form: GapForm, r: Residency, k: int, high: int) -> Choice:
    """The gap after touch ``k`` of a tensor; ``high`` is the number of its touches until the residency ends."""
    row = form.touches.of(r.tensor)
    first = int(form.touches.start[r.tensor])
    arrival, store = int(arrival_bytes(problem, r.tensor)), int(store_bytes(problem, r.tensor))
    owed = departure_bytes(arrival, store, copied=r.loaded or len(row) > high)
    return Choice(owed, -int(row[k + 1] - row[k]), gap=first + k)


def _lone_touch(problem: Problem, form: GapForm, r: Residency, low: int, high: int) -> Choice | None:
    touch = int(form.touches.start[r.tensor]) + low
    streams = may_stream(problem, form.order[r.start], r.tensor)
    if high == low + 1 and touch in form.resident_touches and streams:
        return Choice(0, 1, touch=touch)
    return None
