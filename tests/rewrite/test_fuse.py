from __future__ import annotations

from hypothesis import given, settings

from cosma.graph import Graph, Operator, Tensor, TensorKind
from cosma.rewrite.fuse import fuse
from tests.random_graphs import instances


def build(*operators: Operator, outputs: tuple[str, ...]) -> Graph:
    names = dict.fromkeys(name for o in operators for name in (*o.inputs, *o.outputs))
    produced = {name for o in operators for name in o.outputs}
    kinds = dict.fromkeys(names, TensorKind.INPUT)
    kinds |= dict.fromkeys(produced, TensorKind.INTERMEDIATE) | dict.fromkeys(outputs, TensorKind.OUTPUT)
    return Graph([Tensor(name, 64, kind) for name, kind in kinds.items()], operators)


def op(name: str, kind: str, inputs: tuple[str, ...], output: str) -> Operator:
    return Operator(name, kind, inputs, (output,), covers=(output,))


def test_a_residual_block_becomes_its_convolutions() -> None:
    graph = build(
        op("c1", "Conv", ("x",), "a"),
        op("r1", "Relu", ("a",), "b"),
        op("c2", "Conv", ("b",), "c"),
        op("add", "Add", ("c", "x"), "d"),
        op("r2", "Relu", ("d",), "y"),
        outputs=("y",),
    )
    fused = fuse(graph).graph
    assert [(o.name, o.type, o.inputs, o.outputs, o.covers) for o in fused.operators] == [
        ("c1", "Conv+Relu", ("x",), ("b",), ("a", "b")),
        ("c2", "Conv+Add+Relu", ("b", "x"), ("y",), ("c", "d", "y")),
    ]
    assert set(fused.tensors) == {"x", "b", "y"}


def test_outputs_and_shared_results_stay() -> None:
    graph = build(op("c", "Conv", ("x",), "a"), op("r", "Relu", ("a",), "y"), outputs=("a", "y"))
    assert len(fuse(graph).graph.operators) == 2
    graph = build(
        op("c", "Conv", ("x",), "a"), op("r", "Relu", ("a",), "y"), op("s", "Tanh", ("a",), "z"), outputs=("y", "z")
    )
    assert len(fuse(graph).graph.operators) == 3


def test_of_two_producers_one_absorbs() -> None:
    graph = build(
        op("c", "Conv", ("x",), "a"), op("d", "Conv", ("x",), "b"), op("s", "Add", ("a", "b"), "y"), outputs=("y",)
    )
    fused = fuse(graph).graph
    assert [(o.name, o.inputs) for o in fused.operators] == [("d", ("x",)), ("c", ("x", "b"))]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(instances())
def test_fusion_keeps_what_enters_and_leaves(instance: tuple[Graph, object]) -> None:
    graph = instance[0]
    fused = fuse(graph).graph
    assert fused.compulsory_bytes() == graph.compulsory_bytes()
    assert sorted(c for o in fused.operators for c in o.covers) == sorted(c for o in graph.operators for c in o.covers)
    assert fuse(graph).graph == fused
