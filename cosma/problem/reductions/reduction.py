"""What a reduction says of the problem that it was made from.

A reduction makes a smaller or simpler problem. A *restriction* gives back schedules: what is decided for its problem is
a way to run the whole. A *relaxation* gives back bounds: what no plan of its problem goes below, lifted, no plan of the
whole goes below. An *exact* reduction is both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cosma.problem.decisions import Decisions
    from cosma.problem.problem import Problem


class Restriction(Protocol):
    """A reduction whose schedules are schedules of the whole."""

    @property
    def problem(self) -> Problem:
        """The smaller or simpler problem."""
        ...

    def lift(self, decisions: Decisions) -> Decisions:
        """Decisions for the whole; they hold each step within the capacity where the given ones do."""
        ...


class Relaxation(Protocol):
    """A reduction whose bounds are bounds of the whole."""

    @property
    def problem(self) -> Problem:
        """The smaller or simpler problem."""
        ...

    def lift_bound(self, bound_bytes: int) -> int:
        """Non-compulsory bytes that no plan of the whole goes below, where no plan of the problem goes below these."""
        ...


class Exact(Restriction, Relaxation, Protocol):
    """A reduction that loses nothing: the best of its problem, lifted, is the best of the whole."""
