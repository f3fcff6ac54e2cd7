"""Which constant operands are parameters of an operator rather than data it reads from memory.

A parameter decides how an operator is laid out: a shape, axes, amounts of padding, a number of results. The
compiler uses it up, so it is no memory traffic. Every other constant is a weight, however small: the scalar of a
multiplication, the bounds of a Clip, the scale of a quantization. One table says so; adding an operator is one
line. A parameter that is computed while the model runs is an ordinary operand.
"""

from __future__ import annotations

from cosma.frontend.nodes import Node

_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
)  # fmt: skip

#: Positions of parameters among the operands.
PARAMETERS: dict[str, frozenset[int]] = {
    name: frozenset(positions)
    for name, positions in {
        "AffineGrid": (1,), "BlackmanWindow": (0,), "CenterCropPad": (1,), "Col2Im": (1, 2), "ConstantOfShape": (0,),
        "CumProd": (1,), "CumSum": (1,), "DFT": (1, 2), "Dropout": (1, 2), "Expand": (1,), "HammingWindow": (0,),
        "HannWindow": (0,),
        "If": (0,), "Loop": (0, 1), "MaxUnpool": (2,), "MelWeightMatrix": (0, 1, 2, 3, 4), "NonMaxSuppression": (2,),
        "OneHot": (1,), "Pad": (1, 3), "Range": (0, 1, 2), "Reshape": (1,), "Resize": (1, 2, 3),
        "SequenceAt": (1,), "SequenceErase": (1,), "SequenceInsert": (2,), "Slice": (1, 2, 3, 4), "Split": (1,),
        "SplitToSequence": (1,), "Squeeze": (1,), "STFT": (1, 3), "Tile": (1, 2), "TopK": (1,), "Trilu": (1,),
        "Unsqueeze": (1,), "Upsample": (1,),
        **dict.fromkeys(_REDUCTIONS, (1,)),
    }.items()
}  # fmt: skip

#: Positions of operands of which only the type or the shape is used, never the content.
TYPE_ONLY: dict[str, frozenset[int]] = {
    "CastLike": frozenset({1}),
    "EyeLike": frozenset({0}),
    "RandomNormalLike": frozenset({0}),
    "RandomUniformLike": frozenset({0}),
}

_NONE: frozenset[int] = frozenset()


def type_only_positions(node: Node) -> frozenset[int]:
    """Positions of the operands whose content a node does not read."""
    return _NONE if node.domain else TYPE_ONLY.get(node.type, _NONE)


def parameter_positions(node: Node, opset: int) -> frozenset[int]:
    """Positions of the operands that are parameters."""
    if node.domain not in ("", "com.microsoft"):
        return _NONE
    if node.type == "Resize" and opset < 11:
        return frozenset({1})  # scales came first then
    return PARAMETERS.get(node.type, _NONE)
