"""What a back end is asked, and what it is: a function from a model and a request to a result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from cosma.solvers.model import Model
    from cosma.solvers.profile import Profile
    from cosma.solvers.result import SolverResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a back end needs to know besides the model; picklable, for those that run in a child process."""

    profile: Profile
    warm_start: NDArray[np.int64] | None
    time_limit_s: float | None
    work_limit: float | None
    memory_limit_bytes: int | None
    log: bool


class BackEnd(Protocol):
    """What a module of this package offers under ``run``."""

    def __call__(self, model: Model, request: Request, stop: Callable[[], bool] | None) -> SolverResult:
        """Solve a model within the request's limits."""
        ...
