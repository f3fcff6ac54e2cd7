"""Search over orders and residency: annealers in rounds, resumable and reproducible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from cosma.clock import never
from cosma.evaluation.evaluate import cost_bytes, greedy_decisions, new_tape
from cosma.evaluation.kernels import replay_all
from cosma.evaluation.network import build_network
from cosma.parameters.replacement import ReplacementParameters
from cosma.parameters.search import SearchParameters
from cosma.problem import Decisions, check_feasible, noncompulsory_bytes
from cosma.search.annealer import MILD, PATIENCES, Heat, typical_bytes
from cosma.search.neighbourhood import Neighbourhood
from cosma.search.population import ANNEALERS, Population
from cosma.search.ranges import Ranges

if TYPE_CHECKING:
    from collections.abc import Generator

    from cosma.arrays import Int32s
    from cosma.evaluation.tape import Tape
    from cosma.problem import Problem

Start: TypeAlias = Sequence[int] | Decisions
Improvement: TypeAlias = Callable[[Decisions, int], None]

DEFAULTS = SearchParameters()
REPLACEMENT_DEFAULTS = ReplacementParameters()


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """The best decisions of a search."""

    #: The best order and residencies; they fit the capacity at every step, addresses aside.
    decisions: Decisions
    #: Their non-compulsory traffic.
    noncompulsory_bytes: int
    #: Nominal seconds of work spent so far.
    work_done: float
    #: Whether more work can change nothing: the traffic meets a lower bound, or there is one order only.
    exhausted: bool


class Searcher:
    """Looks for an order and residencies with little traffic, as long as it is given work.

    What it finds is a function of the problem, the starts, the seed and the sizes of the portions of work asked
    for: no clock is read, and the number of cores does not matter. Raises InfeasibleError if no plan exists because an
    operator does not fit.

    Parameters
    ----------
    problem
        A feasible instance.
    starts
        Orders (topological permutations of the operators) or decisions to start from; the given order
        if there are none. The result is never worse than the best of them.
    on_improvement
        Called with new best decisions and their non-compulsory traffic, in the calling thread.
    lower_bound
        A lower bound in bytes, or a function that returns the latest one: search ends where it is met.
    """

    def __init__(
        self,
        problem: Problem,
        starts: Sequence[Start] = (),
        *,
        seed: int = 0,
        on_improvement: Improvement | None = None,
        lower_bound: Callable[[], int] | int | None = None,
        parameters: SearchParameters = DEFAULTS,
        replacement: ReplacementParameters = REPLACEMENT_DEFAULTS,
    ) -> None:
        check_feasible(problem)
        self.problem = problem
        self.seed = seed
        self.on_improvement = on_improvement
        self.parameters = parameters
        self.replacement = replacement
        self._lower_bound = lower_bound
        self._contraction = build_network(problem)
        self._best: Decisions | None = None
        self._best_bytes = 0
        self._work_done = 0.0
        self._owed = 0.0
        self._expected = 0.0
        self._exhausted = False
        self._stop: Callable[[], bool] = never
        self._orders: list[tuple[int, Int32s]] = []
        self._population: Population | None = None
        self._ranges: Ranges | None = None
        self._tapes: dict[float, Tape] = {}
        self._refined: set[tuple[int, ...]] = set()
        self._refining_is_dear = False
        self._slices_run = 0
        self._collected = 1 << 62
        for start in starts or (range(problem.operator_count),):
            self.offer(start)
        self._slices = self._search()

    # -- the best so far ----------------------------------------------------------------------------------

    @property
    def outcome(self) -> SearchOutcome:
        """The best so far."""
        assert self._best is not None
        return SearchOutcome(self._best, self._best_bytes, self._work_done, self._exhausted or self._met())

    def offer(self, start: Start) -> None:
        """Tell the search of an order or of decisions found elsewhere; annealers go on from the best ones known."""
        decisions = start if isinstance(start, Decisions) else None
        order = start.order if isinstance(start, Decisions) else start
        if decisions is not None:
            self._take(decisions, noncompulsory_bytes(self.problem, decisions))
        if self.problem.operator_count == 0:
            self._take(Decisions((), ()), self.problem.constant_noncompulsory_bytes)
            return
        contracted = self._contraction.contract(order)
        cost = self._take_order(contracted)
        if self._population is not None:
            self._population.adopt(cost, contracted)

    def _take(self, decisions: Decisions, traffic_bytes: int) -> bool:
        if self._best is not None and traffic_bytes >= self._best_bytes:
            return False
        self._best, self._best_bytes = decisions, traffic_bytes
        if self.on_improvement is not None:
            self.on_improvement(decisions, traffic_bytes)
        return True

    def _take_order(self, contracted: Int32s, *, remember: bool = True) -> int:
        """Replay an order by the greedy rule, more and less patient, and remember it as a start; return its cost."""
        net = self._contraction.network
        costs = []
        for patience in PATIENCES:
            tape = self._tapes.get(patience)
            if tape is None:
                tape = self._tapes[patience] = new_tape(net, contracted, patience=patience)
            tape.order[:] = contracted
            cost, _ = replay_all(net, tape, False)
            if cost < 0:  # more is live than the rows hold
                tape = self._tapes[patience] = new_tape(net, contracted, patience=patience)
                cost = cost_bytes(tape)
            costs.append((cost, patience))
        cost, patience = min(costs)
        if remember:
            self._remember(cost + self.problem.constant_noncompulsory_bytes, contracted)
        if self._best is None or cost + self.problem.constant_noncompulsory_bytes < self._best_bytes:
            decisions = greedy_decisions(self.problem, self._contraction, self._tapes[patience])
            self._take(decisions, noncompulsory_bytes(self.problem, decisions))
        return cost

    def _remember(self, traffic_bytes: int, contracted: Int32s) -> None:
        if any(np.array_equal(contracted, order) for _, order in self._orders):
            self._orders = [
                (min(traffic, traffic_bytes) if np.array_equal(contracted, order) else traffic, order)
                for traffic, order in self._orders
            ]
        else:
            self._orders.append((traffic_bytes, contracted.copy()))
        self._orders.sort(key=lambda pair: pair[0])
        del self._orders[4 * ANNEALERS :]

    def _met(self) -> bool:
        bound = self._lower_bound() if callable(self._lower_bound) else self._lower_bound
        least = self.problem.constant_noncompulsory_bytes
        return self._best_bytes <= max(least, bound if bound is not None else least)

    # -- running -----------------------------------------------------------------------------------------

    def expect(self, work: float) -> None:
        """Say how many nominal seconds will be granted from now on: the last round is laid out to end with them.

        Without it, rounds go on doubling; annealing is worth little before it has cooled.
        """
        self._expected = self._work_done + work

    def run(self, work: float, stop: Callable[[], bool] = never) -> SearchOutcome:
        """Spend about ``work`` nominal seconds (on two cores) on improving.

        Parameters
        ----------
        work
            Deterministic work in nominal seconds. Work of a slice beyond it is owed, and paid by the next call.
        stop
            Polled at least every tenth of a second; return True to end early (what is found then depends on when).
        """
        self._stop = stop
        granted = work - self._owed
        while granted > 0 and not self._exhausted and not self._met() and not stop():
            try:
                spent = next(self._slices)
            except StopIteration:
                self._exhausted = True
                break
            granted -= spent
            self._work_done += spent
        self._owed = max(0.0, -granted)
        self._collect()
        return self.outcome

    def _collect(self) -> None:
        """Turn the best order that any annealer knows into decisions, if it may beat the best ones."""
        if self._ranges is not None:
            self._join()
        elif self._population is not None:
            cost, order = self._population.elite()
            if cost < self._collected:
                self._collected = cost
                if cost + self.problem.constant_noncompulsory_bytes < self._best_bytes:
                    self._take_order(order, remember=False)

    def _search(self) -> Generator[float, None, None]:
        """Rounds of annealing, each twice as long as the last; never ends where more than one order exists."""
        net = self._contraction.network
        if not self._has_freedom():
            return
        yield 1e-6 * self.problem.operator_count
        if len(self._contraction.members) > self.parameters.most_operators_for_whole_walks:
            yield from self._search_ranges()
        steps = self.parameters.first_round_steps_per_operator * len(self._contraction.members)
        slices = max(1, steps // self.parameters.slice_steps)
        neighbourhood = Neighbourhood(
            self.problem, seed=self.seed, subproblem_operators=self.parameters.subproblem_operators
        )
        orders = [order for _, order in self._orders]
        self._population = population = Population(net, orders, seed=self.seed, typical=self._typical_bytes())
        for round_number in range(1_000_000):
            population.begin_round(round_number)
            yield from self._cool(population, slices)
            for _, order in population.found()[: self.parameters.refined_per_round]:
                yield from self._refine(order)
            yield from self._solve_subproblems(population, neighbourhood)
            slices = max(slices, min(self.parameters.most_slices, slices * 2))

    def _typical_bytes(self) -> float | None:
        """Size of the tensors that matter where some must stay: bringing one in again costs no size that it has."""
        problem = self.problem
        if not problem.kept:
            return None
        free = [t for t in range(problem.tensor_count) if problem.space_bytes[t] and t not in problem.kept]
        return typical_bytes(problem.size_bytes[free])

    def _cool(self, population: Population, slices: int) -> Generator[float, None, None]:
        """Anneal for so many slices, or, where less than half as many are expected after them, for all there are."""
        if self._slices_expected() < 1.5 * slices:
            slices = self._slices_expected()
        cooled = 0.0
        while slices > 0:
            cooler = cooled + (1 - cooled) / slices
            yield self._slice(population, cooled, cooler)
            cooled = cooler
            slices = min(slices - 1, self._slices_expected())

    def _slices_expected(self) -> int:
        """Slices for which work is expected; without end where none is said to be left, as more is granted."""
        left = int(
            (self._expected - self._work_done)
            * self.parameters.steps_per_second
            / (ANNEALERS * self.parameters.slice_steps)
        )
        return left if left > 0 else 1 << 30

    def _search_ranges(self) -> Generator[float, None, None]:
        """Rounds of annealing along one long order, each annealer on its own range; never ends."""
        net = self._contraction.network
        best = self._orders[0][1]
        self._ranges = Ranges(net, best, seed=self.seed, count=ANNEALERS, typical=self._typical_bytes())
        slices = max(
            1, self.parameters.shared_round_steps_per_operator * len(best) // (ANNEALERS * self.parameters.slice_steps)
        )
        shared_heat = Heat(self.parameters.shared_heat_start, self.parameters.shared_heat_end)
        for round_number in range(1_000_000):
            self._ranges.begin_round(round_number, self._orders[0][1], shared_heat if round_number else MILD)
            for k in range(slices):
                yield self._slice(self._ranges, k / slices, (k + 1) / slices)
            self._join()

    def _join(self) -> None:
        """Remember the order that all ranges make together, and take it if it is the best."""
        assert self._ranges is not None
        order, cost = self._ranges.joined()
        if cost < self._orders[0][0] - self.problem.constant_noncompulsory_bytes:
            self._take_order(order)

    def _refine(self, contracted: Int32s) -> Generator[float, None, None]:
        """Give an order its best replacement, if that is affordable and was not done yet.

        Once the solver did not come to an end within its limit, the greedy rule has to do: it is about as good, and
        the orders that are tried meanwhile are worth more.
        """
        from cosma.replacement import optimal_replacement, replacement_terms, supports

        self._take_order(contracted)
        order = self._contraction.expand(contracted.tolist())
        if order in self._refined or self._refining_is_dear or self._met() or self._stop():
            return
        if not supports(self.problem, order, self.replacement):
            return
        decisions, _, proven = optimal_replacement(
            self.problem, order, work_limit=self.parameters.refining_work, stop=self._stop
        )
        self._refined.add(order)
        self._refining_is_dear = not proven
        traffic = noncompulsory_bytes(self.problem, decisions)
        self._remember(traffic, contracted)
        self._take(decisions, traffic)
        terms = replacement_terms(self.problem, order)
        yield self.parameters.refining_work_per_term * terms + (0.0 if proven else self.parameters.refining_work)

    def _solve_subproblems(self, population: Population, neighbourhood: Neighbourhood) -> Generator[float, None, None]:
        """Solve a few subproblems of the best order exactly; annealers of later rounds start from what comes out."""
        if self.problem.operator_count > self.parameters.most_operators_for_subproblems:
            return
        for _ in range(self.parameters.subproblems_per_round):
            if self._met() or self._stop():
                return
            _, best = population.best()
            better = neighbourhood.improve(self._contraction.expand(best.tolist()), self.parameters.subproblem_work)
            yield self.parameters.subproblem_work / 2
            if better is not None:
                contracted = self._contraction.contract(better)
                yield from self._refine(contracted)
                population.adopt(self._take_order(contracted), contracted)

    def _slice(self, annealers: Population | Ranges, begin: float, end: float) -> float:
        steps = annealers.run(self.parameters.slice_steps, begin, end)
        self._slices_run += 1
        every = 1 + self.problem.operator_count // self.parameters.operators_per_collected_slice
        if self._ranges is None and self._slices_run % every == 0:
            self._collect()
        return steps / self.parameters.steps_per_second

    def _has_freedom(self) -> bool:
        """Whether more than one order exists: some operator is not tied to both its neighbours."""
        order = self._orders[0][1] if self._orders else np.zeros(0, dtype=np.int32)
        net = self._contraction.network
        return any(
            int(v) not in net.successor[net.successor_start[u] : net.successor_start[u + 1]] for u, v in pairwise(order)
        )


def search(
    problem: Problem,
    starts: Sequence[Start] = (),
    *,
    effort: float = 10.0,
    seed: int = 0,
    stop: Callable[[], bool] = never,
    on_improvement: Improvement | None = None,
    lower_bound: Callable[[], int] | int | None = None,
) -> SearchOutcome:
    """Search in one call; see :class:`Searcher`. ``effort`` is nominal seconds of work on two cores."""
    searcher = Searcher(problem, starts, seed=seed, on_improvement=on_improvement, lower_bound=lower_bound)
    searcher.expect(effort)
    return searcher.run(effort, stop)
