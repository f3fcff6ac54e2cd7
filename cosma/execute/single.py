"""One node of a model as a model of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

    from cosma.arrays import Array
    from cosma.execute.model import Model
    from cosma.frontend.nodes import Node
    from cosma.frontend.values import Value

#: Newest IR version written; older readers refuse newer ones, and a single node needs nothing of them.
_IR_VERSION = 10


def single_node(model: Model, node: Node, results: Sequence[Value], feeds: Mapping[str, Array]) -> ModelProto:
    """Wrap a node as a model: operands become inputs, parameters initializers.

    A sequence that the node reads is put together from its tensors, one that it yields is taken apart: results and
    ``feeds`` name the tensors. Names that its subgraphs capture are handed in as they are written there.
    """
    from onnx import helper

    before, inputs, fixed = _operands(model, node, feeds)
    types = {name: value for value in results for name in (value.name, value.root)}
    outputs = [name if name in types else "" for name in node.outputs]
    made = [name for name in outputs if name]
    after: list[NodeProto] = []
    sequence = model.values[node.first_output].elements if node.first_output in model.values else None
    if sequence is not None:
        outputs, made = [node.first_output], [element.root for element in sequence]
        for i, root in enumerate(made):
            position = f"{node.first_output}\x01{i}"
            before.append(helper.make_node("Constant", [], [position], value=helper.make_tensor(position, 7, (), [i])))
            after.append(helper.make_node("SequenceAt", [node.first_output, position], [root]))
    while outputs and not outputs[-1]:
        outputs.pop()
    own = helper.make_node(node.type, list(node.inputs), outputs, domain=node.domain)
    own.attribute.extend(node.attributes.values())
    graph = helper.make_graph(
        [*before, own, *after],
        "node",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in inputs.items()
        ],
        [_typed(None if model.is_bounded else types.get(name), name) for name in dict.fromkeys(made)],
        fixed,
    )
    versions = {"": 1, node.domain: 1, **model.opsets}
    opsets = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=max(3, min(model.ir_version, _IR_VERSION)))


def _typed(value: Value | None, name: str) -> ValueInfoProto:
    """A result with its planned type: ONNX Runtime infers some shapes otherwise than its own kernels have them."""
    from onnx import helper

    if value is None:
        return helper.make_empty_tensor_value_info(name)
    return helper.make_tensor_value_info(name, value.element, value.shape)


def _operands(
    model: Model, node: Node, feeds: Mapping[str, Array]
) -> tuple[list[NodeProto], dict[str, Array], list[TensorProto]]:
    """Nodes that prepare operands, operands that become inputs, and those that become initializers."""
    from onnx import helper, numpy_helper

    before: list[NodeProto] = []
    inputs: dict[str, Array] = {}
    fixed: list[TensorProto] = []
    for name in dict.fromkeys(node.reads):
        value = model.values.get(name)
        if value is not None and value.elements is not None:
            elements = [element.root for element in value.elements]
            before.append(_sequence(value, elements, name))
            inputs |= {root: feeds[root] for root in elements}
        elif name in feeds and value is not None and model.is_parameter(value):
            fixed.append(numpy_helper.from_array(feeds[name], name))
        elif name in feeds:
            inputs[name] = feeds[name]
    before += [
        helper.make_node("Identity", [node.renames[name]], [name])
        for name in node.captures
        if node.renames.get(name, name) != name
    ]
    return before, inputs, fixed


def _sequence(value: Value, elements: Sequence[str], name: str) -> NodeProto:
    from onnx import helper

    if elements:
        return helper.make_node("SequenceConstruct", list(elements), [name])
    # What an empty sequence would hold is not written down anywhere; 32-bit floats are the operator's own default.
    return helper.make_node("SequenceEmpty", [], [name])
