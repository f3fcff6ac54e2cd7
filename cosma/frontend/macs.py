"""Multiply-accumulates of one execution, for the operators where the shapes say how many."""

from __future__ import annotations

from math import prod

from cosma.frontend.nodes import Node

Shape = tuple[int, ...]

#: Gates of a cell: rows of its weights for each hidden unit.
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_CONVOLUTIONS = ("Conv", "FusedConv", "NhwcConv", "NhwcFusedConv", "ConvInteger")
#: Products whose second operand is packed: the inner size is the first operand's last axis.
_PACKED_PRODUCTS = frozenset({"MatMulBnb4", "MatMulFpQ4", "MatMulNBits"})
_MATRIX_PRODUCTS = frozenset(
    {"DynamicQuantizeMatMul", "FusedMatMul", "MatMul", "MatMulInteger", "MatMulIntegerToFloat", "QLinearMatMul"}
)


def count_macs(node: Node, operands: list[Shape | None], result: Shape) -> int | None:
    """Count the multiply-accumulates of a node; None where the operator is not counted by these rules.

    Operands are the shapes by position, None for an absent one.
    """
    at = dict(enumerate(shape for shape in operands))
    first, second = at.get(0), at.get(1)
    if first is None or second is None:
        return None
    kind = node.type
    if kind in _CONVOLUTIONS and len(second) > 2:
        return prod(result) * prod(second[1:])
    if kind == "QLinearConv":
        weight = at.get(3)
        return None if weight is None else prod(result) * prod(weight[1:])
    if kind == "ConvTranspose" and len(second) > 2:
        return prod(first) * prod(second[1:])
    if kind in ("Gemm", "FusedGemm", "QGemm") and len(first) == 2:
        return prod(result) * first[0 if node.integer("transA", 0) else 1]
    if kind in _MATRIX_PRODUCTS and first:
        transposed = bool(node.integer("transA", 0)) and len(first) > 1
        return prod(result) * first[-2 if transposed else -1]
    if kind in _PACKED_PRODUCTS and first:
        return prod(result) * first[-1]
    if kind in _GATES and len(first) == 3 and len(second) == 3:
        return _recurrent(node, first, second)
    if kind == "Einsum":
        return _einsum(node, [shape for shape in operands if shape is not None])
    if kind == "Attention" and not node.domain:
        return _attention(node, first, second, at.get(2), result)
    return None


def _recurrent(node: Node, sequence: Shape, weight: Shape) -> int:
    """Directions x steps x batch x gates x hidden x (input + hidden)."""
    directions, gate_rows, width = weight  # [directions, gates * hidden, input]
    hidden = gate_rows // _GATES[node.type]
    return directions * sequence[0] * sequence[1] * gate_rows * (width + hidden)


def _einsum(node: Node, operands: list[Shape]) -> int | None:
    """Product of all distinct labels, of two operands at most; None for anything fancier."""
    equation = node.attributes.get("equation")
    if equation is None or len(operands) > 2:
        return None
    terms = equation.s.decode("ascii", "replace").replace(" ", "").split("->")[0].split(",")
    pairs = list(zip(terms, operands, strict=False))
    if len(terms) != len(operands) or any(len(term) != len(shape) or "." in term for term, shape in pairs):
        return None
    size = {label: d for term, shape in pairs for label, d in zip(term, shape, strict=True)}
    return prod(size.values())


def _attention(node: Node, query: Shape, key: Shape, value: Shape | None, result: Shape) -> int | None:
    """Scores and their product with the values: batch x heads x queries x keys x (key width + value width)."""
    if value is None or len(key) != len(query) or not result:
        return None
    if len(query) == 4:
        batch, heads, queries, width = query
        return batch * heads * queries * key[2] * (width + result[-1])
    heads = node.integer("q_num_heads") or 0
    if len(query) != 3 or not heads:
        return None
    return query[0] * query[1] * key[1] * (query[2] + result[-1])
