"""Dynamic dimensions: found in the graph inputs, bound by the user, refused where they are left open."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from cosma.errors import ModelLoadError
from cosma.frontend.nodes import readable
from cosma.frontend.values import TensorType

if TYPE_CHECKING:
    from onnx import TypeProto, ValueInfoProto

_ARITHMETIC: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Div: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip


class Dimensions:
    """The symbols of a model and what they are bound to.

    Parameters
    ----------
    bound
        Sizes by symbol, from the user.

    Raises
    ------
    ModelLoadError
        If a size is no whole number or is negative.
    """

    def __init__(self, bound: Mapping[str, int]) -> None:
        for symbol, size in bound.items():
            if isinstance(size, bool) or not isinstance(size, int) or size < 0:
                raise ModelLoadError(f"dimension {symbol!r} is bound to {size!r}; give a whole number, like 1")
        self._given = dict(bound)
        self._seen: dict[str, str] = {}
        self._open: dict[str, None] = {}
        self._computed: dict[str, int | None] = {}
        self.used: dict[str, int] = {}

    def resolve(self, name: str, proto: TypeProto, *, must: bool) -> TensorType:
        """Read a tensor type with its symbols replaced by their sizes.

        Parameters
        ----------
        name
            Tensor the type is of.
        proto
            Its type; must be a tensor's.
        must
            Whether an open dimension is to be reported by :meth:`check`, as those of graph inputs are.
        """
        tensor = proto.tensor_type
        if not tensor.HasField("shape"):
            return TensorType(tensor.elem_type, None)
        shape: list[int | None] = []
        for axis, dim in enumerate(tensor.shape.dim):
            value = dim.dim_value
            if value > 0 or (value == 0 and dim.HasField("dim_value")):
                shape.append(value)
                continue
            symbol = readable(dim.dim_param) or f"{name}.{axis}"
            if must or dim.dim_param:
                self._seen.setdefault(symbol, f"{name!r} axis {axis}")
            size = self._size(symbol)
            if size is None and must:
                self._open[symbol] = None
            shape.append(size)
        return TensorType(tensor.elem_type, tuple(shape))

    def _size(self, symbol: str) -> int | None:
        if symbol in self._given:
            self.used[symbol] = self._given[symbol]
            return self._given[symbol]
        if symbol not in self._computed:
            self._computed[symbol] = _arithmetic(symbol, self._given) if self._given else None
        return self._computed[symbol]

    def _parts(self, symbol: str) -> list[str]:
        """Names that are left to bind so that a symbol has a size: its own, or those it is computed from."""
        return [name for name in _names(symbol) if name not in self._given] or [symbol]

    def declare(self, values: Sequence[ValueInfoProto]) -> None:
        """Take note of symbols that occur anywhere else in the model, so that binding them is no error."""
        for value in values:
            if value.type.HasField("tensor_type"):
                self.resolve(readable(value.name), value.type, must=False)

    def check(self) -> None:
        """Refuse open dimensions and bindings of symbols the model does not have.

        Raises
        ------
        ModelLoadError
            Naming every symbol and how to bind it.
        """
        if self._open:
            where = ", ".join(f"{symbol} ({self._seen[symbol]})" for symbol in self._open)
            wanted = dict.fromkeys(part for symbol in self._open for part in self._parts(symbol))
            flags = " ".join(f"--dim {_quoted(part)}=1" for part in wanted)
            raise ModelLoadError(f"the model has dynamic dimensions: {where}; bind each, for example {flags}")
        parts = {part for symbol in self._seen for part in _names(symbol)}
        unknown = [symbol for symbol in self._given if symbol not in self._seen and symbol not in parts]
        if unknown:
            known = ", ".join(self._seen) or "none: every shape is fixed"
            raise ModelLoadError(
                f"no dimension of the model is called {', '.join(map(repr, unknown))}; "
                f"its dynamic dimensions are: {known}"
            )
        for symbol in self._given:
            self.used.setdefault(symbol, self._given[symbol])


def _names(symbol: str) -> list[str]:
    """Names a symbol is computed from, in the order they are written; none if it is no arithmetic."""
    try:
        tree = ast.parse(symbol, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]


def _quoted(symbol: str) -> str:
    return symbol if symbol.replace("_", "").replace(".", "").isalnum() else f"'{symbol}'"


def _arithmetic(symbol: str, bound: Mapping[str, int]) -> int | None:
    """Size of a symbol such as ``past + sequence``, which exporters write, from those of its parts."""
    if len(symbol) > 200:
        return None
    try:
        tree = ast.parse(symbol, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None

    def value(node: ast.expr) -> int | None:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.Name):
            return bound.get(node.id)
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            left, right = value(node.left), value(node.right)
            if left is None or right is None or (right == 0 and isinstance(node.op, ast.FloorDiv | ast.Div | ast.Mod)):
                return None
            return _ARITHMETIC[type(node.op)](left, right)
        return None

    size = value(tree)
    return size if size is not None and size >= 0 else None
