"""Counts of a placement from aggregated transitions: what the optimisers report (the checker recounts from tokens)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.placement.affinity import Affinity
    from cosma.placement.topology import Topology

#: What a limit on imbalance counts for: each layer by itself, or their mean.
SCOPES = ("each", "mean")


def mean_cost(affinity: Affinity, topology: Topology, devices: NDArray[np.integer]) -> float:
    """Return the mean cost of a transition."""
    shares = crossing_shares(affinity, topology, devices)
    return float(np.dot(shares, topology.crossing_costs))


def crossing_shares(affinity: Affinity, topology: Topology, devices: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the share of transitions that cross each level (outermost difference), outermost level first."""
    levels = topology.crossing_levels()
    counts = np.zeros(topology.levels + 1)
    for layer in range(affinity.layers - 1):
        crossed = levels[np.ix_(devices[layer], devices[layer + 1])]
        counts += np.bincount(crossed.ravel(), affinity.transitions[layer].ravel(), minlength=topology.levels + 1)
    shares: NDArray[np.float64] = counts[:-1] / max(1, affinity.steps)
    return shares


def device_load(affinity: Affinity, topology: Topology, devices: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the visits each device serves, ``[layers, devices]``."""
    rows = [
        np.bincount(devices[layer], affinity.load[layer], minlength=topology.devices)
        for layer in range(affinity.layers)
    ]
    return np.stack(rows).astype(np.int64)


def imbalance(affinity: Affinity, topology: Topology, devices: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return, per layer, the fullest device's visits over the mean device's."""
    return peak_ratios(device_load(affinity, topology, devices).astype(np.float64))


def peak_ratios(load: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return, per layer, the largest of ``[layers, devices]`` over the mean; 1 for a layer nobody visits.

    Whole numbers are rounded once, so that comparing with a limit is exact.
    """
    total = load.sum(axis=1)
    ratio: NDArray[np.float64] = load.max(axis=1) * load.shape[1] / np.where(total > 0, total, 1.0)
    return np.where(total > 0, ratio, 1.0)


def keeps(ratio: NDArray[np.float64], limit: float | NDArray[np.float64], scope: str) -> bool:
    """Say whether peak ratios of layers keep a limit on ``each`` of them, exactly, or on their ``mean``.

    A mean of ratios is rounded several times, which 1e-15 of it makes up for.
    """
    if scope == "each":
        return bool((ratio <= limit).all())
    return float(ratio.mean()) <= float(np.mean(limit)) * (1.0 + 1e-15)


def summary(affinity: Affinity, topology: Topology, devices: NDArray[np.integer]) -> dict[str, Any]:
    """Return the metrics a placement file carries."""
    ratio = imbalance(affinity, topology, devices)
    shares = crossing_shares(affinity, topology, devices)
    return {
        "mean_cost": float(np.dot(shares, topology.crossing_costs)),
        "crossing_shares": shares.tolist(),
        "imbalance": float(ratio.mean()),
        "worst_imbalance": float(ratio.max()),
        "transitions": affinity.steps,
    }
