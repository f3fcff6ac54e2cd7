"""Networks of many thousand operators: shared out, bounded by pieces and packed in sections.

Search comes first, then bounds along the order found, beside more search. Packing comes last, and again with slack
where it lost too much.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.parallel import beside
from cosma.problem import noncompulsory_bytes, tightened

if TYPE_CHECKING:
    from collections.abc import Sequence
    from threading import Event

    from cosma.compiler.run import CompileRun
    from cosma.problem import Decisions
    from cosma.search import Searcher

#: Shares of the effort that go to each of two turns of search, and to the pieces' bounds; nominal seconds counted for
#: one of theirs, which keep one core busy and search the other. Every piece is worked on once, however many there are.
SEARCH_SHARE = 0.35
BOUND_SHARE = 0.3
BOUND_RATE = 0.3
#: Nominal seconds of work on pieces between two looks at whether to stop.
BOUND_SLICE = 0.1
#: Shares of the capacity to search with, the first of which packing a sample of so many steps loses less than this.
CAPACITY_SHARES = (1.0, 15 / 16, 7 / 8, 13 / 16, 3 / 4)
SAMPLE_STEPS = 600
MOST_LOST = 0.2
#: Where packing the whole loses more than that all the same: shares of what was searched with to search with in turn,
#: and the share of the effort for each, beyond what is shared out above.
SLACK_CAPACITY_SHARES = (31 / 32, 15 / 16)
SLACK_EFFORT_SHARE = 0.1


def run_long(state: CompileRun, starts: Sequence[Decisions | Sequence[int]]) -> None:
    """Improve on the plan in hand until it is proven or the effort is spent."""
    from cosma.bounds.pieces import PieceBounds
    from cosma.search import Searcher

    problem, effort = state.problem, state.limits.effort
    state.enter("search")
    searcher = Searcher(problem, starts, seed=state.seed, lower_bound=lambda: state.bound_bytes)
    searcher.run(effort * SEARCH_SHARE, state.stop)
    if state.done() or effort <= 0:
        return
    pieces = PieceBounds(problem, searcher.outcome.decisions.order, seed=state.seed, reach_out=False)
    state.enter("search and bounds")

    def prove(pointless: Event) -> None:
        left = effort * BOUND_SHARE / BOUND_RATE
        while (left > 0 or pieces.turn == 0) and not (pieces.exhausted or pointless.is_set() or state.stop()):
            left -= pieces.run(BOUND_SLICE, state.stop)

    with beside(prove):
        share, searcher = _with_slack(state, searcher)
        decisions = searcher.run(effort * SEARCH_SHARE, state.stop).decisions
    state.raise_bound(pieces.value_bytes, pieces.method)
    state.enter("addresses")
    _pack(state, decisions, "search, packed in sections")
    for less in SLACK_CAPACITY_SHARES:
        tighter = tightened(problem, share * less)
        enough = state.noncompulsory_bytes <= (1 + MOST_LOST) * noncompulsory_bytes(problem, decisions)
        if enough or tighter is None or state.done():
            return
        searcher = Searcher(tighter, [decisions.order], seed=state.seed)
        with_slack = searcher.run(effort * SLACK_EFFORT_SHARE, state.stop).decisions
        _pack(state, with_slack, "search with slack, packed in sections")


def _pack(state: CompileRun, decisions: Decisions, by: str) -> None:
    """Offer decisions with addresses, if they may be better than the plan in hand."""
    from cosma.lowering import realise_in_sections

    if noncompulsory_bytes(state.problem, decisions) < state.noncompulsory_bytes:
        realised = realise_in_sections(state.problem, decisions, stop=state.stop)
        if realised is not None:
            state.offer(realised, by)


def _with_slack(state: CompileRun, searcher: Searcher) -> tuple[float, Searcher]:
    """Search with as much of the scratchpad as can be packed without much loss, judged by a sample of the steps.

    Returns the share of the capacity and the search with it.
    """
    from cosma.lowering import packing_loss
    from cosma.search import Searcher

    problem, order = state.problem, searcher.outcome.decisions.order
    begin = max(0, (problem.operator_count - SAMPLE_STEPS) // 2)
    end = min(problem.operator_count, begin + SAMPLE_STEPS)
    taken = 1.0
    for share in CAPACITY_SHARES:
        tighter = tightened(problem, share)
        if tighter is None:
            break
        if share < 1:
            taken, searcher = share, Searcher(tighter, [order], seed=state.seed)
        if state.stop() or packing_loss(problem, searcher.outcome.decisions, begin, end) < MOST_LOST:
            break
    return taken, searcher
