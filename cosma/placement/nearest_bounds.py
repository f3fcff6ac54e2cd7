"""Bounds and optima of the Markov model of ``nearest``, whose cost placements under that routing report.

In the model a visit does not know the next one: what serves an expert's visits passes all of them on alike. So what
expert ``i`` saves at a level before expert ``j`` is its transitions to ``j`` times the share of its visits on groups
that hold ``j``. The shares of ``i`` add up to 1, however many copies it has. Under any routing, every copy counts.

- *modelled degree*: an expert saves no more than its ``h`` largest entries, as many as a group has room for;
- *modelled layer pairs* (``layer_pairs``): shares before, copies behind;
- small problems, exactly (:func:`solve_nearest`): layers are filled one after the other. What has been filled costs
  what it costs, the rest at least what each expert costs from the best of its own copies (*least rest*).
"""

from __future__ import annotations

import heapq
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from cosma.placement.bounds import Bound, layer_pair_bound, of_savings
from cosma.placement.copy_bounds import layer_ways
from cosma.placement.copy_pairs import ROUNDING
from cosma.placement.replication import following, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.placement.affinity import Affinity
    from cosma.placement.topology import Topology

#: Pairs of ways to fill consecutive layers up to which small problems are tried, and layers filled on the way.
_MOST_PAIRS, _MOST_FILLED = 4_000_000, 3_000
#: Devices up to which alike ones are found by trying all their orders.
_MOST_ORDERED = 6


def modelled_transitions(affinity: Affinity) -> NDArray[np.float64]:
    """Return ``[layers - 1, experts, experts]`` transitions of the model, as many in all as were counted."""
    follow, _ = following(affinity)
    counts: NDArray[np.float64] = affinity.load[:-1, :, None] * follow
    return counts * (affinity.steps / max(float(counts.sum()), 1e-300))


def modelled_bounds(affinity: Affinity, topology: Topology, replicas_per_device: int, work: int) -> list[Bound]:
    """Return lower bounds on the modelled mean cost; ``work`` is what layer pairs may cost, 0 for none."""
    counts = modelled_transitions(affinity)
    slots = topology.slots(affinity.experts) + replicas_per_device
    saved = []
    for level in range(topology.levels):
        room = min(affinity.experts, int(np.bincount(topology.groups(level), weights=slots).max()))
        saved.append(float(np.sort(counts, axis=2)[:, :, affinity.experts - room :].sum()) * (1.0 + ROUNDING))
    found = [of_savings(affinity, topology, saved, "modelled degree")]
    pairs = layer_pair_bound(
        affinity, topology, work, replicas_per_device=replicas_per_device, whole=True, modelled=counts
    )
    return found if pairs is None else [*found, Bound(pairs.mean_cost, "modelled layer pairs")]


def solve_nearest(
    affinity: Affinity, topology: Topology, replicas_per_device: int, known: float = np.inf
) -> tuple[Bound, NDArray[np.bool_] | None] | None:
    """Search all ways to fill the layers of a small problem, most promising first.

    Parameters
    ----------
    known
        Modelled mean cost of a placement at hand: only cheaper ones are looked for.

    Returns
    -------
    tuple or None
        A lower bound on the modelled mean cost, and ``[layers, experts, devices]`` copies that meet it; None where
        those at hand do, or the work limit came first. None for both where there are too many ways.
    """
    ways = layer_ways(affinity.experts, topology, replicas_per_device)
    if ways is None or len(ways) ** 2 * (affinity.layers - 1) > _MOST_PAIRS:
        return None
    tree = _Tree(affinity, topology, ways)
    per_step = 1.0 / max(1, affinity.steps)
    open_: list[tuple[float, int, int]] = []
    tree.open(-1, _canonical(topology, ways), open_, known / per_step)
    while open_:
        least, node, rank = heapq.heappop(open_)
        if least * per_step >= known * (1.0 - ROUNDING):
            return Bound(known, _PROVEN), None
        filled = tree.take(node, rank, open_)
        if tree.layer[filled] + 1 == affinity.layers:
            return Bound(least * per_step, _PROVEN), ways[tree.path(filled)]
        if len(tree.layer) > _MOST_FILLED:
            return Bound(least * per_step * (1.0 - ROUNDING), "least rest"), None
        tree.open(filled, None, open_, known / per_step)
    return Bound(known, _PROVEN), None


_PROVEN = "all ways to fill the layers, by least rest"


