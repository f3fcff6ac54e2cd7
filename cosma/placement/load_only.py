"""Placement by load alone, for tables of counts that know nothing of which expert follows which.

Experts are packed heaviest first, then pairs are exchanged between the fullest device and others while that lowers the
fullest of both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.placement.baselines import pack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.placement.affinity import Affinity
    from cosma.placement.topology import Topology


def even_homes(affinity: Affinity, topology: Topology) -> NDArray[np.int64]:
    """Return homes ``[layers, experts]`` of little imbalance."""
    slots = topology.slots(affinity.experts)
    homes = np.zeros((affinity.layers, affinity.experts), dtype=np.int64)
    for layer in range(affinity.layers):
        load = affinity.load[layer].astype(np.float64)
        homes[layer] = _exchanged(load, pack(load, slots), topology.devices)
    return homes


def _exchanged(load: NDArray[np.float64], home: NDArray[np.int64], devices: int) -> NDArray[np.int64]:
    total = np.bincount(home, load, minlength=devices)
    for _ in range(4 * len(load)):
        full = int(total.argmax())
        inside, outside = np.flatnonzero(home == full), np.flatnonzero(home != full)
        if not len(inside) or not len(outside):
            break
        shift = load[inside][:, None] - load[outside][None, :]
        then = np.maximum(total[full] - shift, total[home[outside]][None, :] + shift)
        best = int(then.argmin())
        if float(then.flat[best]) >= total[full] - 1e-9:
            break
        one, other = inside[best // len(outside)], outside[best % len(outside)]
        moved = load[one] - load[other]
        target = int(home[other])
        total[full] -= moved
        total[target] += moved
        home[one], home[other] = target, full
    return home


def least_imbalance(affinity: Affinity, topology: Topology, replicas_per_device: int = 0) -> NDArray[np.float64]:
    """Return, per layer, a bound below which no placement can bring the fullest device's load over the mean's.

    The fullest device holds a copy of some expert. With all places given out, the largest load of one copy is smallest
    if every further copy goes to the expert with the most load per copy. Whatever the routing, an expert's visits
    spread over as many devices as it has copies.
    """
    places = int(topology.slots(affinity.experts).sum()) + replicas_per_device * topology.devices
    found = np.ones(affinity.layers)
    for layer in range(affinity.layers):
        load = affinity.load[layer].astype(np.float64)
        if load.sum() <= 0:
            continue
        copies = np.ones(affinity.experts)
        for _ in range(places - affinity.experts):
            share = np.where(copies < topology.devices, load / copies, -1.0)
            # An expert that is on every device already keeps the share it has.
            if float((load / copies).max()) > float(share.max()):
                break
            copies[int(share.argmax())] += 1
        found[layer] = max(1.0, float((load / copies).max()) * topology.devices / load.sum())
    return found
