"""Search with a little less room than there is, where the best decisions have no addresses.

Decisions that fill the scratchpad to the last byte leave packing nothing to move; repairing them undoes choices that
search made together. Decided anew for a capacity that is a few per cent lower, or less, an order costs nearly the same
and often packs as it is.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cosma.problem import noncompulsory_bytes, tightened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.compiler.run import CompileRun

#: Share of the capacity that is left free at first; twice as much where that was too little, half as much where it was
#: enough, then the middle between the two. Where an operator does not fit then, less is left free, down to the least.
FIRST_SLACK, LEAST_SLACK = 1 / 64, 1 / 1024
#: Shares tried, at most, and the nominal seconds of search that make another one worth while.
MOST_TURNS, TURN_WORK = 3, 0.3
#: Units of packing work for decisions as they are, and, where something was searched for, for their repair; operators
#: above which they are not repaired: that much work says little there, and giving up what is left takes seconds.
AS_IS_PACKING = 50_000
REPAIR_PACKING = 20_000
MOST_REPAIRED_OPERATORS = 1_000


def search_with_slack(state: CompileRun, order: Sequence[int], work: float, *, least_bytes: int, by: str) -> None:
    """Offer what search finds with a little less room; it ends where a plan reaches the least traffic.

    Parameters
    ----------
    state
        The compile that plans are offered to.
    order
        An order with little traffic, to start from.
    work
        Nominal seconds of search, in all; without any, the order is only decided anew.
    least_bytes
        Non-compulsory bytes of the best decisions with all the room, addresses aside.
    by
        Who found those.
    """
    from cosma.search import Searcher

    problem, orders, slack = state.problem, [order], FIRST_SLACK
    while slack > LEAST_SLACK and tightened(problem, 1 - slack) is None:
        slack /= 2
    too_little, enough = 0.0, math.inf
    turns = min(MOST_TURNS, 1 + int(work / TURN_WORK))
    for _ in range(turns):
        tighter = tightened(problem, 1 - slack)
        if tighter is None or state.done() or state.noncompulsory_bytes <= least_bytes:
            return
        searcher = Searcher(tighter, orders, seed=state.seed, lower_bound=least_bytes)
        searcher.expect(work / turns)
        decisions = searcher.run(work / turns, state.stop).decisions
        if state.stop():
            return
        orders = [decisions.order, order]
        wanted = noncompulsory_bytes(problem, decisions)
        if wanted < state.noncompulsory_bytes:
            name = f"{by}, with slack"
            packed = state.offer_as_is(decisions, name, work_limit=AS_IS_PACKING)
            if not packed and work > 0 and problem.operator_count <= MOST_REPAIRED_OPERATORS:
                state.offer(decisions, name, work_limit=REPAIR_PACKING)
        # Where it packed, or would not have been better if it had, less slack may do.
        if wanted >= state.noncompulsory_bytes:
            enough = slack
        else:
            too_little = slack
        following = min(2 * too_little, (too_little + enough) / 2) if too_little else enough / 2
        if tightened(problem, 1 - following) is not None:
            slack = following
