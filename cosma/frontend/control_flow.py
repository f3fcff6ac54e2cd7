"""If, Loop and Scan: what can be said about them before the model runs.

They are opaque operators that read what their subgraphs capture. Two things are exact all the same: an If whose
condition is known is the branch it takes, and a Loop that nothing can end early runs its trip count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from cosma.frontend.evaluate import Evaluator, tensor_array
from cosma.frontend.nodes import Node, readable
from cosma.frontend.values import TensorType, Value

if TYPE_CHECKING:
    from onnx import GraphProto


def branch_renames(
    graph: GraphProto, taken: Mapping[str, Value], outer: Mapping[str, str], prefix: str
) -> dict[str, str]:
    """New names for what a branch defines and the graph around it has already, for two branches may share names.

    Parameters
    ----------
    graph
        The branch.
    taken
        Names in use.
    outer
        Renames in force where the If stands.
    prefix
        What new names start with.
    """
    renames = dict(outer)
    own = [readable(tensor.name) for tensor in graph.initializer]
    own += [readable(name) for node in graph.node for name in node.output if name]
    for name in own:
        renames.pop(name, None)
        if name in taken:
            renames[name] = f"{prefix}/{name}"
    return renames


def renamed(node: Node, renames: Mapping[str, str]) -> Node:
    """The node with other names for what it reads and yields."""
    if not renames:
        return node
    return replace(
        node,
        inputs=tuple(renames.get(name, name) for name in node.inputs),
        outputs=tuple(renames.get(name, name) for name in node.outputs),
        renames=renames,
    )


def with_trip_count(
    node: Node, operands: tuple[Value | None, ...], index: int, found: TensorType, evaluator: Evaluator
) -> TensorType:
    """Type of a Loop's result with the number of rounds filled in, where it is known.

    A Loop runs its trip count if the condition starts as true and the body passes it on or sets it to true.
    """
    carried = len(operands) - 2
    if node.type != "Loop" or node.domain or index < carried or not found.shape or found.shape[0] is not None:
        return found
    limit, condition = operands[0], operands[1] if len(operands) > 1 else None
    rounds = evaluator.array(limit) if limit is not None and limit.constant else None
    starts = evaluator.array(condition) if condition is not None and condition.constant else None
    if rounds is None or rounds.size != 1 or (condition is not None and (starts is None or not starts.all())):
        return found
    if not _stays_true(node.attributes["body"].g):
        return found
    return TensorType(found.element, (max(int(rounds.reshape(())), 0), *found.shape[1:]))


def _stays_true(body: GraphProto) -> bool:
    """Whether a loop body hands its condition on unchanged or yields the constant true."""
    if len(body.input) < 2 or not body.output:
        return False
    producers = {name: node for node in body.node for name in node.output}
    constants = {tensor.name: tensor for tensor in body.initializer}
    name = body.output[0].name
    while name in producers and producers[name].op_type == "Identity":
        name = producers[name].input[0]
    if name == body.input[1].name:
        return True
    if name in constants:
        array = tensor_array(constants[name])
        return array is not None and bool(array.all())
    node = producers.get(name)
    if node is None or node.op_type != "Constant":
        return False
    array = next((tensor_array(attribute.t) for attribute in node.attribute if attribute.name == "value"), None)
    return array is not None and bool(array.all())
