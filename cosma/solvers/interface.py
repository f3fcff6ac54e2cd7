"""One function solves any model on any back end; limits hold whatever the back end does."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from cosma.solvers.back_ends import back_end
from cosma.solvers.request import Request
from cosma.solvers.result import SolverResult, Status, Stop

if TYPE_CHECKING:
    from collections.abc import Callable

    from cosma.arrays import Ints
    from cosma.solvers.model import Model
    from cosma.solvers.profile import Profile


def supports(model: Model, profile: Profile) -> str | None:
    """Say why a back end cannot take a model; None if it can."""
    if profile.back_end == "cp-sat" or model.linear:
        return None
    return (
        f"{profile.back_end} takes linear programs; model {model.name!r} has conditional rows or intervals. "
        "Use solver 'cp-sat', or the linear form of the model"
    )


def solve(
    model: Model,
    profile: Profile,
    *,
    warm_start: Ints | None = None,
    time_limit_s: float | None = None,
    work_limit: float | None = None,
    memory_limit_bytes: int | None = None,
    log: bool = False,
    stop: Callable[[], bool] | None = None,
) -> SolverResult:
    """Minimise a model on the back end a profile names.

    Deterministic for one thread and a work limit; a time limit, a memory limit or ``stop`` makes the outcome
    depend on the machine. Raises InputError if the back end cannot take this model, or the warm start violates it.
    Raises SolverUnavailableError if the back end is not installed.

    Parameters
    ----------
    warm_start
        A whole assignment to begin from; checked first. The answer is never worse.
    time_limit_s, work_limit, memory_limit_bytes
        Limits; those of the profile where None. They hold during presolve too: a back end that does not look
        at the clock there runs in a child process that is ended.
    log
        Whether to return everything the back end writes.
    stop
        Polled while solving; True ends the run soon after.
    """
    from cosma.errors import InputError

    reason = supports(model, profile)
    if reason is not None:
        raise InputError(reason)
    if warm_start is not None:
        broken = model.violations(warm_start)
        if broken:
            raise InputError(f"the warm start violates {', '.join(broken)} of model {model.name!r}")
    request = Request(
        profile=profile,
        warm_start=warm_start,
        time_limit_s=time_limit_s if time_limit_s is not None else profile.time_limit_s,
        work_limit=work_limit if work_limit is not None else profile.work_limit,
        memory_limit_bytes=memory_limit_bytes if memory_limit_bytes is not None else profile.memory_limit_bytes,
        log=log,
    )
    began = time.monotonic()
    if profile.back_end == "cp-sat" and request.memory_limit_bytes is None:
        from cosma.solvers.cp_sat import run

        result = run(model, request, stop)
    elif request.time_limit_s is None and request.memory_limit_bytes is None and stop is None:
        result = back_end(profile)(model, request, None)
    else:
        from cosma.solvers.child import run_in_child

        result = run_in_child(model, request, stop)
    return replace(_checked(model, result, warm_start), seconds=time.monotonic() - began)


def _checked(model: Model, result: SolverResult, warm_start: Ints | None) -> SolverResult:
    """Count the objective anew, refuse wrong answers, and never return less than the warm start."""
    values = result.values
    if values is not None:
        broken = model.violations(values)
        if broken:
            return SolverResult(
                Status.ERROR,
                Stop.FAILURE,
                log=result.log,
                message=f"the back end's answer violates {', '.join(broken)}",
            )
    if warm_start is not None and result.status is not Status.ERROR:
        if result.status is Status.INFEASIBLE:
            return replace(result, status=Status.ERROR, message="called infeasible, but the warm start is a solution")
        if values is None or model.value(values) > model.value(warm_start):
            values = warm_start
    if values is None:
        return result
    objective = model.value(values)
    status, bound = result.status, result.bound
    if bound is not None:
        # The objective moves in whole granules, so a bound between two of them rises to the next.
        granule = model.objective_granule
        bound = min(objective, -(-(bound - model.offset) // granule) * granule + model.offset)
    if status is not Status.ERROR:
        status = Status.OPTIMAL if bound is not None and bound >= objective else Status.FEASIBLE
    return replace(result, status=status, values=values, objective=objective, bound=bound)
