"""From decisions to instructions: pack addresses, and give up residency where fragmentation leaves no packing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cosma.lowering.buffers import Chains, chains_of
from cosma.lowering.emit import emit
from cosma.packing import pack
from cosma.problem import Touches, decisions_from_gaps, occupancy_bytes, touches_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.packing import PackingResult
    from cosma.plan.instructions import Instruction
    from cosma.problem import Decisions, Problem

#: Units of packing work (5 to 10 microseconds each) spent on the given decisions before residency is given up.
PACKING_WORK = 250_000
#: Choices tried one by one before the cheapest is undone for good, each with this part of the work limit.
REPAIR_TRIES = 8
#: All repairs together may spend the work limit divided by this; then choices are undone in growing batches.
REPAIR_SHARE = 2
#: Units of work it takes to turn choices into one buffer to pack.
UNITS_PER_RESIDENCY = 8


@dataclass(frozen=True, slots=True)
class Realised:
    """Decisions with addresses.

    Attributes
    ----------
    decisions
        As given, or with less residency where the given ones could not be packed.
    instructions
        The plan's instructions.
    repairs
        How many choices of residency or takeover were given up; 0 if the decisions were packed as they came.
    """

    decisions: Decisions
    instructions: tuple[Instruction, ...]
    repairs: int


@dataclass(frozen=True, slots=True, order=True)
class Choice:
    """One choice that can be undone: a takeover, a lone resident touch, or a kept gap.

    Attributes
    ----------
    cost_bytes
        Traffic that undoing it adds.
    rank
        Order among equals: choices that occupy longest come first.
    takeover
        Result that would get space of its own, or -1.
    touch
        Touch that would be streamed, or -1.
    gap
        Gap in which the tensor would leave, or -1.
    """

    cost_bytes: int
    rank: int
    takeover: int = -1
    touch: int = -1
    gap: int = -1


@dataclass(frozen=True, slots=True)
class GapForm:
    """Decisions as one truth value per gap, plus takeovers: the form in which single choices are undone."""

    order: tuple[int, ...]
    touches: Touches
    keep: NDArray[np.bool_]
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
        """Turn the choices back into residencies."""
        return decisions_from_gaps(
            problem,
            self.order,
            self.keep,
            takeovers=self.takeovers,
            touches=self.touches,
            resident_touches=self.resident_touches,
        )


def try_realise(problem: Problem, decisions: Decisions, *, work_limit: int = PACKING_WORK) -> Realised | None:
    """Pack decisions exactly as they are; None if no packing was found within the work limit."""
    chains = chains_of(problem, decisions)
    result = _pack(problem, chains, work_limit, explain=False)
    if not result.packed:
        return None
    return _finish(problem, decisions, chains, result.offsets, 0)


def realise(problem: Problem, decisions: Decisions, *, work_limit: int = PACKING_WORK) -> Realised:
    """Pack decisions, giving up the cheapest choices where they conflict until a packing exists.

    Where one place is in the way, the choices there whose undoing costs least are tried one by one, and the first
    that leaves a packable rest is taken; if none of the first few does, or if several places are in the way, the
    cheapest of each is undone and the rest is looked at again. At last the costly choices that were given up are
    tried again. Ends always: with nothing kept between touches each step stands alone and fits, because decisions
    hold each step within the capacity. Deterministic.

    Parameters
    ----------
    problem, decisions
        What to pack.
    work_limit
        Units of packing work (see :func:`cosma.packing.pack`) for the decisions as they are; repairs get
        this divided by `REPAIR_SHARE`.

    Raises
    ------
    ValueError
        If the decisions exceed the capacity at some step even before addresses are considered.
    """
    chains = chains_of(problem, decisions)
    result = _pack(problem, chains, work_limit)
    if result.packed:
        return _finish(problem, decisions, chains, result.offsets, 0)
    occupancy = occupancy_bytes(problem, decisions)
    if int(occupancy.max()) > problem.capacity_bytes:
        step = int(occupancy.argmax())
        raise ValueError(f"step {step} holds {int(occupancy.max())} of {problem.capacity_bytes} bytes")
    repair = _Repair(problem, GapForm.of(problem, decisions), decisions, chains, result, work_limit)
    repair.run()
    return _finish(problem, repair.decisions, repair.chains, repair.result.offsets, len(repair.undone))


@dataclass(slots=True)
class _Repair:
    """Decisions on their way to a packing: what they are now, what came of packing them, and what was given up."""

    problem: Problem
    form: GapForm
    decisions: Decisions
    chains: Chains
    result: PackingResult
    work_limit: int
    left: int = 0
    undone: list[Choice] = field(default_factory=list)

    def run(self) -> None:
        """Give up choices until a packing exists, then take back what still fits."""
        self.left = self.work_limit // REPAIR_SHARE
        batch = 1
        while not self.result.packed:
            places = self.places()
            occupancy = occupancy_bytes(self.problem, self.decisions)
            found = [self.choices(place, occupancy) for place in places]
            found = [choices for choices in found if choices] or [self.choices(self.everything(), occupancy)]
            assert found[0], "nothing is kept between touches, and still no packing was found"
            if len(places) == 1 and any(self.attempt([choice]) for choice in found[0][:REPAIR_TRIES]):
                break
            if self.left <= 0:
                batch *= 2
            # Each takeover fits alone at its step; two at one step might not, so there is one per place.
            chosen = [
                choice
                for choices in found
                for choice in [choices[0], *(c for c in choices[1:] if c.takeover < 0)][:batch]
            ]
            self.undone += chosen
            self.form = self.form.without(*chosen)
            self.decisions = self.form.decisions(self.problem)
            self.chains = chains_of(self.problem, self.decisions)
            self.result = self.pack(self.chains, self.work_limit // REPAIR_TRIES)
        self.restore()

    def pack(self, chains: Chains, work_limit: int) -> PackingResult:
        """Pack within what work is left; with heuristics only when there is none."""
        result = _pack(self.problem, chains, max(0, min(work_limit, self.left)))
        self.left -= result.work.get("units", 0) + UNITS_PER_RESIDENCY * len(chains.buffers)
        return result

    def attempt(self, choices: list[Choice], form: GapForm | None = None) -> bool:
        """Take a form, by default the present one without some choices, if it can be packed."""
        if self.left <= 0:
            return False
        form = form if form is not None else self.form.without(*choices)
        decisions = form.decisions(self.problem)
        chains = chains_of(self.problem, decisions)
        result = self.pack(chains, self.work_limit // REPAIR_TRIES)
        if result.packed:
            self.form, self.decisions, self.chains, self.result = form, decisions, chains, result
            self.undone += choices
        return result.packed

    def restore(self) -> None:
        """Try again what was given up, the costliest first: halves of it, then quarters, at last one by one."""
        gaps = sorted((choice for choice in self.undone if choice.gap >= 0), reverse=True)
        block = len(gaps) // 2
        while block and self.left > 0:
            for first in range(0, len(gaps), block):
                chosen = gaps[first : first + block]
                if self.attempt([], self.form.keeping(*chosen)):
                    self.undone = [choice for choice in self.undone if choice not in chosen]
            gaps = [choice for choice in gaps if choice in self.undone]
            block //= 2

    def places(self) -> list[_Place]:
        """Where packing fails: a conflict, or the lives of buffers without a place that end first and lie apart."""
        buffers = self.chains.buffers
        if self.result.conflict:
            involved = {int(name) for name in self.result.conflict}
            return [_Place(0, len(self.decisions.order), involved)]
        spans: list[tuple[int, int]] = []
        stuck = [buffers[int(k)] for k in self.result.suspects]
        for upper, lower in sorted((buffer.upper, buffer.lower) for buffer in stuck):
            if not spans or lower >= spans[-1][1]:
                spans.append((lower, upper))
        begin = np.array([buffer.lower for buffer in buffers])
        end = np.array([buffer.upper for buffer in buffers])
        return [
            _Place(lower, upper, set(np.flatnonzero((begin < upper) & (end > lower)).tolist()))
            for lower, upper in spans
        ]

    def everything(self) -> _Place:
        """All chains at all times."""
        return _Place(0, len(self.decisions.order), set(range(len(self.chains.members))))

    def choices(self, place: _Place, occupancy: NDArray[np.int64]) -> list[Choice]:
        """What can be undone at a place, cheapest first."""
        return undoable(self.problem, self.form, self.decisions, self.chains, place, occupancy)


@dataclass(frozen=True, slots=True)
class _Place:
    """Chains that are in each other's way in the steps ``[lower, upper)``."""

    lower: int
    upper: int
    chains: set[int]


