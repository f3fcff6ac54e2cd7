"""Networks of many thousand operators: shared out, bounded by pieces and packed in sections.

Search comes first, then bounds along the order found, beside more search. Packing comes last, and again with slack
where it lost too much.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.parallel import beside
from cosma.problem import noncompulsory_bytes
from cosma.problem.reductions import tightened

if TYPE_CHECKING:
    from collections.abc import Sequence
    from threading import Event

    from cosma.compiler.run import CompileRun
    from cosma.problem import Decisions
    from cosma.search import Searcher


def run_long(state: CompileRun, starts: Sequence[Decisions | Sequence[int]]) -> None:
    """Improve on the plan in hand until it is proven or the effort is spent."""
    from cosma.bounds.pieces import PieceBounds

    problem, effort, parameters = state.problem, state.limits.effort, state.parameters.long
    state.enter("search")
    searcher = state.searcher(problem, starts, lower_bound=lambda: state.bound_bytes)
    searcher.run(effort * parameters.search_share, state.stop)
    if state.done() or effort <= 0:
        return
    pieces = PieceBounds(
        state.bounded,
        searcher.outcome.decisions.order,
        seed=state.seed,
        reach_out=False,
        parameters=state.parameters.bounds,
    )
    state.enter("search and bounds")

    def prove(pointless: Event) -> None:
        left = effort * parameters.bound_share / parameters.bound_rate
        while (left > 0 or pieces.turn == 0) and not (pieces.exhausted or pointless.is_set() or state.stop()):
            left -= pieces.run(parameters.bound_slice, state.stop)

    with beside(prove):
        share, searcher = _with_slack(state, searcher)
        decisions = searcher.run(effort * parameters.search_share, state.stop).decisions
    state.raise_bound(pieces.value_bytes, pieces.method)
    state.enter("addresses")
    _pack(state, decisions, "search, packed in sections")
    for less in parameters.slack_capacity_shares:
        tighter = tightened(problem, share * less)
        enough = state.noncompulsory_bytes <= (1 + parameters.tolerated_loss) * noncompulsory_bytes(problem, decisions)
        if enough or tighter is None or state.done():
            return
        searcher = state.searcher(tighter.problem, [decisions.order])
        with_slack = tighter.lift(searcher.run(effort * parameters.slack_effort_share, state.stop).decisions)
        _pack(state, with_slack, "search with slack, packed in sections")


def _pack(state: CompileRun, decisions: Decisions, by: str) -> None:
    """Offer decisions with addresses, if they may be better than the plan in hand."""
    from cosma.lowering import NoAddressesError, realise_in_sections

    if noncompulsory_bytes(state.problem, decisions) < state.noncompulsory_bytes:
        try:
            realised = realise_in_sections(
                state.problem, decisions, stop=state.stop, parameters=state.parameters.lowering
            )
        except NoAddressesError:
            return
        if realised is not None:
            state.offer(realised, by)


def _with_slack(state: CompileRun, searcher: Searcher) -> tuple[float, Searcher]:
    """Search with as much of the scratchpad as can be packed without much loss, judged by a sample of the steps.

    Returns the share of the capacity and the search with it.
    """
    from cosma.lowering import packing_loss

    problem, order, parameters = state.problem, searcher.outcome.decisions.order, state.parameters.long
    begin = max(0, (problem.operator_count - parameters.sample_steps) // 2)
    end = min(problem.operator_count, begin + parameters.sample_steps)
    taken = 1.0
    for share in parameters.capacity_shares:
        tighter = tightened(problem, share)
        if tighter is None:
            break
        if share < 1:
            taken, searcher = share, state.searcher(tighter.problem, [order])
        if state.stop() or packing_loss(
            problem, searcher.outcome.decisions, begin, end, parameters=state.parameters.lowering
        ) < parameters.tolerated_loss:
            break
    return taken, searcher
