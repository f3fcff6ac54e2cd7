"""Which starting placements a search gets: relaxation and mean field, as the size of the problem allows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cosma.placement import bounds
from cosma.placement.layerwise import polish
from cosma.placement.meanfield import MeanField, grown_starts
from cosma.placement.rounding import relaxed_starts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cosma.placement.instance import Instance
    from cosma.placement.topology import Topology

#: Work of one iteration of the relaxation (matrix size cubed, all matrices) up to which it is worth its time.
_RELAXED_WORK = 70_000_000
#: Shares (layers x places x devices) times sweeps that one growth may take, and its most and fewest sweeps.
_GROWTH_WORK, _MOST_SWEEPS, _FEWEST_SWEEPS = 24_000_000, 100, 12
#: Shares beyond which growth is shortened further, since other steps then cost more, too.
_LARGE = 300_000
#: Shares up to which true distances are tried beside equal ones, and starts are annealed once more.
_SMALL = 100_000
#: Placements annealed once more, and placements handed on.
_REFINED, _KEPT = 6, 8


def starts(instance: Instance, topology: Topology, seed: int, deadline: float | None = None) -> list[NDArray[np.int64]]:
    """Return starting placements ``[layers, places]``, cheapest first; equal seeds give equal placements.

    ``deadline`` (of ``time.monotonic``) only skips what has not begun by then.
    """
    if instance.devices == 1 or instance.experts < 2:
        return []

    def late() -> bool:
        return deadline is not None and time.monotonic() > deadline

    found: list[NDArray[np.int64]] = []
    shape = bounds.two_level_shape(topology, instance.experts)
    if shape is not None:
        cones = 1 if shape.nodes == 1 else 2
        if (instance.layers - 1) * (2 * instance.experts) ** 3 * cones <= _RELAXED_WORK:
            found += relaxed_starts(instance, shape, seed, per_snapshot=4)
    shares = instance.layers * instance.places * instance.devices
    work = _GROWTH_WORK * min(1.0, _LARGE / shares)
    sweeps = max(_FEWEST_SWEEPS, min(_MOST_SWEEPS, int(work) // shares))
    if not late():
        found += grown_starts(instance, seed, True, sweeps, seeds=2 if sweeps == _MOST_SWEEPS else 1)
    if shares <= _SMALL:
        if instance.tree.step.size > 2 and not late():
            found += grown_starts(instance, seed + 1, False, sweeps)
        found.sort(key=instance.crossing)
        for number, home in enumerate(found[:_REFINED]):
            if not late():
                field = MeanField(instance, instance.dense, instance.cost, seed + number)
                field.lean(home)
                field.cool(0.5, 0.01, 250)
                found.append(polish(instance, field.homes()))
    found.sort(key=instance.crossing)
    return found[:_KEPT]
