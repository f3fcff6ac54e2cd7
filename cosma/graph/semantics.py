"""What an ONNX operator is, as far as plans depend on it: elementwise, in place, deterministic.

One table and a few predicates, all of which take an operator with its attributes. None looks at how many results
are read: that changes what must be stored, never what is computed.
"""

from __future__ import annotations

from enum import Enum

from cosma.graph.tensor import Operator, Part


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
    # normalisation with fixed statistics; in training mode it is none of these, see is_elementwise_part
    "BatchNormalization": _F,
    # arithmetic of several operands
    "Add": _A, "Sub": _A, "Mul": _A, "Div": _A, "Mod": _A, "Pow": _A, "Max": _A, "Min": _A, "Mean": _A,
    "Sum": _A, "And": _A, "Or": _A, "Xor": _A, "BitShift": _A, "BitwiseAnd": _A, "BitwiseOr": _A,
    "BitwiseXor": _A, "Where": _A,
    # quantised arithmetic, scales and zero points as constants
    "QLinearAdd": _A, "QLinearLeakyRelu": _F, "QLinearMul": _A, "QLinearSigmoid": _F, "QLinearWhere": _A,
    # comparisons
    "Equal": _W, "Greater": _W, "GreaterOrEqual": _W, "Less": _W, "LessOrEqual": _W,
}  # fmt: skip

#: Operators whose result is their first operand with some elements replaced: written over it, they write those alone.
UPDATING = frozenset({"Scatter", "ScatterElements", "ScatterND", "TensorScatter"})

#: Operators whose results are not a function of their operands.
RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
#: Operators that draw random numbers in training mode.
RANDOM_IN_TRAINING = frozenset({"BiasDropout", "BitmaskBiasDropout", "BitmaskDropout", "Dropout"})

#: Operators that carry elements over unchanged: quantised with one scale before and behind, they read none.
CARRYING = frozenset(
    {"DepthToSpace", "Expand", "Gather", "GatherElements", "GatherND", "MaxPool", "Pad", "Resize", "Slice",
     "SpaceToDepth", "Split", "Tile", "Transpose"}
)  # fmt: skip


def is_training(part: Part) -> bool:
    """Whether a normalisation or a dropout runs in training mode, as the importer found."""
    return bool(part.attribute("training_mode"))


def is_random(part: Part) -> bool:
    """Whether two executions on the same operands may differ."""
    return part.type in RANDOM or (part.type in RANDOM_IN_TRAINING and is_training(part))


def is_elementwise_part(part: Part) -> bool:
    """Whether each element of the first result depends only on operand elements at the same position."""
    return part.type in ELEMENTWISE and not is_training(part)


def is_elementwise(operator: Operator) -> bool:
    """Whether every part of an operator works element by element, and the operator has one result."""
    return len(operator.outputs) == 1 and all(is_elementwise_part(part) for part in operator.parts)


def is_update(operator: Operator) -> bool:
    """Whether an operator replaces elements of its first operand, an activation that it reads for nothing else.

    The importer says by ``reads_twice`` where the first operand is a constant, or another operand as well.
    """
    (part, *more) = operator.parts
    alone = not more and not operator.domain and len(operator.outputs) == 1
    return alone and part.type in UPDATING and not part.attribute("reads_twice")


def overwrite_rules(operator: Operator) -> frozenset[Overwrite]:
    """Which operands each part of an elementwise operator may overwrite."""
    return frozenset(ELEMENTWISE[part.type] for part in operator.parts)