def _canonical(topology: Topology, ways: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which ways are the first of those that renaming alike devices makes of them."""
    devices, cost = topology.devices, topology.cost_matrix()
    slots = ways.sum(axis=1).max(axis=0)
    code = 1 << np.arange(ways.shape[1] * devices)  # small problems: some twenty bits
    own = ways.reshape(len(ways), -1) @ code
    first = np.ones(len(ways), dtype=bool)
    for order in permutations(range(devices)) if devices <= _MOST_ORDERED else ():
        there = list(order)
        if (cost[np.ix_(there, there)] == cost).all() and (slots[there] == slots).all():
            first &= (ways[:, :, there].reshape(len(ways), -1) @ code) >= own
    return first


class _Tree:
    """Layers filled one after the other: ways to fill the next one by their least cost in all."""

    def __init__(self, affinity: Affinity, topology: Topology, ways: NDArray[np.bool_]) -> None:
        self.reach = np.concatenate([topology.cost_matrix(), np.zeros((1, topology.devices))])
        self.follow, self.fresh = following(affinity)
        self.scale = affinity.steps / max(float((affinity.load[:-1, :, None] * self.follow).sum()), 1e-300)
        self.ways = ways
        sets, number = np.unique(ways.reshape(-1, topology.devices), axis=0, return_inverse=True)
        self.number = number.reshape(ways.shape[:2])
        # [set, origin]: what it takes to the nearest copy of a set of devices.
        self.away = np.where(sets[:, None, :], self.reach[None], np.inf).min(axis=2)
        self.sets = sets
        self.rest = self._rest(affinity)
        # Of each filled layer: its number, the one before, its way, traffic into the next one; then what was opened.
        self.layer: list[int] = []
        self.before: list[int] = []
        self.way: list[int] = []
        self.inflow: list[NDArray[np.float64]] = []
        self.cost: list[float] = []
        self.next: dict[int, tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]] = {}

    def _rest(self, affinity: Affinity) -> NDArray[np.float64]:
        """Return ``[layers, ways]``: the least that all transitions behind a layer cost, given how it is filled."""
        rest = np.zeros((affinity.layers, len(self.ways)))
        experts = np.arange(self.ways.shape[1])
        for layer in reversed(range(affinity.layers - 1)):
            counts = self.scale * affinity.load[layer][:, None] * self.follow[layer]
            rest[layer] = np.inf
            for way, behind in enumerate(rest[layer + 1]):
                onward = counts @ self.away[self.number[way], :-1]
                by_set = np.where(self.sets[None], onward[:, None, :], np.inf).min(axis=2)
                rest[layer] = np.minimum(rest[layer], by_set[experts, self.number].sum(axis=1) + behind)
        return rest

    def open(
        self, node: int, allowed: NDArray[np.bool_] | None, heap: list[tuple[float, int, int]], known: float
    ) -> None:
        """List the ways to fill the layer behind a node, cheapest first, and put the first one on the heap."""
        layer = 0 if node < 0 else self.layer[node] + 1
        inflow = self._inflow(layer, node)
        # What it costs to serve every expert from every set of devices.
        serving = self.scale * (self.away @ inflow).T
        cost = (0.0 if node < 0 else self.cost[node]) + serving[np.arange(len(serving)), self.number].sum(axis=1)
        least = cost + self.rest[layer]
        good = least < known if allowed is None else (least < known) & allowed
        order = np.flatnonzero(good)
        order = order[np.argsort(least[order], kind="stable")]
        self.next[node] = order, least[order], cost[order]
        if len(order):
            heapq.heappush(heap, (float(least[order[0]]), node, 0))

    def take(self, node: int, rank: int, heap: list[tuple[float, int, int]]) -> int:
        """Fill the layer behind a node with the way of that rank, and put the next one on the heap."""
        order, least, cost = self.next[node]
        if rank + 1 < len(order):
            heapq.heappush(heap, (float(least[rank + 1]), node, rank + 1))
        layer = 0 if node < 0 else self.layer[node] + 1
        way = int(order[rank])
        self.layer.append(layer)
        self.before.append(node)
        self.way.append(way)
        self.cost.append(float(cost[rank]))
        if layer + 1 < len(self.fresh):
            _, shares = nearest(self.reach, self.ways[way])
            served = np.einsum("oe,oed->ed", self._inflow(layer, node), shares)
            self.inflow.append(served.T @ self.follow[layer])
        else:
            self.inflow.append(np.empty(0))
        return len(self.layer) - 1

    def _inflow(self, layer: int, node: int) -> NDArray[np.float64]:
        """Return visits to the experts of a layer by where they come from, last those from nowhere."""
        from_devices = self.inflow[node] if node >= 0 else np.zeros((len(self.reach) - 1, self.fresh.shape[1]))
        return np.concatenate([from_devices, self.fresh[layer][None]])

    def path(self, node: int) -> list[int]:
        """Return the ways of all layers up to a node."""
        found = []
        while node >= 0:
            found.append(self.way[node])
            node = self.before[node]
        return found[::-1]
