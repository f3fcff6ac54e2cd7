"""Epilogue fusion: an operator absorbs the elementwise operators that follow it on a single-consumer path."""

from __future__ import annotations

from cosma.graph.graph import Graph
from cosma.graph.semantics import is_elementwise
from cosma.graph.tensor import Operator, Tensor, TensorKind, joined_type


def fuse_epilogues(graph: Graph) -> Graph:
    """Fuse every elementwise operator into the producer of an operand that nothing else reads.

    What lay between the two never exists. The follower must be elementwise over that operand at full shape;
    its other operands become operands of the fused operator. Contracting the edge cannot close a cycle,
    because the producer has a single result and that result a single consumer.
    """
    head_of: dict[str, str] = {}
    fused: dict[str, Operator] = {operator.name: operator for operator in graph.operators}
    gone: set[str] = set()
    for operator in graph.operators:
        link = _absorbable_operand(graph, operator)
        if link is None:
            continue
        producer = graph.producer(link.name)
        assert producer is not None
        head = head_of.get(producer, producer)
        fused[head] = _join(fused[head], operator, link.name)
        head_of[operator.name] = head
        gone.add(link.name)
        del fused[operator.name]
    tensors = [tensor for tensor in graph.tensors.values() if tensor.name not in gone]
    # A fused operator runs where its last part ran, so that its other operands are ready.
    last = {head: graph.operator_index(follower) for follower, head in head_of.items()}
    operators = sorted(fused.values(), key=lambda o: last.get(o.name, graph.operator_index(o.name)))
    return Graph(tensors, operators, graph.name)


def _absorbable_operand(graph: Graph, operator: Operator) -> Tensor | None:
    """Return the operand through which ``operator`` joins its producer, the first that qualifies."""
    if not is_elementwise(operator):
        return None
    result = graph.tensors[operator.outputs[0]]
    for name in operator.inputs:
        tensor = graph.tensors[name]
        producer = graph.producer(name)
        if producer is None or tensor.kind is not TensorKind.INTERMEDIATE or len(graph.consumers(name)) > 1:
            continue
        if len(graph.operator(producer).outputs) > 1:
            continue
        same_shape = (
            tensor.shape == result.shape
            if tensor.shape is not None and result.shape is not None
            else tensor.size_bytes == result.size_bytes
        )
        if same_shape:
            return tensor
    return None


def _join(head: Operator, follower: Operator, link: str) -> Operator:
    inputs = dict.fromkeys(head.inputs + tuple(name for name in follower.inputs if name != link))
    return Operator(
        name=head.name,
        type=joined_type(head.parts + follower.parts),
        inputs=tuple(inputs),
        outputs=follower.outputs,
        weights=tuple(dict.fromkeys(head.weights + follower.weights)),
        covers=head.covers + follower.covers,
        macs=None if head.macs is None else head.macs + (follower.macs or 0),
        fused=head.parts + follower.parts,
    )
