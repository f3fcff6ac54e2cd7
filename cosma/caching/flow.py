"""Flows of least cost through time, path by path (numba; imported only by the optimisers)."""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosma.compiled import helper, kernel

Int64s = NDArray[np.int64]

#: Larger than any cost of a path.
_FAR = np.int64(1) << 60


@helper
def _leaving(nodes: int, tails: Int64s, heads: Int64s) -> Any:
    """Return the arcs that leave each node, each with its reverse (CSR): arc a forth is 2 a, back is 2 a + 1."""
    first = np.zeros(nodes + 1, dtype=np.int64)
    for a in range(len(tails)):
        first[tails[a] + 1] += 1
        first[heads[a] + 1] += 1
    for v in range(nodes):
        first[v + 1] += first[v]
    fill = first[:-1].copy()
    leaving = np.empty(2 * len(tails), dtype=np.int64)
    for a in range(len(tails)):
        leaving[fill[tails[a]]] = 2 * a
        fill[tails[a]] += 1
        leaving[fill[heads[a]]] = 2 * a + 1
        fill[heads[a]] += 1
    return first, leaving


@helper
def _first_prices(nodes: int, tails: Int64s, heads: Int64s, costs: Int64s, source: int, sequence: Int64s) -> Any:
    """Return the cost of the cheapest path to each node."""
    price = np.full(nodes, _FAR)
    price[source] = 0
    changed = True
    while changed:
        changed = False
        for a in sequence:
            if price[tails[a]] < _FAR and price[tails[a]] + costs[a] < price[heads[a]]:
                price[heads[a]] = price[tails[a]] + costs[a]
                changed = True
    return price


@kernel
def cheapest_flow(
    nodes: int, tails: Int64s, heads: Int64s, room: Int64s, costs: Int64s, source: int, sink: int, units: int,
    work: int, sequence: Int64s,
) -> Any:  # fmt: skip
    """Send units from source to sink at least cost, each along the cheapest path that is left.

    Parameters
    ----------
    tails, heads, room, costs
        Arcs; a path of cost 0 with room for all units must exist, and no cycle may cost less than 0.
    source, sink, units
        What is sent.
    work
        Most nodes to settle. Then the rest of the units takes the path of cost 0, and the flow may not be the cheapest.
    sequence
        Arcs in the order in which the first prices are found: arcs into a node before those out of it settle them
        in one round. An arc may be listed more than once.

    Returns
    -------
    tuple
        Flow of each arc without the units on the path of cost 0; prices of nodes for ``proven_cost``; nodes settled.
    """
    first, leaving = _leaving(nodes, tails, heads)
    price = _first_prices(nodes, tails, heads, costs, source, sequence)
    flow = np.zeros(len(tails), dtype=np.int64)
    distance = np.empty(nodes, dtype=np.int64)
    through = np.empty(nodes, dtype=np.int64)
    settled = 0
    sent = 0
    while sent < units and price[sink] - price[source] < 0 and settled < work:
        # The prices are exact distances for the first path; later ones are found under reduced costs.
        distance[:] = _FAR
        distance[source] = 0
        through[:] = -1
        heap = [(np.int64(0), np.int64(source))]
        reached = _FAR
        while len(heap) > 0:
            near, v = heapq.heappop(heap)
            if near > distance[v]:
                continue
            settled += 1
            if v == sink:
                reached = near
                break
            for i in range(first[v], first[v + 1]):
                e = leaving[i]
                a = e >> 1
                back = e & 1
                if back == 1:
                    if flow[a] == 0:
                        continue
                    w = tails[a]
                    step = price[v] - costs[a] - price[w]
                else:
                    if flow[a] == room[a]:
                        continue
                    w = heads[a]
                    step = price[v] + costs[a] - price[w]
                if near + step < distance[w]:
                    distance[w] = near + step
                    through[w] = e
                    heapq.heappush(heap, (near + step, np.int64(w)))
        for other in range(nodes):
            price[other] += min(distance[other], reached)
        if price[sink] - price[source] >= 0:
            break
        node = np.int64(sink)
        while node != source:
            e = through[node]
            flow[e >> 1] += 1 - 2 * (e & 1)
            node = tails[e >> 1] if e & 1 == 0 else heads[e >> 1]
        sent += 1
    return flow, price, settled


def proven_cost(
    tails: Int64s, heads: Int64s, room: Int64s, costs: Int64s, ends: tuple[int, int], units: int, price: Int64s
) -> int:  # fmt: skip
    """Return a cost below which no flow of that many units can be, by weak duality: any prices of nodes will do.

    An arc that is cheaper than the difference of the prices at its ends saves that much for each unit it has room for.
    """
    reduced = costs + price[tails] - price[heads]
    source, sink = ends
    return int(units * (price[sink] - price[source]) + (room * np.minimum(reduced, 0)).sum())
