"""Dimension expressions as exporters write them, evaluated exactly.

PyTorch's exporter and ONNX Runtime's symbolic shape inference write sizes as SymPy prints them: ``floor(s0/2)``,
``H/2 + 1/2``, ``Max(1, s0)``, ``(s0 - 1)//2``. The arithmetic is rational: only ``floor``, ``ceiling``, ``//`` and
the like round. A text that does not parse is a symbol by itself, as ``batch size`` and ``?`` are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

#: Longest text read as an expression; a longer one is a symbol.
_MOST_CHARACTERS = 1000
#: Deepest nesting read as an expression.
_MOST_LEVELS = 50
#: Largest size of a value in bits; tensors are far smaller.
_MOST_BITS = 256

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d*)?|\.\d+)|(?P<name>[^\W\d][\w.:]*(?:-[^\W\d][\w.:]*)*)|(?P<sign>\*\*|//|[-+*/%^(),]))"
)


class ExpressionError(ValueError):
    """An expression has no value: a division by zero, or a number beyond all sizes."""


@dataclass(frozen=True, slots=True)
class Call:
    """A function or an operator applied to expressions."""

    function: str
    operands: tuple[Expression, ...]


#: A number, a symbol, or a function of such.
Expression: TypeAlias = Fraction | str | Call


def _remainder(a: Fraction, b: Fraction) -> Fraction:
    return a - b * math.floor(_quotient(a, b))


def _quotient(a: Fraction, b: Fraction) -> Fraction:
    if b == 0:
        raise ExpressionError("it divides by zero")
    return a / b


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise ExpressionError(f"its exponent {exponent} is not whole")
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if bits * abs(exponent.numerator) > _MOST_BITS:
        raise ExpressionError("it is beyond all sizes")
    if base == 0 and exponent < 0:
        raise ExpressionError("it divides by zero")
    return base**exponent.numerator


def _whole(function: Callable[[Fraction], int]) -> Callable[[Fraction], Fraction]:
    return lambda value: Fraction(function(value))


_UNARY: dict[str, Callable[[Fraction], Fraction]] = {
    "negative": lambda a: -a,
    **dict.fromkeys(("abs", "Abs"), abs),
    **dict.fromkeys(("floor", "Floor", "FloorToInt"), _whole(math.floor)),
    **dict.fromkeys(("ceil", "Ceil", "ceiling", "Ceiling", "CeilToInt"), _whole(math.ceil)),
    **dict.fromkeys(("trunc", "TruncToInt", "int"), _whole(math.trunc)),
    **dict.fromkeys(("round", "RoundToInt"), _whole(round)),
    **dict.fromkeys(("Identity", "ToFloat", "Integer", "Rational"), lambda a: a),
}

_BINARY: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    **dict.fromkeys(("/", "IntTrueDiv", "FloatTrueDiv", "CleanDiv", "Rational"), _quotient),
    **dict.fromkeys(("//", "FloorDiv", "floordiv"), lambda a, b: Fraction(math.floor(_quotient(a, b)))),
    **dict.fromkeys(("CeilDiv", "ceildiv"), lambda a, b: Fraction(math.ceil(_quotient(a, b)))),
    **dict.fromkeys(("%", "Mod", "mod", "PythonMod"), _remainder),
    **dict.fromkeys(("**", "pow", "Pow", "PowByNatural"), _power),
}

_VARIADIC: dict[str, Callable[[list[Fraction]], Fraction]] = {
    **dict.fromkeys(("max", "Max"), max),
    **dict.fromkeys(("min", "Min"), min),
}


def _indexing(a: Fraction, b: Fraction, c: Fraction) -> Fraction:
    """PyTorch's ``ModularIndexing(a, b, c)``: ``a // b % c``."""
    return _remainder(Fraction(math.floor(_quotient(a, b))), c)


def _takes(function: str, count: int) -> bool:
    """Whether a function of that name takes so many operands."""
    return (
        (count == 1 and function in _UNARY)
        or (count == 2 and function in _BINARY)
        or (count == 3 and function == "ModularIndexing")
        or (count > 0 and function in _VARIADIC)
    )


def parse(text: str, known: Set[str] = frozenset()) -> Expression:
    """Read a dimension.

    Returns the text itself, a single symbol, where it is no arithmetic.

    Parameters
    ----------
    known
        Names that stand for sizes by themselves. ``batch-size`` is one symbol unless ``batch`` and ``size`` are both
        known; with spaces around it the sign is always a minus.
    """
    if len(text) > _MOST_CHARACTERS:
        return text
    try:
        return _Parser(text, known).parse()
    except _SyntaxError:
        return text


