"""What the importer knows about each name of a model: its type, whether it is constant, what it is a view of."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

from cosma.graph.dtypes import WIDTH_BITS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from cosma.frontend.nodes import Node

    Array = npt.NDArray[np.generic]

#: Constants of more elements than this are never evaluated: no shape depends on them.
EVALUATE_LIMIT = 65_536


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element type (ONNX's number) and shape, either of which may be unknown in part."""

    #: ``TensorProto.DataType``; 0 where unknown.
    element: int
    #: Dimensions, None for an unknown one; None as a whole where even the rank is unknown.
    shape: tuple[int | None, ...] | None
    #: Shape in a run in which every size known only at run time is least; None where it is the same.
    low: tuple[int, ...] | None = None

    @property
    def known(self) -> bool:
        """Whether the element type and every dimension are known."""
        return self.element != 0 and self.shape is not None and all(d is not None for d in self.shape)

    def __str__(self) -> str:
        name = dtype_name(self.element) if self.element else "unknown type"
        if self.shape is None:
            return f"{name} of unknown rank"
        return f"{name}[{','.join('?' if d is None else str(d) for d in self.shape)}]"


@dataclass(slots=True, eq=False)
class Value:
    """One value of the model."""

    #: Name it was first met under.
    name: str
    #: Element type (ONNX's number) and full static shape. A view has its own shape.
    element: int
    shape: tuple[int, ...]
    #: Name of the tensor that holds the bytes; a view has its operand's.
    root: str
    #: Whether it is known before the model runs.
    constant: bool = False
    #: For a constant: the weights that are read to have it. Itself, unless it is computed from fewer bytes; empty where
    #: only shapes and attributes decide it.
    stored: tuple[str, ...] = ()
    #: For a sequence: its tensors, in order.
    elements: tuple[Value, ...] | None = None
    #: Where a constant's content comes from: a tensor message, or a node, its operands and which result of it; the
    #: content once evaluated, and whether that was tried.
    tensor: Any = None
    source: tuple[Node, tuple[Value | None, ...], int] | None = None
    array: Array | None = field(default=None, repr=False)
    evaluated: bool = False
    #: For a constant stored as itself: the stored constant of the same size that it is computed from, if any.
    equal_to: str | None = None
    #: The same value in a run in which every size known only at run time is least: smaller, or a constant computed from
    #: such sizes. None where it is the same in every run.
    low: Value | None = None

    @property
    def type(self) -> TensorType:
        """Type as a possibly partial one."""
        low = None if self.low is None or self.low.shape == self.shape else self.low.shape
        return TensorType(self.element, self.shape, low)

    @property
    def is_computed(self) -> bool:
        """Whether it is a constant that operators compute from other stored constants as they read it."""
        return self.constant and bool(self.stored) and self.stored != (self.root,)

    @property
    def count(self) -> int:
        """Number of elements."""
        return prod(self.shape)


def value_of(name: str, found: TensorType) -> Value:
    """A tensor of its own, of a known type."""
    assert found.shape is not None
    shape = tuple(d for d in found.shape if d is not None)
    low = None if found.low is None else Value(name, found.element, found.low, name)
    return Value(name, found.element, shape, name, low=low)


def lowest(values: Operands) -> Operands:
    """Values in a run in which every size known only at run time is least."""
    return tuple(value if value is None or value.low is None else value.low for value in values)


#: What a node reads, by position; None for an optional operand that is left out.
Operands: TypeAlias = tuple[Value | None, ...]


def dtype_name(element: int) -> str:
    """Name of an ONNX element type in lower case, ``float32`` and ``float64`` for ONNX's FLOAT and DOUBLE.

    Unknown numbers come back as ``elem_type N``.
    """
    from onnx import TensorProto

    try:
        name = str(TensorProto.DataType.Name(element)).lower()
    except ValueError:
        return f"elem_type {element}"
    return {"float": "float32", "double": "float64"}.get(name, name)


def has_width(element: int) -> bool:
    """Whether an element type is known and has a fixed width."""
    return dtype_name(element) in WIDTH_BITS
