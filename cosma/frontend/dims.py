"""Dynamic dimensions: found in the graph inputs, bound by the user, refused where they are left open."""

from __future__ import annotations

import operator
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from cosma.errors import ModelLoadError, UnboundDimensionError
from cosma.frontend.expressions import MOST_CHARACTERS, Expression, ExpressionError, evaluate, parse, symbols
from cosma.frontend.guards import check_size
from cosma.frontend.nodes import readable
from cosma.frontend.values import TensorType

if TYPE_CHECKING:
    from onnx import TypeProto, ValueInfoProto

#: Words that exporters write for an axis without a name; such a word stands for any number of sizes.
_NO_NAME = frozenset({"none", "null", "undefined", "unknown"})
_NAME = re.compile(r"[^\W\d][\w.:]*(-[^\W\d][\w.:]*)*")


class Dimensions:
    """The symbols of a model and what they are bound to.

    Raises ModelLoadError if a size is no whole number or is negative.

    Parameters
    ----------
    bound
        Sizes by symbol, from the user. ``input.axis`` binds one axis alone, whatever the model calls it.
    values
        Everything in the model that states dimensions: which names are symbols follows from all of them.
    results
        Names of tensors that nodes yield: a size of ``tensor`` or ``tensor.axis`` is not a dimension but a bound on
        what is known only at run time.
    """

    def __init__(
        self, bound: Mapping[str, int], values: Iterable[ValueInfoProto] = (), results: Collection[str] = ()
    ) -> None:
        values = tuple(values)
        texts = {readable(d.dim_param) for v in values for d in v.type.tensor_type.shape.dim if d.dim_param}
        sizes = {symbol: _size(symbol, size) for symbol, size in bound.items()}
        #: Sizes that name a result of a node.
        self.bounds = {
            name: size
            for name, size in sizes.items()
            if name not in texts and (name in results or name.rpartition(".")[0] in results)
        }
        self._given = {symbol: size for symbol, size in sizes.items() if symbol not in self.bounds}
        self._known = _known_names(values) | self._given.keys()
        self._seen: dict[str, str] = {}
        self._axes: set[str] = set()
        self._open: dict[str, list[tuple[str, int]]] = {}
        self._overridden: set[str] = set()
        self._expressions: dict[str, Expression] = {}
        self.used: dict[str, int] = {}

    def resolve(self, name: str, proto: TypeProto, *, must: bool) -> TensorType:
        """Read a tensor type with its symbols replaced by their sizes.

        ``must`` says whether it is a graph input's: its axes can be bound alone, and :meth:`check` reports those left
        open. Raises ModelLoadError if a dimension comes to what is no size.
        """
        tensor = proto.tensor_type
        if not tensor.HasField("shape"):
            return TensorType(tensor.elem_type, None)
        shape: list[int | None] = []
        for axis, dim in enumerate(tensor.shape.dim):
            value: int | None = dim.dim_value
            text = readable(dim.dim_param)
            if not (dim.HasField("dim_value") and dim.dim_value >= 0):
                value = self._symbolic(name, axis, text, must=must)
            if must:
                value = self._alone(name, axis, text, value)
                if value is None:
                    self._open.setdefault("" if _is_placeholder(text) else text, []).append((name, axis))
            if value is not None:
                check_size(name, axis, value)
            shape.append(value)
        return TensorType(tensor.elem_type, tuple(shape))

    def _symbolic(self, name: str, axis: int, text: str, *, must: bool) -> int | None:
        """Size of an axis from its symbol or expression; None where that leaves it open."""
        if text:
            self._seen.setdefault(text, f"{name!r} axis {axis}")
        if not text or (f"{name}.{axis}" in self._given and must):
            return None
        if text in self._given:
            if not must and (_is_placeholder(text) or text in self._overridden):
                return None
            self.used[text] = self._given[text]
            return self._given[text]
        parts = symbols(self._expression(text))
        if not parts or self._overridden.intersection(parts):
            return None
        return self._computed(name, axis, text, parts)

    def _computed(self, name: str, axis: int, text: str, parts: Sequence[str]) -> int | None:
        with_sizes = ", ".join(f"{part}={self._given[part]}" for part in parts if part in self._given)
        where = f"dimension {text!r} of {name!r}, axis {axis},"
        try:
            value = evaluate(self._expression(text), self._given)
        except ExpressionError as error:
            raise ModelLoadError(f"{where} has no value with {with_sizes}: {error}; bind other sizes") from error
        if value is None:
            return None
        if value.denominator != 1 or value < 0:
            raise ModelLoadError(
                f"{where} comes to {value} with {with_sizes}; a size is a whole number that is not negative: "
                "bind other sizes"
            )
        self.used.update((part, self._given[part]) for part in parts)
        return int(value)

    def _alone(self, name: str, axis: int, text: str, value: int | None) -> int | None:
        """Size of an input's axis, from a binding of this axis alone where there is one."""
        own = f"{name}.{axis}"
        self._axes.add(own)
        if not text and value is None:
            self._seen.setdefault(own, f"{name!r} axis {axis}")
        if own not in self._given:
            return value
        if value is not None and text != own and value != self._given[own]:
            raise ModelLoadError(
                f"dimension {own!r} is bound to {self._given[own]}, but the model fixes axis {axis} of {name!r} "
                f"at {value}"
            )
        if text:
            self._overridden.add(text)
        self.used[own] = self._given[own]
        return self._given[own]

    def _expression(self, text: str) -> Expression:
        if text not in self._expressions:
            self._expressions[text] = parse(text, self._known)
        return self._expressions[text]

    def declare(self, values: Sequence[ValueInfoProto], *, inputs: bool = False) -> None:
        """Take note of symbols that occur anywhere else in the model, so that binding them is no error.

        The axes of graph inputs can be bound alone although nobody reads them.
        """
        for value in values:
            if value.type.HasField("tensor_type"):
                for axis, dim in enumerate(value.type.tensor_type.shape.dim):
                    if inputs:
                        self._axes.add(f"{readable(value.name)}.{axis}")
                    if dim.dim_param:
                        self._seen.setdefault(readable(dim.dim_param), f"{readable(value.name)!r} axis {axis}")

    def check(self) -> None:
        """Refuse open dimensions and bindings of symbols the model does not have.

        Raises UnboundDimensionError naming every symbol that is open, and ModelLoadError naming what was bound and is
        not there.
        """
        if self._open:
            raise self._unbound()
        parts = {part for symbol in self._seen for part in symbols(self._expression(symbol))}
        unknown = [s for s in self._given if s not in self._seen and s not in parts and s not in self._axes]
        if unknown:
            seen = ", ".join(self._seen)
            raise ModelLoadError(
                f"no dimension of the model, and no result of a node, is called {', '.join(map(repr, unknown))}; "
                + (f"its dynamic dimensions are: {seen}" if seen else "every shape of it is fixed")
            )
        for symbol in self._given:
            self.used.setdefault(symbol, self._given[symbol])

    def _unbound(self) -> UnboundDimensionError:
        where: list[str] = []
        wanted: dict[str, None] = {}
        several = False
        for text, axes in self._open.items():
            # What is too long to be read as an expression is too long to be typed as a symbol.
            if not text or len(text) > MOST_CHARACTERS:
                where += [f"{name}.{axis} ({name!r} axis {axis})" for name, axis in axes]
                wanted.update((f"{name}.{axis}", None) for name, axis in axes)
                continue
            where.append(f"{text} ({self._seen[text]})")
            missing = [part for part in symbols(self._expression(text)) if part not in self._given]
            wanted.update((part, None) for part in missing or [text])
            several = several or len({name for name, _ in axes}) < len(axes)
        message = f"the model has dynamic dimensions: {', '.join(where)}"
        marks = sorted({text for text in self._seen if _is_placeholder(text)} if "" in self._open else ())
        if marks:
            message += f"; {', '.join(map(repr, marks))} names no size, so each axis is bound alone"
        if several:
            name, axis = next(axes[0] for text, axes in self._open.items() if text)
            message += f"; where one symbol stands for several sizes, an axis can be bound alone, as {name}.{axis}"
        error = UnboundDimensionError("", tuple(wanted))
        error.args = (f"{message}; bind each, for example {error.example}",)
        return error


def _size(symbol: str, size: object) -> int:
    """A bound size as an integer."""
    try:
        number = -1 if isinstance(size, bool) else operator.index(size)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if number < 0:
        raise ModelLoadError(f"dimension {symbol!r} is bound to {size!r}; give a whole number, like 1")
    return number


def _is_placeholder(text: str) -> bool:
    """Whether a symbol names nothing: ``?``, a number, or a word like ``None``."""
    return text.casefold() in _NO_NAME or not any(character.isalpha() for character in text)


def _known_names(values: Iterable[ValueInfoProto]) -> set[str]:
    """Names that are symbols wherever they are written: whole dimensions, and parts of expressions without dashes."""
    known: set[str] = set()
    for value in values:
        if not value.type.HasField("tensor_type"):
            continue
        for dim in value.type.tensor_type.shape.dim:
            text = readable(dim.dim_param)
            if _NAME.fullmatch(text):
                known.add(text)
            elif text and "-" not in text:
                known.update(symbols(parse(text)))
    return known
