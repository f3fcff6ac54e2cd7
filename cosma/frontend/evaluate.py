"""Constants evaluated on demand, with ONNX's reference operators: only what a shape depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cosma.errors import ModelLoadError
from cosma.frontend.nodes import Node
from cosma.frontend.parameters import type_only_positions
from cosma.frontend.values import EVALUATE_LIMIT, Value

if TYPE_CHECKING:
    from cosma.frontend.values import Array

#: What a reference operator may raise on operands it does not take.
_REFERENCE_ERRORS = (
    RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError, NotImplementedError, ArithmeticError,
)  # fmt: skip


def _silent(*_: object) -> None:
    """Take the place of the reference evaluator's log."""


class Evaluator:
    """Evaluates constants with ONNX's reference implementation.

    Parameters
    ----------
    opset
        Version of ONNX's own operators the model declares.
    """

    def __init__(self, opset: int) -> None:
        from onnx import defs

        opset = min(opset, defs.onnx_opset_version())
        self._opset = opset
        self._parameters: dict[str, Any] = {
            "log": _silent, "verbose": 0, "opsets": {"": opset}, "new_ops": None, "existing_functions": {},
        }  # fmt: skip

    def array(self, value: Value) -> Array | None:
        """Content of a constant; None where it is too large, in another file or cannot be computed."""
        stack = [value]
        while stack:
            top = stack[-1]
            if top.evaluated:
                stack.pop()
                continue
            if top.count > EVALUATE_LIMIT or not top.constant:
                top.evaluated = True
            elif top.source is None:
                top.array = None if top.tensor is None else tensor_array(top.tensor)
                top.evaluated = True
            else:
                pending = [
                    operand
                    for operand in top.source[1]
                    if operand is not None and operand.constant and not operand.evaluated
                ]
                if pending:
                    stack.extend(pending)
                    continue
                self._finish(top)
        return value.array

    def _finish(self, value: Value) -> None:
        assert value.source is not None
        node, operands, index = value.source
        value.evaluated = True
        arrays = self.arrays(node, operands)
        results = None if arrays is None else self.run(node, arrays)
        if results is not None and index < len(results):
            value.array = results[index]

    def arrays(self, node: Node, operands: Sequence[Value | None]) -> list[Array | None] | None:
        """Content of all operands, zeros for those of which only the type is used; None if one is not known."""
        ignored = type_only_positions(node)
        found: list[Array | None] = []
        for i, operand in enumerate(operands):
            array = None
            if operand is not None:
                array = _zeros(operand) if i in ignored else self.array(operand)
                if array is None:
                    return None
            found.append(array)
        return found

    def run(self, node: Node, operands: Sequence[Array | None]) -> list[Array] | None:
        """Run one node on constants; None if the reference implementation has no such operator or fails on it."""
        import numpy as np
        from onnx.reference.ops import load_op

        if node.domain or node.subgraphs:
            return None
        try:
            operator = load_op("", node.type, self._opset)
            with np.errstate(all="ignore"):
                results = operator(node.proto, self._parameters).run(*operands)
        except _REFERENCE_ERRORS:
            return None
        arrays = [np.asarray(result) for result in results]
        return arrays if all(array.dtype != object for array in arrays) else None


def _zeros(operand: Value) -> Array | None:
    """A stand-in for an operand whose content is not read."""
    import numpy as np
    from onnx import helper

    if operand.count > EVALUATE_LIMIT:
        return None
    return np.zeros(operand.shape, helper.tensor_dtype_to_np_dtype(operand.element))


def tensor_array(tensor: Any) -> Array | None:
    """Content of a tensor message; None if it is kept in another file, was left out, or has no numeric type.

    Raises
    ------
    ModelLoadError
        If the content does not fit the declared type and shape.
    """
    from onnx import TensorProto, numpy_helper

    if tensor.data_location == TensorProto.EXTERNAL or tensor.data_type == TensorProto.STRING:
        return None
    has_content = tensor.HasField("raw_data") or any(
        len(getattr(tensor, name))
        for name in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
    )
    if not has_content and all(tensor.dims):
        return None
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelLoadError(
            f"constant {tensor.name!r}: its content does not fit its type and shape {tuple(tensor.dims)}: {error}"
        ) from error
