"""Compiled loop of routing to the nearest copy (numba; imported only by the optimisers)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.compiled import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray


@kernel
def share_among_nearest(
    reach: NDArray[np.float64], held: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances ``[origin, expert]`` to the nearest copy, and shares ``[origin, expert, device]`` of copies as near.

    An expert without a copy is infinitely far, and all devices share it.
    """
    origins, devices = reach.shape
    experts = held.shape[0]
    distance = np.full((origins, experts), np.inf)
    shares = np.zeros((origins, experts, devices))
    for o in range(origins):
        for e in range(experts):
            tied = 0
            for d in range(devices):
                if held[e, d]:
                    if reach[o, d] < distance[o, e]:
                        distance[o, e] = reach[o, d]
                        tied = 0
                    if reach[o, d] == distance[o, e]:
                        tied += 1
            for d in range(devices):
                if tied == 0:
                    shares[o, e, d] = 1.0 / devices
                elif held[e, d] and reach[o, d] == distance[o, e]:
                    shares[o, e, d] = 1.0 / tied
    return distance, shares
