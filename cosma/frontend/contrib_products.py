"""Matrix products among ONNX Runtime's own operators."""

from __future__ import annotations

from cosma.frontend.contrib_calls import FLOAT, Call, Rule, Types, matmul_shape
from cosma.frontend.values import TensorType


def gemm(left: int = 0, right: int = 1, element_from: int | None = 0) -> Rule:
    """A product of two matrices, either transposed; the element type is an operand's, or the attribute ``dtype``."""
    def rule(call: Call) -> Types:
        a, b = call.shape(left), call.shape(right)
        if a is None or b is None or len(a) != 2 or len(b) != 2:
            return None
        rows, inner = a[::-1] if call.integer("transA", 0) else a
        other, columns = b[::-1] if call.integer("transB", 0) else b
        element = call.integer("dtype", FLOAT) if element_from is None else call.element(element_from)
        return [TensorType(element, (rows, columns))] if inner == other else None

    return rule


def qgemm(call: Call) -> Types:
    """Quantized where the output has a scale, else float."""
    typed = gemm(0, 3)(call)
    return typed and [TensorType(call.element(0) if call.has(7) else FLOAT, typed[0].shape)]


def fixed_columns(name: str = "N", inner: str = "K") -> Rule:
    """A product with packed weights, whose columns are an attribute."""

    def rule(call: Call) -> Types:
        shape, columns = call.shape(0), call.integer(name, -1)
        if not shape or columns < 0 or shape[-1] != call.integer(inner, -1):
            return None
        return [TensorType(call.element(0), (*shape[:-1], columns)), call.type(0)]

    return rule


def matmul_bnb4(call: Call) -> Types:
    """Weights of ``[N, K]``, or ``[K, N]`` where they are not transposed."""
    return fixed_columns("N", "K")(call) if call.integer("transB", 1) else fixed_columns("K", "N")(call)


def matmul_nbits_qkv(call: Call) -> Types:
    """Query, key and value, and the sum before normalization."""
    query, value = fixed_columns("Nq")(call), fixed_columns("Nkv")(call)
    return query and value and [query[0], value[0], value[0], call.type(0)]


def matmul_fpq4(call: Call) -> Types:
    """The weight's shape is an operand."""
    shape, weight = call.shape(0), call.numbers(2)
    if not shape or weight is None or len(weight) != 2 or shape[-1] != weight[0]:
        return None
    return [TensorType(call.element(0), (*shape[:-1], weight[1]))]


def matmul_element(element: int | None, source: int | None = None) -> Rule:
    """A matrix product with a fixed element type, or that of an operand where it is there."""

    def rule(call: Call) -> Types:
        shape = matmul_shape(call)
        chosen = call.element(source) if source is not None and call.has(source) else element
        return None if shape is None or chosen is None else [TensorType(chosen, shape)]

    return rule


def qordered_matmul(call: Call) -> Types:
    """``(A, scale_A, B, ...)``; B is transposed where its order is by columns, which changes no shape."""
    shape = matmul_shape(call, 0, 2)
    return None if shape is None else [TensorType(call.element(0), shape)]
