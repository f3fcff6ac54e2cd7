"""What routing by load makes of copies: visits as a fluid that copies share so that loads are as even as they can be.

Each expert's visits may be divided among its copies in any way. Raising the share of the emptier device of an expert,
expert after expert, until nothing changes minimises the sum of squared loads, and with it the largest load. It is what
``least-loaded`` routing tends to over a large batch; small batches are less even.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.placement.copies import crossing_parts
from cosma.placement.metrics import peak_ratios

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.placement.affinity import Affinity
    from cosma.placement.topology import Topology

#: Rounds over all experts; loads change by less than 1e-9 of the mean long before.
_ROUNDS = 200


def fluid_shares(load: NDArray[np.float64], held: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return ``[experts, devices]`` shares of each expert's visits, for the most even loads of one layer."""
    shares: NDArray[np.float64] = held / held.sum(axis=1, keepdims=True)
    total = load @ shares
    several = [int(expert) for expert in np.flatnonzero((held.sum(axis=1) > 1) & (load > 0))]
    for _ in range(_ROUNDS):
        before = total.copy()
        for expert in several:
            devices = np.flatnonzero(held[expert])
            other = total[devices] - load[expert] * shares[expert, devices]
            poured = _poured(other, float(load[expert]))
            total[devices] = other + poured
            shares[expert, devices] = poured / load[expert]
        if float(np.abs(total - before).max()) <= 1e-10 * max(1.0, float(total.mean())):
            break
    return shares


def _poured(level: NDArray[np.float64], amount: float) -> NDArray[np.float64]:
    """Pour an amount over columns so that the lowest rise first, to one level."""
    ordered = np.sort(level)
    # With the m lowest columns filled to one height, that height is this.
    heights = (amount + np.cumsum(ordered)) / np.arange(1, len(level) + 1)
    number = int(np.flatnonzero(heights >= ordered)[-1])
    poured: NDArray[np.float64] = np.maximum(heights[number] - level, 0.0)
    return poured


def fluid_summary(affinity: Affinity, topology: Topology, held: NDArray[np.bool_]) -> dict[str, Any]:
    """Return estimated metrics of ``least-loaded`` routing."""
    loads = affinity.load.astype(np.float64)
    shares = np.stack([fluid_shares(loads[layer], held[layer]) for layer in range(len(held))])
    part = crossing_parts(affinity, topology, shares)
    ratio = peak_ratios(np.einsum("le,led->ld", loads, shares))
    return {
        "mean_cost": float(np.dot(part, topology.crossing_costs)),
        "crossing_shares": part.tolist(),
        "imbalance": float(ratio.mean()),
        "worst_imbalance": float(ratio.max()),
        "estimated": "visits as a fluid; score the file on a trace for exact figures",
    }
