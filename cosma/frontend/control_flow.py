"""If, Loop and Scan: what can be said about them before the model runs.

They are opaque operators that read what their subgraphs capture, with these exceptions:

- An If whose condition is known is the branch it takes.
- A Loop that carries sequences and runs a known number of rounds is unrolled: a sequence is the list of its tensors.

Types of their results follow from a walk over the subgraph: a state that leaves the body as it came in keeps its shape,
whatever the number of rounds; a Loop that nothing can end early runs its trip count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cosma.errors import ModelLoadError
from cosma.frontend.loaded import NodeFate
from cosma.frontend.nodes import Node, make_node, readable
from cosma.frontend.records import Step
from cosma.frontend.subgraphs import trip_count
from cosma.frontend.values import Operands, Value

if TYPE_CHECKING:
    from onnx import GraphProto

    from cosma.frontend.sequences import SequenceNodes
    from cosma.frontend.walk_state import WalkState


#: Most nodes that an unrolled Loop may have; a longer one is no longer a graph that anybody wants to plan.
MOST_UNROLLED_NODES = 20_000


class ControlFlow:
    """Puts nodes in place of an If of known condition, and of a Loop over sequences.

    Parameters
    ----------
    sequences
        Joins what the rounds of a Loop collect.
    """

    def __init__(self, walk: WalkState, sequences: SequenceNodes) -> None:
        self._walk = walk
        self._sequences = sequences

    def handle(self, node: Node, operands: Operands) -> bool:
        """Handle a node if others take its place.

        Raises ModelLoadError if a Loop carries sequences and its number of rounds is not known.
        """
        if node.type == "If":
            return self._take_branch(node, operands)
        if node.type == "Loop" and _carries_sequences(node, operands):
            self._unroll(node, operands)
            return True
        return False

    def _take_branch(self, node: Node, operands: Operands) -> bool:
        walk = self._walk
        condition = operands[0] if operands else None
        array = walk.evaluator.array(condition) if condition is not None and condition.constant else None
        if array is None or array.size != 1:
            return False
        branch = node.attributes.get("then_branch" if bool(array.reshape(())) else "else_branch")
        if branch is None:
            raise ModelLoadError(f"{node} lacks one of its branches")
        renames = branch_renames(branch.g, walk.values, node.renames, node.first_output)
        for tensor in branch.g.initializer:
            name = readable(tensor.name)
            walk.add_weight(renames.get(name, name), tensor)
        self._yield(node, self._inline(branch.g, renames))
        walk.spliced += 1
        return True

    def _inline(self, graph: GraphProto, renames: Mapping[str, str]) -> list[Value]:
        """Walk the nodes of a subgraph under new names; what it yields."""
        walk = self._walk
        inner = [renamed(make_node(proto), renames) for proto in graph.node]
        results = [renames.get(readable(v.name), readable(v.name)) for v in graph.output]
        walk.read.update(name for n in inner for name in n.reads)
        walk.read.update(results)
        walk.run(inner)
        return [walk.values[name] for name in results]

    def _yield(self, node: Node, found: Sequence[Value]) -> None:
        """Record that a node's results are what the nodes in its place yield."""
        walk = self._walk
        for name, value in zip(node.outputs, found, strict=False):
            if name:
                if value.elements is None:
                    walk.types.check(node, name, value.type)
                walk.values[name] = replace(value, name=name)
        constant = all(part.constant for value in found for part in (value.elements or (value,)))
        views = tuple(walk.values[name] for name in node.outputs if name)
        walk.steps.append(Step(node, NodeFate.FOLDED if constant else NodeFate.VIEW, tuple(found), views))

    def _unroll(self, node: Node, operands: Operands) -> None:
        walk = self._walk
        body = node.attributes["body"].g
        count = trip_count(node, operands, walk.evaluator)
        if count is None or count * len(body.node) > MOST_UNROLLED_NODES:
            rounds = "a number of rounds that is known only when the model runs" if count is None else f"{count} rounds"
            raise ModelLoadError(
                f"{node} carries a sequence through {rounds}, so what the sequence holds cannot be listed; collect "
                "tensors instead (a further output of the loop body), or export with a small, fixed number of rounds"
            )
        prefix = node.first_output
        states: list[Value] = [value for value in operands[2:] if value is not None]
        if len(states) != len(body.input) - 2:
            raise ModelLoadError(f"{node} carries {len(states)} states and its body takes {len(body.input) - 2}")
        collected: list[list[Value]] = [[] for _ in body.output[1 + len(states) :]]
        shared: dict[str, str] = {}
        for tensor in body.initializer:
            name = readable(tensor.name)
            shared[name] = f"{prefix}/{name}" if name in walk.values else name
            walk.add_weight(shared[name], tensor)
        for i in range(count):
            renames = {**branch_renames(body, walk.values, node.renames, f"{prefix}/{i}"), **shared}
            renames.update(self._round_inputs(body, f"{prefix}/{i}", i, states))
            found = self._inline(body, renames)
            states = found[1 : 1 + len(states)]
            for column, value in zip(collected, found[1 + len(states) :], strict=True):
                column.append(value)
        if collected and not count:
            raise ModelLoadError(f"{node} runs no round, so what it collects has no shape; remove it")
        stacked = [self._stack(node, i, column) for i, column in enumerate(collected, len(states))]
        self._yield(node, [*states, *stacked])

    def _round_inputs(self, body: GraphProto, prefix: str, number: int, states: Sequence[Value]) -> dict[str, str]:
        """Names under which one round reads its number, its condition and its states."""
        import numpy as np

        walk = self._walk
        renames: dict[str, str] = {}
        names = [readable(value.name) for value in body.input]
        for name, content in ((names[0], np.array(number, np.int64)), (names[1], np.array(True))):
            own = renames[name] = f"{prefix}/{name}"
            element = 7 if content.dtype == np.int64 else 9
            walk.values[own] = Value(own, element, (), own, constant=True, array=content, evaluated=True)
        for name, value in zip(names[2:], states, strict=True):
            own = renames[name] = f"{prefix}/{name}"
            walk.values[own] = value
        return renames

    def _stack(self, node: Node, index: int, column: Sequence[Value]) -> Value:
        """Join what the rounds collected along a new first axis."""
        name = node.outputs[index] if index < len(node.outputs) else ""
        first = column[0]
        if any(value.type != first.type for value in column):
            raise ModelLoadError(f"{node} collects tensors of different types in {name!r}")
        return self._sequences.stack(name, column)


def _carries_sequences(node: Node, operands: Operands) -> bool:
    if any(operand is not None and operand.elements is not None for operand in operands):
        return True
    body = node.attributes.get("body")
    return body is not None and any(value.type.HasField("sequence_type") for value in body.g.output)


def branch_renames(
    graph: GraphProto, taken: Mapping[str, Value], outer: Mapping[str, str], prefix: str
) -> dict[str, str]:
    """New names for what a branch defines and the graph around it has already, for two branches may share names.

    ``outer`` are the renames in force where the If stands.
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
