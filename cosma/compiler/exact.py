"""The exact method: order and residency without addresses first, then addresses, until nothing is left to prove."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cosma.clock import Clock, never
from cosma.compiler.engines import supports
from cosma.joint import JointConflict, build_joint
from cosma.lowering import NoAddressesError, Realised, realise, try_realise
from cosma.parameters.compiler import CompileParameters
from cosma.problem import check_feasible, noncompulsory_bytes
from cosma.problem.symmetry import arrange, ordered_pairs, symmetries_of
from cosma.replacement import optimal_replacement
from cosma.replacement.addresses import conflicting, pack_order
from cosma.solvers import EXACT_PROFILE, Status, solve, work_units
from cosma.states.search import search_states

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cosma.bounds import BoundEngine
    from cosma.problem import Decisions, Problem
    from cosma.solvers import Profile


@dataclass(frozen=True, slots=True)
class ExactOutcome:
    """The best plan found and how far it can be from optimal.

    Attributes
    ----------
    realised
        Decisions with addresses.
    noncompulsory_bytes, bound_bytes
        What they cost, and what no plan goes below.
    method
        How the bound was found.
    status
        ``optimal`` or ``feasible``.
    stopped_by
        ``proof``, ``work``, ``time`` or ``interrupt``.
    left_out
        Engines that could not take the problem, and why.
    seconds
        Clock on the wall, by phase.
    """

    realised: Realised
    noncompulsory_bytes: int
    bound_bytes: int
    method: str
    status: str
    stopped_by: str
    left_out: dict[str, str]
    seconds: dict[str, float]

    @property
    def decisions(self) -> Decisions:
        """Order and residencies of the plan."""
        return self.realised.decisions


def solve_exact(
    problem: Problem,
    incumbent: Decisions | Realised,
    *,
    effort: float = 10.0,
    time_limit_s: float | None = None,
    stop: Callable[[], bool] | None = None,
    profile: Profile | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    parameters: CompileParameters | None = None,
) -> ExactOutcome:
    """Find a plan and prove it optimal, addresses included.

    Order and residency are solved without addresses: by dynamic programming over states; where there are too many,
    by the bounds of :mod:`cosma.bounds`, and failing those by the joint program. Their optimum bounds every plan.
    Addresses are then packed; conflicts are learnt and the rest solved again until a plan meets the bound.
    Deterministic unless a clock or ``stop`` ends it.

    Parameters
    ----------
    problem, incumbent
        The instance, and decisions to begin from, with addresses where they are known.
    effort
        Work in nominal seconds.
    time_limit_s
        A clock on top.
    stop
        Polled; True ends the run soon after with the best plan so far.
    profile
        Back end for the programs; CP-SAT by default.
    on_progress
        Called with (best, bound) in bytes when either moves.
    parameters
        Tuning parameters; the defaults where None.

    Raises
    ------
    InfeasibleError
        If some operator cannot run at all.
    """
    check_feasible(problem)
    clock = Clock(time_limit_s, stop if stop is not None else never)
    start = incumbent if isinstance(incumbent, Realised) else None
    decisions = incumbent.decisions if isinstance(incumbent, Realised) else incumbent
    run = _Run(problem, decisions, start, effort, clock, profile, on_progress, parameters or CompileParameters())
    return run.solve()


@dataclass(slots=True)
class _Run:
    problem: Problem
    incumbent: Decisions
    start: Realised | None
    effort: float
    clock: Clock
    profile: Profile | None
    on_progress: Callable[[int, int], None] | None
    parameters: CompileParameters
    best: Realised | None = None
    cost: int = 1 << 62
    bound: int = 0
    method: str = "nothing is moved twice"
    left_out: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    phase_began_s: float = 0.0
    engine: BoundEngine | None = None

    def stop(self) -> bool:
        return self.clock.stop()

    def supports(self, engine: str, order: Sequence[int] = ()) -> bool:
        support = supports(engine, self.problem, self.parameters, order)
        if not support:
            self.left_out[engine] = support.why_not
        return bool(support)

    @property
    def done(self) -> bool:
        return self.cost <= self.bound or self.stop()

    def phase(self, name: str) -> None:
        now = self.clock.elapsed_s()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.phase_began_s
        self.phase_began_s = now

    def offer(self, found: Realised | Decisions | None) -> None:
        """Take note of a plan; decisions are packed first, and dropped where constraints leave no addresses."""
        if found is None:
            return
        try:
            realised = found if isinstance(found, Realised) else realise(self.problem, found)
        except NoAddressesError:
            return
        cost = noncompulsory_bytes(self.problem, realised.decisions)
        if cost < self.cost:
            self.best, self.cost = realised, cost
            self._report()

    def raise_bound(self, bound: int, method: str) -> None:
        if bound > self.bound:
            self.bound, self.method = bound, method
            self._report()

    def _report(self) -> None:
        if self.on_progress is not None and self.best is not None:
            self.on_progress(self.cost, self.bound)

    def solve(self) -> ExactOutcome:
        self.bound = self.problem.constant_noncompulsory_bytes
        self.offer(self.start if self.start is not None else self.incumbent)
        self.phase("incumbent")
        if not self.done:
            self._solve()
        assert self.best is not None
        proven = self.cost <= self.bound
        stopped = (
            "proof" if proven else "interrupt" if self.clock.interrupted else "time" if self.clock.timed_out else "work"
        )
        return ExactOutcome(
            realised=self.best,
            noncompulsory_bytes=self.cost,
            bound_bytes=min(self.bound, self.cost),
            method=self.method,
            status="optimal" if proven else "feasible",
            stopped_by=stopped,
            left_out=dict(self.left_out),
            seconds=dict(self.seconds),
        )

    def _solve(self) -> None:
        relaxed = self.incumbent
        if self.supports("best replacement", relaxed.order):
            relaxed, _, _ = optimal_replacement(
                self.problem, relaxed.order, hint=relaxed, profile=self.profile, stop=self.stop
            )
            self._pack(relaxed, 0)
        self.phase("replacement of the given order")
        budget = max(500, int(self.effort * self.parameters.states.states_per_second))
        few = min(budget, self.parameters.exact.first_states)
        steps: list[tuple[str, Callable[[Decisions], Decisions]]] = [
            ("states", lambda known: self._search_states(known, few)),
            ("bounds", lambda known: self._bounds(known, self.parameters.exact.first_bound_share * self.effort)),
            ("states", lambda known: self._search_states(known, budget) if budget > few else known),
            ("bounds", lambda known: self._bounds(known, (1 - self.parameters.exact.first_bound_share) * self.effort)),
            ("joint program", self._joint),
        ]
        for name, step in steps:
            if self.done or noncompulsory_bytes(self.problem, relaxed) <= self.bound:
                break
            relaxed = step(relaxed)
            self.phase(name)
        if not self.done:
            self._pack(relaxed, 30)
            self._other_orders(relaxed)
            self.phase("addresses")
        if not self.done and self.supports("learnt conflicts"):
            self._joint_with_conflicts()
            self.phase("address conflicts")

    def _pack(self, decisions: Decisions, most_rounds: int) -> None:
        """Give decisions addresses, learning conflicts within their order; failing that, with repairs."""
        found = pack_order(
            self.problem,
            decisions.order,
            first=decisions,
            most_rounds=most_rounds,
            work_limit=self.effort,
            profile=self.profile,
            stop=self.stop,
        )
        self.offer(found.realised if found.realised is not None else decisions)

    def _better(self, order: Sequence[int], relaxed: Decisions) -> Decisions:
        """The best replacement of another order, if it moves less."""
        if not self.supports("best replacement", order):
            return relaxed
        found, _, _ = optimal_replacement(self.problem, order, profile=self.profile)
        return min(found, relaxed, key=lambda d: noncompulsory_bytes(self.problem, d))

    def _search_states(self, relaxed: Decisions, budget: int) -> Decisions:
        """Dynamic programming; returns the best decisions known without addresses."""
        if not self.supports("dynamic programming"):
            return relaxed
        known = noncompulsory_bytes(self.problem, relaxed)
        found = search_states(self.problem, ceiling_bytes=known, most_states=budget, stop=self.stop)
        self.raise_bound(found.bound_bytes, found.method)
        return relaxed if found.cost_bytes is None else self._better(found.order, relaxed)

    def _bounds(self, relaxed: Decisions, work: float) -> Decisions:
        """Bound the traffic by what is alive around each operator, and by a wider search; take the order it finds."""
        from cosma.bounds import BoundEngine

        if self.engine is None:
            self.engine = BoundEngine(self.problem, parameters=self.parameters.bounds)
        self.engine.update_upper(noncompulsory_bytes(self.problem, relaxed))
        found = self.engine.run(work, self.stop)
        self.raise_bound(found.value_bytes, found.method)
        order = self.engine.order
        return relaxed if order is None else self._better(order, relaxed)

    def _joint(self, relaxed: Decisions) -> Decisions:
        """The joint program, where it is small enough to be solved."""
        if not self.supports("joint program"):
            return relaxed
        symmetries = symmetries_of(self.problem)
        joint = build_joint(self.problem, ordered=ordered_pairs(self.problem, symmetries))
        chosen = self.profile if self.profile is not None else EXACT_PROFILE
        warm = joint.values_of(arrange(self.problem, relaxed, symmetries)[0])
        result = solve(
            joint.model,
            chosen,
            warm_start=warm if not joint.model.violations(warm) else None,
            work_limit=work_units(chosen, self.effort),
            time_limit_s=self.clock.left_s(),
            stop=self.stop,
        )
        if result.bound is not None:
            self.raise_bound(result.bound, f"joint program without addresses, {chosen.back_end}")
        if result.values is None:
            return relaxed
        return self._better(joint.decisions(result.values).order, relaxed)

    def _other_orders(self, relaxed: Decisions) -> None:
        """Orders of the same traffic, for the case that addresses do not fit the first."""
        tried: set[Sequence[int]] = {relaxed.order}
        budget = max(
            500, int(self.effort * self.parameters.states.states_per_second) // self.parameters.exact.most_orders
        )
        for seed in range(1, self.parameters.exact.most_orders):
            if self.done or noncompulsory_bytes(self.problem, relaxed) > self.bound:
                return
            found = search_states(self.problem, most_states=budget, stop=self.stop, seed=seed)
            if found.cost_bytes is None:
                return
            if found.order not in tried:
                tried.add(found.order)
                self._pack(self._better(found.order, relaxed), 10)

    def _joint_with_conflicts(self) -> None:
        """Solve the joint program again and again, each time without the combinations that had no addresses."""
        conflicts: list[JointConflict] = []
        ordered = ordered_pairs(self.problem)
        chosen = self.profile if self.profile is not None else EXACT_PROFILE
        spent = 0.0
        while not self.done and spent < self.effort:
            joint = build_joint(self.problem, conflicts=conflicts, ordered=ordered)
            result = solve(
                joint.model,
                chosen,
                work_limit=work_units(chosen, self.effort),
                time_limit_s=self.clock.left_s(),
                stop=self.stop,
            )
            work = result.work if result.work is not None else 0.1
            spent += max(0.01, work / (work_units(chosen, 1.0) or 1.0))
            if result.bound is not None:
                self.raise_bound(result.bound, "joint program with learnt address conflicts")
            if result.values is None or result.status is not Status.OPTIMAL:
                return
            decisions = joint.decisions(result.values)
            realised = try_realise(self.problem, decisions)
            if realised is not None:
                self.offer(realised)
                continue
            involved = conflicting(self.problem, decisions)
            if involved is None:
                return
            conflicts.append(JointConflict(involved))
