"""From decisions to instructions: pack addresses, and give up residency where fragmentation leaves no packing."""

from __future__ import annotations

from dataclasses import dataclass
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

#: Search nodes spent on one packing before its conflict is resolved by giving up residency.
PACKING_WORK = 20_000
#: Choices tried one by one before the cheapest is undone for good.
REPAIR_TRIES = 8


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
        How many times residency or a takeover was given up; 0 if the decisions were packed as they came.
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

    def without(self, choice: Choice) -> GapForm:
        """The same with one choice undone."""
        keep = self.keep.copy()
        if choice.gap >= 0:
            keep[choice.gap] = False
        return GapForm(
            self.order,
            self.touches,
            keep,
            self.resident_touches - {choice.touch},
            {result: operand for result, operand in self.takeovers.items() if result != choice.takeover},
        )

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
    """Pack decisions, giving up the cheapest choice in each conflict until a packing exists.

    Of the choices whose undoing costs least, the first that leaves a packable rest is taken; if none of the
    first few does, the cheapest is undone and the rest is looked at again. Ends always: with nothing kept
    between touches each step stands alone and fits, because decisions hold each step within the capacity.
    Deterministic.

    Raises
    ------
    ValueError
        If the decisions exceed the capacity at some step even before addresses are considered.
    """
    form: GapForm | None = None
    repairs = 0
    while True:
        chains = chains_of(problem, decisions)
        result = _pack(problem, chains, work_limit)
        if result.packed:
            return _finish(problem, decisions, chains, result.offsets, repairs)
        occupancy = occupancy_bytes(problem, decisions)
        if len(occupancy) and int(occupancy.max()) > problem.capacity_bytes:
            raise ValueError(
                f"step {int(occupancy.argmax())} holds {int(occupancy.max())} of {problem.capacity_bytes} bytes"
            )
        form = form if form is not None else GapForm.of(problem, decisions)
        involved = {int(name) for name in result.conflict} or _at_peak(chains, occupancy)
        choices = undoable(problem, form, decisions, chains, involved, occupancy)
        choices = choices or undoable(problem, form, decisions, chains, set(range(len(chains.members))), occupancy)
        assert choices, "nothing is kept between touches, and still no packing was found"
        repairs += 1
        for choice in choices[:REPAIR_TRIES]:
            changed = form.without(choice).decisions(problem)
            rest = chains_of(problem, changed)
            result = _pack(problem, rest, work_limit // REPAIR_TRIES, explain=False)
            if result.packed:
                return _finish(problem, changed, rest, result.offsets, repairs)
        form = form.without(choices[0])
        decisions = form.decisions(problem)


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


def _at_peak(chains: Chains, occupancy: NDArray[np.int64]) -> set[int]:
    step = int(occupancy.argmax())
    return {i for i, buffer in enumerate(chains.buffers) if buffer.lower <= step < buffer.upper}


def undoable(
    problem: Problem,
    form: GapForm,
    decisions: Decisions,
    chains: Chains,
    involved: set[int],
    occupancy: NDArray[np.int64],
) -> list[Choice]:
    """List the choices among some chains that can be undone, cheapest first.

    A takeover is undone only where its result fits beside the operand, so that no step ever exceeds the
    capacity.
    """
    found: list[Choice] = []
    for i in (i for number in sorted(involved) for i in chains.members[number]):
        r = decisions.residencies[i]
        space, size = int(problem.space_bytes[r.tensor]), int(problem.size_bytes[r.tensor])
        if r.in_place_of is not None and int(occupancy[r.start]) + space <= problem.capacity_bytes:
            found.append(Choice(0, 0, takeover=r.tensor))
        first = int(form.touches.start[r.tensor])
        row = form.touches.of(r.tensor)
        low, high = (int(x) for x in np.searchsorted(row, [r.start, r.end]))
        if high == low + 1 and first + low in form.resident_touches and problem.streamable:
            found.append(Choice(0, 1, touch=first + low))
        has_copy = problem.starts_off_chip[r.tensor] or problem.must_store[r.tensor] or len(row) > high
        for k in range(low, high - 1):
            found.append(Choice(size if has_copy else 2 * size, -int(row[k + 1] - row[k]), gap=first + k))
    return sorted(found)
