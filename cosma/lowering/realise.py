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

    from cosma.plan.instructions import Instruction
    from cosma.problem import Decisions, Problem

#: Search nodes spent on one packing before its conflict is resolved by giving up residency.
PACKING_WORK = 20_000


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


@dataclass(slots=True)
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
    result = pack(
        chains.buffers,
        problem.capacity_bytes,
        alignment=problem.accelerator.alignment,
        work_limit=work_limit,
        explain=False,
    )
    if not result.packed:
        return None
    return _finish(problem, decisions, chains, result.offsets, 0)


def realise(problem: Problem, decisions: Decisions, *, work_limit: int = PACKING_WORK) -> Realised:
    """Pack decisions, giving up the cheapest residency in each conflict until a packing exists.

    Ends always: with nothing kept between touches each step stands alone and fits, because decisions hold
    each step within the capacity. Deterministic.

    Raises
    ------
    ValueError
        If the decisions exceed the capacity at some step even before addresses are considered.
    """
    form: GapForm | None = None
    repairs = 0
    while True:
        chains = chains_of(problem, decisions)
        result = pack(
            chains.buffers, problem.capacity_bytes, alignment=problem.accelerator.alignment, work_limit=work_limit
        )
        if result.packed:
            return _finish(problem, decisions, chains, result.offsets, repairs)
        occupancy = occupancy_bytes(problem, decisions)
        if len(occupancy) and int(occupancy.max()) > problem.capacity_bytes:
            raise ValueError(
                f"step {int(occupancy.argmax())} holds {int(occupancy.max())} of {problem.capacity_bytes} bytes"
            )
        if form is None:
            form = GapForm.of(problem, decisions)
        involved = {int(name) for name in result.conflict} or _at_peak(chains, occupancy)
        _give_up(problem, form, decisions, chains, involved, occupancy)
        decisions = form.decisions(problem)
        repairs += 1


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


def _give_up(
    problem: Problem,
    form: GapForm,
    decisions: Decisions,
    chains: Chains,
    involved: set[int],
    occupancy: NDArray[np.int64],
) -> None:
    """Undo one choice among the chains involved: a takeover that costs nothing, else the cheapest gap."""
    best: tuple[int, int, int] | None = None
    for number in sorted(involved) or range(len(chains.members)):
        for i in chains.members[number]:
            r = decisions.residencies[i]
            if r.in_place_of is not None:
                extra = int(problem.space_bytes[r.tensor])
                if int(occupancy[r.start]) + extra <= problem.capacity_bytes:
                    del form.takeovers[r.tensor]
                    return
            first = int(form.touches.start[r.tensor])
            row = form.touches.of(r.tensor)
            low, high = (int(x) for x in np.searchsorted(row, [r.start, r.end]))
            for k in range(low, high - 1):
                size = int(problem.size_bytes[r.tensor])
                spilled_already = problem.starts_off_chip[r.tensor] or problem.must_store[r.tensor] or len(row) > high
                cost = size if spilled_already else 2 * size
                length = int(row[k + 1] - row[k])
                candidate = (cost, -length, first + k)
                if best is None or candidate < best:
                    best = candidate
            if high == low + 1 and first + low in form.resident_touches and problem.streamable:
                candidate = (0, 0, -1 - (first + low))
                best = candidate if best is None else min(best, candidate)
    if best is None:
        if involved:
            _give_up(problem, form, decisions, chains, set(), occupancy)
            return
        raise AssertionError("nothing is kept between touches, and still no packing was found")
    choice = best[2]
    if choice < 0:
        form.resident_touches.discard(-1 - choice)
    else:
        form.keep[choice] = False
