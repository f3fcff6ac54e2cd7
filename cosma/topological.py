"""Topological orders that stay as close as can be to the order given."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def nearest_order(followers: Sequence[Iterable[int]]) -> list[int]:
    """Order nodes so that each comes before its followers; of the nodes that are ready, the least comes first.

    Nodes of a cycle, and those behind one, are left out: see :func:`find_cycle`.

    Parameters
    ----------
    followers
        For each node the nodes that must come after it; one may be listed more than once.
    """
    waiting = [0] * len(followers)
    for row in followers:
        for w in row:
            waiting[w] += 1
    ready = [v for v, count in enumerate(waiting) if count == 0]  # ascending, so a heap
    order: list[int] = []
    while ready:
        v = heapq.heappop(ready)
        order.append(v)
        for w in followers[v]:
            waiting[w] -= 1
            if waiting[w] == 0:
                heapq.heappush(ready, w)
    return order


def find_cycle(followers: Sequence[Iterable[int]], order: Iterable[int]) -> list[int]:
    """Walk a cycle among the nodes that :func:`nearest_order` left out, in the direction of its arrows.

    The node that the walk begins with stands at the end again.
    """
    import networkx as nx

    left_out = set(range(len(followers))).difference(order)
    arrows = [(v, w) for v in sorted(left_out) for w in followers[v] if w in left_out]
    cycle = nx.find_cycle(nx.DiGraph(arrows))
    return [cycle[0][0], *(w for _, w in cycle)]
