"""A first plan where constraints keep the existing methods from one.

Costs are such that a tensor that must stay is never brought in twice where that can be helped. So the engines that look
for little traffic look for plans that keep to the constraints as well, and need to be told nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.errors import InfeasibleError
from cosma.lowering import NoAddressesError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cosma.compiler.run import CompileRun

#: Nominal seconds of search for an order that keeps to the constraints; not measured.
_SEARCH_WORK = 0.5
#: States of the dynamic programme over orders; not measured.
_STATES = 20_000
#: Orders of equal traffic that are tried for addresses; not measured.
_ORDERS = 4
#: Address conflicts learnt in one order; not measured.
_CONFLICTS = 60


def secure(state: CompileRun) -> None:
    """Make sure that there is a plan: along the orders there are, then along those that search finds.

    Raises InfeasibleError if none is found; the message says whether that proves anything.
    """
    if _has_plan(state):
        return
    state.enter("first plan")
    tried: set[tuple[int, ...]] = set()
    for order in _orders(state):
        if order in tried:
            continue
        tried.add(order)
        _try_order(state, order)
        if _has_plan(state):
            return
        if state.stop():
            break
    raise InfeasibleError(
        "no plan was found that keeps to the constraints: each operator fits by itself, and no order and no choice of "
        f"what stays was found to fit together, of {len(tried)} orders tried"
    )


def _has_plan(state: CompileRun) -> bool:
    return state.best is not None


def _orders(state: CompileRun) -> Iterator[tuple[int, ...]]:
    """Orders worth trying, cheap ones first."""
    problem = state.problem
    known = [state.order(name) for name in ("given", "depth-first", "memory-greedy", "peak-minimising")]
    for order in known:
        yield tuple(int(v) for v in order)
    if state.supports("dynamic programming"):
        from cosma.states.search import search_states

        dear = min((int(problem.size_bytes[t]) for t in problem.kept), default=1 << 62)
        for seed in range(_ORDERS):
            found = search_states(problem, most_states=_STATES, stop=state.stop, seed=seed)
            if found.cost_bytes is None:
                break
            if found.cost_bytes >= dear:
                raise InfeasibleError(
                    "constraints cannot hold: in every order something that must stay resident has to leave, "
                    "whatever the addresses"
                )
            yield tuple(found.order)
    searcher = state.searcher(problem, known)
    yield tuple(searcher.run(_SEARCH_WORK, state.stop).decisions.order)


def _try_order(state: CompileRun, order: Sequence[int]) -> None:
    """Offer the plans of quick policies for an order, then its best replacement, with address conflicts learnt."""
    from cosma.heuristics import Method, run_method
    from cosma.replacement import optimal_replacement, pack_order

    problem = state.problem
    for policy in ("belady", "cost-aware-belady", "lru"):
        try:
            realised = run_method(problem, Method("given", policy, "greedy-by-size"), tuple(order))
        except NoAddressesError:
            continue
        state.offer(realised, "first plan")
        if _has_plan(state):
            return
    if not state.supports("best replacement", order=order):
        return
    decisions, _, _ = optimal_replacement(problem, order, stop=state.stop)
    state.offer(decisions, "first plan")
    if _has_plan(state):
        return
    found = pack_order(problem, order, first=decisions, most_rounds=_CONFLICTS, stop=state.stop)
    if found.realised is not None:
        state.offer(found.realised, "first plan")
