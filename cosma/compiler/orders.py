"""Orders of whole operators that tilings are searched for in, beside the order of the file."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from cosma.accelerator.constraints import FREE
from cosma.compiler.one_pass import without_modes
from cosma.problem import build_problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.accelerator import Accelerator
    from cosma.graph import Graph

_AMPLE_BYTES = 1 << 50


def orders_to_cut(graph: Graph, accelerator: Accelerator) -> list[tuple[int, ...]]:
    """The order given, and those that leave the fewest bytes live and that follow each result at once."""
    from cosma.heuristics.orders import depth_first_order, given_order, memory_greedy_order

    problem = build_problem(without_modes(graph), accelerator.replace(scratchpad=_AMPLE_BYTES, constraints=FREE))
    return [given_order(problem), memory_greedy_order(problem), depth_first_order(problem)]


def order_like(graph: Graph, names: Sequence[str]) -> tuple[int, ...]:
    """The operators of a graph in an order of some of them; the others come as soon as what they read is there."""
    place = {name: i for i, name in enumerate(names)}
    makers = [[graph.producer(t) for t in operator.inputs] for operator in graph.operators]
    number = {operator.name: v for v, operator in enumerate(graph.operators)}
    before = [{number[name] for name in row if name is not None} for row in makers]
    readers: list[list[int]] = [[] for _ in before]
    for v, row in enumerate(before):
        for u in row:
            readers[u].append(v)
    waiting = [len(row) for row in before]
    ready = [(place.get(graph.operators[v].name, -1), v) for v, count in enumerate(waiting) if count == 0]
    heapq.heapify(ready)
    order = []
    while ready:
        _, v = heapq.heappop(ready)
        order.append(v)
        for w in readers[v]:
            waiting[w] -= 1
            if waiting[w] == 0:
                heapq.heappush(ready, (place.get(graph.operators[w].name, -1), w))
    return tuple(order)
