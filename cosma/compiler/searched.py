"""Tilings that a search finds for a capacity, as graphs to plan, with plans made in one pass."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import cosma.door as door
from cosma.compiler.fusion import Choice
from cosma.compiler.one_pass import best_along
from cosma.compiler.orders import order_like, orders_to_cut
from cosma.rewrite.tile import tile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.accelerator import Accelerator
    from cosma.compiler.limits import TilingWork
    from cosma.frontend import LoadedModel
    from cosma.rewrite.tiling import Tiling
    from cosma.tiling import Searched
    from cosma.tiling.probe import Touches

#: Most tilings planned on the graph itself, of those that the search ranks by tables of access: until one moves no more
#: than tables say of the next. Each takes 1 to 4 CPU seconds at 4,000 tiles.
TRIALS = 3
#: Tiles of a graph from which on the first tiling that fits is taken: each takes 15 CPU seconds at 40,000 tiles.
LARGE = 10_000
#: Share of the effort that each network gets, that with its copies and that without, before the better goes on.
#: Inception at 256 KiB needs 1.90 MB with its copies and 2.58 without, DenseNet-121 15.9 and 9.4 at 192.
LOOK_SHARE = 0.25


def tiled_choice(source: LoadedModel, choice: Choice, tiling: Tiling, name: str = "") -> Choice:
    """Cut the graph of a choice by a tiling."""
    graph = tile(choice.graph, source.sites, tiling).graph
    return replace(choice, name=name or choice.name, graph=graph, untiled=choice.graph)


def searched_tilings(
    source: LoadedModel, untiled: Choice, joined: Choice | None, accelerator: Accelerator, search: TilingWork
) -> tuple[Choice, list[Choice], tuple[int, Choice] | None]:
    """Tilings that a search ranks best, and the best of them by a plan in one pass.

    Where copies can be left out, both networks are searched with a quarter of the effort each, and that with the better
    tiling goes on with the rest. Returns the network with the best plan, the tilings that were planned, and the best
    plan, None where none fits.
    """
    from cosma.tiling import search_tilings

    known: Touches = {}

    def look(
        base: Choice, begin: float, end: float, orders: Sequence[Sequence[int]] = (), before: Searched | None = None
    ) -> Searched:
        return search_tilings(
            base.graph, source.sites, accelerator, effort=search.effort * (end - begin), seed=search.seed,
            stop=search.sooner.stop, before=before, orders=orders, known=known,
            report=lambda cost, share: search.report(cost, begin + share * (end - begin)),
        )  # fmt: skip

    first = untiled if joined is None else joined
    end = 1.0 if joined is None else LOOK_SHARE
    found = [(first, look(first, 0.0, end, orders_to_cut(first.graph, accelerator)))]
    planned = _Planned(source, accelerator, search)
    if joined is not None and least_bytes(found[0][1]) == 0:
        planned.plan(*found[0])
    if joined is not None and planned.least > 0 and not (planned.best is not None and search.clock.stop()):
        order = order_like(untiled.graph, found[0][1].order)
        found.append((untiled, look(untiled, end, 2 * end, [order])))
        found.sort(key=lambda one: least_bytes(one[1]))
        base, before = found[0]
        if before.ranked and least_bytes(before) > 0 and not search.clock.stop():
            found[0] = base, look(base, 2 * end, 1.0, before=before)
    for base, one in found:
        # Tables of access may say less of one network than tiles move.
        if planned.best is None or (planned.least > least_bytes(one) and not search.clock.stop()):
            planned.plan(base, one)
    search.spent = search.effort if planned.tiled else 0.0
    return planned.base or first, planned.tiled, planned.best


def least_bytes(found: Searched) -> int:
    """What the best tiling moves as far as tables of access say."""
    return min(found.cost_bytes, default=door.UNLIMITED)


class _Planned:
    """Tilings planned so far: each, the best plan, and the network that it is of."""

    def __init__(self, source: LoadedModel, accelerator: Accelerator, search: TilingWork) -> None:
        self._source, self._accelerator, self._search = source, accelerator, search
        self._done: list[Searched] = []
        self.tiled: list[Choice] = []
        self.best: tuple[int, Choice] | None = None
        self.base: Choice | None = None

    @property
    def least(self) -> int:
        """Bytes of the best plan."""
        return door.UNLIMITED if self.best is None else self.best[0]

    def plan(self, base: Choice, found: Searched) -> None:
        """Plan the best tilings of a search, until one moves no more than tables say of the next."""
        from cosma.tiling import tiling_of

        if any(found is one for one in self._done):
            return
        self._done.append(found)
        for segments, cost_bytes in islice(zip(found.ranked, found.cost_bytes, strict=True), TRIALS):
            large = bool(self.tiled) and len(self.tiled[-1].graph.operators) > LARGE
            if self.best is not None and (large or self._search.clock.stop() or self.least <= cost_bytes):
                continue
            made = tiled_choice(self._source, base, tiling_of(found.graph, segments), "tiled")
            if made.graph.joins and self._accelerator.zero_copy is None and not made.graph.is_tiled:
                continue  # whole operators copy, unless zero-copy is asked for
            self.tiled.append(made)
            planned = best_along([made], self._accelerator)
            if planned is not None and planned[0] < self.least:
                self.best, self.base = planned, base
