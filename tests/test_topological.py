"""Orders nearest to the one given, against networkx; cycles that are cycles."""

from __future__ import annotations

from itertools import pairwise

import networkx as nx
from hypothesis import given, settings
from hypothesis import strategies as st

from cosma.topological import find_cycle, nearest_order

ARROWS = st.integers(1, 9).flatmap(
    lambda count: st.lists(st.lists(st.integers(0, count - 1), max_size=4), min_size=count, max_size=count)
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(ARROWS)
def test_the_least_node_that_is_ready_comes_first(followers: list[list[int]]) -> None:
    graph = nx.DiGraph([(v, w) for v, row in enumerate(followers) for w in row])
    graph.add_nodes_from(range(len(followers)))
    order = nearest_order(followers)
    if nx.is_directed_acyclic_graph(graph):
        assert order == list(nx.lexicographical_topological_sort(graph))
        return
    # What a cycle holds up is left out, and nothing else.
    within = {v for part in nx.strongly_connected_components(graph) for v in part if len(part) > 1}
    within |= {v for v in graph if graph.has_edge(v, v)}
    held_up = within.union(*(nx.descendants(graph, v) for v in within))
    assert set(order) == set(graph) - held_up
    cycle = find_cycle(followers, order)
    assert cycle[0] == cycle[-1]
    assert len(set(cycle)) == len(cycle) - 1
    assert all(w in followers[v] for v, w in pairwise(cycle))
