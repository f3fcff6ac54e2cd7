"""Tensors and operators: the two kinds of thing a graph is made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from cosma.errors import GraphError


class TensorKind(StrEnum):
    """What a tensor is to the graph as a whole."""

    INPUT = "input"
    WEIGHT = "weight"
    INTERMEDIATE = "intermediate"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class Tensor:
    """An immutable value: one producer at most, any number of consumers.

    Attributes
    ----------
    name
        Unique in its graph.
    size_bytes
        True size; zero is allowed.
    kind
        Graph input, constant, intermediate or graph output. An output may also have consumers.
    dtype
        Element type in ONNX's lower-case words (``float32``, ``int8``, ``bool`` ...), where known.
    shape
        Dimensions, where known.
    """

    name: str
    size_bytes: int
    kind: TensorKind = TensorKind.INTERMEDIATE
    dtype: str | None = None
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise GraphError("a tensor has an empty name; give every tensor a unique name")
        if self.size_bytes < 0:
            raise GraphError(f"tensor {self.name!r}: size of {self.size_bytes} bytes is negative")

    @property
    def starts_off_chip(self) -> bool:
        """Whether a valid off-chip copy exists before the first operator runs."""
        return self.kind in (TensorKind.INPUT, TensorKind.WEIGHT)


#: Value of an attribute: a scalar or a flat list, so that operators stay small, hashable and writable as JSON.
AttributeValue: TypeAlias = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]
Attributes: TypeAlias = tuple[tuple[str, AttributeValue], ...]


@dataclass(frozen=True, slots=True)
class Part:
    """One ONNX operator as its node states it.

    Attributes
    ----------
    type
        ONNX operator type, with the domain before it unless it is ONNX's or ONNX Runtime's.
    domain
        ONNX domain; empty for ONNX's own.
    attributes
        Scalars and flat lists by name, sorted by name. The importer adds what the opset or a constant operand
        decides: ``training_mode`` of BatchNormalization and Dropout.
    """

    type: str
    domain: str = ""
    attributes: Attributes = ()

    def attribute(self, name: str) -> AttributeValue | None:
        """Value of an attribute; None where the node does not state it."""
        return next((value for key, value in self.attributes if key == name), None)


@dataclass(frozen=True, slots=True)
class Operator:
    """A unit of execution.

    Attributes
    ----------
    name
        Unique in its graph.
    type
        ONNX operator type; a fused operator's is the types of its parts joined with ``+``, as in ``Conv+Relu``. It is
        for display and for the plan file: what an operator means is for its parts to say.
    inputs
        Activations read, in operand order, each once.
    outputs
        Tensors produced.
    weights
        Constants read, each once.
    covers
        First output name of every ONNX node this operator stands for, views and fused nodes included.
    macs
        Multiply-accumulates of one execution, where known (for time and energy estimates only).
    domain, attributes
        As in :class:`Part`, of an operator that is one ONNX node.
    fused
        Parts of an operator that stands for several, in the order they compute; empty for one of a single part.
    """

    name: str
    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()
    macs: int | None = None
    domain: str = ""
    attributes: Attributes = ()
    fused: tuple[Part, ...] = ()

    @property
    def operands(self) -> tuple[str, ...]:
        """Activations and constants read, each once, activations first."""
        return self.inputs + self.weights

    @property
    def parts(self) -> tuple[Part, ...]:
        """ONNX operators this one stands for, in the order they compute."""
        return self.fused or (Part(self.type, self.domain, self.attributes),)


def joined_type(parts: Iterable[Part]) -> str:
    """Type of an operator of several parts, for display and for the plan file."""
    return "+".join(part.type for part in parts)
