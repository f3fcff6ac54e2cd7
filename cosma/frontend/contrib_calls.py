"""What a rule for one of ONNX Runtime's operators is given, and the shapes that several operators share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from cosma.frontend.nodes import Node
from cosma.frontend.values import TensorType, Value

if TYPE_CHECKING:
    from cosma.frontend.values import Array

#: Numbers of ``TensorProto.DataType``.
FLOAT, UINT8, INT8, INT32, INT64, BOOL, UINT32 = 1, 2, 3, 6, 7, 9, 12

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One node with its operands."""

    #: The node.
    node: Node
    #: By position, None for an absent one.
    operands: Sequence[Value | None]
    #: Content of constant operands that decide a shape, by position.
    content: Mapping[int, Array]

    def has(self, position: int) -> bool:
        """Whether an operand is there."""
        return position < len(self.operands) and self.operands[position] is not None

    def shape(self, position: int) -> Shape | None:
        """Shape of an operand; None where it is absent."""
        operand = self.operands[position] if position < len(self.operands) else None
        return None if operand is None else operand.shape

    def element(self, position: int) -> int:
        """Element type of an operand; 0 where it is absent."""
        operand = self.operands[position] if position < len(self.operands) else None
        return 0 if operand is None else operand.element

    def type(self, position: int) -> TensorType:
        """Type of an operand; an unknown one where it is absent."""
        return TensorType(self.element(position), self.shape(position))

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        value = self.node.integer(name, default)
        return default if value is None else value

    def numbers(self, position: int) -> tuple[int, ...] | None:
        """Content of an integer operand; None where it is not known in advance."""
        array = self.content.get(position)
        if array is None or array.dtype.kind not in "iu":
            return None
        return tuple(int(number) for number in array.ravel().tolist())


#: One type per result; None where the rule does not apply.
Types: TypeAlias = list[TensorType] | None
Rule: TypeAlias = Callable[[Call], Types]


def like(*positions: int) -> Rule:
    """Each result has the type of an operand."""

    def rule(call: Call) -> Types:
        return [call.type(i) for i in positions] if all(call.has(i) for i in positions) else None

    return rule


def broadcast_shape(shapes: Sequence[Shape]) -> Shape | None:
    """Shape that several broadcast to; None where they do not fit."""
    rank = max(map(len, shapes), default=0)
    result = []
    for axis in range(-rank, 0):
        sizes = {shape[axis] for shape in shapes if -axis <= len(shape)} - {1}
        if len(sizes) > 1:
            return None
        result.append(sizes.pop() if sizes else 1)
    return tuple(result)


def broadcast_of(element: int | None, *positions: int) -> Rule:
    """One result, broadcast from operands, with a fixed element type or that of the first."""

    def rule(call: Call) -> Types:
        shapes = [call.shape(i) for i in positions]
        given = [shape for shape in shapes if shape is not None]
        shape = broadcast_shape(given) if len(given) == len(shapes) else None
        return None if shape is None else [TensorType(element or call.element(positions[0]), shape)]

    return rule


def broadcast(*positions: int) -> Rule:
    """One result, broadcast from operands, with the first one's element type."""
    return broadcast_of(None, *positions)


def matmul_shape(call: Call, left: int = 0, right: int = 1) -> Shape | None:
    """Shape of a matrix product, with the transpositions of ``FusedMatMul``."""
    a, b = call.shape(left), call.shape(right)
    if not a or not b:
        return None
    a = _transposed(a, bool(call.integer("transA", 0)), bool(call.integer("transBatchA", 0)))
    b = _transposed(b, bool(call.integer("transB", 0)), bool(call.integer("transBatchB", 0)))
    rows, columns = a[-2:-1], b[-1:]
    if len(b) == 1:
        b, columns = (*b, 1), ()
    batch = broadcast_shape([a[:-2], b[:-2]])
    if batch is None or a[-1] != b[-2]:
        return None
    return (*batch, *rows, *columns)


def _transposed(shape: Shape, matrix: bool, batch: bool) -> Shape:
    """Move the first axis in front of the last (``transBatch``), then swap the last two (``trans``)."""
    if len(shape) < 2:
        return shape
    if batch:
        shape = (*shape[1:-1], shape[0], shape[-1])
    return (*shape[:-2], shape[-1], shape[-2]) if matrix else shape


def matmul(call: Call) -> Types:
    """A matrix product with the first operand's element type."""
    shape = matmul_shape(call)
    return None if shape is None else [TensorType(call.element(0), shape)]


def reduced_shape(call: Call) -> Shape | None:
    """Shape of the first operand reduced over the attribute ``axes``; all of them where it is absent."""
    shape = call.shape(0)
    if shape is None:
        return None
    rank = len(shape)
    axes = call.node.integers("axes") or tuple(range(rank))
    if not all(-rank <= axis < rank for axis in axes):
        return None
    gone = {axis % rank for axis in axes}
    if call.integer("keepdims", 1):
        return tuple(1 if axis in gone else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in gone)
