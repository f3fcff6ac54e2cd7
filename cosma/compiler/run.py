"""One compile under way: the best plan so far, the best bound so far, and when to stop.

Strategies never hand out plans themselves. They offer decisions or instructions here; each offer is replayed,
and the best valid one is kept.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cosma.clock import Clock
from cosma.compiler.engines import supports
from cosma.compiler.limits import Limits, Progress
from cosma.errors import PlanInvalidError
from cosma.heuristics import Method
from cosma.lowering import NoAddressesError, realise, try_realise
from cosma.parameters.compiler import CompileParameters
from cosma.plan import Certificate, Traffic
from cosma.plan.overheads import padding_bytes
from cosma.problem import occupancy_bytes
from cosma.validator import ReplayReport, Verdict, replay_instructions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cosma.compiler.limits import ProgressSink
    from cosma.compiler.starts import Start
    from cosma.lowering import Realised
    from cosma.problem import Decisions, Instance, Problem
    from cosma.search import Searcher
    from cosma.solvers import Profile

#: Assumptions of every bound, written beside each.
ASSUMPTIONS = "no on-chip moves, no recomputation, no tiling"


#: How an order alone becomes a plan: by the best of the existing policies, with addresses given on the way.
ALONG_ORDER = Method("given", "cost-aware-belady", "best-fit")


@dataclass(slots=True)
class Ledger:
    """The work of a compile that plans several graphs in turn."""

    #: Limit on all work, in nominal seconds.
    effort: float
    #: Work of the runs that have ended.
    closed: float = 0.0


@dataclass(frozen=True, slots=True)
class Kept:
    """A plan that was offered, and its cost."""

    #: The plan, its replay, the method that made it, and the bytes that its transfers lack to ``min_transfer``.
    realised: Realised
    report: ReplayReport
    by: str
    padding_bytes: int

    @property
    def total_bytes(self) -> int:
        """Traffic."""
        return self.report.traffic.total


@dataclass(slots=True)
class CompileRun:
    """State shared by the strategies of one compile."""

    problem: Instance
    limits: Limits
    seed: int = 0
    sink: ProgressSink | None = None
    clock: Clock = field(default_factory=Clock)
    profile: Profile | None = None
    #: Plans given to start from; :meth:`offer_starts` has offered them before a strategy runs.
    starts: tuple[Start, ...] = ()
    parameters: CompileParameters = field(default_factory=CompileParameters)
    #: The instance to bound, where the problem allows more or less than plans may do; see :attr:`in_any_mode`.
    relaxation: Problem | None = None
    #: Whether a mode was chosen for each operator; bounds then hold for any.
    in_any_mode: bool = False
    phase: str = "start"
    bound_bytes: int = 0
    bound_method: str = "nothing is moved twice"
    best: Realised | None = None
    best_report: ReplayReport | None = None
    best_by: str = ""
    #: Bytes that its transfers lack to the accelerator's ``min_transfer``.
    best_padding: int = 0
    #: Under a trade-off, plans that none of the others undercuts in traffic and in transfers.
    front: list[Kept] = field(default_factory=list)
    #: Units of work that packing has taken so far; see :func:`cosma.packing.pack`.
    packing_units: int = 0
    #: Work spent since the limits were granted, in nominal seconds.
    spent: float = 0.0
    #: Work of all runs of the compile; None for a run of its own.
    ledger: Ledger | None = None
    #: Engines that could not take the problem, and why.
    left_out: dict[str, str] = field(default_factory=dict)
    #: Traffic of the existing methods that were tried, by name.
    existing: dict[str, Traffic] = field(default_factory=dict)
    #: Seconds on the clock on the wall, by phase, while the run was at work.
    seconds: dict[str, float] = field(default_factory=dict)
    _phase_began_s: float | None = None

    def __post_init__(self) -> None:
        self.grant(self.limits)
        self.bound_bytes = self.problem.constant_noncompulsory_bytes

    def grant(self, limits: Limits) -> None:
        """Set the limits from now on; the clock goes on."""
        self.limits = limits
        self.clock.limit_s = limits.time_limit_s

    @property
    def bounded(self) -> Problem:
        """Instance whose bounds hold for every plan; its operators have the same numbers."""
        return self.problem if self.relaxation is None else self.relaxation

    def supports(self, engine: str, problem: Problem | None = None, order: Sequence[int] = ()) -> bool:
        """Whether an engine takes a problem, this one where none is given; keeps why it does not."""
        support = supports(engine, self.problem if problem is None else problem, self.parameters, order)
        if not support:
            self.left_out[engine] = support.why_not
        return bool(support)

    # -- plans and bounds ---------------------------------------------------------------------------------

    def offer(self, candidate: Decisions | Realised, by: str, *, work_limit: int | None = None) -> bool:
        """Replay a candidate and keep it if it is better; ties by short transfers, transfers, then peak.

        Decisions are packed first, within the limit where one is given; tensors without an address leave. Returns
        whether the candidate is now the best. Raises PlanInvalidError if the candidate breaks a rule: a defect of the
        strategy, never of the user's input.
        """
        from cosma.lowering import Realised

        if isinstance(candidate, Realised):
            realised = candidate
        else:
            # Decisions that hold more than the capacity at some step are no plan: the one in hand stands.
            if int(occupancy_bytes(self.problem, candidate).max(initial=0)) > self.problem.capacity_bytes:
                return False
            try:
                realised = realise(
                    self.problem, candidate, work_limit=work_limit, parameters=self.parameters.lowering
                )
            except NoAddressesError:
                return False
            self.packing_units += realised.work_units
        return self._keep(realised, by)

    def offer_as_is(self, decisions: Decisions, by: str, *, work_limit: int) -> bool:
        """Like :meth:`offer`, but only if the decisions can be packed as they are within so many units of work."""
        if int(occupancy_bytes(self.problem, decisions).max(initial=0)) > self.problem.capacity_bytes:
            return False
        realised = try_realise(self.problem, decisions, work_limit=work_limit)
        self.packing_units += work_limit if realised is None else realised.work_units
        return realised is not None and self._keep(realised, by)

    def offer_existing(self, realised: Realised, name: str) -> bool:
        """Offer the plan of an existing method, and keep its traffic for the comparison."""
        better = self._keep(realised, name)
        report = self.best_report
        if not better or report is None:
            report = replay_instructions(self.problem.graph, self.problem.accelerator, realised.instructions)
        if report.valid:
            self.existing[name] = report.traffic
        return better

    def order(self, name: str) -> tuple[int, ...]:
        """One of the orders of the existing methods; a lesser one where there is no time for it."""
        from cosma.heuristics import ORDERS
        from cosma.heuristics.orders import peak_minimising_order

        if ORDERS[name] is peak_minimising_order:
            return peak_minimising_order(self.problem, self.stop)
        return ORDERS[name](self.problem)

    def try_existing(self, name: str, order: Sequence[int] | None = None) -> Realised | None:
        """Run an existing method and offer its plan; None where constraints leave it no addresses.

        Parameters
        ----------
        order
            The method's order, where it is known already.
        """
        from cosma.heuristics import EXISTING, run_method

        try:
            realised = run_method(self.problem, EXISTING[name], None if order is None else tuple(order))
        except NoAddressesError:
            return None
        self.offer_existing(realised, name)
        return realised

    def offer_starts(self) -> None:
        """Offer the plans given to start from; one that is not valid here is planned anew along its order."""
        for start in self.starts:
            if start.realised is not None:
                self._keep(start.realised, start.name)
            else:
                self._replan(start)

    def replan_starts(self) -> None:
        """Plan given plans anew along their orders, with the same tiles."""
        for start in self.starts:
            if start.sha256 and start.realised is not None and not self.stop():
                self._replan(start)

    def _replan(self, start: Start) -> None:
        from cosma.heuristics import run_method

        with suppress(NoAddressesError):
            self._keep(run_method(self.problem, ALONG_ORDER, start.order), f"order of {start.name}")

    def _keep(self, realised: Realised, by: str) -> bool:
        report = replay_instructions(self.problem.graph, self.problem.accelerator, realised.instructions)
        if self.problem.runs and {v.verdict for v in report.violations} == {Verdict.PIECES_EXCEEDED}:
            # Addresses given on the way ignore which tensors must lie side by side.
            realised = realise(self.problem, realised.decisions, parameters=self.parameters.lowering)
            self.packing_units += realised.work_units
            report = replay_instructions(self.problem.graph, self.problem.accelerator, realised.instructions)
        if report.violations and all(v.verdict is Verdict.NOT_KEPT for v in report.violations):
            return False  # it costs more than all else to bring such a tensor in again, and is possible all the same
        if report.violations:
            raise PlanInvalidError(f"strategy {by!r} made an invalid plan: {report.violations[0]}")
        padding = padding_bytes(self.problem.graph, self.problem.accelerator, realised.instructions)
        if self.limits.trade_off:
            self._remember(Kept(realised, report, by, padding))
        if self.best_report is not None and _rank(report, padding) >= _rank(self.best_report, self.best_padding):
            return False
        self.best, self.best_report, self.best_by, self.best_padding = realised, report, by, padding
        self.report()
        return True

    def _remember(self, plan: Kept) -> None:
        """Keep a plan that no other undercuts in traffic and in transfers."""
        cost = plan.total_bytes, plan.report.transfers
        others = [(other, (other.total_bytes, other.report.transfers)) for other in self.front]
        if any(a <= cost[0] and b <= cost[1] for _, (a, b) in others):
            return
        self.front = [other for other, (a, b) in others if a < cost[0] or b < cost[1]] + [plan]

    def take(self, plan: Kept) -> None:
        """Make a plan of the front the one that comes out."""
        self.best, self.best_report, self.best_by = plan.realised, plan.report, plan.by
        self.best_padding = plan.padding_bytes

    def raise_bound(self, bound_bytes: int, method: str) -> None:
        """Take a lower bound on non-compulsory bytes if it is better than the one known."""
        if bound_bytes > self.bound_bytes:
            self.bound_bytes, self.bound_method = bound_bytes, method
            self.report()

    @property
    def noncompulsory_bytes(self) -> int:
        """Non-compulsory bytes of the best plan, as replayed."""
        assert self.best_report is not None, "a strategy must offer a plan before it asks for the best"
        return self.best_report.traffic.noncompulsory

    def rank(self) -> tuple[int, int, int, int]:
        """Order of runs by their best plans, the best first: by traffic, by short transfers, by transfers, by peak."""
        return (1 << 62, 0, 0, 0) if self.best_report is None else _rank(self.best_report, self.best_padding)

    def certificate(self) -> Certificate:
        """The certificate of the best plan."""
        achieved = self.noncompulsory_bytes
        modes = ", every operator in any of its modes" if self.in_any_mode else ""
        method = f"{self.bound_method}{modes}; assumes alignment {self.problem.alignment}, {ASSUMPTIONS}"
        return Certificate(min(self.bound_bytes, achieved), achieved, method)

    # -- stopping -----------------------------------------------------------------------------------------

    def proven(self) -> bool:
        """Whether the best plan is as good as was asked for."""
        return self.best_report is not None and self.certificate().gap <= self.limits.gap

    def interrupt(self) -> None:
        """Take note that an interrupt ended the run, wherever it came; the best plan is replayed once more."""
        self.clock.interrupted = True
        if self.best is not None:
            # An interrupt may have come between keeping a plan and keeping its replay.
            graph, accelerator = self.problem.graph, self.problem.accelerator
            self.best_report = replay_instructions(graph, accelerator, self.best.instructions)

    def stop(self) -> bool:
        """Whether to stop at once: interrupted, or out of time. Poll it often."""
        return self.clock.stop()

    def done(self) -> bool:
        """Whether there is nothing more to do: proven, interrupted or out of time."""
        return self.proven() or self.stop()

    def searcher(
        self,
        problem: Problem,
        starts: Sequence[Decisions | Sequence[int]],
        *,
        lower_bound: Callable[[], int] | int | None = None,
    ) -> Searcher:
        """Begin a search with the seed and the parameters of this compile."""
        from cosma.search import Searcher

        return Searcher(
            problem,
            starts,
            seed=self.seed,
            lower_bound=lower_bound,
            parameters=self.parameters.search,
            replacement=self.parameters.replacement,
        )

    def enter(self, phase: str) -> None:
        """Begin a phase."""
        self.pause()
        self.phase, self._phase_began_s = phase, self.clock.elapsed_s()
        self.report()

    def pause(self) -> None:
        """Take note of the time that the phase at hand took; it does not go on until the next one is entered."""
        if self._phase_began_s is not None:
            self.seconds[self.phase] = self.seconds.get(self.phase, 0.0) + self.clock.elapsed_s() - self._phase_began_s
            self._phase_began_s = None

    def report(self) -> None:
        """Tell the sink where this compile stands, once there is a plan."""
        if self.sink is not None and self.best_report is not None:
            ledger = Ledger(self.limits.effort) if self.ledger is None else self.ledger
            spent = min(ledger.effort, ledger.closed + self.spent)
            bytes_ = self.noncompulsory_bytes, self.bound_bytes
            self.sink(Progress(self.phase, *bytes_, self.clock.elapsed_s(), spent, ledger.effort))


def _rank(report: ReplayReport, padding: int) -> tuple[int, int, int, int]:
    return report.traffic.total, padding, report.transfers, report.peak_bytes
