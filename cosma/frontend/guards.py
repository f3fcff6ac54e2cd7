"""What ONNX's own shape inference cannot be handed, found before it is called.

It is compiled code that trusts its input: an axis far outside a tensor's rank, a shape of billions of dimensions or
more results than pieces end the process or fill memory instead of raising an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cosma.door import MOST, shown
from cosma.errors import ModelLoadError
from cosma.frontend.parameters import parameter_positions

if TYPE_CHECKING:
    from cosma.frontend.nodes import Node
    from cosma.frontend.values import Value

#: Most dimensions of a tensor: numpy's limit since its version 2.0, and far above any network's.
MOST_DIMENSIONS = 64
#: Most pieces that a sequence is split into: each is a tensor of the graph.
MOST_PIECES = 100_000

_AXES = ("axis", "axes", "perm", "batch_axis", "time_axis", "batch_dims")
#: Operators of which a parameter counts pieces or rounds, not dimensions.
_COUNTS = ("If", "Loop", "Split", "SplitToSequence")
#: Operators whose inference takes an axis beyond the rank for the last one.
_AXIS_UNCHECKED = ("LayerNormalization", "RMSNormalization")


def check_opsets(opsets: Mapping[str, int]) -> None:
    """Refuse versions of operator sets that are none; raises :class:`ModelLoadError`."""
    for domain, version in opsets.items():
        if not 0 <= version < 2**31:
            raise ModelLoadError(f"the model imports version {version} of the domain {domain!r}, which cannot be")


def check_size(name: str, axis: int, size: int) -> None:
    """Refuse a dimension larger than cosma counts; raises :class:`ModelLoadError`."""
    if size > MOST:
        raise ModelLoadError(
            f"axis {axis} of {name!r} has size {shown(size)}, larger than cosma counts (2^{MOST.bit_length() - 1})"
        )


def check_call(node: Node, operands: Sequence[Value | None], opset: int) -> None:
    """Refuse a node that inference cannot be asked about.

    Raises ModelLoadError with the node and what is out of range.
    """
    for name in _AXES:
        for axis in _integers(node, name):
            if not -MOST_DIMENSIONS <= axis <= MOST_DIMENSIONS:
                raise ModelLoadError(f"{node}: {name} {axis} is no axis; tensors have at most {MOST_DIMENSIONS}")
    for operand in operands:
        if operand is not None and operand.elements is None and len(operand.shape) > MOST_DIMENSIONS:
            raise ModelLoadError(f"{node} reads {operand.name!r} of {len(operand.shape)} dimensions")
    if node.domain:
        return
    if node.type not in _COUNTS:
        for i in parameter_positions(node, opset):
            operand = operands[i] if i < len(operands) else None
            if operand is not None and operand.elements is None and operand.count > 2 * MOST_DIMENSIONS:
                raise ModelLoadError(
                    f"{node} is laid out by {operand.name!r} of {operand.count} numbers; "
                    f"tensors have at most {MOST_DIMENSIONS} dimensions"
                )
    if node.type == "Split":
        _check_split(node, operands)
    if node.type in _AXIS_UNCHECKED and operands and operands[0] is not None:
        rank, axis = len(operands[0].shape), node.integer("axis", -1) or 0
        if not -rank <= axis < rank:
            raise ModelLoadError(f"{node}: axis {axis} is outside {operands[0].name!r} {operands[0].type}")


def _check_split(node: Node, operands: Sequence[Value | None]) -> None:
    results, sizes = len(node.outputs), operands[1] if len(operands) > 1 else None
    stated: Any = node.integer("num_outputs")
    if stated is None and sizes is not None:
        stated = sizes.count
    elif stated is None and "split" in node.attributes:
        stated = len(node.integers("split") or ())
    if stated is not None and not results <= stated <= MOST_PIECES:
        raise ModelLoadError(f"{node} splits into {stated} pieces and has {results} results")


def _integers(node: Node, name: str) -> tuple[int, ...]:
    """Whole numbers of an attribute, one or several."""
    attribute = node.attributes.get(name)
    return () if attribute is None else (attribute.i, *attribute.ints)
