"""Traffic against capacity: the picture with which an architect sizes a scratchpad."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Literal, SupportsIndex

import cosma.door as door
from cosma.accelerator import Fusion, Operands, Weights
from cosma.accelerator.files import as_accelerator
from cosma.compiler.fusion import fusion_choices
from cosma.compiler.request import read_model
from cosma.errors import InfeasibleError, InputError, plain_interrupts
from cosma.heuristics import ORDERS, peak_live_bytes
from cosma.problem import build_problem
from cosma.rewrite import count_as
from cosma.rewrite.fuse import smallest_capacity
from cosma.rewrite.tiling import Tiling
from cosma.studies.point_planner import Planner
from cosma.studies.points import Curve, mark_knees, monotone, suffices
from cosma.units import align_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from cosma.accelerator import Accelerator
    from cosma.accelerator.files import Preset
    from cosma.frontend import LoadedModel
    from cosma.graph import Graph
    from cosma.problem import Problem

#: Upper end over lower end of a range that nobody gave, of whole operators and with tiles; not measured.
WIDEST, WIDEST_TILED = 256, 64
#: How closely the least capacity that moves nothing twice is looked for; not measured.
CLOSE = 1.02


def make_curve(
    model: Graph | LoadedModel | Path | str,
    accelerator: Accelerator | Preset | Path | str,
    *,
    strategy: str = "auto",
    effort: float = 1.0,
    points: SupportsIndex = 16,
    lowest: door.Size | None = None,
    highest: door.Size | None = None,
    seed: SupportsIndex = 0,
    dtype: str | None = None,
    tiling: Tiling | Path | str | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
    interrupted: Callable[[], bool] = bool,
    on_interrupt: Literal["raise", "best"] = "raise",
) -> Curve:
    """Plan a network at many capacities, with tiles and without where a tiling is given.

    Half of the capacities are spread evenly on a logarithmic scale between the ends; each further one halves
    the interval across which the traffic falls most or, with tiles, the one in which the least capacity lies that moves
    nothing twice. A plan is one for every capacity from what it takes on, and a bound for some capacity is a bound for
    every smaller one, so both curves are made monotone. Where the strategy takes plans to start from, each point goes
    on from the plans of its neighbours known so far.

    Parameters
    ----------
    model, accelerator
        As for :func:`cosma.compile`; everything but the accelerator's capacity is kept.
    strategy, effort, seed
        As for :func:`cosma.compile`, spent on every point, and a fifth of the effort again on a lower bound alone.
    points
        How many capacities, both ends included.
    lowest, highest
        Ends of the range, in bytes or as text such as ``"64KiB"``. By default the smallest feasible capacity (not less
        than 1/256 of the upper end, where streaming makes almost any feasible; with tiles what one row of the largest
        operator takes, not less than 1/64), and one at which whole operators spill nothing.
    dtype, tiling
        As for :func:`cosma.compile`.
    progress
        Called with how many points are done, of how many.
    interrupted
        Polled; once it returns true, the curve ends as by a :class:`KeyboardInterrupt`.
    on_interrupt
        What a :class:`KeyboardInterrupt` does: ``raise`` hands it on, ``best`` returns the points finished by then
        (``Curve.partial``). The first one is finished with the best plan so far; before there is a plan, it is raised.

    Raises
    ------
    InputError
        If an argument is wrong, the range is empty, or the accelerator holds ranges or constraints of one size.
    InfeasibleError
        If there is no plan at any capacity of the range.
    """
    accelerator = as_accelerator(accelerator)
    points, seed = door.integer(points, "points", least=2), door.seed(seed)
    lowest = None if lowest is None else door.size(lowest, "lowest")
    highest = None if highest is None else door.size(highest, "highest")
    tiled = tiling is not None and tiling != "none"
    moded = accelerator.operands == Operands.STATIONARY
    if moded and accelerator.fusion != Fusion.NONE and not tiled:
        raise InputError(
            "a curve of whole operators under operands = stationary knows modes of single ones: draw it with fusion = "
            "none, or with a tiling"
        )
    if accelerator.reserved_ranges or accelerator.constraints:
        raise InputError(
            "a curve is over scratchpads of many sizes: it takes a size that is reserved at the top, and no ranges or "
            "constraints, which are for one"
        )
    source = _read(model, dtype)
    ranged = source
    if moded:
        # Fused, an operator needs no more than its parts in turn.
        ranged = _with_modes(source, accelerator)
        source = source if tiled else ranged
    smallest, enough = capacity_range(ranged.graph, accelerator.replace(fusion="none") if moded else accelerator)
    low, high = _ends(source, accelerator, smallest, enough, lowest, highest, tiled=tiled)
    keeps = on_interrupt == "best"
    planner = Planner(
        source, accelerator, strategy, effort, seed, dtype, tiling if tiled else None, interrupted, keeps
    )  # fmt: skip
    sweep = _Sweep(planner, points, progress)
    partial = False
    try:
        with plain_interrupts():
            sweep.run(low, high, open_ended=highest is None)
            planner.settle()
    except KeyboardInterrupt:
        if not keeps or not planner.known:
            raise
        partial = True
    known = planner.known
    if not known:
        raise InfeasibleError(
            f"no plan at any capacity within [{low}, {high}]; the smallest feasible one is {smallest}",
            available_bytes=high,
            smallest_capacity_bytes=smallest,
        )
    reserved = accelerator.reserved
    found = monotone([known[c] for c in sorted(known)])
    return Curve(
        model=source.graph.name,
        accelerator=accelerator.replace(scratchpad=max(known) + reserved),
        compulsory_bytes=source.graph.compulsory_bytes(),
        points=mark_knees(found),
        smallest_bytes=smallest + reserved,
        enough_bytes=enough + reserved,
        tiling=_named(tiling) if tiled else "none",
        once_bytes=min((suffices(p) for p in found if p.noncompulsory_bytes == 0), default=None),
        once_whole_bytes=planner.once_whole(found),
        never_once_bytes=max((p.capacity_bytes for p in found if p.bound_bytes > 0), default=None),
        partial=partial,
    )


def _read(model: Graph | LoadedModel | Path | str, dtype: str | None) -> LoadedModel:
    """The model with the element type counted."""
    source = read_model(model)
    finest = None if source.node_graph is None else count_as(source.node_graph, dtype).graph
    return replace(source, graph=count_as(source.graph, dtype).graph, node_graph=finest)


def _with_modes(source: LoadedModel, accelerator: Accelerator) -> LoadedModel:
    from cosma.access.modes import with_modes

    keep = accelerator.weights == Weights.SCRATCHPAD
    return replace(source, graph=with_modes(source.graph, source.sites, keep_weights=keep))


def _named(tiling: Tiling | Path | str | None) -> str:
    return "given" if isinstance(tiling, Tiling) else Path(str(tiling)).name


def _ends(
    source: LoadedModel, accelerator: Accelerator, smallest: int, enough: int, lowest: int | None, highest: int | None,
    *, tiled: bool,
) -> tuple[int, int]:  # fmt: skip
    align = accelerator.alignment
    high = align_up(enough if highest is None else highest, align)
    least, share = smallest, WIDEST
    if tiled and lowest is None:
        from cosma.tiling.finest import finest_need

        least, share = min(smallest, finest_need(source.graph, source.sites, accelerator)), WIDEST_TILED
    low = align_up(max(least, min(enough, high) // share) if lowest is None else max(1, lowest), align)
    if not low <= high:
        raise InputError(f"the range of capacities [{low}, {high}] is empty; give other ends")
    return low, high


@dataclass(slots=True)
class _Sweep:
    """Which capacities are planned."""

    planner: Planner
    wanted: int
    progress: Callable[[int, int], None]
    tried: set[int] = field(default_factory=set)

    def measure(self, capacity: int) -> None:
        """Plan at one capacity, unless that is done."""
        if capacity in self.planner.known or capacity in self.tried:
            return
        self.tried.add(capacity)
        self.progress(len(self.planner.known), self.wanted)
        self.planner.plan(capacity)

    def run(self, low: int, high: int, *, open_ended: bool) -> None:
        """Spread points between two ends, then halve where the traffic falls most."""
        align, count = self.planner.accelerator.alignment, max(2, self.wanted // 2)
        known = self.planner.known
        for i in range(count):
            self.measure(align_up(round(low * (high / low) ** (i / (count - 1))), align))
        if open_ended:
            self._raise_end(high)
        turn = 0
        while len(known) < self.wanted:
            middle = self._first_without() if self.planner.tiling is not None and turn % 2 == 0 else None
            middle = middle or self._widest()
            turn += 1
            if middle is None:
                break
            before = len(known)
            self.measure(middle)
            if len(known) == before and self.planner.tiling is None:
                break
            if turn > 2 * self.wanted:
                break

    def _first_without(self) -> int | None:
        """Middle of the interval that holds the least capacity that moves nothing twice; None where it is known."""
        known, align = self.planner.known, self.planner.accelerator.alignment
        enough = [self.planner.room(c) for c, point in known.items() if point.noncompulsory_bytes == 0]
        if not enough:
            return None
        upper = min(enough)
        lower = max((c for c in {*known, *self.tried} if c < upper), default=None)
        if lower is None or upper <= lower * CLOSE:
            return None
        middle = align_up(round((lower * upper) ** 0.5), align)
        return middle if lower < middle < upper else None

    def _widest(self) -> int | None:
        """Middle of the interval across which the traffic falls most, wide ones first among equals.

        The traffic of a larger capacity is possible from what its plan takes on, so the interval ends there.
        """
        known, align = self.planner.known, self.planner.accelerator.alignment
        best: tuple[float, int] | None = None
        for a, b in pairwise(sorted(known)):
            end = min(b, self.planner.room(b))
            middle = align_up(round((a * end) ** 0.5), align)
            if not a < middle < end:
                continue
            fall = known[a].noncompulsory_bytes - known[b].noncompulsory_bytes
            weight = max(fall, 0) * log(end / a)
            if best is None or weight > best[0]:
                best = (weight, middle)
        return None if best is None else best[1]

    def _raise_end(self, high: int) -> None:
        """Go on until nothing is spilled: methods that place tensors one by one may need more than what is live."""
        planner = self.planner
        top, known = high, planner.known
        while len(known) < self.wanted and top in known and not planner.at_its_least(known[top]):
            if top >= 4 * high:
                break
            top = align_up(top + top // 5, planner.accelerator.alignment)
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
    ample = accelerator.replace(scratchpad=door.UNLIMITED)
    return [build_problem(choice.graph, ample) for choice in fusion_choices(graph, ample)]
