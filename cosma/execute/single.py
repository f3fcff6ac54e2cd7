"""One node of a model as a model of its own."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from cosma.access.elementwise import NUMPY_OPSET, legacy_axis
from cosma.frontend.nodes import Node

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

    from cosma.arrays import Array
    from cosma.execute.model import Model
    from cosma.frontend.values import Value

#: Newest IR version written; older readers refuse newer ones, and a single node needs nothing of them.
_IR_VERSION = 10
#: Operators that broadcast along the attribute ``axis`` before opset 7.
_LEGACY = frozenset({"Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor"})


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
    versions = {"": 1, node.domain: 1, **model.opsets}
    if broadcasts_along_axis(node, versions[""]):
        before += _as_numpy_broadcasts(own, [feeds[name].shape for name in node.inputs])
        versions[""] = NUMPY_OPSET
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
    opsets = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=max(3, min(model.ir_version, _IR_VERSION)))


def broadcasts_along_axis(node: Node | NodeProto, opset: int) -> bool:
    """Whether a node broadcasts its second operand from an axis on, as operators did before they followed numpy."""
    if opset >= NUMPY_OPSET or node.domain:
        return False
    kind = node.type if isinstance(node, Node) else node.op_type
    attributes = node.attributes if isinstance(node, Node) else {a.name for a in node.attribute}
    return kind == "PRelu" or (kind in _LEGACY and "axis" in attributes)


def _as_numpy_broadcasts(node: NodeProto, shapes: Sequence[tuple[int, ...]]) -> list[NodeProto]:
    """Make a node one that broadcasts as numpy does; nodes that give its second operand the axes which that needs."""
    from onnx import helper

    kept = [a for a in node.attribute if a.name not in ("axis", "broadcast", "consumed_inputs")]
    axis = next((int(a.i) for a in node.attribute if a.name == "axis"), None)
    del node.attribute[:]
    node.attribute.extend(kept)
    first, second = shapes
    start = legacy_axis(node.op_type, axis, first, second)
    if start is None or prod(second) == 1:
        return []
    shape = (*second, *(1,) * (len(first) - start - len(second)))
    names = f"{node.input[1]}\x01shape", f"{node.input[1]}\x01numpy"
    sizes = helper.make_tensor(names[0], 7, (len(shape),), shape)
    made = [
        helper.make_node("Constant", [], [names[0]], value=sizes),
        helper.make_node("Reshape", [node.input[1], names[0]], [names[1]]),
    ]
    node.input[1] = names[1]
    return made


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