def symbols(expression: Expression) -> list[str]:
    """Symbols of an expression in the order they are written, each once."""
    found: dict[str, None] = {}

    def visit(part: Expression) -> None:
        if isinstance(part, str):
            found[part] = None
        elif isinstance(part, Call):
            for operand in part.operands:
                visit(operand)

    visit(expression)
    return list(found)


def evaluate(expression: Expression, sizes: Mapping[str, int]) -> Fraction | None:
    """Value of an expression; None where one of its symbols has no size.

    Raises ExpressionError if it has no value.
    """
    if isinstance(expression, Fraction):
        return expression
    if isinstance(expression, str):
        return Fraction(sizes[expression]) if expression in sizes else None
    values = [evaluate(operand, sizes) for operand in expression.operands]
    given = [value for value in values if value is not None]
    if len(given) < len(values):
        return None
    name = expression.function
    if len(given) == 1 and name in _UNARY:
        result = _UNARY[name](given[0])
    elif len(given) == 2 and name in _BINARY:
        result = _BINARY[name](given[0], given[1])
    elif name in _VARIADIC:
        result = _VARIADIC[name](given)
    else:
        result = _indexing(*given)
    if max(result.numerator.bit_length(), result.denominator.bit_length()) > _MOST_BITS:
        raise ExpressionError("it is beyond all sizes")
    return result


class _SyntaxError(ValueError):
    """The text is no arithmetic."""


class _Parser:
    """Recursive descent, each level of precedence a method."""

    def __init__(self, text: str, known: Set[str]) -> None:
        self._known = known
        self._tokens = list(self._tokenize(text))
        self._at = 0
        self._depth = 0

    def _tokenize(self, text: str) -> Iterator[tuple[str, str]]:
        at, end = 0, len(text.rstrip())
        while at < end:
            match = _TOKEN.match(text, at)
            if match is None:
                raise _SyntaxError
            kind = match.lastgroup or ""
            at = match.end()
            if kind != "name":
                yield kind, match[kind]
                continue
            for i, name in enumerate(self._split(match[kind])):
                if i:
                    yield "sign", "-"
                yield "name", name

    def _split(self, name: str) -> list[str]:
        """Parts of a name with dashes: one, unless it is a difference of known names."""
        parts = name.split("-")
        if len(parts) == 1:
            return parts
        # Longest known names first, from the left; a name that cannot be taken apart so is one symbol.
        found: list[str] = []
        start = 0
        while start < len(parts):
            stops = range(len(parts), start, -1)
            stop = next(
                (stop for stop in stops if (start or stop < len(parts)) and "-".join(parts[start:stop]) in self._known),
                None,
            )
            if stop is None:
                return [name]
            found.append("-".join(parts[start:stop]))
            start = stop
        return found

    def parse(self) -> Expression:
        """Read the whole text."""
        expression = self._sum()
        if self._at < len(self._tokens):
            raise _SyntaxError
        return expression

    def _sign(self, *wanted: str) -> str | None:
        """Take the next token if it is one of these signs."""
        if self._at < len(self._tokens):
            kind, text = self._tokens[self._at]
            if kind == "sign" and text in wanted:
                self._at += 1
                return text
        return None

    def _sum(self) -> Expression:
        self._depth += 1
        if self._depth > _MOST_LEVELS:
            raise _SyntaxError
        left = self._product()
        while (sign := self._sign("+", "-")) is not None:
            left = Call(sign, (left, self._product()))
        self._depth -= 1
        return left

    def _product(self) -> Expression:
        left = self._factor()
        while (sign := self._sign("*", "/", "//", "%")) is not None:
            left = Call(sign, (left, self._factor()))
        return left

    def _factor(self) -> Expression:
        self._depth += 1
        if self._depth > _MOST_LEVELS:
            raise _SyntaxError
        try:
            if self._sign("-") is not None:
                return Call("negative", (self._factor(),))
            if self._sign("+") is not None:
                return self._factor()
            base = self._atom()
            if self._sign("**", "^") is not None:
                return Call("**", (base, self._factor()))
            return base
        finally:
            self._depth -= 1

    def _atom(self) -> Expression:
        if self._sign("(") is not None:
            inner = self._sum()
            self._close()
            return inner
        if self._at >= len(self._tokens):
            raise _SyntaxError
        kind, text = self._tokens[self._at]
        if kind == "sign":
            raise _SyntaxError
        self._at += 1
        if kind == "number":
            return Fraction(text)
        if self._sign("(") is None:
            return text
        operands = [self._sum()]
        while self._sign(",") is not None:
            operands.append(self._sum())
        self._close()
        if not _takes(text, len(operands)):
            raise _SyntaxError
        return Call(text, tuple(operands))

    def _close(self) -> None:
        if self._sign(")") is None:
            raise _SyntaxError
