"""Requests to a back end. A back end is a function from a model and a request to a result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from cosma.arrays import Ints
    from cosma.solvers.model import Model
    from cosma.solvers.profile import Profile
    from cosma.solvers.result import SolverResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Settings of a run besides the model; picklable, for back ends that run in a child process."""

    profile: Profile
    warm_start: Ints | None
    time_limit_s: float | None
    work_limit: float | None
    memory_limit_bytes: int | None
    log: bool


class BackEnd(Protocol):
    """A back end: the function ``run`` of a module of this package."""

    def __call__(self, model: Model, request: Request, stop: Callable[[], bool] | None) -> SolverResult:
        """Solve a model within the request's limits."""
        ...
