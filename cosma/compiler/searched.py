"""Tilings that a search finds for a capacity, as graphs to plan, with plans made in one pass."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from cosma.clock import Clock
from cosma.compiler.fusion import Choice
from cosma.compiler.limits import Progress
from cosma.compiler.one_pass import best_along
from cosma.rewrite.tile import tile

if TYPE_CHECKING:
    from cosma.accelerator import Accelerator
    from cosma.compiler.limits import Limits, ProgressSink
    from cosma.frontend import LoadedModel
    from cosma.rewrite.tiling import Tiling
    from cosma.tiling import Searched

#: Most tilings planned on the graph itself, of those that the search ranks by tables of access, and of a network that
#: is only looked at: until one moves no more than tables say of the next. Each takes 1 to 4 CPU seconds at 4,000 tiles.
TRIALS, LOOK_TRIALS = 3, 2
#: Tiles of a graph from which on the first tiling that fits is taken: each takes 15 CPU seconds at 40,000 tiles.
LARGE = 10_000
#: Share of the effort that each network gets, that with its copies and that without, before the better goes on.
#: Inception at 256 KiB needs 1.90 MB with its copies and 2.58 without, DenseNet-121 15.9 and 9.4 at 192.
LOOK_SHARE = 0.25
#: More than anything moves.
FAR = 1 << 62


@dataclass(slots=True)
class TilingWork:
    """How long tilings are searched for, and what that has taken.

    Attributes
    ----------
    effort, seed
        Nominal seconds to spend; same seed, same result.
    clock
        Ends the search early.
    sink, granted
        What hears of progress, and the effort of the whole compile.
    spent
        Nominal seconds spent.
    """

    effort: float = 0.0
    seed: int = 0
    clock: Clock = field(default_factory=Clock)
    sink: ProgressSink | None = None
    granted: float = 0.0
    spent: float = 0.0

    def report(self, cost_bytes: int, share: float) -> None:
        """Tell of the best tiling so far."""
        if self.sink is not None:
            done = share * self.effort
            self.sink(Progress("tilings", cost_bytes, 0, self.clock.elapsed_s(), done, self.granted))

    def rest(self, limits: Limits) -> Limits:
        """What is left of the limits for planning."""
        left_s = None if limits.time_limit_s is None else max(0.05, limits.time_limit_s - self.clock.elapsed_s())
        return replace(limits, effort=max(0.0, limits.effort - self.spent), time_limit_s=left_s)


def tiled_choice(source: LoadedModel, choice: Choice, tiling: Tiling, name: str = "") -> Choice:
    """Cut the graph of a choice by a tiling."""
    graph = tile(choice.graph, source.sites, tiling).graph
    return replace(choice, name=name or choice.name, graph=graph, untiled=choice.graph)


def searched_tilings(
    source: LoadedModel, untiled: Choice, joined: Choice | None, accelerator: Accelerator, search: TilingWork
) -> tuple[Choice, list[Choice], tuple[int, Choice] | None]:
    """Tilings that a search ranks best, and the best of them by a plan in one pass.

    Where copies can be left out, both networks are searched with a quarter of the effort each, and that with the better
    plan goes on from its best tiling with the rest.

    Returns
    -------
    base
        The network with the best plan.
    tiled
        Tilings that were planned.
    best
        The best plan, None where none fits.
    """
    from cosma.tiling import search_tilings, tiling_of

    tried: list[tuple[int, Choice, Searched, tuple[int, Choice] | None]] = []
    tiled: list[Choice] = []

    def look(base: Choice, begin: float, end: float, before: Searched | None = None) -> None:
        found = search_tilings(
            base.graph, source.sites, accelerator, effort=search.effort * (end - begin), seed=search.seed,
            stop=search.clock.stop, before=before,
            report=lambda cost, share: search.report(cost, begin + share * (end - begin)),
        )  # fmt: skip
        best: tuple[int, Choice] | None = None
        trials = TRIALS if end == 1.0 else LOOK_TRIALS
        for segments, cost_bytes in islice(zip(found.ranked, found.cost_bytes, strict=True), trials):
            large = bool(tiled) and len(tiled[-1].graph.operators) > LARGE
            if best is not None and (large or search.clock.stop() or best[0] <= cost_bytes):
                continue
            made = tiled_choice(source, base, tiling_of(found.graph, segments), "tiled")
            if made.graph.joins and accelerator.zero_copy is None and not made.graph.is_tiled:
                continue  # whole operators copy, unless zero-copy is asked for
            tiled.append(made)
            planned = best_along(tiled[-1:], accelerator)
            best = planned if best is None or (planned is not None and planned[0] < best[0]) else best
        tried.append((FAR if best is None else best[0], base, found, best))

    if joined is None:
        look(untiled, 0.0, 1.0)
    else:
        look(joined, 0.0, LOOK_SHARE)
        if tried[0][0] > 0 and not (tried[0][3] is not None and search.clock.stop()):
            look(untiled, LOOK_SHARE, 2 * LOOK_SHARE)
        least, base, found, _ = min(tried, key=lambda one: one[0])
        if 0 < least < FAR and not search.clock.stop():
            look(base, 2 * LOOK_SHARE, 1.0, found)
    _, base, _, best = min(tried, key=lambda one: one[0])
    search.spent = search.effort if tiled else 0.0
    return base, tiled, best
