"""Strategies by name: how a plan is looked for.

A strategy is a function of a :class:`CompileRun`: it offers plans and raises the bound until it is done.
Adding one is a function and a line in :data:`STRATEGIES`. Each imports what it needs when it runs, so that
listing them costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from cosma.compiler.first import secure
from cosma.errors import InputError

if TYPE_CHECKING:
    from cosma.compiler.run import CompileRun
    from cosma.problem import Problem

Run: TypeAlias = Callable[["CompileRun"], None]


@dataclass(frozen=True, slots=True)
class Strategy:
    """A way to look for plans."""

    #: Its name and a summary, for lists.
    name: str
    summary: str
    #: The function itself.
    run: Run


def _existing(name: str) -> Run:
    def run(state: CompileRun) -> None:
        state.enter("existing methods")
        state.try_existing(name)
        secure(state)

    return run


def run_existing(state: CompileRun) -> None:
    """Offer the plans of all existing methods; the best stays."""
    from cosma.heuristics import EXISTING

    state.enter("existing methods")
    for name, method in EXISTING.items():
        state.try_existing(name, state.order(method.order))
        if state.done():
            return
    secure(state)


def _auto(state: CompileRun) -> None:
    from cosma.compiler.auto import run_auto

    run_auto(state)


def run_exact(state: CompileRun) -> None:
    """Existing methods, then order, residency and addresses to proven optimality by layers."""
    run_existing(state)
    if state.done():
        return
    from cosma.compiler.exact import solve_exact

    state.enter("exact")
    solve_exact(state)
    if state.relaxation is not None:
        _bound_any_mode(state, state.relaxation)


def _bound_any_mode(state: CompileRun, relaxation: Problem) -> None:
    """Bound plans in any modes, where the plan at hand is the best in the modes chosen."""
    if state.done():
        return
    from cosma.bounds import BoundEngine
    from cosma.states.search import search_states

    state.enter("bounds")
    known = state.noncompulsory_bytes
    if state.supports("dynamic programming", relaxation):
        budget = max(500, int(state.limits.effort * state.parameters.states.states_per_second))
        found = search_states(relaxation, ceiling_bytes=known, most_states=budget, stop=state.stop)
        state.raise_bound(found.bound_bytes, found.method)
    if not state.done():
        bounds = BoundEngine(relaxation, seed=state.seed, upper_bound=known, parameters=state.parameters.bounds)
        bound = bounds.run(state.limits.effort, state.stop)
        state.raise_bound(bound.value_bytes, bound.method)


def run_ilp(state: CompileRun) -> None:
    """Existing methods for a warm start, then COSMA's program with everything in it."""
    from cosma.joint import check_supported

    check_supported(state.problem)
    run_existing(state)
    if state.done():
        return
    from cosma.joint import solve_monolith

    state.enter("joint program")
    name = state.profile.name if state.profile is not None else "cp-sat"
    # Work has a meaning across machines for CP-SAT alone; other back ends run to the clock or to proof.
    counts_work = state.profile is None or state.profile.back_end == "cp-sat"
    found, result = solve_monolith(
        state.problem,
        profile=state.profile,
        start=state.best,
        work_limit=state.limits.effort if counts_work else None,
        time_limit_s=state.clock.left_s(),
        stop=state.stop,
    )
    if result.bound is not None and state.relaxation is None:
        state.raise_bound(result.bound, f"joint program with addresses, {name}")
    if found is not None:
        state.offer(found, "joint program")
    if state.relaxation is not None and not state.done():
        _, result = solve_monolith(
            state.relaxation,
            profile=state.profile,
            work_limit=state.limits.effort if counts_work else None,
            time_limit_s=state.clock.left_s(),
            stop=state.stop,
        )
        if result.bound is not None:
            state.raise_bound(result.bound, f"joint program with addresses, {name}")


def run_divide(state: CompileRun) -> None:
    """Existing methods, then divide and conquer; where every part is exact, its traffic is a bound too.

    With plans to start from, their orders are cut up too, each with its share of the effort.
    """
    run_existing(state)
    if state.done():
        return
    state.enter("divide and conquer")
    orders = [None, *dict.fromkeys(start.order for start in state.starts)]
    for order in orders:
        if not state.done() and _divide(state, order, state.limits.effort / len(orders)):
            return


def _divide(state: CompileRun, order: Sequence[int] | None, effort: float) -> bool:
    """Cut one order up and offer the decisions found; returns whether every part is exact."""
    from cosma.search import divide

    parameters = state.parameters
    outcome = divide(
        state.problem,
        order,
        effort=effort,
        seed=state.seed,
        stop=state.stop,
        parameters=parameters.divide,
        replacement=parameters.replacement,
    )
    exact = sum(part.exact for part in outcome.parts)
    state.offer(outcome.decisions, f"divide and conquer, {exact} of {len(outcome.parts)} parts exact")
    if outcome.exact and state.relaxation is None:
        state.raise_bound(outcome.noncompulsory_bytes, "divide and conquer, every part exact, without addresses")
    return outcome.exact and state.relaxation is None


STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Strategy("auto", "existing methods, then proof and improvement side by side, until proof or effort", _auto),
        Strategy("exact", "order and residency to proof by programs and dynamic programming, then packing", run_exact),
        Strategy("divide", "divide and conquer: parts of the order solved exactly and joined", run_divide),
        Strategy("ilp", "one program for order, residency and addresses; for small graphs", run_ilp),
        Strategy("existing", "the best of e1, e2 and e3", run_existing),
        Strategy("e1", "order as given, LRU, first-fit", _existing("e1")),
        Strategy("e2", "depth-first order, Belady, best-fit", _existing("e2")),
        Strategy("e3", "peak-minimising order, Belady, best-fit", _existing("e3")),
    )
}


#: Strategies that solve programs with the back end of ``--solver``.
WITH_SOLVER = ("exact", "ilp")
#: Strategies that plan every Concat, Split and Slice as a copy: other strategies are compared with them.
COPYING = ("e1", "e2", "e3", "existing")
#: Strategies that go on from plans given to start from; the others make one plan, always the same.
WITH_STARTS = ("auto", "exact", "divide", "ilp", "existing")


def find_strategy(name: str) -> Strategy:
    """Look a strategy up: a name from :data:`STRATEGIES`, or ``ORDER+REPLACEMENT+ADDRESSES``.

    Raises InputError if there is none of that name.
    """
    if name in STRATEGIES:
        return STRATEGIES[name]
    from cosma.heuristics import parse_method, run_method
    from cosma.lowering import NoAddressesError

    method = parse_method(name)
    if method is None:
        raise InputError(
            f"strategy {name!r} is unknown; choose one of {', '.join(STRATEGIES)}, or compose one as "
            "ORDER+REPLACEMENT+ADDRESSES, such as depth-first+belady+best-fit"
        )
    chosen = method

    def run(state: CompileRun) -> None:
        state.enter(name)
        with suppress(NoAddressesError):
            state.offer(run_method(state.problem, chosen), name)
        secure(state)

    return Strategy(name, "composed", run)
