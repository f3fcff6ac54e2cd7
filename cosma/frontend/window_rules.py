"""Sizes of pooled and resized tensors where runtimes and ONNX's own inference differ.

- **Pooling.** With ``ceil_mode`` a last window that starts in the padding behind the operand is left out, as ONNX
  Runtime, PyTorch and ONNX from opset 22 on have it (onnx pull request 5741). ONNX's inference counts it before.
- **Padding by name.** ``SAME_UPPER`` and ``SAME_LOWER`` with dilations: ONNX Runtime leaves the dilations out of the
  padding it derives (``pool_attributes.h``), so the result is smaller than the standard says.
- **ConvTranspose with an output_shape** below the size of the operand: ONNX's inference leaves the axes out.
- **ConvTranspose padded by name**: ONNX Runtime yields size times stride whatever the ``output_padding`` is, or less
  where kernel and ``output_padding`` reach less far. ONNX's inference adds the ``output_padding``.
- **Resize and Upsample by scales.** ONNX Runtime multiplies in float32 and cuts off (``upsamplebase.h``): 10 by 0.7 is
  7, although the float32 number 0.7 lies below seven tenths. PyTorch's results agree. ONNX's inference yields 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import floor

from cosma.frontend.contrib_calls import Call, Types
from cosma.frontend.evaluate import Evaluator
from cosma.frontend.nodes import Node
from cosma.frontend.values import Operands, TensorType, Value

Shape = tuple[int, ...]

_POOLS = frozenset({"AveragePool", "LpPool", "MaxPool"})
_RESIZERS = frozenset({"Resize", "Upsample"})


@dataclass(frozen=True, slots=True)
class Sizing:
    """Shape of a result that depends on who computes it."""

    #: What ONNX Runtime yields.
    shape: Shape
    #: What else follows from the operator's definition, by other rounding: a model that states it is right too.
    also: tuple[Shape, ...] = ()
    #: Why there is more than one.
    why: str = ""


def sizing(node: Node, operands: Operands, found: TensorType, evaluator: Evaluator, opset: int) -> Sizing | None:
    """Shape of a pooled or resized tensor; None for other operators and where ONNX's inference is the only answer.

    ``found`` is the type of the first result by ONNX's inference.
    """
    first = operands[0] if operands else None
    if node.domain or first is None or first.elements is not None:
        return None
    if node.type in _POOLS:
        return _pool_sizing(node, first, found)
    if node.type == "ConvTranspose":
        return _transposed_sizing(node, operands, found)
    if node.type in _RESIZERS:
        return _resize_sizing(node, first, _scales(node, operands, evaluator, opset), found)
    return None


def _pool_sizing(node: Node, operand: Value, found: TensorType) -> Sizing | None:
    sizes = pooled(node, operand.shape[2:])
    if sizes is None:
        return None
    shape = (*operand.shape[:2], *sizes)
    if not found.known or found.shape == shape or not _pads_by_name(node):
        return Sizing(shape)
    stated = tuple(d for d in found.shape or () if d is not None)
    return Sizing(shape, (stated,), "ONNX Runtime leaves dilations out of the padding of auto_pad")


def _transposed_sizing(node: Node, operands: Operands, found: TensorType) -> Sizing | None:
    first, weight = operands[0], operands[1] if len(operands) > 1 else None
    if weight is None or first is None or len(weight.shape) < 2 or len(weight.shape) != len(first.shape):
        return None
    ends = (first.shape[0], weight.shape[1] * (node.integer("group") or 1))
    given, rank = node.integers("output_shape"), len(first.shape) - 2
    if given:
        return Sizing((*ends, *given)) if len(given) == rank else None
    added = node.integers("output_padding")
    if not added or not _pads_by_name(node):
        return None
    ones = (1,) * rank
    kernel, strides = node.integers("kernel_shape") or weight.shape[2:], node.integers("strides") or ones
    parts = list(zip(first.shape[2:], kernel, strides, node.integers("dilations") or ones, added, strict=False))
    reach = [(size - 1) * stride + more + (width - 1) * step + 1 for size, width, stride, step, more in parts]
    shape = (*ends, *(min(far, size * stride) for far, (size, _, stride, _, _) in zip(reach, parts, strict=True)))
    if len(shape) != rank + 2 or not found.known or found.shape == shape:
        return None
    stated = tuple(d for d in found.shape or () if d is not None)
    return Sizing(shape, (stated,), "ONNX Runtime does not add output_padding to what auto_pad yields")


def _pads_by_name(node: Node) -> bool:
    return node.text("auto_pad", "NOTSET").startswith("SAME")


def pooled(node: Node, sizes: Shape) -> Shape | None:
    """Sizes of the axes a window moves over after pooling, as ONNX Runtime computes them.

    None where the attributes do not fit the operand, or a window is larger than the padded operand.
    """
    kernel = node.integers("kernel_shape")
    rank = len(sizes)
    strides = node.integers("strides") or (1,) * rank
    dilations = node.integers("dilations") or (1,) * rank
    pads = node.integers("pads") or (0,) * (2 * rank)
    if kernel is None or {len(kernel), len(strides), len(dilations)} != {rank} or len(pads) != 2 * rank:
        return None
    if min((*kernel, *strides, *dilations), default=0) < 1:
        return None
    auto_pad, up = node.text("auto_pad", "NOTSET"), bool(node.integer("ceil_mode", 0))
    result = []
    for axis, size in enumerate(sizes):
        stride, before, after = strides[axis], pads[axis], pads[rank + axis]
        if auto_pad == "VALID":
            before = after = 0
        elif auto_pad.startswith("SAME"):
            needed = (-(-size // stride) - 1) * stride + kernel[axis] - size
            before = (needed + 1) // 2 if auto_pad == "SAME_LOWER" else needed // 2
            after = needed - before
        room = size + before + after - dilations[axis] * (kernel[axis] - 1) - 1
        if room < 0 and not (auto_pad.startswith("SAME") and room > -stride):
            return None
        room = max(room, 0)
        count = (-(-room // stride) if up else room // stride) + 1
        if up and (count - 1) * stride >= size + before:
            count -= 1
        result.append(count)
    return tuple(result)


def _scales(node: Node, operands: Operands, evaluator: Evaluator, opset: int) -> list[float] | None:
    """Scales of a Resize or Upsample, by axis; None where sizes decide, or they are not known in advance."""
    if node.type == "Upsample" and opset < 9:
        attribute = node.attributes.get("scales")
        return None if attribute is None else list(attribute.floats)
    position = 2 if node.type == "Resize" and opset >= 11 else 1
    operand = operands[position] if position < len(operands) else None
    array = evaluator.array(operand) if operand is not None and operand.constant else None
    if array is None or array.size == 0 or array.dtype.kind != "f":
        return None
    return [float(scale) for scale in array.ravel()]


def _resize_sizing(node: Node, operand: Value, scales: list[float] | None, found: TensorType) -> Sizing | None:
    rank = len(operand.shape)
    axes = node.integers("axes") or tuple(range(rank))
    if scales is None or len(scales) != len(axes) or not all(-rank <= axis < rank for axis in axes):
        return None
    if not all(0 < scale < float("inf") for scale in scales):
        return None
    shape, exact, decimal = list(operand.shape), list(operand.shape), list(operand.shape)
    for axis, scale in zip(axes, scales, strict=True):
        size = operand.shape[axis]
        shape[axis] = scaled(size, scale)
        exact[axis] = floor(Fraction(scale) * size)
        decimal[axis] = floor(Fraction(_shortest(scale)) * size)
    others = {tuple(exact), tuple(decimal)}
    if found.known and found.shape is not None:
        others.add(tuple(d for d in found.shape if d is not None))
    return Sizing(
        tuple(shape), tuple(sorted(others - {tuple(shape)})), "ONNX Runtime multiplies sizes and scales in float32"
    )


def unpooled(call: Call) -> Types:
    """MaxUnpool: the shape it is given, else the one that pooling without padding would have come from."""
    shape, given = call.shape(0), call.numbers(2)
    kernel = call.node.integers("kernel_shape")
    if shape is None or kernel is None or len(kernel) != len(shape) - 2:
        return None
    if call.has(2):
        return None if given is None or len(given) != len(shape) else [TensorType(call.element(0), given)]
    rank = len(kernel)
    strides = call.node.integers("strides") or (1,) * rank
    pads = call.node.integers("pads") or (0,) * (2 * rank)
    if len(strides) != rank or len(pads) != 2 * rank:
        return None
    sizes = [(shape[2 + i] - 1) * strides[i] - pads[i] - pads[rank + i] + kernel[i] for i in range(rank)]
    return [TensorType(call.element(0), (*shape[:2], *sizes))]


def scaled(size: int, scale: float) -> int:
    """A size times a scale as ONNX Runtime has it: a product in float32, cut off."""
    import numpy as np

    return int(np.float32(scale) * np.float32(size))


def _shortest(scale: float) -> str:
    """The shortest decimal that reads as the same float32: the scale as its author wrote it."""
    import numpy as np

    return np.format_float_positional(np.float32(scale), unique=True)
