"""``auto``: a plan within a second, then proof and improvement in turn while they pay.

Existing methods come first, so that a valid plan always exists. Then bounds and the best replacement for the
orders at hand, which together prove most ordinary networks; then rounds of search and bounds, each longer than
the last, until proof, the gap asked for, or the effort is spent. Work is counted, never timed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cosma.problem import noncompulsory_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.bounds import BoundEngine
    from cosma.compiler.run import CompileRun
    from cosma.problem import Decisions
    from cosma.search.searcher import Searcher

#: Nominal seconds for bounds before anything is searched: enough where the order is nearly forced.
FIRST_BOUND_WORK = 0.5
#: Nominal seconds of the first round of search, and of bounds after it; each round doubles them.
FIRST_ROUND_WORK = 0.5
#: Nominal seconds the best replacement for one order takes, per operator.
REPLACEMENT_WORK_PER_OPERATOR = 1e-4


@dataclass(slots=True)
class _Auto:
    state: CompileRun
    bounds: BoundEngine
    searcher: Searcher | None = None
    spent: float = 0.0
    refined: dict[tuple[int, ...], int] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Effort not spent yet."""
        return self.state.limits.effort - self.spent

    def prove(self, work: float) -> None:
        """Raise the bound."""
        if self.bounds.bound.exhausted or self.state.done():
            return
        self.state.enter("bounds")
        bound = self.bounds.run(work, self.state.stop)
        self.spent += work
        self.state.raise_bound(bound.value_bytes, bound.method)

    def offer(self, decisions: Decisions, by: str) -> None:
        """Pack and replay decisions if they can beat the best plan."""
        if noncompulsory_bytes(self.state.problem, decisions) < self.state.noncompulsory_bytes:
            self.state.offer(decisions, by)
            self.bounds.update_upper(self.state.noncompulsory_bytes)

    def refine(self, order: Sequence[int], hint: Decisions | None, by: str) -> Decisions | None:
        """Find the best replacement for an order, once per order."""
        key = tuple(order)
        if key in self.refined or self.state.done():
            return None
        from cosma.exact import optimal_replacement

        decisions, bound_bytes, _ = optimal_replacement(
            self.state.problem, key, hint=hint, stop=self.state.stop
        )
        self.refined[key] = bound_bytes
        self.spent += REPLACEMENT_WORK_PER_OPERATOR * len(key)
        self.offer(decisions, by)
        return decisions

    def search(self, work: float) -> None:
        """Look for better orders, then for the best replacement of the best one."""
        if self.searcher is None or self.searcher.outcome.exhausted or self.state.done():
            return
        self.state.enter("search")
        outcome = self.searcher.run(work, self.state.stop)
        self.spent += work
        self.offer(outcome.decisions, "search")
        better = self.refine(outcome.decisions.order, outcome.decisions, "search and best replacement")
        if better is not None:
            self.searcher.offer(better)


def run_auto(state: CompileRun) -> None:
    """Plan a problem until it is proven or the effort is spent; never worse than any existing method."""
    from cosma.bounds import BoundEngine
    from cosma.heuristics import EXISTING, ORDERS, run_method

    problem = state.problem
    state.enter("existing methods")
    orders = {name: order(problem) for name, order in ORDERS.items()}
    starts: list[Decisions] = []
    for name, method in EXISTING.items():
        realised = run_method(problem, method, orders[method.order])
        state.offer(realised, name)
        starts.append(realised.decisions)
        if state.done():
            return
    auto = _Auto(state, BoundEngine(problem, seed=state.seed, upper_bound=state.noncompulsory_bytes))
    auto.prove(min(FIRST_BOUND_WORK, auto.left))
    state.enter("best replacement")
    for name, order in orders.items():
        if auto.left > 0:
            auto.refine(order, None, f"{name} order, best replacement")
    if state.done() or auto.left <= 0:
        return
    from cosma.search.searcher import Searcher

    auto.searcher = Searcher(
        problem,
        [*orders.values(), *starts],
        seed=state.seed,
        lower_bound=lambda: state.bound_bytes,
    )
    work = FIRST_ROUND_WORK
    while auto.left > 0 and not state.done():
        before = auto.spent
        auto.search(min(work, auto.left))
        auto.prove(min(work, max(auto.left, 0.0)))
        if auto.spent == before:
            return
        work *= 2
