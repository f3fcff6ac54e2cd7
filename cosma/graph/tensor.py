"""Tensors and operators: the two kinds of thing a graph is made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

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


@dataclass(frozen=True, slots=True)
class Operator:
    """A unit of execution.

    Attributes
    ----------
    name
        Unique in its graph.
    type
        ONNX operator type; fused operators join theirs with ``+``, as in ``Conv+Relu``.
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
    """

    name: str
    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()
    macs: int | None = None

    @property
    def operands(self) -> tuple[str, ...]:
        """Activations and constants read, each once, activations first."""
        return self.inputs + self.weights
