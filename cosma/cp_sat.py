"""CP-SAT set up the same way everywhere: reproducible limits, and a stop that is polled while it solves."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds between two looks at whether to stop.
_POLL_S = 0.05


def new_solver(
    *, threads: int = 1, seed: int = 0, work_limit: float | None = None, time_limit_s: float | None = None
) -> Any:
    """Make a solver; reproducible with one thread and no time limit.

    Parameters
    ----------
    threads, seed
        Workers, and the start of pseudo-random choices.
    work_limit
        Deterministic seconds; None for no limit.
    time_limit_s
        Seconds on the clock; None for no limit.
    """
    from ortools.sat.python import cp_model

    solver = cp_model.CpSolver()
    solver.parameters.catch_sigint_signal = False  # Ctrl-C is ours: it must not lose the plan
    solver.parameters.num_workers = threads
    solver.parameters.random_seed = seed & 0x7FFFFFFF
    if work_limit is not None:
        solver.parameters.max_deterministic_time = work_limit
    if time_limit_s is not None:
        solver.parameters.max_time_in_seconds = time_limit_s
    return solver


def solve(solver: Any, program: Any, stop: Callable[[], bool] | None = None) -> tuple[Any, bool]:
    """Solve a program; returns the status, and whether ``stop`` ended the search."""
    if stop is None:
        return solver.solve(program), False
    asked, over = threading.Event(), threading.Event()
    watcher = threading.Thread(target=_watch, args=(solver, stop, asked, over), daemon=True)
    watcher.start()
    try:
        status = solver.solve(program)
    finally:
        over.set()
        watcher.join()
    return status, asked.is_set()


def work_done(solver: Any) -> float:
    """Deterministic seconds that the last solve took."""
    return float(solver.response_proto.deterministic_time)


def next_integer(bound: float) -> int:
    """The least integer that a bound on an integer objective leaves, clear of rounding."""
    return -int(-(bound - 1e-6) // 1)


def _watch(solver: Any, stop: Callable[[], bool], asked: threading.Event, over: threading.Event) -> None:
    while not over.wait(_POLL_S):
        if stop():
            asked.set()
            # A search that has not begun yet cannot be stopped, so ask until it is over.
            solver.stop_search()
