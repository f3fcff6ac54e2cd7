"""``auto``: a plan within a second, then proof and improvement in turn while they pay.

Existing methods come first, so that a valid plan always exists. Then bounds, the best replacement for the orders at
hand, and dynamic programming over states, which together prove most ordinary networks; then rounds of search and
bounds, each longer than the last, until proof, the gap asked for, or the effort is spent. Work is counted, never timed.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from cosma.problem import noncompulsory_bytes, smallest_feasible_capacity, touches_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cosma.bounds import BoundEngine
    from cosma.compiler.run import CompileRun
    from cosma.problem import Decisions, Problem
    from cosma.search import Searcher

#: Nominal seconds for bounds, and for dynamic programming, before anything is searched.
FIRST_WORK = 0.4
#: Share of the effort within which every cheap bound has its turn before anything is searched.
SETTLE_SHARE = 0.3
#: Nominal seconds of the first round of search; each round doubles it.
FIRST_ROUND_WORK = 0.5
#: Nominal seconds that the best replacement of one order takes per term of its program.
REPLACEMENT_WORK_PER_TERM = 5e-6
#: Deterministic seconds of the solver that the best replacement of one order may take at first, later a share of what
#: was spent so far, and nominal seconds of one.
REPLACEMENT_WORK = 0.5
REPLACEMENT_SHARE = 0.15
REPLACEMENT_RATE = 1.5
#: Terms (tensors that may stay, summed over steps) above which replacement is left to the heuristics.
MOST_REPLACEMENT_TERMS = 400_000
#: Operators of the networks on which the rate of dynamic programming was measured.
TYPICAL_OPERATORS = 400
#: Operators above which dynamic programming in plain Python is not begun: setting it up is quadratic.
MOST_STATE_OPERATORS = 3000
#: Operators above which a network is long: search shares one order out among its chains, bounds are summed over
#: pieces, replacement is left to the greedy rule (on annealed orders of 10,000 operators the best one gains under
#: 0.5 %), and packing is done once, at the end.
MOST_OPERATORS_AS_ONE = 3000
#: Share of the effort that goes to the pieces' bounds, and nominal seconds counted for one of theirs: each piece is
#: worked on for the least time that says anything, however many there are.
LONG_BOUND_SHARE = 0.3
LONG_BOUND_RATE = 0.3
#: Shares of the capacity to search with, the first of which packing a sample of so many steps loses less than this.
LONG_CAPACITY_SHARES = (1.0, 15 / 16, 7 / 8, 13 / 16, 3 / 4)
LONG_SAMPLE_STEPS = 600
LONG_MOST_LOST = 0.2
#: How much more work bounds get than search in a round in which search found nothing better while they rise, and in
#: any round while they do not.
PROOF_FACTOR = 2.0
IDLE_PROOF_FACTOR = 0.5
#: Units of work within which decisions must pack as they are to be a plan at once, and for giving up what is in the
#: way of the best that do not: on the way, and at the end, for each operator. Nominal seconds of a unit, and the share
#: of the effort that may go to packing on the way.
QUICK_PACKING = 5_000
PACKING_ON_THE_WAY = 20_000
PACKING_AT_LAST_PER_OPERATOR = 200
PACKING_WORK_PER_UNIT = 7e-6
PACKING_SHARE = 0.15
#: Shares of the capacity with which the best order is decided anew where its decisions do not pack as they are.
SLACK_SHARES = (31 / 32, 15 / 16)
#: Conflicts to learn for one order whose best replacement has no addresses.
MOST_CONFLICTS = 12


@dataclass(slots=True)
class _Auto:
    """The methods at work, and what each has used up."""

    state: CompileRun
    bounds: BoundEngine
    searcher: Searcher | None = None
    spent: float = 0.0
    #: Nominal seconds that were granted to the replacement of each order; infinite once it is proven.
    refined: dict[tuple[int, ...], float] = field(default_factory=dict)
    #: Whether the solver did not come to an end with the last of them: then search goes by the greedy rule alone.
    refining_is_dear: bool = False
    #: The best decisions, addresses aside, whose they are, and those that were repaired last to become a plan.
    relaxed: Decisions | None = None
    relaxed_bytes: int = 1 << 62
    relaxed_by: str = ""
    addressed: Decisions | None = None

    @property
    def left(self) -> float:
        """Effort not spent yet."""
        return max(0.0, self.state.limits.effort - self.spent)

    @property
    def over(self) -> bool:
        """Whether there is nothing more to do, or nothing left to do it with."""
        return self.left <= 0 or self.state.done()

    @property
    def least_bytes(self) -> int:
        """What the best decisions cost, addresses aside."""
        return min(self.relaxed_bytes, self.state.noncompulsory_bytes)

    def offer(self, decisions: Decisions, by: str) -> None:
        """Take note of decisions; they become a plan at once where they pack as they are."""
        relaxed = noncompulsory_bytes(self.state.problem, decisions)
        if relaxed < self.relaxed_bytes:
            self.relaxed_bytes, self.relaxed, self.relaxed_by = relaxed, decisions, by
        if relaxed < self.state.noncompulsory_bytes:
            with self._packing():
                self.state.offer_as_is(decisions, by, work_limit=QUICK_PACKING)
        self.bounds.update_upper(self.least_bytes)

    def finish(self) -> None:
        """Make the best decisions a plan, with the best replacement for their order where there was no time for it."""
        decisions = self.relaxed
        if decisions is not None and self.refining_is_dear:
            self.refine(decisions.order, decisions, f"{self.relaxed_by}, best replacement")
        self.address(last=True)
        self.pack()

    def address(self, *, last: bool = False) -> None:
        """Where the best decisions do not pack as they are: give up what is in the way, if that is not too dear yet."""
        state, decisions = self.state, self.relaxed
        if decisions is None or self.relaxed_bytes >= state.noncompulsory_bytes:
            return
        packing = PACKING_WORK_PER_UNIT * state.packing_units
        meets = self.relaxed_bytes <= state.bound_bytes
        if not (last or meets or packing < PACKING_SHARE * self.spent) or (decisions is self.addressed and not last):
            return
        state.enter("addresses")
        self.addressed = decisions
        hurry = state.stop() or not last
        with self._packing():
            at_last = PACKING_AT_LAST_PER_OPERATOR * state.problem.operator_count
            limit = PACKING_ON_THE_WAY if hurry else max(PACKING_ON_THE_WAY, at_last)
            state.offer(decisions, self.relaxed_by, work_limit=limit)
            if last:
                self._offer_slack(decisions.order)

    def _offer_slack(self, order: Sequence[int]) -> None:
        """Decide anew along an order with a little less room, which leaves packing some."""
        from cosma.search import Searcher

        for share in SLACK_SHARES:
            tighter = _tighter(self.state.problem, share)
            if tighter is None or self.state.done():
                return
            decisions = Searcher(tighter, [order]).outcome.decisions
            if noncompulsory_bytes(tighter, decisions) < self.state.noncompulsory_bytes:
                self.state.offer(decisions, f"{self.relaxed_by}, with slack", work_limit=PACKING_ON_THE_WAY)

    @contextmanager
    def _packing(self) -> Iterator[None]:
        """Count the work of packing as spent."""
        units = self.state.packing_units
        yield
        self.spent += PACKING_WORK_PER_UNIT * (self.state.packing_units - units)

    def pack(self) -> None:
        """Where fragmentation cost traffic: learn which residencies have no addresses together, and decide anew."""
        decisions = self.relaxed
        if decisions is None or self.relaxed_bytes >= self.state.noncompulsory_bytes or self.state.done():
            return
        if self.refining_is_dear or self._terms(decisions.order) > MOST_REPLACEMENT_TERMS:
            return
        from cosma.exact import pack_order

        self.state.enter("addresses")
        found = pack_order(
            self.state.problem, decisions.order, first=decisions, most_rounds=MOST_CONFLICTS, stop=self.state.stop
        )
        if found.realised is not None:
            self.state.offer(found.realised, "learnt address conflicts")
            self.bounds.update_upper(self.state.noncompulsory_bytes)

    def prove(self, work: float) -> None:
        """Raise the bound."""
        if self.bounds.bound.exhausted or self.over:
            return
        self.state.enter("bounds")
        bound = self.bounds.run(work, self.state.stop)
        self.spent += work
        self.state.raise_bound(bound.value_bytes, bound.method)
        if self.bounds.order is not None:
            # A bound found by going through orders knows one; a proof's is optimal but for addresses.
            self.refine(self.bounds.order, None, "order of the bound, best replacement")

    def settle(self) -> None:
        """Give every cheap bound its turn."""
        while not (self.bounds.settled or self.bounds.bound.exhausted or self.over):
            if self.spent >= SETTLE_SHARE * self.state.limits.effort:
                return
            self.prove(min(FIRST_WORK, self.left))

    def refine(self, order: Sequence[int], hint: Decisions | None, by: str) -> Decisions | None:
        """Find the best replacement for an order: once, or again with twice the work where that was too little."""
        key = tuple(order)
        terms = self._terms(key)
        limit = max(REPLACEMENT_WORK, REPLACEMENT_SHARE * self.spent)
        if limit < 2 * self.refined.get(key, 0.0) or self.state.done() or terms > MOST_REPLACEMENT_TERMS:
            return None
        from cosma.exact import optimal_replacement

        self.state.enter("best replacement")
        decisions, _, proven = optimal_replacement(
            self.state.problem, key, hint=hint, work_limit=limit, stop=self.state.stop
        )
        self.refined[key] = math.inf if proven else limit
        self.refining_is_dear = not proven
        self.spent += REPLACEMENT_WORK_PER_TERM * terms + (0.0 if proven else REPLACEMENT_RATE * limit)
        self.offer(decisions, by)
        return decisions

    def enumerate(self) -> None:
        """Dynamic programming over states: exact, and quick where few operators are free to move."""
        if self.over or self.state.problem.operator_count > MOST_STATE_OPERATORS:
            return
        from cosma.exact.solve import STATES_PER_SECOND
        from cosma.exact.states import search_states

        self.state.enter("dynamic programming")
        work = min(FIRST_WORK, self.left)
        known = self.least_bytes
        # A state is a set of operators and tensors: it costs in proportion to how many there are.
        rate = STATES_PER_SECOND / max(1.0, self.state.problem.operator_count / TYPICAL_OPERATORS)
        found = search_states(
            self.state.problem,
            ceiling_bytes=known,
            most_states=max(50, int(work * rate)),
            stop=self.state.stop,
        )
        self.spent += found.expanded / rate
        name = "dynamic programming over states, without addresses"
        if found.cost_bytes is not None:
            self.state.raise_bound(found.bound_bytes, name)
            self.refine(found.order, None, "dynamic programming, best replacement")
        elif found.complete:
            self.state.raise_bound(known, name)
        else:
            self.state.raise_bound(found.bound_bytes, name + ", cut short")

    def search(self, work: float) -> None:
        """Look for better orders, then for the best replacement of the best one."""
        if self.searcher is None or self.searcher.outcome.exhausted or self.over:
            return
        self.state.enter("search")
        outcome = self.searcher.run(work, self.state.stop)
        self.spent += work
        # Packing is the dear part of an offer, so the order's best replacement goes first; where there is none to
        # find (known already, too dear, interrupted), the search's own decisions stand.
        better = None
        if not self.refining_is_dear:
            better = self.refine(outcome.decisions.order, outcome.decisions, "search, best replacement")
        if better is None or noncompulsory_bytes(self.state.problem, better) > outcome.noncompulsory_bytes:
            self.offer(outcome.decisions, "search")
        else:
            self.searcher.offer(better)

    def _terms(self, order: Sequence[int]) -> int:
        """Size of the replacement program of an order: how long tensors wait between touches, in all."""
        touches = touches_of(self.state.problem, order)
        rows = np.split(touches.step, touches.start[1:-1])
        return sum(int(row[-1] - row[0]) for row in rows if len(row))


def run_auto(state: CompileRun) -> None:
    """Plan a problem until it is proven or the effort is spent; never worse than any existing method."""
    from cosma.bounds import BoundEngine
    from cosma.heuristics import EXISTING, ORDERS, run_method

    problem = state.problem
    state.enter("existing methods")
    orders: dict[str, tuple[int, ...]] = {}
    best_start = state.best
    starts: list[Decisions | Sequence[int]] = [start.hint for start in state.starts]
    hints = {start.name: start.realised.decisions for start in state.starts if start.realised is not None}
    for name, method in EXISTING.items():
        orders[method.order] = order = ORDERS[method.order](problem)
        realised = run_method(problem, method, order)
        state.offer(realised, name)
        starts.append(realised.decisions)
        if state.done():
            return
    orders["memory-greedy"] = ORDERS["memory-greedy"](problem)
    # Replacement is dear: the orders of given plans go first where one of those is still the best, else last.
    given = {start.name: start.order for start in state.starts}
    orders = given | orders if state.best is best_start else orders | given
    if problem.operator_count > MOST_OPERATORS_AS_ONE:
        _run_long(state, [*orders.values(), *starts])
        return
    auto = _Auto(state, BoundEngine(problem, seed=state.seed, upper_bound=state.noncompulsory_bytes))
    auto.settle()
    for name, order in orders.items():
        auto.refine(order, hints.get(name), f"{name} order, best replacement")
        if auto.refining_is_dear:
            break
    auto.enumerate()
    if not auto.over:
        _improve(auto, [*orders.values(), *starts])
    auto.finish()


def _run_long(state: CompileRun, starts: Sequence[Decisions | Sequence[int]]) -> None:
    """Plan a network of many thousand operators: search first, then bounds along the order found, then search on."""
    from cosma.bounds.pieces import PieceBounds
    from cosma.lowering import realise_in_sections
    from cosma.search import Searcher

    problem, effort = state.problem, state.limits.effort
    state.enter("search")
    searcher = Searcher(problem, starts, seed=state.seed, lower_bound=lambda: state.bound_bytes)
    searcher.run((1 - LONG_BOUND_SHARE) * effort / 2, state.stop)
    if state.done() or effort <= 0:
        return
    state.enter("bounds")
    pieces = PieceBounds(problem, searcher.outcome.decisions.order, seed=state.seed)
    pieces.run(LONG_BOUND_SHARE * effort / LONG_BOUND_RATE, state.stop)
    state.raise_bound(pieces.value_bytes, pieces.method)
    state.enter("search")
    searcher = _with_slack(state, searcher)
    outcome = searcher.run((1 - LONG_BOUND_SHARE) * effort / 2, state.stop)
    state.enter("addresses")
    realised = realise_in_sections(problem, outcome.decisions, stop=state.stop)
    if realised is not None:
        state.offer(realised, "search, packed in sections")


def _with_slack(state: CompileRun, searcher: Searcher) -> Searcher:
    """Search with as much of the scratchpad as can be packed without much loss, judged by a sample of the steps."""
    from cosma.lowering import packing_loss
    from cosma.search import Searcher

    problem, order = state.problem, searcher.outcome.decisions.order
    begin = max(0, (problem.operator_count - LONG_SAMPLE_STEPS) // 2)
    end = min(problem.operator_count, begin + LONG_SAMPLE_STEPS)
    for share in LONG_CAPACITY_SHARES:
        tighter = _tighter(problem, share)
        if tighter is None:
            break
        if share < 1:
            searcher = Searcher(tighter, [order], seed=state.seed)
        if state.stop() or packing_loss(problem, searcher.outcome.decisions, begin, end) < LONG_MOST_LOST:
            break
    return searcher


def _tighter(problem: Problem, share: float) -> Problem | None:
    """The same problem with a share of the capacity; None if an operator does not fit then."""
    alignment = problem.accelerator.alignment
    tighter = replace(problem, capacity_bytes=int(problem.capacity_bytes * share) // alignment * alignment)
    if not tighter.streamable and smallest_feasible_capacity(tighter) > tighter.capacity_bytes:
        return None
    return tighter


def _improve(auto: _Auto, starts: Sequence[Decisions | Sequence[int]]) -> None:
    """Rounds of search and bounds, each longer than the last."""
    from cosma.search import Searcher

    state = auto.state
    auto.searcher = Searcher(state.problem, starts, seed=state.seed, lower_bound=lambda: state.bound_bytes)
    work = FIRST_ROUND_WORK
    rises = True
    while not auto.over:
        before, least, bound = auto.spent, auto.least_bytes, state.bound_bytes
        auto.search(min(work, auto.left))
        auto.address()
        found_better = auto.least_bytes < least
        # Bounds that do not rise get less than search does.
        share = (1.0 if found_better else PROOF_FACTOR) if rises else IDLE_PROOF_FACTOR
        auto.prove(min(share * work, auto.left))
        rises = state.bound_bytes > bound or not auto.bounds.settled
        if auto.spent == before:
            return
        work *= 2