def _pack(problem: Problem, chains: Chains, work_limit: int, *, explain: bool = True) -> PackingResult:
    return pack(
        chains.buffers,
        problem.capacity_bytes,
        alignment=problem.accelerator.alignment,
        work_limit=work_limit,
        explain=explain,
    )


def _finish(
    problem: Problem, decisions: Decisions, chains: Chains, offsets: dict[str, int], repairs: int
) -> Realised:
    addresses = [0] * len(decisions.residencies)
    for number, chain in enumerate(chains.members):
        for i in chain:
            addresses[i] = offsets[str(number)]
    return Realised(decisions, emit(problem, decisions, addresses), repairs)


def undoable(
    problem: Problem,
    form: GapForm,
    decisions: Decisions,
    chains: Chains,
    place: _Place,
    occupancy: NDArray[np.int64],
) -> list[Choice]:
    """List the choices among the chains of a place that can be undone there, cheapest first.

    A takeover is undone only where its result fits beside the operand, so that no step ever exceeds the
    capacity.
    """
    found: list[Choice] = []
    for i in (i for number in sorted(place.chains) for i in chains.members[number]):
        r = decisions.residencies[i]
        space, size = int(problem.space_bytes[r.tensor]), int(problem.size_bytes[r.tensor])
        if r.start >= place.upper or r.end <= place.lower:
            continue
        apart = r.in_place_of is not None and int(occupancy[r.start]) + space <= problem.capacity_bytes
        if apart and place.lower <= r.start:
            found.append(Choice(0, 0, takeover=r.tensor))
        first = int(form.touches.start[r.tensor])
        row = form.touches.of(r.tensor)
        low, high = (int(x) for x in np.searchsorted(row, [r.start, r.end]))
        if high == low + 1 and first + low in form.resident_touches and problem.streamable:
            found.append(Choice(0, 1, touch=first + low))
        has_copy = problem.starts_off_chip[r.tensor] or problem.must_store[r.tensor] or len(row) > high
        for k in range(low, high - 1):
            if row[k] >= place.upper or row[k + 1] < place.lower:
                continue
            found.append(Choice(size if has_copy else 2 * size, -int(row[k + 1] - row[k]), gap=first + k))
    return sorted(found)
