"""How a network is quantised: in which form, which operators are integer, and what stays in floating point and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cosma.graph import TensorKind
from cosma.graph.dtypes import is_floating, width_bits
from cosma.rewrite.quantise import DEQUANTISE, QUANTISE, is_node

if TYPE_CHECKING:
    from cosma.graph import Graph, Operator, Tensor

#: Operators that quantise activations by ranges found while the model runs, and the products behind them.
DYNAMIC = frozenset(
    {"ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "MatMulInteger",
     "MatMulIntegerToFloat"}
)  # fmt: skip
#: Operators on quantised operands with their scales, besides those whose names begin with ``QLinear``.
INTEGER = frozenset({"QAttention", "QEmbedLayerNormalization", "QGemm"})
#: Operators that only change between floating point and quantised values.
CONVERSIONS = (DEQUANTISE, QUANTISE, "DynamicQuantizeLinear")
#: Widest element, in bits, that counts as quantised; indices and shapes are wider.
WIDEST_QUANTISED_BITS = 16


@dataclass(frozen=True, slots=True)
class FloatOperator:
    """An operator of a quantised network that computes in floating point."""

    #: Name and type.
    operator: str
    type: str
    #: What keeps it from being an integer operator.
    why: str


@dataclass(frozen=True, slots=True)
class Quantisation:
    """How a network is quantised."""

    #: ``QDQ``, ``QOperator``, ``dynamic``, ``weights`` (nothing but weights) or ``none``; several joined by ``+``.
    form: str
    #: Operators on quantised operands, one for each group of QDQ nodes.
    integer_operators: int
    #: Operators that only quantise or dequantise, at the borders to floating point.
    conversions: int
    #: Operators in floating point, each with the reason; empty where nothing is quantised.
    stays_float: tuple[FloatOperator, ...]


def describe_quantisation(graph: Graph) -> Quantisation:
    """Say how a network is quantised; groups of QDQ nodes must be operators already, see :func:`quantise`."""
    forms: dict[str, None] = {}
    integer = conversions = 0
    floats: list[Operator] = []
    quantised_weights = False
    for operator in graph.operators:
        kinds = {part.type for part in operator.parts}
        if kinds & {DEQUANTISE, QUANTISE}:
            forms["QDQ"] = None
        if _is_integer_type(operator.type):
            forms["dynamic" if operator.type in DYNAMIC else "QOperator"] = None
        quantised_weights = quantised_weights or any(_is_quantised(graph.tensors[name]) for name in operator.weights)
        if not operator.fused and operator.type in CONVERSIONS:
            conversions += 1
        elif DEQUANTISE in kinds or _is_integer_type(operator.type) or _only_quantised(graph, operator):
            integer += 1
        elif any(_is_float(graph.tensors[name]) for name in (*operator.inputs, *operator.outputs)):
            floats.append(operator)
    if not forms and quantised_weights:
        forms["weights"] = None
    if not forms:
        return Quantisation("none", 0, 0, ())
    reasons = tuple(FloatOperator(o.name, o.type, _why_float(graph, o)) for o in floats)
    return Quantisation("+".join(sorted(forms)), integer, conversions, reasons)


def _is_integer_type(kind: str) -> bool:
    return kind.startswith("QLinear") or kind in INTEGER or (kind in DYNAMIC and kind != "DynamicQuantizeLinear")


def _only_quantised(graph: Graph, operator: Operator) -> bool:
    """Whether an operator without scales works on quantised values, as max pooling or a transposition may."""
    touched = [graph.tensors[name] for name in (*operator.inputs, *operator.outputs)]
    return bool(operator.inputs) and all(_is_quantised(tensor) for tensor in touched)


def _why_float(graph: Graph, operator: Operator) -> str:
    for name in operator.inputs:
        if not _is_float(graph.tensors[name]):
            continue
        producer = graph.producer(name)
        if producer is None:
            return f"reads the graph input {name!r}, which is floating point"
        maker = graph.operator(producer)
        if not is_node(maker, DEQUANTISE):
            return f"reads {name!r}, which {producer!r} ({maker.type}) yields in floating point"
    for name in operator.outputs:
        tensor, readers = graph.tensors[name], graph.consumers(name)
        if not _is_float(tensor):
            continue
        if tensor.kind is TensorKind.OUTPUT:
            return f"its result {name!r} is a graph output in floating point"
        for reader in readers:
            if not is_node(graph.operator(reader), QUANTISE):
                return f"its result {name!r} is read by {reader!r} ({graph.operator(reader).type}) in floating point"
    return "its results are not quantised one for one"


def _is_float(tensor: Tensor) -> bool:
    return tensor.dtype is not None and is_floating(tensor.dtype) and not _is_quantised(tensor)


def _is_quantised(tensor: Tensor) -> bool:
    """Whether elements are narrow integers or floating point of eight bits or less; truth values are neither."""
    if tensor.dtype is None or tensor.dtype in ("bool", "string"):
        return False
    bits = width_bits(tensor.dtype)
    return bits <= 8 if is_floating(tensor.dtype) else bits <= WIDEST_QUANTISED_BITS
