"""Tilings of a rule: which operators are cut by it, and whose tiles take turns, by quick replays.

One rule for all operators suits none of them where their weights differ: an operator with heavy weights is better left
whole, since each of its tiles would read them again, and one on large maps better cut, its tiles in turns with those
of its neighbours. Both are chosen here. A network is tiled once for each choice of what is cut; parting the operators
into runs then changes nothing but the order, and a trial costs a replay.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

from cosma.accelerator import Operands
from cosma.clock import never
from cosma.compiler.modes import fitting_modes, plan_in_modes
from cosma.plan.tiles import untiled_name
from cosma.problem import build_problem
from cosma.problem.feasibility import fits
from cosma.rewrite.tile import depth_first, tile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cosma.accelerator import Accelerator
    from cosma.frontend import LoadedModel
    from cosma.graph import Graph
    from cosma.rewrite.tiling import Tiling

#: Operators that begin a run of operators whose tiles take turns, but for the first, by number.
Bounds = frozenset[int]

#: Shares of the capacity: operators whose weights take more are left whole. On ResNet-50 at 512 KiB and two rows a
#: share of 0.5 moves 3.3 MB where cutting all operators moves 4.1; on MobileNetV2 at 128 KiB 0.25 moves 0.36 for 0.39.
SHARES = (float("inf"), 0.5, 0.25, 0.125, 0.0625)
#: Shares of the capacity for which an estimate parts the operators, to start from; not measured.
ESTIMATES = (0.8,)
#: Operators replayed while runs are changed, and most changes. On the same networks 200 changes halve what is moved.
MOST_REPLAYED, MOST_CHANGES = 400_000, 1000
#: Nominal seconds for each operator replayed and for each tile made; U-Net, HRNet and ResNet-50 took 4 to 5
#: microseconds and 250 to 310.
REPLAY_S, TILE_S = 5e-6, 300e-6
#: Share of the effort of a compile after which runs are changed no more.
RUNS_SHARE = 0.3
#: Changes of the runs of each choice of what is cut, before one is chosen; not measured.
FEW_CHANGES = 60


class Turns:
    """A network cut in one way, whose tiles may come in many orders."""

    def __init__(self, source: LoadedModel, base: Graph, tiling: Tiling, accelerator: Accelerator) -> None:
        from cosma.evaluation.network import build_network

        self.base, self.tiling, self.accelerator = base, tiling, accelerator
        alone = replace(tiling, segments=tuple((operator.name,) for operator in base.operators))
        self.graph = tile(base, source.sites, alone).graph
        if accelerator.operands == Operands.STATIONARY:
            self.graph = fitting_modes(self.graph, accelerator)
        self.problem = build_problem(self.graph, accelerator)
        self.known: dict[Bounds, int] = {}
        self.owners = [untiled_name(operator) for operator in self.graph.operators]
        self.net = build_network(self.problem, contract=False).network

    @property
    def fit(self) -> bool:
        """Whether every tile fits, in some mode where tiles have modes."""
        return not self.problem.conflict and not self.problem.refused and fits(self.problem)

    def cost(self, bounds: Bounds) -> int:
        """Bytes beyond the compulsory of the tiles in turns, by the replay that search goes by, in the freest modes."""
        import numpy as np

        from cosma.evaluation.evaluate import cost_bytes, new_tape

        if bounds not in self.known:
            tape = new_tape(self.net, np.array(self.order(bounds), dtype=np.int32))
            self.known[bounds] = cost_bytes(tape) + self.problem.constant_noncompulsory_bytes
        return self.known[bounds]

    def plan_bytes(self, bounds: Bounds) -> int | None:
        """Bytes beyond the compulsory of a plan of the tiles in turns; None where none is found at once."""
        return plan_in_modes(self.graph, self.problem, self.accelerator, self.order(bounds))

    def order(self, bounds: Bounds) -> list[int]:
        """Tiles run by run, depth first within each."""
        number = {}
        for i, run in enumerate(runs_of(self.base, bounds)):
            number.update(dict.fromkeys(run, i))
        return depth_first(self.graph.operators, self.owners, [number[name] for name in self.owners])

    def in_turns(self, bounds: Bounds) -> Tiling:
        """The tiling with its operators in runs."""
        return replace(self.tiling, segments=runs_of(self.base, bounds))


def runs_of(graph: Graph, bounds: Iterable[int]) -> tuple[tuple[str, ...], ...]:
    """Names of the operators of each run."""
    names = [operator.name for operator in graph.operators]
    return tuple(tuple(names[a:b]) for a, b in pairwise([0, *sorted(bounds), len(names)]))


@dataclass(slots=True)
class RuledTiling:
    """A search for the operators that a rule cuts and for the runs of those whose tiles take turns.

    Parameters
    ----------
    base
        The network, fused or not, with modes where operators have them.
    tiling
        The rule's cuts of every operator that can be cut.
    most_tiles
        No tiling with more is looked at.
    report
        Hears of a first plan: bytes beyond the compulsory, and a share of the work done.
    """

    source: LoadedModel
    base: Graph
    tiling: Tiling
    accelerator: Accelerator
    seed: int = 0
    most_tiles: int = 3000
    effort: float = 0.0
    stop: Callable[[], bool] = never
    report: Callable[[int, float], None] | None = None
    best: Turns | None = None
    bounds: Bounds = frozenset()
    cost_bytes: int = 1 << 62
    #: Nominal seconds spent.
    spent: float = 0.0

    def run(self) -> None:
        """Find operators to cut, then runs of them."""
        self.look()
        self.improve()

    def look(self) -> None:
        """Find operators to cut, and runs of them by few changes; a plan of what fits first is reported at once."""
        for cut in self._lighter():
            if self._try(cut, [frozenset(), self._alone]):
                break
        if self.best is None or self.stop():
            return
        planned = self.best.plan_bytes(self.bounds)
        if planned is not None and self.report is not None:
            self.report(planned, 0.0)
        starts = [frozenset(), self._alone, *self._estimates()]
        for cut in self._lighter():
            self._try(cut, starts, FEW_CHANGES)

    def improve(self) -> None:
        """Change runs while time is left."""
        if self.best is not None and not self._over():
            self._take(self.best, *self._changed_runs(self.best, self.bounds, MOST_CHANGES))

    @property
    def found(self) -> Tiling | None:
        """The best tiling with its runs; None where none fits."""
        return None if self.best is None else self.best.in_turns(self.bounds)

    @property
    def _alone(self) -> Bounds:
        return frozenset(range(1, len(self.base.operators)))

    def _over(self) -> bool:
        return self.cost_bytes == 0 or (self.best is not None and self.stop())

    def _try(self, tiling: Tiling, starts: Iterable[Bounds], changes: int = 0) -> bool:
        """Tile and replay in the best of some runs, changed a little; whether that is the best so far.

        Of equals the first stays, which cuts more.
        """
        if self._over() or not tiling.operators or self._tiles(tiling) > self.most_tiles:
            return False
        turns = self.best if self.best is not None and self.best.tiling is tiling else None
        if turns is None:
            turns = Turns(self.source, self.base, tiling, self.accelerator)
            self.spent += TILE_S * len(turns.owners)
        if not turns.fit:
            return False
        bounds = min(starts, key=turns.cost)
        return self._take(turns, *self._changed_runs(turns, bounds, changes))

    def _take(self, turns: Turns, bounds: Bounds, cost_bytes: int) -> bool:
        better = cost_bytes < self.cost_bytes
        if better:
            self.best, self.bounds, self.cost_bytes = turns, bounds, cost_bytes
        return better

    def _tiles(self, tiling: Tiling) -> int:
        cuts = tiling.cuts
        return sum(prod(len(axis) + 1 for axis in cuts.get(o.name, ())) for o in self.base.operators)

    def _lighter(self) -> Iterator[Tiling]:
        """The rule's cuts of operators whose weights take at most a share of the capacity, for each share."""
        size = self.base.tensors
        held = {o.name: sum(size[name].size_bytes for name in o.weights) for o in self.base.operators}
        seen: set[frozenset[str]] = set()
        for share in SHARES:
            most = share * self.accelerator.capacity_bytes
            cuts = {name: axes for name, axes in self.tiling.cuts.items() if held[name] <= most}
            if frozenset(cuts) not in seen:
                seen.add(frozenset(cuts))
                yield self.tiling if len(cuts) == len(self.tiling.cuts) else replace(self.tiling, cuts=cuts)

    def _estimates(self) -> list[Bounds]:
        """Runs that an estimate of what is live finds."""
        from cosma.tiling import build_grid, choose_segments

        if self._over():
            return []
        grid = build_grid(self.base, self.source.sites).grid
        room = self.accelerator.capacity_bytes
        found = choose_segments(grid, room, ESTIMATES, weight_shares=(1.0,), stop=self.stop)
        return [frozenset(segment.begin for segment in segments[1:]) for segments in found]

    def _changed_runs(self, turns: Turns, bounds: Bounds, changes: int) -> tuple[Bounds, int]:
        """Join runs, part them and move where they part while no more is moved; the best runs and what they move."""
        rng, count, cost = random.Random(self.seed), len(self.base.operators), turns.cost(bounds)
        known = len(turns.known)
        for _ in range(min(changes, MOST_REPLAYED // len(turns.owners)) if count > 1 else 0):
            spent = self.spent + REPLAY_S * len(turns.owners) * (len(turns.known) - known)
            if cost == 0 or spent > RUNS_SHARE * self.effort or self.stop():
                break
            other = _changed(bounds, count, rng)
            if turns.cost(other) <= cost:
                bounds, cost = other, turns.cost(other)
        self.spent += REPLAY_S * len(turns.owners) * (len(turns.known) - known)
        return bounds, cost


def _changed(bounds: Bounds, count: int, rng: random.Random) -> Bounds:
    """Part or join at one place, move one place by up to three operators, or join all over a few operators."""
    move = rng.random()
    at = rng.randrange(1, count)
    if move < 0.45 or not bounds:
        return bounds ^ {at}
    if move < 0.8:
        old = rng.choice(sorted(bounds))
        new = old + rng.choice((-3, -2, -1, 1, 2, 3))
        return (bounds - {old}) | ({new} if 0 < new < count else set())
    return bounds - set(range(at, at + rng.randrange(2, 8)))
