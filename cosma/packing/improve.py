"""Repair of a packing that is a little too high: small stretches of time are packed again, exactly.

First fit places most buffers of a long problem and leaves a few sticking out. Around one of these, what is alive
nearby is taken out and packed again by the complete search, with everything else where it is; where that fails the
stretch grows. Far cheaper than a complete search of the whole, whose cost grows with its length.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cosma.packing.exact import UNITS_PER_BUFFER, decide

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.packing.buffers import Buffer, Forbidden

WIDENINGS = 4
"""How often a stretch grows before its buffer is given up; each time it is twice as long."""

STRETCH_SHARE = 100
"""How many searches the work is for, unless the caller says."""


@dataclass(frozen=True, slots=True)
class Improvement:
    """Addresses by buffer index, the buffers that found none, search nodes made and units spent."""

    offsets: dict[int, int]
    stuck: tuple[int, ...]
    nodes: int
    units: int


def improve(
    buffers: Sequence[Buffer],
    offsets: Sequence[int],
    capacity: int,
    *,
    alignment: int = 1,
    forbidden: Sequence[Forbidden] = (),
    work_limit: int,
    searches: int = STRETCH_SHARE,
    deadline: float | None = None,
    seed: int = 0,
) -> Improvement:
    """Bring the buffers that stick out of a packing below `capacity` by packing stretches around them again.

    Parameters
    ----------
    buffers, offsets
        A packing without overlaps, by index; the buffers are such that `cosma.packing.sections.supports` them.
    capacity
        Height to reach. Fixed buffers lie below it.
    work_limit
        Units of work, as in `cosma.packing.exact.decide`.
    searches
        How many searches the work is for: each may spend the work limit divided by this.

    Deterministic unless `deadline` (a ``time.monotonic`` value) is given.
    """
    lower = np.array([buffer.lower for buffer in buffers])
    upper = np.array([buffer.upper for buffer in buffers])
    movable = np.array([buffer.offset is None for buffer in buffers])
    place = {k: int(offset) for k, offset in enumerate(offsets) if int(offset) + buffers[k].size <= capacity}
    placed = np.array([k in place for k in range(len(buffers))])
    out = [k for k in range(len(buffers)) if k not in place]
    out.sort(key=lambda k: (-buffers[k].size * (buffers[k].upper - buffers[k].lower), k))
    nodes = units = 0
    for stuck in out:
        reach = 0
        for _ in range(WIDENINGS):
            if units >= work_limit or (deadline is not None and time.monotonic() >= deadline):
                break
            free = (lower < upper[stuck] + reach) & (upper > lower[stuck] - reach) & placed & movable
            free[stuck] = True
            walls = (lower < upper[free].max()) & (upper > lower[free].min()) & placed & ~free
            names = np.flatnonzero(free).tolist()
            at = buffers[stuck].offset
            if at is not None and any(
                place[k] < at + buffers[stuck].size and at < place[k] + buffers[k].size
                for k in np.flatnonzero(walls & (lower < upper[stuck]) & (upper > lower[stuck])).tolist()
            ):
                break  # it can lie at its own address alone, and what lies there cannot move
            fixed = [replace(buffers[k], offset=place[k], alignment=1) for k in np.flatnonzero(walls).tolist()]
            answer = decide(
                [*(buffers[k] for k in names), *fixed],
                capacity,
                alignment=alignment,
                forbidden=forbidden,
                work_limit=max(1, work_limit // searches) + UNITS_PER_BUFFER * (len(names) + len(fixed)),
                deadline=deadline,
                seed=seed,
            )
            nodes += answer.work["nodes"]
            units += answer.work["units"]
            if answer.offsets is not None:
                place.update({k: answer.offsets.get(i, at or 0) for i, k in enumerate(names)})
                placed[stuck] = True
                break
            if len(names) == int(placed.sum()) + 1:
                break
            reach = 2 * reach + max(1, int(upper[stuck] - lower[stuck]) // 2)
    return Improvement(place, tuple(k for k in out if k not in place), nodes, units)
