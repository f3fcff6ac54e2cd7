"""Search with a little less room than there is, where the best decisions have no addresses.

Decisions that fill the scratchpad to the last byte leave packing nothing to move; repairing them undoes choices that
search made together. Decided anew for a capacity that is a few per cent lower, or less, an order costs nearly the same
and often packs as it is.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cosma.problem import noncompulsory_bytes
from cosma.problem.reductions import tightened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.compiler.run import CompileRun


def search_with_slack(state: CompileRun, order: Sequence[int], work: float, *, least_bytes: int, by: str) -> None:
    """Search with a little less room and offer the decisions found; ends where a plan reaches the least traffic.

    ``order`` has little traffic and is where search starts. ``work`` is in nominal seconds, in all; without any, the
    order is only decided anew. ``least_bytes`` is the non-compulsory traffic of the best decisions with all the room,
    addresses aside, and ``by`` is who found those.
    """
    parameters = state.parameters.slack
    problem, orders, slack = state.problem, [order], parameters.first_slack
    while slack > parameters.least_slack and tightened(problem, 1 - slack) is None:
        slack /= 2
    too_little, enough = 0.0, math.inf
    turns = min(parameters.most_turns, 1 + int(work / parameters.turn_work))
    for _ in range(turns):
        tighter = tightened(problem, 1 - slack)
        if tighter is None or state.done() or state.noncompulsory_bytes <= least_bytes:
            return
        searcher = state.searcher(tighter.problem, orders, lower_bound=least_bytes)
        searcher.expect(work / turns)
        decisions = tighter.lift(searcher.run(work / turns, state.stop).decisions)
        if state.stop():
            return
        orders = [decisions.order, order]
        wanted = noncompulsory_bytes(problem, decisions)
        if wanted < state.noncompulsory_bytes:
            name = f"{by}, with slack"
            packed = state.offer_as_is(decisions, name, work_limit=parameters.as_is_packing)
            if not packed and work > 0 and problem.operator_count <= parameters.most_repaired_operators:
                state.offer(decisions, name, work_limit=parameters.repair_packing)
        # Where it packed, or would not have been better if it had, less slack may do.
        if wanted >= state.noncompulsory_bytes:
            enough = slack
        else:
            too_little = slack
        following = min(2 * too_little, (too_little + enough) / 2) if too_little else enough / 2
        if tightened(problem, 1 - following) is not None:
            slack = following
