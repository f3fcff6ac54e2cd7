"""Addresses by layers: the best replacement of an order that can be packed.

Replacement is solved without addresses, then packed. When no packing exists, the packing engine names residencies
that cannot lie together; a row forbids that combination and the replacement is solved again. Each round rules
out choices that have no addresses, so the first that packs is the best of its order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cosma.lowering import apart, excluded_from, slots_of, try_realise
from cosma.packing import PackingStatus, pack
from cosma.parameters.replacement import ReplacementParameters
from cosma.problem import touches_of
from cosma.replacement.program import Conflict, build_replacement
from cosma.solvers import EXACT_PROFILE, Status, solve, work_units

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cosma.lowering import Realised
    from cosma.problem import Decisions, Problem, Residency
    from cosma.solvers import Profile

DEFAULTS = ReplacementParameters()


@dataclass(frozen=True, slots=True)
class PackedOrder:
    """The best that was found for one order, addresses included."""

    #: Decisions with addresses, None if none were found.
    realised: Realised | None
    #: No plan in this order has less non-compulsory traffic.
    bound_bytes: int
    #: How many conflicts were learnt.
    rounds: int
    #: Whether ``realised`` reaches the bound.
    proven: bool


def pack_order(
    problem: Problem,
    order: Sequence[int],
    *,
    first: Decisions | None = None,
    most_rounds: int = 100,
    work_limit: float | None = DEFAULTS.work,
    packing_work: int = DEFAULTS.packing_units,
    profile: Profile | None = None,
    stop: Callable[[], bool] | None = None,
) -> PackedOrder:
    """Find the best replacement of an order that can be packed.

    Deterministic for the default profile.

    Parameters
    ----------
    first
        An optimal replacement without addresses, where known.
    most_rounds
        Conflicts to learn before giving up.
    work_limit
        Nominal seconds per replacement; None for no limit.
    packing_work
        Units of work per packing; see :func:`cosma.packing.pack`.
    profile
        Back end for the replacements.
    stop
        Polled between rounds and while solving.
    """
    conflicts: list[Conflict] = []
    bound = problem.constant_noncompulsory_bytes
    candidate = first
    for rounds in range(most_rounds + 1):
        if candidate is None:
            replacement = build_replacement(problem, order, forbidden=conflicts)
            chosen = profile if profile is not None else EXACT_PROFILE
            result = solve(replacement.model, chosen, work_limit=work_units(chosen, work_limit), stop=stop)
            if result.bound is not None:
                bound = max(bound, result.bound)
            if result.values is None or result.status is not Status.OPTIMAL:
                return PackedOrder(None, bound, rounds, False)
            candidate = replacement.decisions(result.values)
        realised = try_realise(problem, candidate, work_limit=packing_work)
        if realised is not None:
            return PackedOrder(realised, bound, rounds, True)
        if rounds == most_rounds or (stop is not None and stop()):
            break
        involved = conflicting(problem, candidate, work_limit=packing_work)
        if involved is None:
            break
        conflicts.append(as_gaps(problem, candidate, involved))
        candidate = None
    return PackedOrder(None, bound, most_rounds, False)


def conflicting(
    problem: Problem, decisions: Decisions, *, work_limit: int = DEFAULTS.packing_units
) -> tuple[Residency, ...] | None:
    """Residencies that no packing can hold together; None if the packing engine could not tell."""
    if apart(problem, decisions) is not decisions:
        return None
    slots = slots_of(problem, decisions)
    result = pack(
        slots.buffers,
        problem.address_limit_bytes,
        alignment=problem.alignment,
        forbidden=excluded_from(problem),
        work_limit=work_limit,
    )
    if result.status is not PackingStatus.INFEASIBLE or not result.conflict:
        return None
    members = sorted(i for number in result.conflict for i in slots.members[int(number)])
    return tuple(decisions.residencies[i] for i in members)


def as_gaps(problem: Problem, decisions: Decisions, residencies: Sequence[Residency]) -> Conflict:
    """Write a conflict in the terms of the replacement program of its order."""
    touches = touches_of(problem, decisions.order)
    kept: list[int] = []
    alone: list[int] = []
    taken: list[tuple[int, int]] = []
    ends = {(r.tensor, r.end) for r in residencies}
    apart: list[tuple[int, int]] = []
    for r in residencies:
        row = touches.of(r.tensor)
        low, high = (int(x) for x in row.searchsorted([r.start, r.end]))
        first = int(touches.start[r.tensor])
        kept.extend(range(first + low, first + high - 1))
        if high == low + 1:
            alone.append(first + low)
        if r.in_place_of is not None:
            taken.append((r.tensor, r.in_place_of))
        elif not r.loaded:
            pairs = problem.pairs_of(decisions.order[r.start])
            apart.extend((a, b) for a, b in pairs if a == r.tensor and (b, r.start + 1) in ends)
    return Conflict(tuple(kept), tuple(alone), tuple(taken), tuple(apart))
