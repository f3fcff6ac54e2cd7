"""The joint program as a strategy of a compile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cosma.exact.monolith import solve_monolith
from cosma.heuristics import EXISTING, ORDERS, run_method
from cosma.problem import noncompulsory_bytes

if TYPE_CHECKING:
    from cosma.compiler.run import CompileRun
    from cosma.lowering import Realised
    from cosma.solvers import Profile


def run_ilp(state: CompileRun, profile: Profile | None = None) -> None:
    """Existing methods for a warm start, then one program with everything in it."""
    best = _first_plan(state)
    if state.done():
        return
    state.enter("joint program")
    found, result = solve_monolith(
        state.problem,
        profile=profile,
        start=best,
        work_limit=state.limits.effort if profile is None or profile.back_end == "cp-sat" else None,
        time_limit_s=_time_left(state),
        stop=state.stop,
    )
    if result.bound is not None:
        state.raise_bound(result.bound, f"joint program with addresses, {profile.name if profile else 'cp-sat'}")
    if found is not None:
        state.offer(found, "joint program")


def _first_plan(state: CompileRun) -> Realised:
    state.enter("existing methods")
    plans: list[tuple[int, Realised]] = []
    for name, method in EXISTING.items():
        realised = run_method(state.problem, method, ORDERS[method.order](state.problem))
        state.offer(realised, name)
        plans.append((noncompulsory_bytes(state.problem, realised.decisions), realised))
        if state.done():
            break
    return min(plans, key=lambda plan: plan[0])[1]


def _time_left(state: CompileRun) -> float | None:
    if state.limits.time_limit_s is None:
        return None
    return max(0.05, state.limits.time_limit_s - (time.monotonic() - state.started_s))
