"""Types of what If, Loop and Scan yield, from a walk over their subgraphs.

ONNX's inference types a Loop's state by what its body states, or not at all. Here the body is walked with the types its
states come in with, round by round. The types of a round decide those of the next, so once they repeat, all are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cosma.errors import ModelLoadError
from cosma.frontend.contrib_calls import BOOL, INT64
from cosma.frontend.evaluate import Evaluator, tensor_array
from cosma.frontend.nodes import Node, inner_graphs, live_nodes, make_node, readable
from cosma.frontend.values import Operands, TensorType, Value, value_of

if TYPE_CHECKING:
    from onnx import GraphProto, TensorProto

    from cosma.frontend.records import Step
    from cosma.frontend.window_rules import Sizing

#: Rounds of a Loop that are followed one by one where its states change their shapes; not measured.
_MOST_ROUNDS = 64
#: Rounds without a new change after which none is expected, where the number of rounds is not known; not measured.
_CALM_ROUNDS = 4
#: Deepest nesting at which bodies are walked: each level may walk those inside once a round.
_MOST_LEVELS = 4


class Assumed(Protocol):
    """What a walk assumed; see :class:`cosma.frontend.completion.Completion`."""

    notes: list[str]
    bound: dict[str, int]
    assumed: dict[str, int]
    choices: dict[str, Sizing]
    unused: set[str]


class InnerWalk(Protocol):
    """A walk over the nodes of a subgraph."""

    values: dict[str, Value]
    steps: list[Step]

    @property
    def types(self) -> Assumed:
        """What was assumed on the way."""
        ...

    def add_weight(self, name: str, tensor: TensorProto) -> None:
        """Take note of an initializer."""
        ...

    def run(self, nodes: Iterable[Node]) -> None:
        """Walk nodes in order."""
        ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a subgraph is walked with."""

    #: Of the model.
    opset: int
    #: Gives the content of constants outside.
    evaluator: Evaluator
    #: How deep the node lies in subgraphs.
    level: int
    #: Makes a walk over a subgraph, from the types that it states and the names that are read in it.
    inner: Callable[[Mapping[str, TensorType], set[str]], InnerWalk]


def subgraph_types(
    node: Node, operands: Operands, captured: Mapping[str, Value], around: Surroundings
) -> list[TensorType] | None:
    """Types of an If's, a Loop's or a Scan's results; None where their subgraphs say nothing.

    Raises ModelLoadError if a node of a subgraph cannot be typed.
    """
    if node.domain or around.level >= _MOST_LEVELS:
        return None
    if node.type == "If":
        return _if_types(node, captured, around)
    body = node.attributes.get("body")
    if body is None:
        return None
    if node.type == "Loop":
        return _loop_types(node, body.g, operands, captured, around)
    if node.type == "Scan" and around.opset >= 9:
        return _scan_types(node, body.g, operands, captured, around)
    return None


def _walked(
    graph: GraphProto, given: Sequence[TensorType], captured: Mapping[str, Value], around: Surroundings
) -> list[TensorType] | None:
    """Types a subgraph yields when it is given inputs of these types; None where one is no tensor."""
    names = [readable(value.name) for value in graph.input]
    if len(names) != len(given):
        return None
    nodes = list(map(make_node, graph.node))
    results = [readable(value.name) for value in graph.output]
    read = {name for inner in nodes for name in inner.reads} | set(results)
    walk = around.inner(_stated(graph), read)
    walk.values.update(captured)
    for tensor in graph.initializer:
        walk.add_weight(readable(tensor.name), tensor)
    for name, found in zip(names, given, strict=True):
        walk.values[name] = value_of(name, found)
    if any(name not in walk.values and not _produced(name, nodes) for name in read):
        return None
    walk.run([inner for inner, alive in zip(nodes, live_nodes(nodes, results), strict=True) if alive])
    found_values = [walk.values[name] for name in results]
    return None if any(value.elements is not None for value in found_values) else [v.type for v in found_values]


def _produced(name: str, nodes: Sequence[Node]) -> bool:
    return any(name in node.outputs for node in nodes)


def _stated(graph: GraphProto) -> dict[str, TensorType]:
    """Types a subgraph states for what it computes; a symbol states nothing, for nobody binds it."""
    stated: dict[str, TensorType] = {}
    for value in (*graph.value_info, *graph.output):
        if not value.type.HasField("tensor_type"):
            continue
        tensor = value.type.tensor_type
        shape = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None for d in tensor.shape.dim)
        stated[readable(value.name)] = TensorType(tensor.elem_type, shape if tensor.HasField("shape") else None)
    return stated


def _if_types(node: Node, captured: Mapping[str, Value], around: Surroundings) -> list[TensorType] | None:
    """What both branches yield; a dimension in which they differ is not known."""
    branches = []
    for name in ("then_branch", "else_branch"):
        attribute = node.attributes.get(name)
        found = None if attribute is None else _walked(attribute.g, (), captured, around)
        if found is None:
            return None
        branches.append(found)
    if len(branches[0]) != len(branches[1]):
        return None
    return [_merged(a, b) for a, b in zip(*branches, strict=True)]


def _merged(a: TensorType, b: TensorType) -> TensorType:
    if a == b:
        return a
    element = a.element if a.element == b.element else 0
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return TensorType(element, None)
    shape = tuple(p if p == q else None for p, q in zip(a.shape, b.shape, strict=True))
    if a.low is None and b.low is None:
        return TensorType(element, shape)
    lows = [tuple(d or 0 for d in t.low or t.shape or ()) for t in (a, b)]
    return TensorType(element, shape, tuple(map(min, *lows)))


