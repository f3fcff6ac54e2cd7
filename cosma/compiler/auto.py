"""``auto``: a plan within a second, then proof and improvement side by side while they pay.

Existing methods come first, so that a valid plan always exists. Then bounds, the best replacement for the orders at
hand, and dynamic programming over states, which together prove most ordinary networks; then rounds of search and
bounds, each longer than the last, until proof, the gap asked for, or the effort is spent. Work is counted, never timed.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING

from cosma.compiler.slack import AS_IS_PACKING, search_with_slack
from cosma.parallel import beside
from cosma.problem import noncompulsory_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cosma.bounds import BoundEngine
    from cosma.compiler.run import CompileRun
    from cosma.problem import Decisions
    from cosma.search import Searcher, SearchOutcome

#: Nominal seconds for bounds, and for dynamic programming, before anything is searched.
FIRST_WORK = 0.4
#: Share of the effort within which every cheap bound has its turn before anything is searched.
SETTLE_SHARE = 0.12
#: Nominal seconds of the first round of search; each round doubles it.
FIRST_ROUND_WORK = 0.5
#: Nominal seconds that the best replacement of one order takes per term of its program.
REPLACEMENT_WORK_PER_TERM = 5e-6
#: Deterministic seconds of the solver that the best replacement of one order may take at first, later a share of what
#: was spent so far, and nominal seconds of one.
REPLACEMENT_WORK = 0.5
REPLACEMENT_SHARE = 0.08
REPLACEMENT_RATE = 1.5
#: Operators of the networks on which the rate of dynamic programming was measured.
TYPICAL_OPERATORS = 400
#: Operators above which dynamic programming in plain Python is not begun: setting it up is quadratic.
MOST_STATE_OPERATORS = 3000
#: Operators above which a network is long: search shares one order out among its chains, bounds are summed over
#: pieces, replacement is left to the greedy rule (on annealed orders of 10,000 operators the best one gains under
#: 0.5 %), and packing waits until the end.
MOST_OPERATORS_AS_ONE = 3000
#: How much more work bounds get than search in a round in which search found nothing better while they rise, in any
#: round while nothing is proven yet, and in any other one while they do not rise.
PROOF_FACTOR = 1.5
UNPROVEN_FACTOR = 1.0
IDLE_PROOF_FACTOR = 0.5
#: Cores of the machine that nominal seconds speak of: search keeps all of them busy, bounds one.
CORES = 2
#: Units of work within which decisions must pack as they are to be a plan at once; for giving up what is in the way, at
#: the end: at least, and for each operator. Nominal seconds of a unit, and the share of the effort that may go to
#: packing on the way.
QUICK_PACKING = 5_000
LEAST_REPAIR = 20_000
REPAIR_PER_OPERATOR = 200
PACKING_WORK_PER_UNIT = 7e-6
PACKING_SHARE = 0.1
#: Share of the traffic that packing may lose before effort is kept for search with slack; the share that is kept; and
#: the share it gets, beyond the effort if need be, where that turns out at the end only.
MOST_LOST = 0.005
SLACK_EFFORT = 0.25
LEAST_SLACK_EFFORT = 0.1
#: Conflicts to learn for one order whose best replacement has no addresses, and units of work for each packing.
MOST_CONFLICTS = 12
CONFLICT_PACKING = 100_000


@dataclass(slots=True)
class _Auto:
    """The methods at work, and what each has used up."""

    state: CompileRun
    bounds: BoundEngine
    spent: float = 0.0
    #: Nominal seconds that were granted to the replacement of each order; infinite once it is proven.
    refined: dict[tuple[int, ...], float] = field(default_factory=dict)
    #: Whether the solver did not come to an end with the last of them: then search goes by the greedy rule alone.
    refining_is_dear: bool = False
    #: The best decisions, addresses aside, and whose they are; the last ones that did not pack as they are, and whether
    #: less room was not tried for them yet.
    relaxed: Decisions | None = None
    relaxed_bytes: int = 1 << 62
    relaxed_by: str = ""
    unpacked: Decisions | None = None
    slack_is_due: bool = False

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

    def _best_order(self) -> Sequence[int]:
        """The order with the least traffic known, addresses aside."""
        if self.relaxed is not None and self.relaxed_bytes < self.state.noncompulsory_bytes:
            return self.relaxed.order
        assert self.state.best is not None
        return self.state.best.decisions.order

    def offer(self, decisions: Decisions, by: str) -> None:
        """Take note of decisions; they become a plan at once where they pack as they are."""
        relaxed = noncompulsory_bytes(self.state.problem, decisions)
        if relaxed < self.relaxed_bytes:
            self.relaxed_bytes, self.relaxed, self.relaxed_by = relaxed, decisions, by
        if relaxed < self.state.noncompulsory_bytes:
            with self._packing():
                self.state.offer_as_is(decisions, by, work_limit=QUICK_PACKING)

    def finish(self) -> None:
        """Make the best decisions a plan, with the best replacement for their order where there was no time for it."""
        decisions = self.relaxed
        if decisions is not None and self.refining_is_dear:
            self.refine(decisions.order, decisions, f"{self.relaxed_by}, best replacement")
        self.address(last=True)
        self.pack()

    def address(self, *, last: bool = False) -> None:
        """Where the best decisions are no plan yet: pack them, with less room, or, at last, without what is in the way.

        On the way, only if packing was not too dear so far.
        """
        state = self.state
        if not state.stop():
            packing = PACKING_WORK_PER_UNIT * state.packing_units
            if state.done() or not (last or packing < PACKING_SHARE * self.spent) or self.pack_as_is():
                return
            self._leave_slack(max(LEAST_SLACK_EFFORT * state.limits.effort, self.left) if last else 0.0)
        if last and self.relaxed is not None and self.relaxed_bytes < state.noncompulsory_bytes:
            state.enter("addresses")
            at_last = 0 if state.stop() else REPAIR_PER_OPERATOR * state.problem.operator_count
            with self._packing():
                state.offer(self.relaxed, self.relaxed_by, work_limit=max(LEAST_REPAIR, at_last))

    def pack_as_is(self) -> bool:
        """Try once to make a plan of the best decisions as they are; True if there is nothing better than the plan."""
        state, decisions = self.state, self.relaxed
        if decisions is None or self.relaxed_bytes >= state.noncompulsory_bytes:
            return True
        if decisions is self.unpacked:
            return False
        state.enter("addresses")
        with self._packing():
            packed = state.offer_as_is(decisions, self.relaxed_by, work_limit=AS_IS_PACKING)
        self.unpacked, self.slack_is_due = (None, False) if packed else (decisions, True)
        return packed

    @property
    def reserved(self) -> float:
        """Effort to keep for search with slack: packing has cost traffic so far."""
        lost = self.state.noncompulsory_bytes - self.least_bytes
        return SLACK_EFFORT * self.state.limits.effort if lost > MOST_LOST * self.least_bytes else 0.0

    def _leave_slack(self, work: float) -> None:
        """Search with a little less room, which leaves packing some, and raise the bound beside it.

        Without work, the best order is decided anew, once.
        """
        state, bounds = self.state, self.bounds
        if self.relaxed is None or not (work or self.slack_is_due):
            return
        self.slack_is_due = False
        # Bounds that ended early because search met them are where the clock left them: they must rest.
        rest = not work or bounds.bound.exhausted or self.least_bytes <= state.bound_bytes
        work /= 1.0 if rest else 1 + 1 / CORES
        bounds.update_upper(self.least_bytes)
        bounds.good_order = self._best_order()

        def prove(pointless: Event) -> None:
            if not rest:
                bounds.run(work, lambda: pointless.is_set() or state.stop())

        state.enter("addresses")
        with self._packing(), beside(prove):
            search_with_slack(state, self.relaxed.order, work, least_bytes=self.least_bytes, by=self.relaxed_by)
        self.spent += work
        if not rest:
            self.spent += work / CORES
            self._take_bound()

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
        from cosma.replacement import MOST_REPLACEMENT_TERMS, pack_order, replacement_terms

        if self.refining_is_dear or replacement_terms(self.state.problem, decisions.order) > MOST_REPLACEMENT_TERMS:
            return
        self.state.enter("addresses")
        found = pack_order(
            self.state.problem,
            decisions.order,
            first=decisions,
            most_rounds=MOST_CONFLICTS,
            packing_work=CONFLICT_PACKING,
            stop=self.state.stop,
        )
        if found.realised is not None:
            self.state.offer(found.realised, "learnt address conflicts")

    def prove(self, work: float) -> None:
        """Raise the bound."""
        self.bounds.update_upper(self.least_bytes)
        if self.bounds.bound.exhausted or self.over:
            return
        self.state.enter("bounds")
        self.bounds.run(work, self.state.stop)
        self.spent += work
        self._take_bound()

    def search_and_prove(self, searcher: Searcher, search_work: float, prove_work: float) -> None:
        """Look for better orders and raise the bound at the same time; neither knows what the other finds meanwhile.

        Where one makes the other pointless, that one is ended early, and what it has by then, which depends on the
        clock, is ignored: nothing better could have come of it.
        """
        known, stop = self.least_bytes, self.state.stop
        if self.over or known <= self.state.bound_bytes:
            return
        self.bounds.update_upper(known)
        self.bounds.good_order = self._best_order()
        search_work = 0.0 if searcher.outcome.exhausted else search_work
        prove_work = 0.0 if self.bounds.bound.exhausted else prove_work
        proven = Event()

        def prove(pointless: Event) -> None:
            bound = self.bounds.run(prove_work, lambda: pointless.is_set() or stop())
            if bound.value_bytes >= known:
                proven.set()

        self.state.enter("search and bounds")
        with beside(prove) as met:
            outcome = searcher.run(search_work, lambda: proven.is_set() or stop())
            if outcome.noncompulsory_bytes <= self.state.bound_bytes:
                met.set()
        self.spent += search_work + prove_work / CORES
        if not proven.is_set():
            self._take_search(searcher, outcome)
        if not met.is_set():
            self._take_bound()

    def _take_bound(self) -> None:
        """Publish the bound; an order found with it gets its best replacement."""
        bound = self.bounds.bound
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
        limit = max(REPLACEMENT_WORK, REPLACEMENT_SHARE * self.spent)
        if limit < 2 * self.refined.get(key, 0.0) or self.state.done():
            return None
        from cosma.replacement import MOST_REPLACEMENT_TERMS, optimal_replacement, replacement_terms

        terms = replacement_terms(self.state.problem, key)
        if terms > MOST_REPLACEMENT_TERMS:
            return None
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
        from cosma.compiler.exact import STATES_PER_SECOND
        from cosma.states.search import search_states

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

    def _take_search(self, searcher: Searcher, outcome: SearchOutcome) -> None:
        """Offer what search found, with the best replacement for its order."""
        # Packing is the dear part of an offer, so the order's best replacement goes first; where there is none to
        # find (known already, too dear, interrupted), the search's own decisions stand.
        better = None
        if not self.refining_is_dear:
            better = self.refine(outcome.decisions.order, outcome.decisions, "search, best replacement")
        if better is None or noncompulsory_bytes(self.state.problem, better) > outcome.noncompulsory_bytes:
            self.offer(outcome.decisions, "search")
        else:
            searcher.offer(better)


def run_auto(state: CompileRun) -> None:
    """Plan a problem until it is proven or the effort is spent; never worse than any existing method."""
    from cosma.bounds import BoundEngine
    from cosma.compiler.long import run_long
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
        run_long(state, [*orders.values(), *starts])
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


def _improve(auto: _Auto, starts: Sequence[Decisions | Sequence[int]]) -> None:
    """Rounds of search and bounds, each longer than the last."""
    from cosma.search import Searcher

    state = auto.state
    searcher = Searcher(state.problem, starts, seed=state.seed, lower_bound=lambda: state.bound_bytes)
    work, share = FIRST_ROUND_WORK, PROOF_FACTOR
    while not auto.over:
        # What is kept for slack is free again where the best decisions pack as they are.
        left = auto.left - auto.reserved
        if left <= 0:
            if not auto.pack_as_is():
                return
            left = auto.left
        before, least, bound = auto.spent, auto.least_bytes, state.bound_bytes
        searcher.expect(left / (1 + share / CORES))
        search_work = min(work, left / (1 + share / CORES))
        auto.search_and_prove(searcher, search_work, share * search_work)
        auto.address()
        if auto.spent == before:
            return
        if state.bound_bytes > bound or not auto.bounds.settled or auto.bounds.untried:
            share = 1.0 if auto.least_bytes < least else PROOF_FACTOR
        else:
            nothing_proven = state.bound_bytes == state.problem.constant_noncompulsory_bytes
            share = UNPROVEN_FACTOR if nothing_proven else IDLE_PROOF_FACTOR
        work *= 2
