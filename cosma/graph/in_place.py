"""Which operators may write a result over an operand, and which are elementwise at all.

One table says so: adding an operator is one line. An operator works in place where every element of the
result depends only on the elements at the same position of the operand that is overwritten, and the result
is no larger than that operand.
"""

from __future__ import annotations

from enum import Enum

from cosma.graph.tensor import Operator, Tensor


class Overwrite(Enum):
    """Which operands an elementwise operator may overwrite."""

    #: The first operand, as in ``Relu`` or ``Clip``; what else it reads are parameters.
    FIRST = "first"
    #: Any operand of the result's full shape, as in ``Add`` or ``Where``.
    FULL_SHAPE = "full shape"
    #: Any operand of the result's full shape and exactly its width, as in ``Equal``.
    SAME_WIDTH = "same width"


_F, _A, _W = Overwrite.FIRST, Overwrite.FULL_SHAPE, Overwrite.SAME_WIDTH

ELEMENTWISE: dict[str, Overwrite] = {
    # unary arithmetic
    "Abs": _F, "Acos": _F, "Acosh": _F, "Asin": _F, "Asinh": _F, "Atan": _F, "Atanh": _F, "BitwiseNot": _F,
    "Ceil": _F, "Cos": _F, "Cosh": _F, "Erf": _F, "Exp": _F, "Floor": _F, "Log": _F, "Neg": _F, "Not": _F,
    "Reciprocal": _F, "Round": _F, "Sign": _F, "Sin": _F, "Sinh": _F, "Sqrt": _F, "Tan": _F, "Tanh": _F,
    "IsInf": _F, "IsNaN": _F,
    # activations
    "Celu": _F, "Clip": _F, "Elu": _F, "Gelu": _F, "FastGelu": _F, "HardSigmoid": _F, "HardSwish": _F,
    "LeakyRelu": _F, "Mish": _F, "PRelu": _F, "QuickGelu": _F, "Relu": _F, "Selu": _F, "Shrink": _F,
    "Sigmoid": _F, "Softplus": _F, "Softsign": _F, "Swish": _F, "ThresholdedRelu": _F,
    # changes of width and scale
    "Cast": _F, "CastLike": _F, "QuantizeLinear": _F, "DequantizeLinear": _F,
    # normalisation with fixed statistics; in training mode it has more than one result
    "BatchNormalization": _F,
    # arithmetic of several operands
    "Add": _A, "Sub": _A, "Mul": _A, "Div": _A, "Mod": _A, "Pow": _A, "Max": _A, "Min": _A, "Mean": _A,
    "Sum": _A, "And": _A, "Or": _A, "Xor": _A, "BitShift": _A, "BitwiseAnd": _A, "BitwiseOr": _A,
    "BitwiseXor": _A, "Where": _A,
    # comparisons
    "Equal": _W, "Greater": _W, "GreaterOrEqual": _W, "Less": _W, "LessOrEqual": _W,
}  # fmt: skip


def is_elementwise(operator: Operator) -> bool:
    """Whether every part of an operator (fused ones have several) works element by element on one result."""
    return len(operator.outputs) == 1 and all(part in ELEMENTWISE for part in operator.type.split("+"))


def may_overwrite(operator: Operator, result: Tensor, operand: Tensor) -> bool:
    """Whether ``operator`` may write ``result`` over ``operand`` by its type, shapes and sizes.

    Liveness is not looked at: the operand must also die with the operator. Where shapes are unknown (a graph
    built by hand, a plan file read alone), sizes stand in for them.
    """
    if not is_elementwise(operator) or result.name not in operator.outputs:
        return False
    if operand.name not in operator.operands or result.size_bytes > operand.size_bytes:
        return False
    if operand.shape is not None and result.shape is not None and operand.shape != result.shape:
        return False
    rules = {ELEMENTWISE[part] for part in operator.type.split("+")}
    if operand.name != operator.operands[0] and rules == {Overwrite.FIRST}:
        return False
    return Overwrite.SAME_WIDTH not in rules or result.size_bytes == operand.size_bytes


def in_place_operands(operator: Operator, result: Tensor, operands: list[Tensor]) -> list[Tensor]:
    """Operands that ``result`` may take the place of, in operand order. Zero-byte tensors never qualify."""
    if result.size_bytes == 0 or not is_elementwise(operator):
        return []
    return [operand for operand in operands if may_overwrite(operator, result, operand)]
