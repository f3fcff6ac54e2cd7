"""Groups of choices, each run as if it were alone: nothing that is tried beside a group costs it any effort."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cosma.clock import Clock
from cosma.compiler.fusion import run_choices
from cosma.errors import InfeasibleError, plain_interrupts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cosma.compiler.limits import Limits
    from cosma.compiler.run import CompileRun


def run_groups(
    groups: Sequence[Sequence[CompileRun]],
    strategy: Callable[[CompileRun], None],
    limits: Limits,
    *,
    counts_effort: bool,
    keep: bool,
) -> CompileRun:
    """Run a strategy on each group of choices with all the effort; the run with the best plan of all.

    So choices tried beside a group never cost that group any effort; only a time limit is shared. Nothing is tried
    beside a plan that no other group can beat, or after an interrupt. Raises InfeasibleError if no plan of any group
    was found.
    """
    found: list[CompileRun] = []
    refused: list[InfeasibleError] = []
    clock = Clock(limits.time_limit_s)
    for i, group in enumerate(groups):
        left_s = clock.left_s()
        own = replace(limits, time_limit_s=None if left_s is None else left_s / (len(groups) - i))
        for run in group if i else ():
            run.clock = Clock(asked_to_stop=run.clock.asked_to_stop)
        try:
            state = _run(group, strategy, own, counts_effort=counts_effort, keep=keep)
        except InfeasibleError as error:
            refused.append(error)  # no plan of this group was found that keeps to the constraints
            continue
        except KeyboardInterrupt:
            if not keep or not found:
                raise
            found[0].interrupt()
            break
        found.append(state)
        least = min((s.problem.graph.compulsory_bytes() for rest in groups for s in rest), default=0)
        if state.rank()[0] <= least or state.clock.interrupted:
            break
    if not found:
        raise refused[-1]
    best = min(found, key=lambda state: state.rank())
    best.clock.timed_out |= any(state.clock.timed_out for state in found)
    return best


def _run(
    states: Sequence[CompileRun],
    strategy: Callable[[CompileRun], None],
    limits: Limits,
    *,
    counts_effort: bool,
    keep: bool,
) -> CompileRun:
    """Run a strategy on all choices; the run with the best plan, be it at an interrupt where plans are kept then."""
    try:
        with plain_interrupts():
            state = run_choices(states, strategy, limits, counts_effort=counts_effort)
    except KeyboardInterrupt:
        found = [s for s in states if s.best_report is not None]
        if not keep or not found:
            raise
        state = min(found, key=lambda s: s.noncompulsory_bytes)
        state.interrupt()
    if state.best is None:
        raise KeyboardInterrupt("interrupted before the first plan was found")
    return state
