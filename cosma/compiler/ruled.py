"""Tilings that are given: which operators a rule cuts, and whose tiles take turns, by quick replays.

One rule for all operators suits none of them where their weights differ: an operator with heavy weights is better left
whole, or cut along the channels that they belong to, since each tile of some rows would read all of them again; and one
on large maps is better cut, its tiles in turns with those of its neighbours. All this is chosen here. A network is
tiled once for each choice of what is cut; parting the operators into runs then changes nothing but the order, and a
trial costs a replay.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from math import isinf
from typing import TYPE_CHECKING

from cosma.clock import Clock
from cosma.compiler.turns import Turns
from cosma.tiling.given import rule_tiling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cosma.accelerator import Accelerator
    from cosma.compiler.turns import Bounds
    from cosma.frontend import LoadedModel
    from cosma.graph import Graph
    from cosma.lowering import Realised
    from cosma.rewrite.tiling import Cuts, Tiling

#: Shares of the capacity, and whether operators whose weights take more are cut along channels into tiles whose weights
#: do not, or left whole. On ResNet-50 at 512 KiB and one row a share of 0.5 with whole operators replays at 2.7 MB
#: beyond the compulsory, with channels at 1.9; at 128 KiB and two rows, where whole operators do not fit, 0.75, 0.5 and
#: 0.25 at 24, 29 and 41. On MobileNetV2 at 128 KiB 0.25 moves 0.36 where cutting all into rows moves 0.39.
WAYS = (
    (float("inf"), False), (0.5, True), (0.75, True), (0.25, True), (0.5, False), (0.25, False), (0.125, False),
    (0.0625, False),
)  # fmt: skip
#: Shares of the capacity for which an estimate parts the operators, to start from; not measured.
ESTIMATES = (0.8,)
#: Operators replayed while runs are changed, and most changes. On the same networks 200 changes halve what is moved;
#: more are not measured.
MOST_REPLAYED, MOST_CHANGES = 800_000, 2000
#: Nominal seconds for each operator replayed and for each tile made; U-Net, HRNet and ResNet-50 took 4 to 5
#: microseconds and 250 to 310, where tiles touch five parts.
REPLAY_S, TILE_S = 5e-6, 300e-6
#: The same for each part that a tile touches, where that is more. EfficientNet in 3,198 tiles that touch 35 parts each,
#: rows of maps by columns, took 29 microseconds for each part, ViT in 5,555 tiles as much.
REPLAY_PART_S, PART_S = 0.8e-6, 30e-6
#: Share of the effort of a compile for which runs are changed, once it is chosen what is cut; not measured.
RUNS_SHARE = 0.3
#: Share that goes to a better order of the tiles, less than where tilings are searched for. In rows, at the default
#: effort, ResNet-50 moved 12.0, 5.66 and 0.42 MB at 256, 384 and 1024 KiB with 0.2, and 11.9, 5.68 and 0 with 0.05;
#: MobileNetV2 at 192 KiB moved 5 kB and 0.
GIVEN_TURNS_SHARE = 0.05
#: A choice of what is cut is left where its best start moves so many times what the best choice does; not measured.
HOPELESS = 1.5
#: Changes of the runs of each choice of what is cut, before one is chosen; not measured.
FEW_CHANGES = 60
#: Above so many tiles, choices of what is cut are tried only within a share of the effort; neither is measured.
MANY_TILES, MANY_SHARE = 3000, 0.25
#: Share of the time that making tiles took, left before the clock ends for a plan in one pass. U-Net with one row
#: (3,512 tiles) took 3.3 seconds to make tiles of, and 2.3 for the plan.
PLANNING_TIMES = 0.7


@dataclass(slots=True)
class RuledTiling:
    """A search for the operators that are cut and for the runs of those whose tiles take turns.

    Parameters
    ----------
    base
        The network, fused or not, with modes where operators have them.
    tiling
        The rule's cuts of every operator that can be cut, or those of a user, with an order of tiles or without.
    channels
        Whether operators with heavy weights may be cut along channels instead.
    most_tiles
        No tiling with more is looked at.
    report
        Hears of a first plan: bytes beyond the compulsory, and a share of the work done.
    """

    source: LoadedModel
    base: Graph
    tiling: Tiling
    accelerator: Accelerator
    channels: bool = False
    seed: int = 0
    most_tiles: int = 3000
    effort: float = 0.0
    clock: Clock = field(default_factory=Clock)
    report: Callable[[int, float], None] | None = None
    best: Turns | None = None
    #: Of :data:`WAYS`, the one that the best goes.
    way: tuple[float, bool] = WAYS[0]
    bounds: Bounds = frozenset()
    #: Bytes beyond the compulsory of the best, by a replay without addresses.
    cost_bytes: int = 1 << 62
    #: Nominal seconds spent.
    spent: float = 0.0
    #: Seconds by the clock that making tiles took at most.
    made_s: float = 0.0

    def run(self) -> None:
        """Find operators to cut, then runs of them."""
        self.look()
        self.improve()

    def look(self, ways: Iterable[tuple[float, bool]] = WAYS) -> None:
        """Find operators to cut, and runs of them by few changes; a plan of what fits first is reported at once."""
        choices = self._choices(ways)
        for way, cut in choices:
            if self._try(cut, [frozenset(), self._alone]):
                self.way = way
                break
            if self.clock.stop():
                break
        if self.best is None or self._late():
            return
        if self.report is not None and self.best.one_pass:
            planned = self.best.planned_bytes(self.bounds, self.best.modes(self.bounds))
            if planned is not None:
                self.report(planned, 0.0)
        starts = [frozenset(), self._alone, *self._estimates()]
        self._take(self.best, min(starts, key=self.best.cost))  # at once: a clock may leave no time for changes
        if self._tiles(choices[0][1]) > MANY_TILES:
            choices = choices[1:] + choices[:1]  # changes of so many tiles take what the other choices need to be tried
        for way, cut in choices:
            if self._try(cut, starts, FEW_CHANGES):
                self.way = way

    def improve(self) -> None:
        """Change runs while time is left."""
        if self.best is not None and not self._over():
            most = self.spent + RUNS_SHARE * self.effort
            self._take(self.best, self._changed_runs(self.best, self.bounds, MOST_CHANGES, most))

    @property
    def found(self) -> Tiling | None:
        """The best tiling with its runs; None where none fits."""
        return None if self.best is None else self.best.in_turns(self.bounds)

    def plan(self) -> tuple[Graph, Realised, Graph] | None:
        """What :meth:`Turns.plan` gives for the best; None where no plan is made in one pass."""
        if self.best is None or not self.best.one_pass:
            return None
        work = GIVEN_TURNS_SHARE * self.effort
        self.spent += work
        return self.best.plan(self.bounds, self.best.modes(self.bounds), work, self.seed, self.clock.stop)

    @property
    def _alone(self) -> Bounds:
        return frozenset(range(1, len(self.base.operators)))

    def _over(self) -> bool:
        return self.cost_bytes == 0 or (self.best is not None and self._late())

    def _late(self, ahead_s: float = 0.0) -> bool:
        """Whether the clock leaves a plan of the best no time for anything before it that takes so many seconds."""
        return self.clock.stop(ahead_s + PLANNING_TIMES * self.made_s)

    def _try(self, tiling: Tiling, starts: Iterable[Bounds], changes: int = 0) -> bool:
        """Tile and replay in the best of some runs, changed a little; whether that is the best so far.

        Of equals the first stays, which cuts more.
        """
        tiles = self._tiles(tiling)
        if self._over() or not tiling.operators or tiles > self.most_tiles:
            return False
        if self.best is not None and tiles > MANY_TILES and self.spent > MANY_SHARE * self.effort:
            return False
        turns = self.best if self.best is not None and self.best.tiling is tiling else None
        if turns is None:
            if self.best is not None and self._late(self.made_s):
                return False
            began_s = self.clock.elapsed_s()
            turns = Turns(self.source, self.base, tiling, self.accelerator)
            self.made_s = max(self.made_s, self.clock.elapsed_s() - began_s)
            self.spent += max(TILE_S * len(turns.owners), PART_S * turns.parts)
        if not turns.fit:
            return False
        bounds = min([frozenset()] if turns.tiling.is_ordered else starts, key=turns.cost)
        if turns.cost(bounds) > HOPELESS * self.cost_bytes:
            return False
        return self._take(turns, self._changed_runs(turns, bounds, changes, self.effort))

    def _take(self, turns: Turns, bounds: Bounds) -> bool:
        better = turns.cost(bounds) < self.cost_bytes
        if better:
            self.best, self.bounds, self.cost_bytes = turns, bounds, turns.cost(bounds)
        return better

    def _tiles(self, tiling: Tiling) -> int:
        return tiling.tile_count(operator.name for operator in self.base.operators)

    def _choices(self, ways: Iterable[tuple[float, bool]]) -> list[tuple[tuple[float, bool], Tiling]]:
        """The rule's cuts of operators that are light enough, others cut along channels or whole, once each."""
        size = self.base.tensors
        held = {o.name: sum(size[name].size_bytes for name in o.weights) for o in self.base.operators}
        found: dict[frozenset[tuple[str, tuple[Cuts, ...]]], tuple[tuple[float, bool], Tiling]] = {}
        for share, along_channels in ways:
            most = share * self.accelerator.capacity_bytes
            if isinf(most):
                found[frozenset(self.tiling.cuts.items())] = ((share, along_channels), self.tiling)
                continue
            cuts = {name: axes for name, axes in self.tiling.cuts.items() if held[name] <= most}
            if along_channels:
                if not self.channels:
                    continue
                cuts |= rule_tiling(self.base, self.source.sites, {"weights": max(1, int(most))}).cuts
            key = frozenset(cuts.items())
            found.setdefault(key, ((share, along_channels), replace(self.tiling, cuts=cuts)))
        return list(found.values())

    def _estimates(self) -> list[Bounds]:
        """Runs that an estimate of what is live finds."""
        from cosma.tiling import build_grid, choose_segments

        if self._over() or self.tiling.is_ordered:
            return []
        grid = build_grid(self.base, self.source.sites).grid
        room = self.accelerator.capacity_bytes
        found = choose_segments(grid, room, ESTIMATES, weight_shares=(1.0,), stop=self._late)
        return [frozenset(segment.begin for segment in segments[1:]) for segments in found]

    def _changed_runs(self, turns: Turns, bounds: Bounds, changes: int, most_s: float) -> Bounds:
        """Join runs, part them and move where they part while a replay moves no more; the best runs."""
        rng, count, cost = random.Random(self.seed), len(self.base.operators), turns.cost(bounds)
        if turns.tiling.is_ordered:
            return bounds
        known = len(turns.known)
        replay_s = max(REPLAY_S * len(turns.owners), REPLAY_PART_S * turns.parts)
        for _ in range(min(changes, MOST_REPLAYED // len(turns.owners)) if count > 1 else 0):
            spent = self.spent + replay_s * (len(turns.known) - known)
            if cost == 0 or spent > most_s or self._late():
                break
            other = _changed(bounds, count, rng)
            if turns.cost(other) <= cost:
                bounds, cost = other, turns.cost(other)
        self.spent += replay_s * (len(turns.known) - known)
        return bounds


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
