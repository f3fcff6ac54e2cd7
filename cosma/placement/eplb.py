"""EPLB, DeepSeek's load balancer for expert parallelism, written anew from its description.

*Balanced packing* puts items, heaviest first, into the lightest pack that has room, every pack holding the same number.
*Replication* gives every further place to the expert with the most load per copy. The **hierarchical** policy packs
groups of experts to nodes, replicates within each node, and packs the copies of a node to its devices. The **global**
policy is the same with one group and one node; it is used where groups do not divide among the nodes.

Its README's example is a test (deepseek-ai/EPLB, ``README.md``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.errors import InputError
from cosma.placement.document import Placement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.placement.affinity import Affinity
    from cosma.placement.topology import Topology


def balance(
    load: NDArray[np.number], places: int, groups: int, nodes: int, devices: int
) -> NDArray[np.int64]:  # fmt: skip
    """Return the expert in every place, ``[layers, places]``, places numbered device by device.

    Raises InputError if numbers do not divide, or places do not suffice.

    Parameters
    ----------
    load
        ``[layers, experts]`` visits.
    places
        Places of all devices together: a multiple of the devices, at least the experts.
    groups
        Groups of consecutive experts that shall stay on one node.
    nodes, devices
        Nodes, and devices of all nodes together.
    """
    experts = load.shape[1]
    if groups < 1 or nodes < 1 or devices < 1 or experts % groups:
        raise InputError(f"EPLB: {experts} experts in {groups} groups; the groups must be equal")
    if groups % nodes:
        groups, nodes = 1, 1
    if devices % nodes or places % devices or places < experts:
        raise InputError(
            f"EPLB: {places} places on {devices} devices in {nodes} nodes for {experts} experts; places must be equal "
            "on all devices, devices on all nodes, and there must be a place for every expert"
        )
    return np.stack([_layer(row.astype(np.float64), places, groups, nodes, devices) for row in np.asarray(load)])


def _layer(load: NDArray[np.float64], places: int, groups: int, nodes: int, devices: int) -> NDArray[np.int64]:
    size = len(load) // groups
    node_of, rank = pack_evenly(load.reshape(groups, size).sum(axis=1), nodes)
    rows = []
    for node in range(nodes):
        inside = np.flatnonzero(node_of == node)
        inside = inside[np.argsort(rank[inside], kind="stable")]
        experts = (inside[:, None] * size + np.arange(size)[None, :]).ravel()
        owner, count = replicated(load[experts], places // nodes)
        device_of, place_of = pack_evenly((load[experts] / count)[owner], devices // nodes)
        room = places // devices
        row = np.empty(places // nodes, dtype=np.int64)
        row[device_of * room + place_of] = experts[owner]
        rows.append(row)
    return np.concatenate(rows)


def pack_evenly(weights: NDArray[np.float64], packs: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pack of every item, and its number in it; packs hold equally many items.

    Where every pack holds one item, item i goes to pack i.
    """
    room = len(weights) // packs
    if room == 1:
        return np.arange(len(weights)), np.zeros(len(weights), dtype=np.int64)
    pack_of, rank = np.zeros((2, len(weights)), dtype=np.int64)
    load, held = np.zeros(packs), np.zeros(packs, dtype=np.int64)
    for item in np.argsort(-weights, kind="stable"):
        pack = int(np.where(held < room, load, np.inf).argmin())
        pack_of[item], rank[item] = pack, held[pack]
        load[pack] += weights[item]
        held[pack] += 1
    return pack_of, rank


def replicated(load: NDArray[np.float64], places: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the expert of every place, the experts in order first and then the copies, and copies per expert."""
    owner = np.arange(places) % len(load)
    count = np.ones(len(load), dtype=np.int64)
    for place in range(len(load), places):
        busiest = int((load / count).argmax())
        owner[place] = busiest
        count[busiest] += 1
    return owner, count


def eplb_placement(
    affinity: Affinity, topology: Topology, replicas_per_device: int = 0, groups: int | None = None
) -> Placement:  # fmt: skip
    """Place by EPLB on equal devices in equal nodes, with as many places as others get.

    An expert that EPLB lists twice on a device is one copy there. ``groups`` of experts stay on a node; by default
    every expert is a group of its own, which leaves the hierarchical policy most freedom. Raises InputError if devices
    or nodes differ.
    """
    rooms = set(topology.slots(affinity.experts).tolist())
    nodes = topology.nodes
    if len(rooms) != 1 or topology.devices % nodes or topology.devices != nodes * topology.devices_per_node:
        raise InputError("EPLB: knows only equal devices in equal nodes")
    places = topology.devices * (rooms.pop() + replicas_per_device)
    table = balance(affinity.load, places, groups or affinity.experts, nodes, topology.devices)
    room = places // topology.devices
    rows = []
    for row in table:
        held: list[list[int]] = [[] for _ in range(affinity.experts)]
        for place, expert in enumerate(row.tolist()):
            if place // room not in held[expert]:
                held[expert].append(place // room)
        rows.append(tuple(tuple(copies) for copies in held))
    return Placement.of_copies(topology, tuple(rows))
