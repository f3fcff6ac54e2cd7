"""Heuristics for many buffers: first fit in orders by size, life and load, tuned by trial; memory near linear.

Three things make an order good: large buffers first, buffers of the fullest steps first, and buffers of about the
same kind one after the other in time, because those fill each other's places without loss. A `Blend` says how much each
counts. Blends are tried, then varied around the best; in between, buffers that stick out of the wanted height are
moved to the front of the best order.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.packing.occupancy import Occupancy, load_of, sweep_fit

if TYPE_CHECKING:

    from cosma.arrays import Bools, Ints
    from cosma.packing.arrays import Instance

CHUNK = 10_000
"""Buffers put down between two looks at the clock: at most half a second where a thousand are alive at a time."""

STEP_LIMIT = 600_000_000
"""Ranges looked at, over all orders: 10 to 15 seconds."""

STEPS_PER_BUFFER = 64
"""Ranges that could be looked at in the time it takes to find where a buffer begins: it counts as so many."""

STEPS_PER_UNIT = 1000
"""Ranges looked at in one unit of work."""

LEAST_ORDERS = 2
"""Orders that are tried at any size."""

MOST_ORDERS = 400
"""Orders that are tried at most: the last hundreds hardly ever gain a thousandth."""

POOL = 6
"""Packings kept to vary."""


@dataclass(frozen=True, slots=True)
class Blend:
    """An order: descending classes of ``size * life ** life * exp(load * fullness)``, then by start.

    Parameters
    ----------
    life
        Exponent of the life in sections, against one of the size.
    load
        Weight of the load of the fullest section of the life, as a share of the fullest of all.
    base
        Buffers whose values differ by less than this factor are of one class, put down in the order of their starts;
        no classes at 1, where equal ones keep the order given.
    """

    life: float
    load: float
    base: float


BLENDS = (
    Blend(0.25, 5.0, 1.2),
    Blend(0.0, 5.0, 1.0),
    Blend(0.0, 1e9, 1.0),
    Blend(0.0, 0.0, 1.0),
    Blend(0.0, 2.0, 1.5),
    Blend(0.25, 0.0, 1.0),
    Blend(0.25, 5.0, 2.0),
    Blend(0.0, 0.0, 4.0),
    Blend(0.0, 100.0, 1.0),
    Blend(0.25, 5.0, 1.05),
    Blend(0.5, 2.0, 1.0),
    Blend(0.0, 0.0, 1.1),
    Blend(0.5, 5.0, 2.0),
)
"""Orders tried first: the best of a grid of lives, loads and bases on two contest instances and on random ones."""


@dataclass(frozen=True, slots=True)
class _Packing:
    """A packing met, and the order it came from."""

    height: int
    blend: Blend
    order: Ints
    offset: Ints


class _Orders:
    """What orders are made of, per buffer."""

    def __init__(self, instance: Instance, occupancy: Occupancy) -> None:
        first = instance.parts[:-1]
        some = np.diff(instance.parts) > 0
        self.begin = np.zeros(instance.size.size, np.int64)
        begin, end = occupancy.part[0], occupancy.part[1]
        life = np.ones(instance.size.size)
        rows = first[some]
        if rows.size:
            self.begin[some] = np.minimum.reduceat(begin, rows)
            life[some] = np.maximum.reduceat(end, rows) - self.begin[some]
        self.size = np.log(np.maximum(instance.size, 1))
        self.life = np.log(np.maximum(life, 1.0))
        load = load_of(instance, occupancy)
        self.peak = int(load.max(initial=0))
        self.full = load / max(1, self.peak)
        self.count = instance.count
        self.fixed = np.flatnonzero(instance.fixed >= 0)
        self.free = np.flatnonzero(instance.fixed < 0)

    def by(self, blend: Blend) -> Ints:
        """Order all buffers; fixed ones come first."""
        value = self.size + blend.life * self.life + blend.load * self.full
        if blend.base > 1:
            value = np.floor(value / np.log(blend.base))
            order = np.lexsort((-self.size, self.begin, -value))
        else:
            order = np.argsort(-value, kind="stable")
        return self._fixed_first(order)

    def promoted(self, order: Ints, out: Bools, generator: np.random.Generator, front: bool) -> Ints:
        """Move buffers towards the front of an order: to its very front, or each to a place before its own."""
        rank = np.empty(order.size)
        rank[order] = np.arange(order.size)
        draw = generator.random(int(out.sum()))
        rank[out] = draw - 1 if front else rank[out] * draw
        return self._fixed_first(np.argsort(rank, kind="stable"))

    def _fixed_first(self, order: Ints) -> Ints:
        if not self.fixed.size:
            return order
        keep = np.ones(order.size, np.bool_)
        keep[self.fixed] = False
        return np.concatenate((self.fixed, order[keep[order]]))


def pack_large(
    instance: Instance, capacity: int, *, rounds: int, seed: int, deadline: float | None = None
) -> tuple[Ints, int, dict[str, int]]:
    """Pack by many orders until one is within `capacity`; with 0 rounds, by the fixed orders alone.

    ``seed`` starts the generator behind the variations. An order that the deadline (a ``time.monotonic`` value)
    interrupts is given up; if it is the first one, a sweep over the starts packs instead. Returns offsets, height and
    work: the lowest packing met, the orders tried and, as ``pairs``, ranges looked at.
    """
    occupancy = Occupancy(instance)
    orders = _Orders(instance, occupancy)
    generator = np.random.default_rng(seed)
    pool: list[_Packing] = []
    best: _Packing | None = None
    tried = 0
    most = MOST_ORDERS if rounds else len(BLENDS)
    while tried < most and (best is None or best.height > capacity):
        spent = occupancy.steps + tried * STEPS_PER_BUFFER * instance.count
        if tried >= LEAST_ORDERS and spent * (tried + 1) > STEP_LIMIT * tried:
            break
        origin = None
        if tried < len(BLENDS):
            blend = BLENDS[tried]
            order = orders.by(blend)
        elif best is None or tried % 3 == 0:
            blend = _vary(pool[tried // 3 % len(pool)].blend, generator)
            order = orders.by(blend)
        else:
            origin = tried % len(pool)
            start = pool[origin]
            blend = start.blend
            out = start.offset + instance.size > max(capacity, orders.peak)
            order = orders.promoted(start.order, out, generator, bool(generator.integers(2)))
        height = _put(occupancy, order, deadline)
        if height is None:
            if best is None:
                offset, height = sweep_fit(instance)
                best = _Packing(height, blend, order, offset)
            break
        tried += 1
        found = _Packing(height, blend, order, occupancy.offset.copy())
        if best is None or found.height < best.height:
            best = found
        if origin is None:
            pool = sorted([*pool, found], key=lambda packing: packing.height)[:POOL]
        elif height <= pool[origin].height:
            pool[origin] = found
        if deadline is not None and time.monotonic() >= deadline:
            break
    assert best is not None
    return best.offset[: instance.count], best.height, {"placements": tried, "pairs": occupancy.steps}


def _put(occupancy: Occupancy, order: Ints, deadline: float | None) -> int | None:
    """Put all buffers down, or return ``None`` when the deadline passes."""
    occupancy.clear()
    height = 0
    for start in range(0, order.size, CHUNK):
        if deadline is not None and time.monotonic() >= deadline:
            return None
        height = max(height, occupancy.put(order[start : start + CHUNK]))
    return height


def _vary(blend: Blend, generator: np.random.Generator) -> Blend:
    """Draw a blend near another one."""
    life, load, base = generator.random(3)
    return Blend(
        max(0.0, blend.life + 0.3 * (life - 0.5)),
        max(0.0, blend.load * 2 ** (2 * load - 1) + (load - 0.5)),
        1.0 + (0.3 if blend.base == 1 else blend.base - 1) * 2 ** (4 * base - 2),
    )
