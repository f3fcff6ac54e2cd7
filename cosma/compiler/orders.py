"""Orders of whole operators that tilings are searched for in, beside the order of the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.accelerator.constraints import FREE
from cosma.compiler.fusion import AMPLE_BYTES
from cosma.compiler.one_pass import without_modes
from cosma.problem import build_problem
from cosma.topological import nearest_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.accelerator import Accelerator
    from cosma.graph import Graph


def orders_to_cut(graph: Graph, accelerator: Accelerator) -> list[tuple[int, ...]]:
    """The order given, and those that leave the fewest bytes live and that follow each result at once."""
    from cosma.heuristics.orders import depth_first_order, given_order, memory_greedy_order

    problem = build_problem(without_modes(graph), accelerator.replace(scratchpad=AMPLE_BYTES, constraints=FREE))
    return [given_order(problem), memory_greedy_order(problem), depth_first_order(problem)]


def order_like(graph: Graph, names: Sequence[str]) -> tuple[int, ...]:
    """The operators of a graph in an order of some of them; the others come as soon as what they read is there."""
    place, operators = {name: i for i, name in enumerate(names)}, graph.operators
    wanted = sorted(range(len(operators)), key=lambda v: (place.get(operators[v].name, -1), v))
    rank = {operators[v].name: i for i, v in enumerate(wanted)}
    readers = [[rank[name] for t in operators[v].outputs for name in graph.consumers(t)] for v in wanted]
    return tuple(wanted[i] for i in nearest_order(readers))
