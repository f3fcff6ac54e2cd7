"""From a node to what it means: its attributes, with those that the opset or a constant operand decides.

The declared results count, never the read ones: an exporter declares what the operator yields, a reader may ignore it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cosma.frontend.evaluate import Evaluator
from cosma.frontend.nodes import Node, make_node, readable
from cosma.frontend.values import TensorType, Value
from cosma.graph.semantics import RANDOM, RANDOM_IN_TRAINING, UPDATING, is_random
from cosma.graph.tensor import AttributeValue, Part

#: Longest list among the attributes that is kept: axes, pads and permutations are shorter.
MOST_VALUES = 64
#: First opset in which Dropout's operand says whether it trains; from 7 to 11 it never does.
_DROPOUT_OPERAND = 12
#: First opset in which BatchNormalization has ``training_mode``; from 7 to 13 the declared results say.
_NORMALISATION_ATTRIBUTE = 14
#: First opset without ``is_test``, whose default of 0 means training.
_NO_IS_TEST = 7
#: Position of the operand that says whether a dropout of ONNX Runtime trains.
_TRAINING_OPERAND = {"BiasDropout": 4, "BitmaskBiasDropout": 4, "BitmaskDropout": 2}


def read_part(node: Node, operands: Sequence[Value | None], evaluator: Evaluator, opset: int) -> Part:
    """What a node means; operands are by position, None for an absent one."""
    attributes = dict(_scalars(node))
    if _trains(node, operands, evaluator, opset):
        attributes["training_mode"] = 1
    if not node.domain and node.type in UPDATING and _reads_twice(operands):
        attributes["reads_twice"] = 1
    return Part(node.qualified_type.replace("+", "_"), node.domain, tuple(sorted(attributes.items())))


def draws_random(node: Node, part: Part) -> bool:
    """Whether a node draws random numbers, itself or in a subgraph."""
    return is_random(part) or any(
        inner.type in RANDOM or (inner.type in RANDOM_IN_TRAINING and _may_train(inner)) for inner in inner_nodes(node)
    )


def is_deterministic(node: Node, part: Part) -> bool:
    """Whether a node's results are known to be a function of its operands; operators inside must be ONNX's own."""
    return not draws_random(node, part) and not any(inner.domain for inner in inner_nodes(node))


def inner_nodes(node: Node) -> Iterator[Node]:
    """Every node of a node's subgraphs, at any depth."""
    stack = [attribute.g for attribute in node.attributes.values() if attribute.HasField("g")]
    while stack:
        for proto in stack.pop().node:
            inner = make_node(proto)
            yield inner
            stack.extend(attribute.g for attribute in inner.attributes.values() if attribute.HasField("g"))


def further_types(node: Node, part: Part, operands: Sequence[Value | None]) -> list[TensorType] | None:
    """Types of a normalisation's and a dropout's further results where inference leaves them open.

    A normalisation's statistics have one value per channel in training mode; a dropout's mask has its operand's type
    before opset 10, the only opsets that leave it open, in either mode.
    """
    first = operands[0] if operands else None
    if first is None or not (part.attribute("training_mode") or part.type == "Dropout"):
        return None
    if part.type == "BatchNormalization":
        mean = operands[3] if len(operands) > 3 and operands[3] is not None else first
        channels = (first.shape[1],) if len(first.shape) > 1 else (1,)
        return [first.type, *(TensorType(mean.element, channels) for _ in node.outputs[1:])]
    return [first.type] * len(node.outputs) if part.type == "Dropout" else None


def _scalars(node: Node) -> Iterator[tuple[str, AttributeValue]]:
    """Attributes that are numbers, texts or short lists; tensors and subgraphs stay in the model."""
    for name, attribute in node.attributes.items():
        match attribute.type:
            case attribute.INT:
                yield name, int(attribute.i)
            case attribute.FLOAT:
                yield name, float(attribute.f)
            case attribute.STRING:
                yield name, readable(attribute.s)
            case attribute.INTS if len(attribute.ints) <= MOST_VALUES:
                yield name, tuple(int(value) for value in attribute.ints)
            case attribute.FLOATS if len(attribute.floats) <= MOST_VALUES:
                yield name, tuple(float(value) for value in attribute.floats)
            case attribute.STRINGS if len(attribute.strings) <= MOST_VALUES:
                yield name, tuple(readable(value) for value in attribute.strings)


def _trains(node: Node, operands: Sequence[Value | None], evaluator: Evaluator, opset: int) -> bool:
    """Whether a node runs in training mode, or may: an operand computed at run time can say either."""
    if not node.domain and node.type == "BatchNormalization":
        if opset >= _NORMALISATION_ATTRIBUTE:
            return bool(node.integer("training_mode", 0))
        return any(node.outputs[1:]) or (opset < _NO_IS_TEST and not node.integer("is_test", 0))
    if not node.domain and node.type == "Dropout":
        if opset < _NO_IS_TEST:
            return not node.integer("is_test", 0)
        position = 2 if opset >= _DROPOUT_OPERAND else None
    else:
        position = _TRAINING_OPERAND.get(node.type) if node.domain == "com.microsoft" else None
    if position is None or position >= len(operands):
        return False
    operand = operands[position]
    if operand is None:
        return False
    array = evaluator.array(operand) if operand.constant else None
    return array is None or bool(array.any())


def _reads_twice(operands: Sequence[Value | None]) -> bool:
    """Whether the first operand of an update is a constant, or is read as another operand too."""
    first = operands[0] if operands else None
    if first is None or first.constant:
        return True
    return any(operand is not None and operand.root == first.root for operand in operands[1:])


def _may_train(node: Node) -> bool:
    """Whether a dropout inside a subgraph may train; its operands are not known here."""
    if node.type == "Dropout":
        return len([name for name in node.inputs if name]) > 2 or node.integer("is_test") == 0
    return len(node.inputs) > _TRAINING_OPERAND[node.type]
