"""Traffic against capacity: the picture with which an architect sizes a scratchpad."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import log
from typing import TYPE_CHECKING, Literal

from cosma.accelerator import Fusion, Operands
from cosma.compiler import Limits, run_compile
from cosma.compiler.fusion import fusion_choices
from cosma.compiler.strategies import WITH_STARTS
from cosma.errors import InfeasibleError, InputError
from cosma.heuristics import ORDERS, peak_live_bytes
from cosma.problem import build_problem
from cosma.rewrite.fuse import smallest_capacity, without_links
from cosma.units import align_up

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cosma.accelerator import Accelerator
    from cosma.graph import Graph
    from cosma.plan import Plan
    from cosma.problem import Problem


@dataclass(frozen=True, slots=True)
class Point:
    """What is known at one capacity.

    Attributes
    ----------
    capacity_bytes
        Of the scratchpad, reserved bytes included.
    noncompulsory_bytes
        Least traffic beyond the compulsory known to be possible: by a plan for this capacity or a smaller one.
    bound_bytes
        No plan for this capacity moves less: by a bound for this capacity or a larger one.
    knee
        Whether more capacity brings clearly less per byte from here on.
    """

    capacity_bytes: int
    noncompulsory_bytes: int
    bound_bytes: int
    knee: bool = False


@dataclass(frozen=True, slots=True)
class Curve:
    """Traffic against capacity.

    Attributes
    ----------
    model, accelerator
        What for; the accelerator's capacity is the largest looked at.
    compulsory_bytes
        Traffic no plan does without, the same at every capacity.
    points
        By capacity, ascending. Traffic and bound never rise from one to the next.
    smallest_bytes, enough_bytes
        Smallest feasible capacity, and one at which some known order spills nothing.
    partial
        Whether an interrupt ended the work before all points were planned.
    """

    model: str
    accelerator: Accelerator
    compulsory_bytes: int
    points: tuple[Point, ...]
    smallest_bytes: int
    enough_bytes: int
    partial: bool = False


def make_curve(
    graph: Graph,
    accelerator: Accelerator,
    *,
    strategy: str = "auto",
    effort: float = 1.0,
    points: int = 16,
    lowest: int | None = None,
    highest: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, of: None,
    on_interrupt: Literal["raise", "best"] = "raise",
) -> Curve:
    """Plan a network at many capacities.

    Half of the capacities are spread evenly on a logarithmic scale between the ends; each further one halves
    the interval across which the traffic falls most. A plan for some capacity is a plan for every larger one
    and a bound for some capacity is a bound for every smaller one, so both curves are made monotone. Where the
    strategy takes plans to start from, each point goes on from the plans of its neighbours known so far.

    Parameters
    ----------
    graph
        The network, element type already applied.
    accelerator
        Everything but its capacity is kept.
    strategy, effort, seed
        As for :func:`cosma.compile`, spent on every point, and a fifth of the effort again on a lower bound alone.
    points
        How many capacities, both ends included.
    lowest, highest
        Ends of the range in bytes. By default the smallest feasible capacity (not less than 1/256 of the upper
        end, where streaming makes almost any feasible), and one at which the strategy spills nothing.
    progress
        Called with how many points are done, of how many.
    on_interrupt
        What a :class:`KeyboardInterrupt` does: ``raise`` hands it on, ``best`` returns the points finished by then
        (``Curve.partial``). Before there is one, it is raised.

    Raises
    ------
    InputError
        If the range is empty or fewer than two points are asked for.
    """
    if points < 2:
        raise InputError(f"points must be at least 2, not {points}")
    if accelerator.operands == Operands.STATIONARY and accelerator.fusion != Fusion.NONE:
        raise InputError(
            "a curve under operands = stationary knows modes of single operators: draw it with fusion = none"
        )
    smallest, enough = capacity_range(graph, accelerator)
    align, reserved = accelerator.alignment, accelerator.reserved
    high = align_up(enough if highest is None else highest, align)
    low = align_up(max(smallest, min(enough, high) // 256) if lowest is None else lowest, align)
    if not low <= high:
        raise InputError(f"the range of capacities [{low}, {high}] is empty; give other ends")
    sweep = _Sweep(graph, accelerator, strategy, effort, seed, points, progress)
    partial, known = False, sweep.known
    try:
        sweep.run(low, high, open_ended=highest is None)
    except KeyboardInterrupt:
        known = {capacity: point for capacity, point in sweep.known.items() if capacity in sweep.plans}
        if on_interrupt == "raise" or not known:
            raise
        partial = True
    if not known:
        raise InfeasibleError(
            f"no plan at any capacity within [{low}, {high}]; the smallest feasible one is {smallest}",
            available_bytes=high,
            smallest_capacity_bytes=smallest,
        )
    return Curve(
        model=graph.name,
        accelerator=accelerator.replace(scratchpad=max(known) + reserved),
        compulsory_bytes=graph.compulsory_bytes(),
        points=mark_knees(_monotone([known[c] for c in sorted(known)])),
        smallest_bytes=smallest + reserved,
        enough_bytes=enough + reserved,
        partial=partial,
    )


@dataclass(slots=True)
class _Sweep:
    """Points planned so far, and how they are planned."""

    graph: Graph
    accelerator: Accelerator
    strategy: str
    effort: float
    seed: int
    wanted: int
    progress: Callable[[int, int], None]
    known: dict[int, Point] = field(default_factory=dict)
    plans: dict[int, Plan] = field(default_factory=dict)

    def measure(self, capacity: int) -> None:
        """Plan at one capacity, unless that is done."""
        if capacity in self.known:
            return
        self.progress(len(self.known), self.wanted)
        chosen = self.accelerator.replace(scratchpad=capacity + self.accelerator.reserved)
        starts = _nearest(self.plans, capacity) if self.strategy in WITH_STARTS else []
        found = _measure(self.graph, chosen, self.strategy, self.effort, self.seed, starts)
        if found is not None:
            self.known[capacity], self.plans[capacity] = found

    def run(self, low: int, high: int, *, open_ended: bool) -> None:
        """Spread points between two ends, then halve where the traffic falls most."""
        align, count = self.accelerator.alignment, max(2, self.wanted // 2)
        for i in range(count):
            self.measure(align_up(round(low * (high / low) ** (i / (count - 1))), align))
        if open_ended:
            self._raise_end(high)
        while len(self.known) < self.wanted:
            middle = _widest(sorted(self.known), self.known, align)
            if middle is None:
                break
            self.measure(middle)
            if middle not in self.known:
                break

    def _raise_end(self, high: int) -> None:
        """Go on until nothing is spilled: methods that place tensors one by one may need more than what is live."""
        top, least = high, _constant(self.graph, self.accelerator)
        while len(self.known) < self.wanted and top in self.known and self.known[top].noncompulsory_bytes > least:
            if top >= 4 * high:
                break
            top = align_up(top + top // 5, self.accelerator.alignment)
            self.measure(top)


def capacity_range(graph: Graph, accelerator: Accelerator) -> tuple[int, int]:
    """Smallest feasible capacity, and one at which some known order spills nothing; less what is reserved."""
    enough = min(
        peak_live_bytes(problem, ORDERS[name](problem))
        for problem in _ample(graph, accelerator)
        for name in ("given", "depth-first", "memory-greedy")
    )
    smallest = smallest_capacity(graph, accelerator)
    return max(accelerator.alignment, smallest), max(accelerator.alignment, smallest, enough)


def _ample(graph: Graph, accelerator: Accelerator) -> list[Problem]:
    """The network with room for everything, once for each choice of operators to fuse."""
    ample = accelerator.replace(scratchpad=2**62)
    return [build_problem(choice.graph, ample) for choice in fusion_choices(graph, ample)]


def _constant(graph: Graph, accelerator: Accelerator) -> int:
    """Non-compulsory bytes at any capacity: streamed weights that several operators read."""
    return min(problem.constant_noncompulsory_bytes for problem in _ample(graph, accelerator))


def _nearest(plans: dict[int, Plan], capacity: int) -> list[Plan]:
    """Plans to start from: the best one for less capacity, as it is, and the one for the next more, as an order."""
    smaller = min((c for c in plans if c < capacity), key=lambda c: (plans[c].traffic.total, -c), default=None)
    larger = min((c for c in plans if c > capacity), default=None)
    if larger is not None and plans[larger].accelerator.fusion != Fusion.NONE:
        larger = None  # what is fused there may not fit here
    return [plans[c] for c in (smaller, larger) if c is not None]


def _measure(
    graph: Graph, accelerator: Accelerator, strategy: str, effort: float, seed: int, starts: Sequence[Plan]
) -> tuple[Point, Plan] | None:
    from cosma.bounds import lower_bound

    limits = Limits(effort=effort)
    try:
        result = run_compile(graph, accelerator, strategy=strategy, limits=limits, seed=seed, starts=starts)
    except InfeasibleError:
        return None
    achieved = result.plan.traffic.noncompulsory
    fusing = accelerator.fusion != Fusion.NONE
    # Points share bounds and plans, so a bound must hold whatever is fused.
    bound = 0 if fusing else result.plan.certificate.lower_bound
    if bound < achieved:
        problem = build_problem(without_links(graph) if fusing else graph, accelerator)
        bound = max(bound, lower_bound(problem, effort / 5, seed=seed, upper_bound=achieved).value_bytes)
    return Point(accelerator.scratchpad, achieved, min(bound, achieved)), result.plan


def _widest(capacities: Sequence[int], known: dict[int, Point], align: int) -> int | None:
    """Middle of the interval across which the traffic falls most, wide ones first among equals."""
    best: tuple[float, int] | None = None
    for a, b in pairwise(capacities):
        middle = align_up(round((a * b) ** 0.5), align)
        if not a < middle < b:
            continue
        fall = known[a].noncompulsory_bytes - known[b].noncompulsory_bytes
        weight = max(fall, 0) * log(b / a)
        if best is None or weight > best[0]:
            best = (weight, middle)
    return None if best is None else best[1]


def _monotone(points: list[Point]) -> list[Point]:
    found = list(points)
    for i in range(1, len(found)):
        least = min(found[i].noncompulsory_bytes, found[i - 1].noncompulsory_bytes)
        found[i] = replace(found[i], noncompulsory_bytes=least)
    for i in range(len(found) - 2, -1, -1):
        found[i] = replace(found[i], bound_bytes=max(found[i].bound_bytes, found[i + 1].bound_bytes))
    return found


def mark_knees(points: Sequence[Point], *, threshold: float = 0.08) -> tuple[Point, ...]:
    """Mark the capacities worth having: corners of the curve, where a further byte starts to save less.

    The point farthest below the chord between two ends is a knee if it lies more than ``threshold`` of the whole
    height below it; the two halves are then looked at in the same way (Satopaa et al., "Finding a Kneedle in a
    Haystack", 2011, for the criterion; Ramer, Douglas and Peucker for the recursion). Where traffic reaches
    its least is a knee too.
    """
    if not points:
        return ()
    x = [float(p.capacity_bytes) for p in points]
    y = [float(p.noncompulsory_bytes) for p in points]
    height = y[0] - y[-1]
    knees: set[int] = set()
    if height > 0:
        stack = [(0, len(points) - 1)]
        while stack:
            a, b = stack.pop()
            if b - a < 2:
                continue
            sag = [y[a] + (y[b] - y[a]) * (x[i] - x[a]) / (x[b] - x[a]) - y[i] for i in range(a + 1, b)]
            most = max(sag)
            if most > threshold * height:
                at = a + 1 + sag.index(most)
                knees.add(at)
                stack += [(a, at), (at, b)]
        knees.add(next(i for i, value in enumerate(y) if value == y[-1]))
    return tuple(replace(p, knee=i in knees) for i, p in enumerate(points))
