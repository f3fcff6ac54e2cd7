from __future__ import annotations

import networkx as nx
import pytest
from hypothesis import given, settings

from cosma.errors import GraphError
from cosma.graph import Graph, Operator, Tensor, TensorKind
from tests.random_graphs import instances

X = Tensor("x", 8, TensorKind.INPUT)
W = Tensor("w", 4, TensorKind.WEIGHT)
A, B = Tensor("a", 8), Tensor("b", 8)
Y = Tensor("y", 8, TensorKind.OUTPUT)


def relu(name: str, operand: str, result: str) -> Operator:
    return Operator(name, "Relu", (operand,), (result,))


def test_queries() -> None:
    graph = Graph([X, W, A, Y], [Operator("c", "Conv", ("x",), ("a",), ("w",)), relu("r", "a", "y")])
    assert graph.producer("a") == "c"
    assert graph.producer("x") is None
    assert graph.consumers("w") == ("c",)
    assert graph.successors("c") == ("r",)
    assert graph.predecessors("r") == ("c",)
    assert [t.name for t in graph.working_set("c", weights=True)] == ["x", "w", "a"]
    assert graph.working_set_bytes("c", weights=False, alignment=64) == 128
    assert graph.compulsory_bytes() == 8 + 4 + 8


def test_unused_inputs_cost_nothing() -> None:
    graph = Graph([X, Tensor("unused", 100, TensorKind.INPUT), Y], [relu("r", "x", "y")])
    assert graph.compulsory_bytes() == 16


def test_operators_keep_their_order_or_follow_their_producers() -> None:
    late = [relu("second", "a", "y"), relu("first", "x", "a")]
    assert [o.name for o in Graph([X, A, Y], late).operators] == ["first", "second"]


@pytest.mark.parametrize(
    ("tensors", "operators", "message"),
    [
        ([X, X, Y], [relu("r", "x", "y")], "'x' is defined twice"),
        ([X, Y], [relu("r", "x", "y"), relu("r", "x", "y")], "'r' is empty or used twice"),
        ([X, Y], [relu("r", "z", "y")], "reads 'z'"),
        ([X, Y], [relu("r", "x", "z")], "produces 'z'"),
        ([X, Y], [relu("r", "x", "y"), relu("s", "x", "y")], "two producers, 'r' and 's'"),
        ([X, Y], [relu("r", "y", "x")], "'x', which is a graph input"),
        ([X, A, Y], [relu("r", "x", "y")], "nothing produces the intermediate tensor 'a'"),
        ([X, W, Y], [Operator("r", "Add", ("x", "w"), ("y",))], "lists 'w' under inputs, but its kind is weight"),
        ([X, Y], [Operator("r", "Add", (), ("y",), ("x",))], "lists 'x' under weights, but its kind is input"),
        ([X, Y], [Operator("r", "Add", ("x", "x"), ("y",))], "lists an operand twice"),
        ([X], [Operator("r", "Print", ("x",), ())], "produces nothing"),
        ([X, A, B, Y], [relu("p", "a", "b"), relu("q", "b", "a"), relu("r", "x", "y")], "cycle: p -> q -> p"),
    ],
)
def test_refuses_what_is_no_graph(tensors: list[Tensor], operators: list[Operator], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        Graph(tensors, operators)


def test_tensors_have_names_and_sizes() -> None:
    with pytest.raises(GraphError, match="a tensor has the name ''"):
        Tensor("", 1)
    with pytest.raises(GraphError, match="an operator has the name ''"):
        relu("", "x", "y")
    with pytest.raises(GraphError, match="tensor 't': size_bytes: -1 is negative"):
        Tensor("t", -1)


def test_dtype_override_recounts_floating_point_only() -> None:
    shape = (2, 3)
    x = Tensor("x", 24, TensorKind.INPUT, "float32", shape)
    i = Tensor("i", 48, TensorKind.INPUT, "int64", shape)
    y = Tensor("y", 12, TensorKind.OUTPUT, "bfloat16", shape)
    graph = Graph([x, i, y], [Operator("o", "Op", ("x", "i"), ("y",))]).with_dtype("int4")
    assert [t.size_bytes for t in graph.tensors.values()] == [3, 48, 3]
    with pytest.raises(GraphError, match="'q8' is unknown"):
        Graph([x, i, y], [Operator("o", "Op", ("x", "i"), ("y",))]).with_dtype("q8")
    with pytest.raises(GraphError, match="no element type or shape"):
        Graph([X, Y], [relu("r", "x", "y")]).with_dtype("int8")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(instances())
def test_order_is_topological_and_neighbours_agree(instance: tuple[Graph, object]) -> None:
    graph = instance[0]
    index = {o.name: i for i, o in enumerate(graph.operators)}
    oracle = nx.DiGraph()
    oracle.add_nodes_from(index)
    for o in graph.operators:
        oracle.add_edges_from((graph.producer(t), o.name) for t in o.inputs if graph.producer(t))
    assert all(index[a] < index[b] for a, b in oracle.edges)
    for name in index:
        assert set(graph.predecessors(name)) == set(oracle.predecessors(name))
        assert set(graph.successors(name)) == set(oracle.successors(name))
