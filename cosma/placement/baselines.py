"""Placements to compare with: experts in order, and balancing by load alone as EPLB does.

EPLB (DeepSeek's expert-parallelism load balancer) looks at load only: it packs experts, heaviest first, into the node
and then the device with the least load that still has room; with room for copies it first gives each further copy to
the expert with the most load per copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.placement.affinity import Affinity
    from cosma.placement.document import Replicas
    from cosma.placement.topology import Topology


def vanilla(affinity: Affinity, topology: Topology) -> NDArray[np.int64]:
    """Place experts in order, in equal runs: what frameworks do by default."""
    slots = topology.slots(affinity.experts)
    row = np.repeat(np.arange(topology.devices), slots)[: affinity.experts]
    return np.tile(row, (affinity.layers, 1))


def eplb(affinity: Affinity, topology: Topology, by_node: bool = True) -> NDArray[np.int64]:
    """Place by load alone, without copies, heaviest expert first onto the lightest device with room.

    ``by_node`` packs nodes first and then devices within each node, EPLB's hierarchical policy with one group per
    expert; without it, its global policy.
    """
    slots = topology.slots(affinity.experts)
    homes = np.zeros((affinity.layers, affinity.experts), dtype=np.int64)
    nodes = topology.groups(topology.levels - 2) if by_node and topology.levels > 1 else np.zeros(topology.devices, int)
    for layer in range(affinity.layers):
        load = affinity.load[layer].astype(np.float64)
        node_room = np.bincount(nodes, weights=slots).astype(np.int64)
        node_of = pack(load, node_room)
        for node in range(len(node_room)):
            devices = np.flatnonzero(nodes == node)
            inside = np.flatnonzero(node_of == node)
            homes[layer, inside] = devices[pack(load[inside], slots[devices])]
    return homes


def eplb_replicated(affinity: Affinity, topology: Topology, replicas_per_device: int) -> Replicas:
    """Give copies to the experts with the most load per copy and pack all copies by load (EPLB's global policy).

    A device is never given two copies of one expert where another device has room; where that cannot be avoided the
    second copy is dropped, since it would change nothing.
    """
    if replicas_per_device < 0:
        raise InputError(f"replicas per device: {replicas_per_device}; give 0 or more")
    slots = topology.slots(affinity.experts) + replicas_per_device
    rows = []
    for layer in range(affinity.layers):
        load = affinity.load[layer].astype(np.float64)
        copies = np.ones(affinity.experts, dtype=np.int64)
        for _ in range(int(slots.sum()) - affinity.experts):
            per_copy = np.where(copies < topology.devices, load / copies, -1.0)
            copies[int(per_copy.argmax())] += 1
        who = np.repeat(np.arange(affinity.experts), copies)
        where = pack((load / copies)[who], slots)
        held: list[list[int]] = [[] for _ in range(affinity.experts)]
        for expert, device in zip(who.tolist(), where.tolist(), strict=True):
            if device not in held[expert]:
                held[expert].append(device)
        rows.append(tuple(tuple(devices) for devices in held))
    return tuple(rows)


def pack(weights: NDArray[np.float64], room: NDArray[np.int64]) -> NDArray[np.int64]:
    """Put items, heaviest first, into the lightest bin with room; ties go to the smaller number."""
    where = np.zeros(len(weights), dtype=np.int64)
    load = np.zeros(len(room))
    left = room.astype(np.int64).copy()
    for item in np.argsort(-weights, kind="stable"):
        target = int(np.where(left > 0, load, np.inf).argmin())
        where[item] = target
        load[target] += weights[item]
        left[target] -= 1
    return where