def _loop_types(
    node: Node, body: GraphProto, operands: Operands, captured: Mapping[str, Value], around: Surroundings
) -> list[TensorType] | None:
    """States after the last round, and what the rounds collect along a new first axis."""
    states: list[TensorType] = [operand.type for operand in operands[2:] if operand is not None]
    if len(states) != len(operands[2:]):
        return None
    rounds = trip_count(node, operands, around.evaluator)
    met, merged, calm, repeats = [states], states, 0, False
    collected: list[TensorType] = []
    most = max(1, min(rounds, _MOST_ROUNDS)) if rounds is not None else _MOST_ROUNDS
    while not repeats and len(met) <= most and (rounds is not None or calm < _CALM_ROUNDS):
        found = _walked(body, [TensorType(INT64, ()), TensorType(BOOL, ()), *met[-1]], captured, around)
        if found is None or len(found) < 1 + len(states):
            return None
        after, slices = found[1 : 1 + len(states)], found[1 + len(states) :]
        before, merged = (merged, collected), [_merged(a, b) for a, b in zip(merged, after, strict=True)]
        collected = [_merged(a, b) for a, b in zip(collected or slices, slices, strict=True)]
        calm = calm + 1 if (merged, collected) == before else 0
        repeats = after in met
        met.append(after)
    last = len(met) - 1
    if rounds is not None and (rounds <= last or repeats):
        first = met.index(met[-1])
        states = met[rounds if rounds <= last else first + (rounds - first) % (last - first)]
    else:
        states = merged  # any round may be the last, or more come than are followed
    return [*states, *(_inserted(t, 0, rounds) for t in collected)]


def _scan_types(
    node: Node, body: GraphProto, operands: Operands, captured: Mapping[str, Value], around: Surroundings
) -> list[TensorType] | None:
    """States, and what the rounds collect along axes of their own."""
    count = node.integer("num_scan_inputs", 0) or 0
    given = [operand for operand in operands if operand is not None]
    if not 0 < count <= len(given) or len(given) != len(operands):
        return None
    states, scanned = [value.type for value in given[:-count]], given[-count:]
    axes = node.integers("scan_input_axes") or (0,) * count
    slices, lengths = [], set()
    for value, axis in zip(scanned, axes, strict=False):
        if not -len(value.shape) <= axis < len(value.shape):
            return None
        at = axis % len(value.shape)
        lengths.add(value.shape[at])
        slices.append(TensorType(value.element, value.shape[:at] + value.shape[at + 1 :]))
    if len(lengths) != 1 or len(slices) != count:
        return None
    found = _walked(body, [*states, *slices], captured, around)
    if found is None or len(found) < len(states):
        return None
    after, collected = found[: len(states)], found[len(states) :]
    if after != states:
        raise ModelLoadError(
            f"{node}: a state comes in as {_first_change(states, after)}; a Scan's states keep their types"
        )
    ends = node.integers("scan_output_axes") or (0,) * len(collected)
    length = lengths.pop()
    return [*states, *(_inserted(t, axis, length) for t, axis in zip(collected, ends, strict=False))]


def _first_change(before: Sequence[TensorType], after: Sequence[TensorType]) -> str:
    return next(f"{a} and leaves as {b}" for a, b in zip(before, after, strict=True) if a != b)


def _inserted(found: TensorType, axis: int, length: int | None) -> TensorType:
    if found.shape is None or not -len(found.shape) - 1 <= axis <= len(found.shape):
        return TensorType(found.element, None)
    at = axis % (len(found.shape) + 1)
    low = None if found.low is None else (*found.low[:at], length or 0, *found.low[at:])
    return TensorType(found.element, (*found.shape[:at], length, *found.shape[at:]), low)


def trip_count(node: Node, operands: Sequence[Value | None], evaluator: Evaluator) -> int | None:
    """How many rounds a Loop runs; None where that is not known in advance.

    A Loop runs its trip count if the condition starts as true and the body passes it on or sets it to true.
    """
    limit, condition = (*operands, None, None)[:2]
    rounds = evaluator.array(limit) if limit is not None and limit.constant else None
    starts = evaluator.array(condition) if condition is not None and condition.constant else None
    if starts is not None and not starts.any():
        return 0
    if rounds is None or rounds.size != 1 or (condition is not None and starts is None):
        return None
    count = max(int(rounds.reshape(())), 0)
    return count if count == 0 or _stays_true(node.attributes["body"].g) else None


def _stays_true(body: GraphProto) -> bool:
    """Whether a loop body hands its condition on unchanged or yields the constant true."""
    if len(body.input) < 2 or not body.output:
        return False
    producers = {name: node for node in body.node for name in node.output}
    constants = {tensor.name: tensor for tensor in body.initializer}
    name = body.output[0].name
    for _ in body.node:  # a chain of identities is no longer than the body, unless it is a circle
        if name not in producers or producers[name].op_type != "Identity" or not producers[name].input:
            break
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


def stored_inside(node: Node) -> Iterator[tuple[str, TensorProto]]:
    """Initializers and literals of a node's subgraphs at any depth, by the names they go by there."""
    for graph in inner_graphs([node]):
        yield from ((readable(tensor.name), tensor) for tensor in graph.initializer)
        for inner in graph.node:
            literals = inner.attribute if inner.op_type == "Constant" else ()
            yield from ((readable(inner.output[0]), literal.t) for literal in literals if literal.name == "value")
