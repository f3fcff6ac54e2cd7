"""One compile under way: the best plan so far, the best bound so far, and when to stop.

Strategies never hand out plans themselves. They offer decisions or instructions here; each offer is replayed,
and the best valid one is kept.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from cosma.errors import PlanInvalidError
from cosma.heuristics import Method
from cosma.lowering import realise
from cosma.plan import Certificate
from cosma.problem import noncompulsory_bytes, occupancy_bytes
from cosma.validator import ReplayReport, replay_instructions

if TYPE_CHECKING:
    from collections.abc import Callable

    from cosma.compiler.starts import Start
    from cosma.lowering import Realised
    from cosma.problem import Decisions, Problem
    from cosma.solvers import Profile

#: What every bound assumes; written beside each.
ASSUMPTIONS = "no on-chip moves, no recomputation, no tiling"


#: Share of traffic that packing may add to decisions before others are made for the same order.
MOST_LOST = 0.005
#: How they are made: by the best of the existing policies, with addresses given at once or packed afterwards.
REPACKED = (
    Method("given", "cost-aware-belady", "greedy-by-size"),
    Method("given", "cost-aware-belady", "best-fit"),
)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a compile stands.

    Attributes
    ----------
    phase
        What is being done.
    noncompulsory_bytes, bound_bytes
        Best plan and best bound so far.
    seconds
        Since the compile began.
    """

    phase: str
    noncompulsory_bytes: int
    bound_bytes: int
    seconds: float


class ProgressSink(Protocol):
    """Receives progress; called often, so it must be quick."""

    def __call__(self, progress: Progress) -> None:
        """Take note of where a compile stands."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a compile may stop before it has a proof.

    Attributes
    ----------
    effort
        Work to spend, in nominal seconds on a reference machine; counted in steps of the algorithms, so that
        the result does not depend on the speed of this one.
    time_limit_s
        A clock on top; where it bites, the plan is not reproducible.
    gap
        Stop at a proven gap of at most this (0.01 is one per cent).
    """

    effort: float = 10.0
    time_limit_s: float | None = None
    gap: float = 0.0


@dataclass(slots=True)
class CompileRun:
    """State shared by the strategies of one compile."""

    problem: Problem
    limits: Limits
    seed: int = 0
    sink: ProgressSink | None = None
    interrupted: Callable[[], bool] = bool
    profile: Profile | None = None
    #: Plans given to start from; :meth:`offer_starts` has offered them before a strategy runs.
    starts: tuple[Start, ...] = ()
    phase: str = "start"
    bound_bytes: int = 0
    bound_method: str = "nothing is moved twice"
    best: Realised | None = None
    best_report: ReplayReport | None = None
    best_by: str = ""
    timed_out: bool = False
    stopped_early: bool = False
    work: dict[str, float] = field(default_factory=dict)
    repacked: set[tuple[int, ...]] = field(default_factory=set)
    #: Packings that had to give residency up: they cost about as much as the work limit of packing allows.
    repairs: int = 0
    started_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.bound_bytes = self.problem.constant_noncompulsory_bytes

    # -- plans and bounds ---------------------------------------------------------------------------------

    def offer(self, candidate: Decisions | Realised, by: str) -> bool:
        """Replay a candidate and keep it if it is better; ties by transfers, then by peak.

        Decisions are packed first. Returns whether the candidate is now the best.

        Raises
        ------
        PlanInvalidError
            If the candidate breaks a rule: a defect of the strategy, never of the user's input.
        """
        from cosma.lowering import Realised

        if isinstance(candidate, Realised):
            realised = candidate
        else:
            # Decisions that hold more than the capacity at some step are no plan: the one in hand stands.
            if int(occupancy_bytes(self.problem, candidate).max(initial=0)) > self.problem.capacity_bytes:
                return False
            realised = realise(self.problem, candidate)
        kept = self._keep(realised, by)
        self.repairs += realised.repairs > 0
        if isinstance(candidate, Realised) or self.best_report is None or candidate.order in self.repacked:
            return kept
        if _lost(self.problem, candidate, realised) <= MOST_LOST:
            return kept
        # Decisions that fill the scratchpad to the last byte may have no addresses, and giving up what is in the way
        # can cost more than deciding anew along the same order with addresses, or slack for them, in view.
        self.repacked.add(candidate.order)
        from cosma.heuristics import run_method

        for method in REPACKED:
            if not self.done():
                kept |= self._keep(run_method(self.problem, method, candidate.order), by)
        return kept

    def offer_starts(self) -> None:
        """Offer the plans given to start from; one that is not valid here is planned anew along its order."""
        from cosma.heuristics import run_method

        for start in self.starts:
            if start.realised is not None:
                self._keep(start.realised, start.name)
            else:
                self._keep(run_method(self.problem, REPACKED[1], start.order), f"order of {start.name}")

    def _keep(self, realised: Realised, by: str) -> bool:
        report = replay_instructions(self.problem.graph, self.problem.accelerator, realised.instructions)
        if report.violations:
            raise PlanInvalidError(f"strategy {by!r} made an invalid plan: {report.violations[0]}")
        if self.best_report is not None and _rank(report) >= _rank(self.best_report):
            return False
        self.best, self.best_report, self.best_by = realised, report, by
        self.report()
        return True

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

    def certificate(self) -> Certificate:
        """What is proven about the best plan."""
        achieved = self.noncompulsory_bytes
        method = f"{self.bound_method}; assumes alignment {self.problem.accelerator.alignment}, {ASSUMPTIONS}"
        return Certificate(min(self.bound_bytes, achieved), achieved, method)

    # -- stopping -----------------------------------------------------------------------------------------

    def proven(self) -> bool:
        """Whether the best plan is as good as was asked for."""
        return self.best_report is not None and self.certificate().gap <= self.limits.gap

    def stop(self) -> bool:
        """Whether to stop at once: interrupted, or out of time. Poll it often."""
        if self.interrupted():
            self.stopped_early = True
        limit = self.limits.time_limit_s
        if limit is not None and self.elapsed_s() >= limit:
            self.timed_out = True
        return self.stopped_early or self.timed_out

    def done(self) -> bool:
        """Whether there is nothing more to do: proven, interrupted or out of time."""
        return self.proven() or self.stop()

    def time_left_s(self) -> float | None:
        """Seconds until the clock ends this compile; None where the user set none."""
        limit = self.limits.time_limit_s
        return None if limit is None else max(0.05, limit - self.elapsed_s())

    def enter(self, phase: str) -> None:
        """Name what is being done now."""
        self.phase = phase
        self.report()

    def report(self) -> None:
        """Tell the sink where this compile stands, once there is a plan."""
        if self.sink is not None and self.best_report is not None:
            self.sink(Progress(self.phase, self.noncompulsory_bytes, self.bound_bytes, self.elapsed_s()))

    def elapsed_s(self) -> float:
        """Seconds since this compile began."""
        return time.monotonic() - self.started_s


def _rank(report: ReplayReport) -> tuple[int, int, int]:
    return report.traffic.total, report.transfers, report.peak_bytes


def _lost(problem: Problem, decisions: Decisions, realised: Realised) -> float:
    """Share of its traffic that a plan pays because decisions had no addresses as they were."""
    if not realised.repairs:
        return 0.0
    wanted = noncompulsory_bytes(problem, decisions)
    found = noncompulsory_bytes(problem, realised.decisions)
    return (found - wanted) / max(1, found)
