"""The answer of a back end: its status, apart from why it stopped."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:

    from cosma.arrays import Ints


class Status(StrEnum):
    """Status of a program."""

    OPTIMAL = "optimal"
    FEASIBLE = "feasible"
    INFEASIBLE = "infeasible"
    UNKNOWN = "unknown"
    ERROR = "error"


class Stop(StrEnum):
    """Why a back end stopped."""

    PROOF = "proof"
    TIME = "time"
    WORK = "work"
    MEMORY = "memory"
    GAP = "gap"
    INTERRUPT = "interrupt"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True, eq=False)
class SolverResult:
    """The outcome of one run of one back end."""

    #: The status, and why the run ended.
    status: Status
    stopped_by: Stop
    #: The best assignment found, or None. ``int64[variables]``.
    values: Ints | None = None
    #: Its value, counted anew from the model; None without an assignment.
    objective: int | None = None
    #: No assignment is better than this; None where the back end gave no usable bound.
    bound: int | None = None
    #: On the wall.
    seconds: float = 0.0
    #: The back end's own measure of work (deterministic seconds for CP-SAT, nodes elsewhere), None if unknown.
    work: float | None = None
    #: The log of the back end, if asked for; else empty.
    log: str = ""
    #: The error, where there was one.
    message: str = field(default="")

    @property
    def gap(self) -> float | None:
        """(objective - bound) / objective, or None where either is unknown; 0 where they meet."""
        if self.objective is None or self.bound is None:
            return None
        return 0.0 if self.bound >= self.objective else (self.objective - self.bound) / max(1, abs(self.objective))
