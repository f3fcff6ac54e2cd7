"""A problem with less room: a restriction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cosma.problem.feasibility import smallest_feasible_capacity

if TYPE_CHECKING:
    from cosma.problem.decisions import Decisions
    from cosma.problem.problem import Problem


@dataclass(frozen=True, slots=True, eq=False)
class Tightened:
    """A problem with a part of the capacity."""

    #: The same problem with less room.
    problem: Problem

    def lift(self, decisions: Decisions) -> Decisions:
        """The decisions themselves, at the same traffic: what fits in less room fits in more."""
        return decisions


def tightened(problem: Problem, share: float) -> Tightened | None:
    """Take away all but a share of the capacity; None if an operator does not fit then."""
    alignment = problem.alignment
    tighter = problem.derived(capacity_bytes=int(problem.capacity_bytes * share) // alignment * alignment)
    return Tightened(tighter) if smallest_feasible_capacity(tighter) <= tighter.capacity_bytes else None
