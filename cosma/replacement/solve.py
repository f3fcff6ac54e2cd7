"""The best replacement for a given order, without addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.errors import InfeasibleError
from cosma.parameters.replacement import ReplacementParameters
from cosma.problem import check_feasible, touches_of
from cosma.problem.support import Support, one_takeover_each, up_to
from cosma.replacement.program import build_replacement
from cosma.solvers import EXACT_PROFILE, Profile, Status, solve, work_units

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cosma.problem import Decisions, Problem

DEFAULTS = ReplacementParameters()


def replacement_terms(problem: Problem, order: Sequence[int]) -> int:
    """Size of an order's replacement program: how long tensors wait between touches, in steps, all together."""
    touches = touches_of(problem, order)
    rows = np.split(touches.step, touches.start[1:-1])
    return sum(int(row[-1] - row[0]) for row in rows if len(row))


def supports(problem: Problem, order: Sequence[int], parameters: ReplacementParameters = DEFAULTS) -> Support:
    """Whether the replacement program of an order is small enough to be built."""
    return one_takeover_each(problem) and up_to(parameters.most_terms, replacement_terms(problem, order), "terms")


def optimal_replacement(
    problem: Problem,
    order: Sequence[int],
    *,
    hint: Decisions | None = None,
    work_limit: float | None = DEFAULTS.work,
    profile: Profile | None = None,
    stop: Callable[[], bool] | None = None,
) -> tuple[Decisions, int, bool]:
    """Decide which tensors stay between which of their uses, with least traffic for this order.

    Deterministic for the default profile. Addresses are not looked at. Raises InfeasibleError if some operator cannot
    run at all. Returns decisions, a lower bound in bytes on the non-compulsory traffic of any plan in this order, and
    whether the decisions reach it.

    Parameters
    ----------
    hint
        Decisions in the same order to begin from.
    work_limit
        Nominal seconds; None for no limit. See :func:`work_units`.
    profile
        Another back end or other settings.
    stop
        Polled while solving.
    """
    replacement = build_replacement(problem, order)
    model = replacement.model
    if model.variable_count == 0 and model.row_count == 0:
        return replacement.decisions(model.lower), model.offset, True
    warm = replacement.values_of(hint) if hint is not None and tuple(hint.order) == replacement.order else None
    if warm is not None and model.violations(warm):
        warm = None
    chosen = profile if profile is not None else EXACT_PROFILE
    result = solve(model, chosen, warm_start=warm, work_limit=work_units(chosen, work_limit), stop=stop)
    if result.status is Status.INFEASIBLE:
        check_feasible(problem)
        raise InfeasibleError("no replacement fits this order into the capacity")
    floor = model.offset + int(model.objective.clip(max=0) @ model.upper)
    bound = max(floor, result.bound if result.bound is not None else floor)
    if result.values is None:
        nothing = replacement.values_of(_nothing_kept(problem, replacement.order))
        return replacement.decisions(nothing), bound, model.value(nothing) <= bound
    return replacement.decisions(result.values), bound, result.status is Status.OPTIMAL


def _nothing_kept(problem: Problem, order: Sequence[int]) -> Decisions:
    from cosma.problem import decisions_from_gaps

    return decisions_from_gaps(problem, order, lambda _: False)
