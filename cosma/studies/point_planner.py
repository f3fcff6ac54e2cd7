"""Plans at one capacity after another, each from what is known at others."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import cosma.door as door
from cosma.accelerator import Fusion, Operands
from cosma.compiler import Limits, run_compile
from cosma.compiler.joins import without_some_copies
from cosma.compiler.strategies import WITH_STARTS
from cosma.errors import InfeasibleError
from cosma.plan.instructions import Allocate, Execute, Load
from cosma.problem import build_problem
from cosma.rewrite.fuse import smallest_capacity, without_links
from cosma.studies.points import CurvePoint, Tiles, Whole, suffices
from cosma.units import align_up

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from cosma.accelerator import Accelerator
    from cosma.frontend import LoadedModel
    from cosma.plan import Plan
    from cosma.rewrite.tiling import Tiling


@dataclass
class Planner:
    """Points planned so far, and how they are planned."""

    #: The network, element type and modes applied.
    source: LoadedModel
    #: Everything but its capacity is kept.
    accelerator: Accelerator
    #: As for :func:`cosma.compile`.
    strategy: str
    effort: float
    seed: int
    dtype: str | None
    #: How operators are cut; None for whole operators.
    tiling: Tiling | Path | str | None
    #: Asked whether to stop, and whether the first point is then planned with the best plan so far.
    interrupted: Callable[[], bool] = bool
    keeps: bool = False
    #: Points by capacity, less what is reserved.
    known: dict[int, CurvePoint] = field(default_factory=dict)
    #: Plan of each point; with a tiling, also the plan of whole operators where there is one.
    plans: dict[int, Plan] = field(default_factory=dict)
    whole: dict[int, Plan] = field(default_factory=dict)

    @cached_property
    def smallest_whole(self) -> int:
        """Smallest capacity at which whole operators fit."""
        return smallest_capacity(self.source.graph, self.accelerator)

    @cached_property
    def least_bytes(self) -> int:
        """Non-compulsory bytes at any capacity: streamed weights that several operators read."""
        from cosma.compiler.fusion import fusion_choices

        ample = self.accelerator.replace(scratchpad=door.UNLIMITED)
        choices = fusion_choices(self.source.graph, ample)
        return min(build_problem(choice.graph, ample).constant_noncompulsory_bytes for choice in choices)

    def at_its_least(self, point: CurvePoint) -> bool:
        """Whether more capacity cannot save anything, neither of whole operators nor of tiles."""
        of_whole = None if point.whole is None else point.whole.noncompulsory_bytes
        return point.noncompulsory_bytes <= self.least_bytes and of_whole in (None, 0, self.least_bytes)

    def plan(self, capacity: int) -> None:
        """Plan at one capacity; where nothing fits, no point is known of it."""
        if self.tiling is None:
            plan = self._compile(capacity, None, self._neighbours(self.plans, capacity))
            if plan is not None:
                bound = self._whole_bound(plan, capacity)
                size = capacity + self.accelerator.reserved
                self._keep(capacity, plan, CurvePoint(size, plan.traffic.noncompulsory, bound))
            return
        whole = self._compile(capacity, None, self._neighbours(self.whole, capacity))
        smaller = _best_below(self.plans, capacity)
        starts = [plan for plan in (smaller, whole if self.tiling == "auto" else None) if plan is not None]
        plan = self._compile(capacity, self.tiling, starts)
        if plan is None:
            return
        bound = self._any_bound(plan, capacity)  # not clipped: one above a plan is a defect that must show
        of_whole = Whole(None, bound)
        if whole is not None:
            self.whole[capacity] = whole
            achieved = whole.traffic.noncompulsory
            of_whole = Whole(achieved, max(bound, self._whole_bound(whole, capacity)))
        size = capacity + self.accelerator.reserved
        point = CurvePoint(size, plan.traffic.noncompulsory, bound, whole=of_whole, tiles=self._tiles(plan))
        self._keep(capacity, plan, point)

    def settle(self) -> None:
        """Where the plan of another point fits and is better than the one found, it is the plan there."""
        if self.tiling is None:
            return
        wholes = [(plan.traffic.noncompulsory, _room(plan), plan) for plan in self.whole.values()]
        rooms = [(plan.traffic.noncompulsory, _room(plan), plan) for plan in self.plans.values()]
        rooms += wholes if self.tiling == "auto" else []
        for capacity in sorted(self.known):
            point = self.known[capacity]
            fitting = [traffic for traffic, room, _ in wholes if room <= capacity]
            if point.whole is not None and fitting:
                self.known[capacity] = point = replace(
                    point, whole=replace(point.whole, noncompulsory_bytes=min(fitting))
                )
            best = min((one for one in rooms if one[1] <= capacity), key=lambda one: one[:2])[-1]
            if self.plans[capacity].traffic.noncompulsory <= best.traffic.noncompulsory:
                continue
            tiles = replace(self._tiles(best), bound_bytes=self._tile_bound(best, capacity))
            self._keep(capacity, best, replace(point, noncompulsory_bytes=best.traffic.noncompulsory, tiles=tiles))

    def once_whole(self, points: Sequence[CurvePoint]) -> int | None:
        """Least capacity known at which whole operators move nothing twice."""
        if self.tiling is None:
            return min((suffices(p) for p in points if p.noncompulsory_bytes == 0), default=None)
        found = [_room(plan) for plan in self.whole.values() if plan.traffic.noncompulsory == 0]
        return min(found) + self.accelerator.reserved if found else None

    def room(self, capacity: int) -> int:
        """Least capacity for which the plan known at this one is a plan too."""
        return _room(self.plans[capacity])

    # -- plans --------------------------------------------------------------------------------------------

    def _keep(self, capacity: int, plan: Plan, point: CurvePoint) -> None:
        # The plan first: an interrupt between the two leaves no point without a plan.
        self.plans[capacity] = plan
        self.known[capacity] = replace(point, suffices_bytes=_room(plan) + self.accelerator.reserved)
        if self.interrupted():
            raise KeyboardInterrupt

    def _compile(self, capacity: int, tiling: Tiling | Path | str | None, starts: Sequence[Plan]) -> Plan | None:
        accelerator = self.accelerator.replace(scratchpad=capacity + self.accelerator.reserved)
        best = starts[0] if starts else None
        if best is not None and _room(best) <= capacity and (best.traffic.noncompulsory == 0 or self.interrupted()):
            return best  # it is a plan here, and no plan moves less, or there is no time for one
        moded = self.accelerator.operands == Operands.STATIONARY
        if tiling is None and self.tiling is not None and not moded and capacity < self.smallest_whole:
            return None
        try:
            result = run_compile(
                self.source, accelerator, strategy=self.strategy, limits=Limits(effort=self.effort), seed=self.seed,
                starts=starts if self.strategy in WITH_STARTS else (), tiling=tiling, interrupted=self.interrupted,
                on_interrupt="best" if self.keeps and not self.known else "raise",
            )  # fmt: skip
        except InfeasibleError:
            return None
        return result.plan

    def _neighbours(self, plans: Mapping[int, Plan], capacity: int) -> list[Plan]:
        """Plans to start from: the best one for less capacity, as it is, and the one for the next more, as an order."""
        larger = min((c for c in plans if c > capacity), default=None)
        if larger is not None and plans[larger].accelerator.fusion != Fusion.NONE and _room(plans[larger]) > capacity:
            larger = None  # what is fused there may not fit here
        below = _best_below(plans, capacity)
        return [*([] if below is None else [below]), *([] if larger is None else [plans[larger]])]

    # -- bounds -------------------------------------------------------------------------------------------

    @cached_property
    def _may_join(self) -> bool:
        """Whether plans differ in what they copy."""
        return without_some_copies(self.source, self.source.graph, self.accelerator)

    def _whole_bound(self, plan: Plan, capacity: int) -> int:
        from cosma.bounds import lower_bound

        achieved = plan.traffic.noncompulsory
        if self._may_join:
            return self._any_bound(plan, capacity)  # a certificate holds for the copies that its plan makes
        fusing = self.accelerator.fusion != Fusion.NONE
        if self.tiling is not None and self.accelerator.operands == Operands.STATIONARY:
            return 0 if fusing else min(plan.certificate.lower_bound, achieved)
        # Points share bounds and plans, so a bound must hold whatever is fused.
        bound = 0 if fusing else plan.certificate.lower_bound
        if bound < achieved:
            accelerator = self.accelerator.replace(scratchpad=capacity + self.accelerator.reserved)
            graph = self.source.graph
            problem = build_problem(without_links(graph) if fusing else graph, accelerator)
            found = lower_bound(problem, self.effort / 5, seed=self.seed, upper_bound=achieved)
            bound = max(bound, found.value_bytes)
        return min(bound, achieved)

    def _any_bound(self, plan: Plan, capacity: int) -> int:
        """Bytes that no tiling avoids, whatever is fused."""
        from cosma.bounds.tilings import tilings_bound

        if plan.traffic.noncompulsory <= self.least_bytes:
            return min(self.least_bytes, plan.traffic.noncompulsory)
        return max(self.least_bytes, tilings_bound(self.source.graph, self.source.sites, capacity))

    def _tile_bound(self, plan: Plan, capacity: int) -> int:
        from cosma.bounds import lower_bound

        achieved = plan.traffic.noncompulsory
        if achieved == 0:
            return 0
        problem = build_problem(plan.graph, self.accelerator.replace(scratchpad=capacity + self.accelerator.reserved))
        found = lower_bound(problem, self.effort / 5, seed=self.seed, upper_bound=achieved)
        return min(found.value_bytes, achieved)

    def _tiles(self, plan: Plan) -> Tiles:
        from cosma.plan.overheads import transfer_sizes
        from cosma.plan.tiles import untiled_name

        operators = plan.graph.operators
        return Tiles(
            count=len(operators),
            operator_count=len({untiled_name(operator) for operator in operators}),
            transfers=sum(1 for _ in transfer_sizes(plan)),
            bound_bytes=min(plan.certificate.lower_bound, plan.traffic.noncompulsory),
        )


def _best_below(plans: Mapping[int, Plan], capacity: int) -> Plan | None:
    best = min((c for c in plans if c < capacity), key=lambda c: (plans[c].traffic.total, -c), default=None)
    return None if best is None else plans[best]


def _room(plan: Plan) -> int:
    """Bytes of the scratchpad up to the highest address that a plan uses."""
    align, tensors = plan.accelerator.alignment, plan.graph.tensors
    ends = [
        step.address + align_up(tensors[step.tensor].size_bytes, align)
        for step in plan.instructions
        if isinstance(step, Load | Allocate)
    ]
    spaces = {o.name: max((mode.workspace_bytes for mode in o.modes), default=0) for o in plan.graph.operators}
    ends += [
        step.workspace + align_up(spaces[step.operator], align)
        for step in plan.instructions
        if isinstance(step, Execute) and step.workspace is not None
    ]
    return max(ends, default=align)
