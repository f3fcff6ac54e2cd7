"""Orders of whole operators that tilings are searched for in, beside the order of the file."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cosma.accelerator.constraints import FREE
from cosma.compiler.fusion import AMPLE_BYTES
from cosma.compiler.one_pass import without_modes
from cosma.graph import TensorKind
from cosma.problem import build_problem
from cosma.topological import nearest_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.accelerator import Accelerator
    from cosma.graph import Graph


def orders_to_cut(graph: Graph, accelerator: Accelerator) -> list[tuple[int, ...]]:
    """The order given, and those that leave the fewest bytes live, follow each result at once, or gather weights.

    The last, where operators share weights, as steps of a recurrent layer do.
    """
    from cosma.heuristics.orders import depth_first_order, given_order, memory_greedy_order

    problem = build_problem(without_modes(graph), accelerator.replace(scratchpad=AMPLE_BYTES, constraints=FREE))
    found = [given_order(problem), memory_greedy_order(problem), depth_first_order(problem)]
    gathered = gathered_order(graph, accelerator.capacity_bytes)
    return found if gathered is None else [*found, gathered]


def gathered_order(graph: Graph, capacity_bytes: int) -> tuple[int, ...] | None:
    """Operators that share a weight one after another, as far as what they read is there; the others before them.

    Of several weights, the one goes on that was read last, or else one of most operators that can run. None where no
    weight, read anew by each of its operators, would move more beyond its first reading than the scratchpad holds.
    """
    operators = graph.operators
    large = {
        t.name: t.size_bytes for t in graph.tensors.values()
        if t.kind is TensorKind.WEIGHT and t.rows is None
        and t.size_bytes * (len(graph.consumers(t.name)) - 1) > capacity_bytes
    }  # fmt: skip
    if not large:
        return None
    own = [[w for w in operator.weights if w in large] for operator in operators]
    weight = [max(some, key=lambda w: (large[w], w), default=None) for some in own]
    missing = [len({graph.producer(t) for t in operator.inputs} - {None}) for operator in operators]
    ready = {v for v, count in enumerate(missing) if not count}
    order: list[int] = []
    last: str | None = None
    while ready:
        waiting = Counter(weight[v] for v in ready)
        if None not in waiting and last not in waiting:
            last = max(waiting, key=lambda one: (waiting[one], one or ""))
        now = None if None in waiting else last
        v = min(v for v in ready if weight[v] == now)
        order.append(v)
        ready.remove(v)
        for name in {name for t in operators[v].outputs for name in graph.consumers(t)}:
            reader = graph.operator_index(name)
            missing[reader] -= 1
            if not missing[reader]:
                ready.add(reader)
    return tuple(order)


def order_like(graph: Graph, names: Sequence[str]) -> tuple[int, ...]:
    """The operators of a graph in an order of some of them; the others come as soon as what they read is there."""
    place, operators = {name: i for i, name in enumerate(names)}, graph.operators
    wanted = sorted(range(len(operators)), key=lambda v: (place.get(operators[v].name, -1), v))
    rank = {operators[v].name: i for i, v in enumerate(wanted)}
    readers = [[rank[name] for t in operators[v].outputs for name in graph.consumers(t)] for v in wanted]
    return tuple(wanted[i] for i in nearest_order(readers))
