"""From decisions to instructions: pack addresses, and give up residency where fragmentation leaves no packing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cosma.lowering.buffers import apart, excluded_from, slots_of
from cosma.lowering.emit import emit
from cosma.lowering.repair import NoAddressesError, Repair
from cosma.lowering.runs import settle_runs
from cosma.packing import pack
from cosma.parameters.lowering import LoweringParameters
from cosma.problem import occupancy_bytes

if TYPE_CHECKING:
    from cosma.lowering.buffers import Slots
    from cosma.packing import PackingResult
    from cosma.plan.instructions import Instruction
    from cosma.problem import Decisions, Problem

DEFAULTS = LoweringParameters()


@dataclass(frozen=True, slots=True)
class Realised:
    """Decisions with addresses."""

    #: As given, or with less residency where the given ones could not be packed.
    decisions: Decisions
    #: The plan's instructions.
    instructions: tuple[Instruction, ...]
    #: How many choices of residency or takeover were given up; 0 if the decisions were packed as they came.
    repairs: int
    #: Units of packing work that it took (see :func:`cosma.packing.pack`); 0 where addresses were given on the way.
    work_units: int = 0


def try_realise(problem: Problem, decisions: Decisions, *, work_limit: int = DEFAULTS.packing_units) -> Realised | None:
    """Pack decisions exactly as they are; None if no packing was found within the work limit."""
    if apart(problem, decisions) is not decisions:
        return None
    decisions = settle_runs(problem, decisions)
    slots = slots_of(problem, decisions)
    result = _pack(problem, slots, work_limit)
    if not result.packed:
        return None
    return _finish(problem, decisions, slots, result.offsets, 0, result.work.get("units", 0))


def realise(
    problem: Problem,
    decisions: Decisions,
    *,
    work_limit: int | None = None,
    parameters: LoweringParameters = DEFAULTS,
) -> Realised:
    """Pack decisions, giving up the cheapest choices where they conflict until a packing exists.

    Only where something found no address does anything give way, see :mod:`cosma.lowering.repair`. Ends always: with
    nothing kept between touches each step stands alone and fits, because decisions hold each step within the
    capacity. Deterministic. Raises ValueError if the decisions exceed the capacity at some step even before addresses
    are considered. Raises NoAddressesError if a step has no addresses where constraints let things lie, although it is
    within the capacity.

    Parameters
    ----------
    work_limit
        Units of packing work (see :func:`cosma.packing.pack`) for the decisions as they are, at most a part of it,
        and for repairs; when it is spent, what is cheapest is given up without trying anything smaller.
    parameters
        Tuning parameters; they hold the limit where none is given.
    """
    work_limit = parameters.packing_units if work_limit is None else work_limit
    given, decisions = decisions, apart(problem, decisions)
    if decisions is not given and int(occupancy_bytes(problem, decisions).max(initial=0)) > problem.capacity_bytes:
        raise NoAddressesError
    decisions = settle_runs(problem, decisions)
    slots = slots_of(problem, decisions)
    result = _pack(problem, slots, int(work_limit * parameters.as_is_share))
    units = result.work.get("units", 0)
    if result.packed:
        return _finish(problem, decisions, slots, result.offsets, 0, units)
    occupancy = occupancy_bytes(problem, decisions)
    if int(occupancy.max()) > problem.capacity_bytes:
        step = int(occupancy.argmax())
        raise ValueError(f"step {step} holds {int(occupancy.max())} of {problem.capacity_bytes} bytes")
    repair = Repair(problem, decisions, slots, result.placed, max(0, work_limit - units), parameters)
    repair.run()
    units = max(work_limit, units) - repair.left
    return _finish(problem, repair.decisions, repair.slots, repair.offsets, len(repair.undone), units)


def _pack(problem: Problem, slots: Slots, work_limit: int) -> PackingResult:
    return pack(
        slots.buffers,
        problem.address_limit_bytes,
        alignment=problem.alignment,
        forbidden=excluded_from(problem),
        work_limit=work_limit,
        explain=False,
    )


def _finish(
    problem: Problem, decisions: Decisions, slots: Slots, offsets: dict[str, int], repairs: int, work_units: int
) -> Realised:
    addresses = [0] * len(decisions.residencies)
    for number, slot in enumerate(slots.members):
        for i in slot:
            addresses[i] = offsets[str(number)] + slots.shifts.get(i, 0)
    return Realised(decisions, emit(problem, decisions, addresses), repairs, work_units)
