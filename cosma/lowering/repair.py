"""Repair of decisions that have no addresses as they are: things give way only where a buffer found no place.

Packing leaves addresses for nearly all buffers and some that are stuck. Around each of those, what lies nearby is
packed again with everything else where it is. Where that is in vain, a place is emptied: what is in the way moves, or
the choices that keep it there are undone, if that is cheaper than undoing those of the stuck buffer itself. At last the
costly choices that were given up are tried again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from cosma.lowering.buffers import Slots, excluded_from, slots_of
from cosma.lowering.choices import Choice, GapForm, Place, leave, undoable
from cosma.lowering.layout import Layout
from cosma.packing import pack
from cosma.packing.buffers import live_peak
from cosma.packing.improve import WIDENINGS, improve
from cosma.parameters.lowering import LoweringParameters
from cosma.problem import occupancy_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.arrays import Bools, Ints
    from cosma.problem import Decisions, Problem

_State: TypeAlias = "tuple[GapForm, Decisions, Slots, Ints]"


@dataclass(frozen=True, slots=True)
class _Room:
    """An address for a slot, what emptying the place there costs, and the slots that are in the way."""

    cost_bytes: float
    address: int
    slots: tuple[int, ...]


class NoAddressesError(Exception):
    """What is alive at a step is so at this step alone, and has no addresses where constraints let it lie."""


class Repair:
    """Decisions on their way to a packing: what they are now, where their slots lie, and what was given up.

    Parameters
    ----------
    problem, decisions, slots
        What to pack; every step is within the capacity.
    placed
        Addresses of most slots, by name; they overlap nowhere and lie within the capacity.
    work_limit
        Units of packing work; where they are spent, what is cheapest is undone without trying anything smaller.
    """

    def __init__(
        self,
        problem: Problem,
        decisions: Decisions,
        slots: Slots,
        placed: dict[str, int],
        work_limit: int,
        parameters: LoweringParameters,
    ) -> None:
        self.problem = problem
        self.parameters = parameters
        self.form = GapForm.of(problem, decisions)
        self.decisions = decisions
        self.slots = slots
        self.left = work_limit
        self.undone: list[Choice] = []
        self._lay([placed.get(buffer.id, -1) for buffer in slots.buffers])

    def run(self) -> None:
        """Give up choices until every slot has an address, then take back what still fits.

        Raises NoAddressesError if a step has no addresses although it fits by its bytes, which takes constraints on
        addresses.
        """
        while stuck := self.layout.stuck:
            self._free(min(stuck, key=lambda k: (self.layout.lower[k], k)))
        self._restore()

    @property
    def offsets(self) -> dict[str, int]:
        """Addresses by name, once all slots have one."""
        return {buffer.id: int(at) for buffer, at in zip(self.slots.buffers, self.layout.address, strict=True)}

    def _lay(self, addresses: Sequence[int]) -> None:
        """Take note of where the slots lie (-1: nowhere yet), and of what the decisions occupy."""
        self.layout = Layout(self.problem, self.slots, addresses)
        self._occupancy = occupancy_bytes(self.problem, self.decisions)

    def _save(self) -> _State:
        return self.form, self.decisions, self.slots, self.layout.address.copy()

    def _back_to(self, state: _State) -> None:
        self.form, self.decisions, self.slots, address = state
        self._lay(address.tolist())

    def _free(self, stuck: int) -> None:
        """Find a place for one slot, undoing choices until all that was alive with it has one."""
        lower, upper = self.slots.buffers[stuck].lower, self.slots.buffers[stuck].upper
        while not self._fit(self.layout.stuck_within(lower, upper)):
            remaining = self.layout.stuck_within(lower, upper)
            if self.left <= 0:
                self._free_quickly(remaining)
                continue
            at = remaining[0]
            own = self._own_choices(at)
            rooms = self._rooms(at, own[0].cost_bytes if own else math.inf)
            least = rooms[0].cost_bytes if rooms else own[0].cost_bytes if own else 0
            # Something smaller nearby may be enough, if the rest moves.
            near = [choice for choice in self._choices(at, self.layout.alive_with(at)) if choice.cost_bytes < least]
            if any(self._attempt(choice, lower, upper) for choice in near[:self.parameters.tries]):
                return
            if not any(self._clear(at, room) for room in rooms):
                self._undo_or_stack(own[:1], at)

    def _free_quickly(self, stuck: Sequence[int]) -> None:
        """Undo what is cheapest for one slot, or one choice of each: changing over takes as long as all else."""
        firsts: list[Choice] = []
        for at in stuck:
            own = self._own_choices(at)
            most = own[0].cost_bytes if own else math.inf
            # One that costs little leaves at once: to look for room for it takes longer than it is worth.
            dear = most * self.parameters.small_divisor > self.problem.capacity_bytes
            if dear and any(self._clear(at, room) for room in self._rooms(at, most)):
                return
            firsts += own[:1]
        self._undo_or_stack(firsts, stuck[0])

    def _undo(self, choices: Sequence[Choice]) -> None:
        self.undone += choices
        self._adopt(self.form.without(*choices))

    def _own_choices(self, number: int) -> list[Choice]:
        """What can be undone of a slot itself, takeovers aside, cheapest first."""
        mine = np.zeros(len(self.slots.buffers), dtype=np.bool_)
        mine[number] = True
        return [choice for choice in self._choices(number, mine) if choice.takeover < 0]

    def _undo_or_stack(self, choices: Sequence[Choice], at: int) -> None:
        """Undo choices; without any, whatever is kept around a slot, and if nothing is, lay its step out anew."""
        around = [] if choices else self._choices(at, self.layout.alive_with(at))
        # Each takeover fits alone at its step, two at one step might not: they go last, one at a time.
        choices = choices or [choice for choice in around if choice.takeover < 0] or around[:1]
        if choices:
            self._undo(choices)
            return
        # All that is alive is so at this step alone, and together it fits: one lies above the other.
        alive = np.flatnonzero(self.layout.alive_with(at))
        if self.problem.places is not None:
            self._pack_step(alive.tolist())
            return
        top = np.cumsum(self.layout.size[alive])
        assert top[-1] <= self.problem.capacity_bytes, "a step holds more than the capacity"
        self.layout.address[alive] = top - self.layout.size[alive]

    def _pack_step(self, alive: list[int]) -> None:
        """Pack what is alive at one step where not every address will do."""
        found = pack(
            [self.slots.buffers[k] for k in alive],
            self.layout.limit,
            alignment=self.problem.alignment,
            forbidden=excluded_from(self.problem),
            work_limit=self.parameters.most_fit_units,
            explain=False,
        )
        if not found.packed:
            raise NoAddressesError
        for k in alive:
            self.layout.address[k] = found.offsets[self.slots.buffers[k].id]

    def _clear(self, at: int, room: _Room) -> bool:
        """Put a slot into a place: what is in the way moves, or else leaves; False, changing nothing, if it cannot."""
        before = self.layout.address.copy()
        mine = self.slots.buffers[at]
        self.layout.address[at] = room.address
        leaving: list[Choice] = []
        for number in sorted(room.slots, key=lambda number: (-self.layout.size[number], number)):
            gaps = self.layout.free_gaps(number)
            if gaps:
                self.layout.address[number] = gaps[0][0]
                continue
            # What is left of it lies where it lay.
            choices = self._ways_out(number, mine.lower, mine.upper)
            if choices is None:
                self.layout.address = before
                return False
            leaving += choices
        if leaving:
            self._undo(leaving)
        return True

    def _rooms(self, stuck: int, most_bytes: float) -> list[_Room]:
        """Addresses where a slot fits once others have moved or left, cheapest first; none dearer than so much."""
        mine = self.slots.buffers[stuck]
        alive = np.flatnonzero(self.layout.alive_with(stuck) & (self.layout.address >= 0))
        low, high = self.layout.address[alive], self.layout.address[alive] + self.layout.size[alive]
        costs = [self._cost_of_leaving(k, mine.lower, mine.upper) for k in alive.tolist()]
        # Where a slot could lie instead is looked up only for those that leave too dear.
        gaps: dict[int, list[tuple[int, int]]] = {}
        found = []
        for begin in self.layout.candidates(stuck, low, high):
            end = begin + mine.size
            if end > self.layout.limit:
                break
            cost = 0.0
            inside = np.flatnonzero((low < end) & (high > begin)).tolist()
            for i in inside:
                if cost > most_bytes:
                    break
                k = int(alive[i])
                if costs[i] and k not in gaps:
                    gaps[k] = self.layout.free_gaps(k)
                size = self.slots.buffers[k].size
                if costs[i] and not any(
                    min(top, begin) - bottom >= size or top - max(bottom, end) >= size for bottom, top in gaps[k]
                ):
                    cost += costs[i]
            if cost <= most_bytes and cost < math.inf:
                found.append(_Room(cost, begin, tuple(int(alive[i]) for i in inside)))
        self.left -= self.parameters.units_per_slot_examined * (len(alive) + len(gaps))
        return sorted(found, key=lambda room: (room.cost_bytes, len(room.slots), room.address))

    def _cost_of_leaving(self, number: int, lower: int, upper: int) -> float:
        choices = self._ways_out(number, lower, upper)
        return math.inf if choices is None else sum(choice.cost_bytes for choice in choices)

    def _ways_out(self, number: int, lower: int, upper: int) -> list[Choice] | None:
        """What to undo so that a slot is not there in ``[lower, upper)``; None if it must be."""
        found = []
        for i in self.slots.members[number]:
            r = self.decisions.residencies[i]
            if r.start < upper and r.end > lower:
                choice = leave(self.problem, self.form, r, max(r.start, lower), min(r.end, upper))
                if choice is None:
                    return None
                found.append(choice)
        return found

    def _attempt(self, choice: Choice, lower: int, upper: int) -> bool:
        """Undo a choice if everything alive in ``[lower, upper)`` has a place then."""
        before = self._save()
        self._adopt(self.form.without(choice))
        if self._fit(self.layout.stuck_within(lower, upper)):
            self.undone.append(choice)
            return True
        self._back_to(before)
        return False

    def _restore(self) -> None:
        """Keep again what was given up, the costliest first, where it still finds a place."""
        for choice in sorted((choice for choice in self.undone if choice.gap >= 0), reverse=True):
            if self.left <= 0:
                return
            before = self._save()
            self._adopt(self.form.keeping(choice))
            fits = int(self._occupancy.max()) <= self.problem.capacity_bytes
            if fits and self._fit(self.layout.stuck):
                self.undone.remove(choice)
            else:
                self._back_to(before)

    def _choices(self, at: int, slots: Bools) -> list[Choice]:
        """What can be undone of some slots while one of them is alive, cheapest first."""
        place = Place(int(self.layout.lower[at]), int(self.layout.upper[at]), set(np.flatnonzero(slots).tolist()))
        return undoable(self.problem, self.form, self.decisions, self.slots, place, self._occupancy)

    def _fit(self, stuck: Sequence[int]) -> bool:
        """Give slots addresses, moving what lies nearby; say whether all of them found one."""
        buffers = self.slots.buffers
        shares = self.parameters.tries * max(1, int((self.layout.address < 0).sum()))
        for k in sorted(stuck, key=lambda k: (-self.layout.size[k], k)):
            self.layout.address[k] = next((low for low, _ in self.layout.free_gaps(k)), -1)
            if self.layout.address[k] >= 0:
                continue
            alive = self.layout.alive_with(k) & (self.layout.address >= 0)
            if int(alive.sum()) > self.parameters.most_fitted:
                return False
            # Whatever lives much longer stays where it is, so that the stretch is short.
            span = self.parameters.long_lived * int(self.layout.upper[k] - self.layout.lower[k]) + 1
            staying = alive & (self.layout.upper - self.layout.lower > span)
            moving = alive & ~staying
            begin = self.layout.lower[moving].min(initial=self.layout.lower[k])
            end = self.layout.upper[moving].max(initial=self.layout.upper[k])
            near = (self.layout.lower < end + span) & (self.layout.upper > begin - span) & (self.layout.address >= 0)
            staying |= near & ((self.layout.lower < begin - span) | (self.layout.upper > end + span))
            names = np.flatnonzero(near).tolist()
            # What lies side by side spans gaps: it may take more than decisions hold, and the search asks for less.
            if self.problem.runs and live_peak([buffers[i] for i in (*names, k)]) > self.problem.capacity_bytes:
                return False
            fixed = [
                replace(buffers[i], offset=int(self.layout.address[i])) if staying[i] else buffers[i] for i in names
            ]
            found = improve(
                [*fixed, buffers[k]],
                [*self.layout.address[names].tolist(), self.layout.limit],
                self.layout.limit,
                alignment=self.problem.alignment,
                forbidden=excluded_from(self.problem),
                work_limit=min(
                    max(self.left // shares, self.parameters.least_fit_units), self.parameters.most_fit_units
                ),
                searches=WIDENINGS,
            )
            self.left -= found.units + self.parameters.units_per_buffer * len(names)
            if found.stuck:
                return False
            for i, name in enumerate([*names, k]):
                self.layout.address[name] = found.offsets[i]
        return True

    def _adopt(self, form: GapForm) -> None:
        """Go over to other choices; slots that occupy no more than before stay where they are."""
        old: dict[int, list[tuple[int, int, bool, int, int]]] = {}
        for number, slot in enumerate(self.slots.members):
            for i in slot:
                r = self.decisions.residencies[i]
                at = int(self.layout.address[number])
                at += self.slots.shifts.get(i, 0) if at >= 0 else 0
                # Where things lie side by side, only what is left of one slot lies where that lay.
                origin = number if self.problem.runs else 0
                old.setdefault(r.tensor, []).append((r.start, r.end, r.in_place_of is None, at, origin))
        self.form = form
        self.decisions = form.decisions(self.problem)
        self.slots = slots_of(self.problem, self.decisions)
        self.left -= self.parameters.units_per_buffer * len(self.slots.buffers)
        addresses = []
        for slot in self.slots.members:
            places: set[tuple[int, int]] = set()
            for i in slot:
                r = self.decisions.residencies[i]
                # A result that was written in place has its operand's address: it cannot lie there beside it.
                shift = self.slots.shifts.get(i, 0)
                places.add(next(
                    ((max(at - shift, -1), origin) for start, end, alone, at, origin in old.get(r.tensor, ())
                     if start <= r.start and r.end <= end and (alone or r.in_place_of is not None or start < r.start)),
                    (-1, 0),
                ))  # fmt: skip
            addresses.append(places.pop()[0] if len(places) == 1 else -1)
        if self.problem.places is not None:
            self._lay(addresses)
            addresses = [at if at < 0 or self.layout.allowed(k, at) else -1 for k, at in enumerate(addresses)]
        self._lay(addresses)
