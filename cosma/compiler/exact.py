"""The exact method: order and residency without addresses first, then addresses, until nothing is left to prove."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cosma.joint import JointConflict, build_joint
from cosma.lowering import Realised, try_realise
from cosma.problem import noncompulsory_bytes
from cosma.problem.symmetry import arrange, ordered_pairs, symmetries_of
from cosma.replacement import optimal_replacement
from cosma.replacement.addresses import conflicting, pack_order
from cosma.solvers import EXACT_PROFILE, Profile, Status, solve, work_units
from cosma.states.search import search_states

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cosma.arrays import Ints
    from cosma.bounds import BoundEngine
    from cosma.compiler.run import CompileRun
    from cosma.joint import Joint
    from cosma.problem import Decisions, Problem
    from cosma.solvers import SolverResult


def solve_exact(state: CompileRun) -> None:
    """Improve the plan of a run and prove it optimal, addresses included.

    Order and residency are solved without addresses: by dynamic programming over states; where there are too many,
    by the bounds of :mod:`cosma.bounds`, and failing those by the joint program. Their optimum bounds every plan.
    Addresses are then packed; conflicts are learnt and the rest solved again until a plan meets the bound.
    Deterministic unless a clock or an interrupt ends it. Where operators had a mode chosen for them, the bound holds
    in these modes only, and the run is not told of it.
    """
    assert state.best is not None, "some plan is to be improved"
    run = _Exact(state)
    known = state.best.decisions
    if state.problem.places is None:
        state.offer(known, "exact")
    if not run.done:
        run.solve(known)


@dataclass(slots=True)
class _Exact:
    state: CompileRun
    problem: Problem = field(init=False)
    profile: Profile = field(init=False)
    #: No plan in the modes at hand moves less.
    bound: int = field(init=False)
    effort: float = field(init=False)
    engine: BoundEngine | None = None

    def __post_init__(self) -> None:
        self.problem = self.state.problem
        self.profile = self.state.profile if self.state.profile is not None else EXACT_PROFILE
        self.bound = self.problem.constant_noncompulsory_bytes
        self.effort = self.state.limits.effort

    @property
    def done(self) -> bool:
        return self.state.noncompulsory_bytes <= self.bound or self.state.stop()

    def supports(self, engine: str, order: Sequence[int] = ()) -> bool:
        return self.state.supports(engine, order=order)

    def offer(self, found: Realised | Decisions) -> None:
        """Offer a plan that moves less; among plans of equal traffic the first stays."""
        decisions = found.decisions if isinstance(found, Realised) else found
        if noncompulsory_bytes(self.problem, decisions) < self.state.noncompulsory_bytes:
            self.state.offer(found, "exact")

    def raise_bound(self, bound: int, method: str) -> None:
        self.bound = max(self.bound, bound)
        if self.state.relaxation is None:
            self.state.raise_bound(bound, method)

    def solve(self, relaxed: Decisions) -> None:
        """Go on from decisions."""
        parameters = self.state.parameters
        if self.supports("best replacement", relaxed.order):
            relaxed, _, _ = optimal_replacement(
                self.problem, relaxed.order, hint=relaxed, profile=self.profile, stop=self.state.stop
            )
            self._pack(relaxed, 0)
        budget = max(500, int(self.effort * parameters.states.states_per_second))
        few = min(budget, parameters.exact.first_states)
        first_share = parameters.exact.first_bound_share
        steps: list[Callable[[Decisions], Decisions]] = [
            lambda known: self._search_states(known, few),
            lambda known: self._bounds(known, first_share * self.effort),
            lambda known: self._search_states(known, budget) if budget > few else known,
            lambda known: self._bounds(known, (1 - first_share) * self.effort),
            self._joint,
        ]
        for step in steps:
            if self.done or noncompulsory_bytes(self.problem, relaxed) <= self.bound:
                break
            relaxed = step(relaxed)
        if not self.done:
            self._pack(relaxed, 30)
            self._other_orders(relaxed)
        if not self.done and self.supports("learnt conflicts"):
            self._joint_with_conflicts()

    def _pack(self, decisions: Decisions, most_rounds: int) -> None:
        """Give decisions addresses, learning conflicts within their order; failing that, with repairs."""
        found = pack_order(
            self.problem,
            decisions.order,
            first=decisions,
            most_rounds=most_rounds,
            work_limit=self.effort,
            profile=self.profile,
            stop=self.state.stop,
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
        found = search_states(self.problem, ceiling_bytes=known, most_states=budget, stop=self.state.stop)
        self.raise_bound(found.bound_bytes, found.method)
        return relaxed if found.cost_bytes is None else self._better(found.order, relaxed)

    def _bounds(self, relaxed: Decisions, work: float) -> Decisions:
        """Bound the traffic by forced liveness, and by a wider search; take the order that it finds."""
        from cosma.bounds import BoundEngine

        if not self.supports("bounds"):
            return relaxed
        if self.engine is None:
            self.engine = BoundEngine(self.problem, parameters=self.state.parameters.bounds)
        self.engine.update_upper(noncompulsory_bytes(self.problem, relaxed))
        found = self.engine.run(work, self.state.stop)
        self.raise_bound(found.value_bytes, found.method)
        order = self.engine.order
        return relaxed if order is None else self._better(order, relaxed)

    def _joint(self, relaxed: Decisions) -> Decisions:
        """The joint program, where it is small enough to be solved."""
        if not self.supports("joint program"):
            return relaxed
        symmetries = symmetries_of(self.problem)
        joint = build_joint(self.problem, ordered=ordered_pairs(self.problem, symmetries))
        warm = joint.values_of(arrange(self.problem, relaxed, symmetries)[0])
        method = f"joint program without addresses, {self.profile.back_end}"
        result = self._solved(joint, method, warm if not joint.model.violations(warm) else None)
        if result.values is None:
            return relaxed
        return self._better(joint.decisions(result.values).order, relaxed)

    def _solved(self, joint: Joint, method: str, warm_start: Ints | None = None) -> SolverResult:
        """Solve a joint program within the effort, and take its bound."""
        result = solve(
            joint.model,
            self.profile,
            warm_start=warm_start,
            work_limit=work_units(self.profile, self.effort),
            time_limit_s=self.state.clock.left_s(),
            stop=self.state.stop,
        )
        if result.bound is not None:
            self.raise_bound(result.bound, method)
        return result

    def _other_orders(self, relaxed: Decisions) -> None:
        """Orders of the same traffic, for the case that addresses do not fit the first."""
        if not self.supports("dynamic programming"):
            return
        tried: set[Sequence[int]] = {relaxed.order}
        parameters = self.state.parameters
        budget = max(500, int(self.effort * parameters.states.states_per_second) // parameters.exact.most_orders)
        for seed in range(1, parameters.exact.most_orders):
            if self.done or noncompulsory_bytes(self.problem, relaxed) > self.bound:
                return
            found = search_states(self.problem, most_states=budget, stop=self.state.stop, seed=seed)
            if found.cost_bytes is None:
                return
            if found.order not in tried:
                tried.add(found.order)
                self._pack(self._better(found.order, relaxed), 10)

    def _joint_with_conflicts(self) -> None:
        """Solve the joint program again and again, each time without the combinations that had no addresses."""
        conflicts: list[JointConflict] = []
        ordered = ordered_pairs(self.problem)
        spent = 0.0
        while not self.done and spent < self.effort:
            joint = build_joint(self.problem, conflicts=conflicts, ordered=ordered)
            result = self._solved(joint, "joint program with learnt address conflicts")
            work = result.work if result.work is not None else 0.1
            spent += max(0.01, work / (work_units(self.profile, 1.0) or 1.0))
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
