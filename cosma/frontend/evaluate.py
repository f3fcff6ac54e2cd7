"""Constants evaluated on demand, with ONNX's reference operators: only what a shape depends on."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosma.errors import ModelLoadError
from cosma.frontend.external import external_array
from cosma.frontend.nodes import Node
from cosma.frontend.parameters import type_only_positions
from cosma.frontend.values import EVALUATE_LIMIT, Value

if TYPE_CHECKING:
    from cosma.frontend.values import Array

#: What a reference operator may raise on operands it does not take.
_REFERENCE_ERRORS = (
    RuntimeError, MemoryError, TypeError, ValueError, IndexError, KeyError, AttributeError, NotImplementedError,
    ArithmeticError,
)  # fmt: skip


def _silent(*_: object) -> None:
    """Take the place of the reference evaluator's log."""


#: Operands that the standard wants as scalars and exporters write as vectors of one element, as ONNX Runtime takes.
_SCALARS = {"CumProd": (1,), "CumSum": (1,), "OneHot": (1,), "Range": (0, 1, 2), "Trilu": (1,)}


def _scalar(node: Node, position: int, array: Array | None) -> Array | None:
    if array is not None and array.ndim and array.size == 1 and position in _SCALARS.get(node.type, ()):
        return array.reshape(())
    return array


def _too_many(count: int) -> str:
    return f"{count} elements, and more than {EVALUATE_LIMIT} are not evaluated"


def _key(node: Node) -> str:
    return f"\0{node.first_output}"  # no name of a value


def _shapes(operands: Sequence[Array | None]) -> str:
    return ", ".join("nothing" if a is None else f"{a.dtype}{list(a.shape)}" for a in operands) or "nothing"


def grown_size(node: Node, operands: Sequence[Array | None]) -> int | None:
    """How many elements an operator yields whose result may be far larger than its operands; None for others."""
    at = dict(enumerate(operands))
    first, second = at.get(0), at.get(1)
    if node.type == "ConstantOfShape" and first is not None:
        return prod(int(size) for size in first.ravel())
    if node.type == "Range":
        ends = [a.reshape(-1)[0] for a in operands[:3] if a is not None and a.size]
        return int((ends[1] - ends[0]) / ends[2]) if len(ends) == 3 and ends[2] else None
    if first is None or second is None:
        return None
    if node.type == "Expand":
        return first.size * prod(max(int(size), 1) for size in second.ravel())
    if node.type == "Tile":
        return first.size * prod(max(int(repeats), 1) for repeats in second.ravel())
    if node.type == "OneHot" and second.size:
        return first.size * max(int(second.ravel()[0]), 1)
    if node.type == "Pad":
        return _padded(first.shape, [int(amount) for amount in second.ravel()])
    return None


def _padded(shape: tuple[int, ...], amounts: list[int]) -> int | None:
    """Elements of a padded tensor, where all axes are padded."""
    half = len(shape)
    if len(amounts) != 2 * half:
        return None
    return prod(max(size + amounts[i] + amounts[half + i], 0) for i, size in enumerate(shape))


class Evaluator:
    """Evaluates constants with ONNX's reference implementation.

    Parameters
    ----------
    path
        The model's file, beside which others may hold constants; None where they are not to be read.
    """

    def __init__(self, opset: int, path: Path | None = None) -> None:
        from onnx import defs

        self.path = path
        self._failures: dict[str, str] = {}
        opset = min(opset, defs.onnx_opset_version())
        self._opset = opset
        self._parameters: dict[str, Any] = {
            "log": _silent, "verbose": 0, "opsets": {"": opset}, "new_ops": None, "existing_functions": {},
        }  # fmt: skip

    def array(self, value: Value, *, most: bool = False) -> Array | None:
        """Content of a constant; None where it is too large, in another file or cannot be computed.

        Content that rests on sizes known only at run time is None too, unless that of the largest sizes will do
        (``most``).
        """
        if value.low is not None and not most:
            return None
        stack = [value]
        while stack:
            top = stack[-1]
            if top.evaluated:
                stack.pop()
                continue
            if top.count > EVALUATE_LIMIT or not top.constant:
                top.evaluated = True
                self._failures[top.name] = f"{top.name!r} has {_too_many(top.count)}"
            elif top.source is None:
                top.array = self._content(top)
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

    def why_unknown(self, value: Value) -> str:
        """Why the content of a constant is not known: the file, the size or the operator that stands in the way."""
        seen: set[int] = set()
        while value.source is not None and value.name not in self._failures and id(value) not in seen:
            seen.add(id(value))
            operands = value.source[1]
            before = next((o for o in operands if o is not None and o.constant and o.array is None), None)
            if before is None:
                break
            value = before
        return self._failures.get(value.name, "its content was left out")

    def withhold(self, value: Value) -> None:
        """Take the content of a constant for unknown, for it follows from sizes that are."""
        value.evaluated = True
        self._failures[value.name] = "it follows from sizes that are known only when the model runs"

    def _content(self, value: Value) -> Array | None:
        """Content of a constant that the model or a file beside it holds."""
        from onnx import TensorProto

        tensor = value.tensor
        if tensor is None or tensor.data_type == TensorProto.STRING:
            return None
        if tensor.data_location != TensorProto.EXTERNAL:
            return tensor_array(tensor)
        if self.path is None:
            return None
        try:
            return external_array(tensor, self.path)
        except ModelLoadError as error:
            self._failures[value.name] = str(error)
            return None

    def _finish(self, value: Value) -> None:
        assert value.source is not None
        node, operands, index = value.source
        value.evaluated = True
        arrays = self.arrays(node, operands, most=True)
        results = None if arrays is None else self.run(node, arrays)
        if arrays is not None and results is None:
            self._failures[value.name] = self._failures.get(_key(node), f"{node} cannot be evaluated")
        if results is not None and index < len(results):
            value.array = results[index]

    def arrays(
        self, node: Node, operands: Sequence[Value | None], *, most: bool = False
    ) -> list[Array | None] | None:
        """Content of all operands, zeros for those of which only the type is used; None if one is not known."""
        ignored = type_only_positions(node)
        found: list[Array | None] = []
        for i, operand in enumerate(operands):
            array = None
            if operand is not None:
                array = _zeros(operand) if i in ignored else self.array(operand, most=most)
                if array is None:
                    return None
            found.append(array)
        return found

    def run(self, node: Node, operands: Sequence[Array | None]) -> list[Array] | None:
        """Run one node on constants; None if the reference implementation has no such operator or fails on it."""
        import numpy as np
        from onnx.reference.ops import load_op

        if node.domain or node.subgraphs:
            self._failures[_key(node)] = f"{node} is not evaluated"
            return None
        operands = [_scalar(node, i, operand) for i, operand in enumerate(operands)]
        try:
            size = grown_size(node, operands)
            if size is not None and size > EVALUATE_LIMIT:
                self._failures[_key(node)] = f"{node} yields {_too_many(size)}"
                return None
            operator = load_op("", node.type, self._opset)
            with np.errstate(all="ignore"):
                results = operator(node.proto, self._parameters).run(*operands)
        except _REFERENCE_ERRORS as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            self._failures[_key(node)] = f"{node} cannot be evaluated on {_shapes(operands)}: {reason}"
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

    Raises ModelLoadError if the content does not fit the declared type and shape.
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
