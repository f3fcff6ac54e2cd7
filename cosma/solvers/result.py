"""What a back end answers: what is known, apart from why it stopped."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Status(StrEnum):
    """What is known of a program."""

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

    #: What is known, and why the run ended.
    status: Status
    stopped_by: Stop
    #: The best assignment found, or None. ``int64[variables]``.
    values: NDArray[np.int64] | None = None
    #: Its value, counted anew from the model; None without an assignment.
    objective: int | None = None
    #: No assignment is better than this; None where the back end gave no usable bound.
    bound: int | None = None
    #: On the wall.
    seconds: float = 0.0
    #: The back end's own measure of work (deterministic seconds for CP-SAT, nodes elsewhere), None if unknown.
    work: float | None = None
    #: What the back end wrote, if asked; else empty.
    log: str = ""
    #: What went wrong, where something did.
    message: str = field(default="")

    @property
    def gap(self) -> float | None:
        """(objective - bound) / objective, or None where either is unknown; 0 where they meet."""
        if self.objective is None or self.bound is None:
            return None
        return 0.0 if self.bound >= self.objective else (self.objective - self.bound) / max(1, abs(self.objective))
