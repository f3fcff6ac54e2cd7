"""``auto``: a plan within a second, then proof and improvement side by side while they pay.

Existing methods come first, so that a valid plan always exists. Then bounds, the best replacement for the orders at
hand, and dynamic programming over states, which together prove most ordinary networks; then rounds of search and
bounds, each longer than the last, until proof, the gap asked for, or the effort is spent. Work is counted, never timed.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from threading import Event
from typing import TYPE_CHECKING

from cosma.compiler.first import secure
from cosma.compiler.fusion import IN_TURNS
from cosma.compiler.slack import search_with_slack
from cosma.parallel import beside
from cosma.problem import noncompulsory_bytes
from cosma.problem.support import one_takeover_each

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cosma.bounds import BoundEngine
    from cosma.compiler.run import CompileRun
    from cosma.parameters.compiler import AutoParameters
    from cosma.problem import Decisions
    from cosma.search import Searcher, SearchOutcome


@dataclass(slots=True)
class _Auto:
    """The methods at work, and the effort that they have used up."""

    state: CompileRun
    bounds: BoundEngine
    #: Solver limit granted to the replacement of each order; infinite once it is proven.
    refined: dict[tuple[int, ...], float] = field(default_factory=dict)
    #: True once a replacement solve hit its limit; search then uses the greedy rule only.
    refining_is_dear: bool = False
    #: The best decisions without addresses, their traffic, and the method that found them.
    relaxed: Decisions | None = None
    relaxed_bytes: int = 1 << 62
    relaxed_by: str = ""
    #: The last decisions that did not pack as they are.
    unpacked: Decisions | None = None
    #: True while search with headroom has not been tried for them.
    slack_is_due: bool = False

    @property
    def parameters(self) -> AutoParameters:
        """How the effort is shared out."""
        return self.state.parameters.auto

    @property
    def spent(self) -> float:
        """Effort spent so far."""
        return self.state.spent

    @spent.setter
    def spent(self, work: float) -> None:
        self.state.spent = work

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
        """Traffic of the best decisions, addresses aside."""
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
                self.state.offer_as_is(decisions, by, work_limit=self.parameters.immediate_packing)

    def finish(self) -> None:
        """Make the best decisions a plan, with the best replacement for their order where there was no time for it."""
        decisions = self.relaxed
        if decisions is not None and self.refining_is_dear:
            self.refine(decisions.order, decisions, f"{self.relaxed_by}, best replacement")
        self.address(last=True)
        self.pack()

    def address(self, *, last: bool = False) -> None:
        """Make the best decisions a plan: as they are, with headroom, or, at last, after repair.

        Before the end this happens only while packing has taken little of the effort.
        """
        state = self.state
        if not state.stop():
            packing = self.parameters.packing_work_per_unit * state.packing_units
            if state.done() or not (last or packing < self.parameters.packing_share * self.spent) or self.pack_as_is():
                return
            self._leave_slack(max(self.parameters.least_slack_share * state.limits.effort, self.left) if last else 0.0)
        if last and self.relaxed is not None and self.relaxed_bytes < state.noncompulsory_bytes:
            state.enter("addresses")
            at_last = 0 if state.stop() else self.parameters.repair_per_operator * state.problem.operator_count
            with self._packing():
                state.offer(self.relaxed, self.relaxed_by, work_limit=max(self.parameters.least_repair, at_last))

    def pack_as_is(self) -> bool:
        """Try once to make a plan of the best decisions as they are; True if there is nothing better than the plan."""
        state, decisions = self.state, self.relaxed
        if decisions is None or self.relaxed_bytes >= state.noncompulsory_bytes:
            return True
        if decisions is self.unpacked:
            return False
        state.enter("addresses")
        with self._packing():
            packed = state.offer_as_is(decisions, self.relaxed_by, work_limit=self.state.parameters.slack.as_is_packing)
        self.unpacked, self.slack_is_due = (None, False) if packed else (decisions, True)
        return packed

    @property
    def reserved(self) -> float:
        """Effort to keep for search with slack: packing has cost traffic so far."""
        lost = self.state.noncompulsory_bytes - self.least_bytes
        return (
            self.parameters.slack_share * self.state.limits.effort
            if lost > self.parameters.tolerated_loss * self.least_bytes
            else 0.0
        )

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
        work /= 1.0 if rest else 1 + 1 / self.parameters.cores
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
            self.spent += work / self.parameters.cores
            self._take_bound()

    @contextmanager
    def _packing(self) -> Iterator[None]:
        """Count the work of packing as spent."""
        units = self.state.packing_units
        yield
        self.spent += self.parameters.packing_work_per_unit * (self.state.packing_units - units)

    def pack(self) -> None:
        """Where fragmentation cost traffic: learn which residencies have no addresses together, and decide anew."""
        decisions = self.relaxed
        if decisions is None or self.relaxed_bytes >= self.state.noncompulsory_bytes or self.state.done():
            return
        from cosma.replacement import pack_order

        if self.refining_is_dear or not self.state.supports("best replacement", order=decisions.order):
            return
        self.state.enter("addresses")
        found = pack_order(
            self.state.problem,
            decisions.order,
            first=decisions,
            most_rounds=self.parameters.most_conflicts,
            packing_work=self.parameters.conflict_packing,
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
        """Look for better orders and raise the bound at the same time; neither learns of the other's finds meanwhile.

        Where one makes the other pointless, the other is ended early. Its result then depends on the clock and is
        ignored: nothing better could have come of it.
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
        self.spent += search_work + prove_work / self.parameters.cores
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
            if self.spent >= self.parameters.settle_share * self.state.limits.effort:
                return
            self.prove(min(self.parameters.opening_work, self.left))

    def refine(self, order: Sequence[int], hint: Decisions | None, by: str) -> Decisions | None:
        """Find the best replacement for an order: once, or again with twice the work where that was too little."""
        key = tuple(order)
        limit = max(self.parameters.replacement_work, self.parameters.replacement_share * self.spent)
        if limit < 2 * self.refined.get(key, 0.0) or self.state.done():
            return None
        from cosma.replacement import optimal_replacement, replacement_terms

        if not self.state.supports("best replacement", order=key):
            return None
        self.state.enter("best replacement")
        decisions, _, proven = optimal_replacement(
            self.state.problem, key, hint=hint, work_limit=limit, stop=self.state.stop
        )
        self.refined[key] = math.inf if proven else limit
        self.refining_is_dear = not proven
        terms = replacement_terms(self.state.problem, key)
        self.spent += self.parameters.replacement_work_per_term * terms + (
            0.0 if proven else self.parameters.replacement_rate * limit
        )
        self.offer(decisions, by)
        return decisions

    def enumerate(self) -> None:
        """Dynamic programming over states: exact, and quick where few operators are free to move."""
        if self.over or not self.state.supports("dynamic programming", self.state.bounded):
            return
        from cosma.states.search import search_states

        self.state.enter("dynamic programming")
        work = min(self.parameters.opening_work, self.left)
        known = self.least_bytes
        # A state is a set of operators and tensors: it costs in proportion to how many there are.
        rate = self.state.parameters.states.states_per_second / max(
            1.0, self.state.problem.operator_count / self.parameters.typical_operators
        )
        found = search_states(
            self.state.bounded,
            ceiling_bytes=known,
            most_states=max(50, int(work * rate)),
            stop=self.state.stop,
        )
        self.spent += found.expanded / rate
        self.state.raise_bound(found.bound_bytes, found.method)
        if found.cost_bytes is not None:
            self.refine(found.order, None, "dynamic programming, best replacement")

    def _take_search(self, searcher: Searcher, outcome: SearchOutcome) -> None:
        """Offer the decisions of the search, with the best replacement for its order."""
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
    from cosma.heuristics import EXISTING

    problem = state.problem
    tiled = problem.graph.is_tiled
    worked_on = state.best is not None and state.best_by != IN_TURNS
    if tiled and worked_on and problem.operator_count > state.parameters.auto.most_tiles:
        # A search is too dear. Where a given plan is for another accelerator, more of its tensors may stay on this one.
        state.replan_starts()
        return
    if state.best is not None and state.stop():
        return  # the plan given to start from is all that there was time for
    state.enter("existing methods")
    orders: dict[str, tuple[int, ...]] = {}
    best_start = state.best
    starts: list[Decisions | Sequence[int]] = [start.hint for start in state.starts]
    hints = {start.name: start.realised.decisions for start in state.starts if start.realised is not None}
    for name, method in EXISTING.items():
        orders[method.order] = order = state.order(method.order)
        realised = state.try_existing(name, order)
        starts.append(order if realised is None else realised.decisions)
        if state.done():
            return
    secure(state)
    orders["memory-greedy"] = state.order("memory-greedy")
    # Replacement is dear: the orders of given plans go first where one of those is still the best, else last.
    given = {start.name: start.order for start in state.starts}
    orders = given | orders if state.best is best_start else orders | given
    if not one_takeover_each(problem):
        # The search's greedy rule knows of one takeover too, and nothing else that plans would be left.
        bound = BoundEngine(state.bounded, seed=state.seed, upper_bound=state.noncompulsory_bytes).run(
            state.limits.effort, state.stop
        )
        state.raise_bound(bound.value_bytes, bound.method)
        return
    if not state.supports("rounds"):
        run_long(state, [*orders.values(), *starts])
        return
    upper = state.noncompulsory_bytes
    bounds = BoundEngine(state.bounded, seed=state.seed, upper_bound=upper, parameters=state.parameters.bounds)
    auto = _Auto(state, bounds)
    auto.settle()
    for name, order in islice(orders.items(), auto.parameters.first_orders):
        auto.refine(order, hints.get(name), f"{name} order, best replacement")
        if auto.refining_is_dear:
            break
    auto.enumerate()
    if not auto.over:
        _improve(auto, [*orders.values(), *starts])
    auto.finish()


def _improve(auto: _Auto, starts: Sequence[Decisions | Sequence[int]]) -> None:
    """Rounds of search and bounds, each longer than the last."""
    state, parameters = auto.state, auto.parameters
    searcher = state.searcher(state.problem, starts, lower_bound=lambda: state.bound_bytes)
    work, share = parameters.first_round_work, parameters.proof_factor
    while not auto.over:
        # Effort kept for slack is free again where the best decisions pack as they are.
        left = auto.left - auto.reserved
        if left <= 0:
            if not auto.pack_as_is():
                return
            left = auto.left
        before, least, bound = auto.spent, auto.least_bytes, state.bound_bytes
        searcher.expect(left / (1 + share / parameters.cores))
        search_work = min(work, left / (1 + share / parameters.cores))
        auto.search_and_prove(searcher, search_work, share * search_work)
        auto.address()
        if auto.spent == before:
            return
        if state.bound_bytes > bound or not auto.bounds.settled or auto.bounds.untried:
            share = 1.0 if auto.least_bytes < least else parameters.proof_factor
        else:
            nothing_proven = state.bound_bytes == state.problem.constant_noncompulsory_bytes
            share = parameters.unproven_factor if nothing_proven else parameters.idle_proof_factor
        work *= 2
