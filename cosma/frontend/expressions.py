"""Dimension expressions as exporters write them, evaluated exactly.

PyTorch's exporter and ONNX Runtime's symbolic shape inference write sizes as SymPy prints them: ``floor(s0/2)``,
``H/2 + 1/2``, ``Max(1, s0)``, ``(s0 - 1)//2``. The arithmetic is rational: only ``floor``, ``ceiling``, ``//`` and
the like round. A text that does not parse is a symbol by itself, as ``batch size`` and ``?`` are.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import TypeAlias

#: Longest text read as an expression; a longer one is a symbol.
MOST_CHARACTERS = 1000
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
    """Read a dimension; the text itself, a single symbol, where it is no arithmetic.

    ``known`` names stand for sizes by themselves. ``batch-size`` is one symbol unless ``batch`` and ``size`` are both
    known; with spaces around it the sign is always a minus.
    """
    if len(text) > MOST_CHARACTERS:
        return text
    try:
        return _Parser(known).parse(text)
    except _SyntaxError:
        return text


def symbols(expression: Expression) -> list[str]:
    """Symbols of an expression in the order they are written, each once."""
    found: dict[str, None] = {}

    left = [expression]
    while left:
        part = left.pop()
        if isinstance(part, str):
            found[part] = None
        elif isinstance(part, Call):
            left += reversed(part.operands)
    return list(found)


def evaluate(expression: Expression, sizes: Mapping[str, int]) -> Fraction | None:
    """Value of an expression; None where one of its symbols has no size.

    Raises ExpressionError if it has no value.
    """
    # A sum of many terms nests as deep to the left; to the right there are few levels.
    calls: list[Call] = []
    while isinstance(expression, Call):
        calls.append(expression)
        expression = expression.operands[0]
    value: Fraction | None
    if isinstance(expression, Fraction):
        value = expression
    else:
        value = Fraction(sizes[expression]) if expression in sizes else None
    for call in reversed(calls):
        values = [value, *(evaluate(operand, sizes) for operand in call.operands[1:])]
        given = [one for one in values if one is not None]
        value = _apply(call.function, given) if len(given) == len(values) else None
    return value


def _apply(name: str, given: list[Fraction]) -> Fraction:
    """Value of a function or an operator."""
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


#: Signs by Python's name for them.
_SIGNS: dict[type[ast.operator], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**"
}  # fmt: skip


class _Parser:
    """Reads arithmetic by Python's grammar, in which each number and each name becomes an identifier."""

    def __init__(self, known: Set[str]) -> None:
        self._known = known
        self._atoms: list[Fraction | str] = []

    def parse(self, text: str) -> Expression:
        """Read the whole text."""
        tokens = list(self._tokenize(text))
        nested = 0
        for token, following in pairwise([*tokens, ""]):
            nested += (token == "(") - (token == ")")
            # Python also takes a call of what is in brackets, and a comma after the last operand.
            if nested > _MOST_LEVELS or token + following in (")(", ",)"):
                raise _SyntaxError
        try:
            tree = ast.parse(" ".join(tokens), mode="eval")
        except (SyntaxError, MemoryError) as error:
            raise _SyntaxError from error
        return self._read(tree.body, 0)

    def _tokenize(self, text: str) -> Iterator[str]:
        at, end = 0, len(text.rstrip())
        while at < end:
            match = _TOKEN.match(text, at)
            if match is None:
                raise _SyntaxError
            at = match.end()
            if match["sign"]:
                yield "**" if match["sign"] == "^" else match["sign"]
            elif match["number"]:
                yield self._identifier(Fraction(match["number"]))
            else:
                for i, name in enumerate(self._split(match["name"])):
                    yield from ["-"] * (i > 0)
                    yield self._identifier(name)

    def _identifier(self, atom: Fraction | str) -> str:
        self._atoms.append(atom)
        return f"_{len(self._atoms) - 1}"

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

    def _read(self, node: ast.expr, level: int) -> Expression:
        if level > _MOST_LEVELS:
            raise _SyntaxError
        # Operators that follow one another nest to the left, at one level, as deep as there are operators.
        behind: list[tuple[ast.operator, ast.expr]] = []
        while isinstance(node, ast.BinOp):
            behind.append((node.op, node.right))
            node = node.left
        found = self._operand(node, level)
        for sign, right in reversed(behind):
            if type(sign) not in _SIGNS:
                raise _SyntaxError
            found = Call(_SIGNS[type(sign)], (found, self._read(right, level + 1)))
        return found

    def _operand(self, node: ast.expr, level: int) -> Expression:
        match node:
            case ast.Name(name):
                return self._atoms[int(name[1:])]
            case ast.UnaryOp(ast.USub(), operand):
                return Call("negative", (self._read(operand, level + 1),))
            case ast.UnaryOp(ast.UAdd(), operand):
                return self._read(operand, level + 1)
            case ast.Call(ast.Name(name), operands, []):
                function = self._atoms[int(name[1:])]
                if isinstance(function, str) and _takes(function, len(operands)):
                    return Call(function, tuple(self._read(operand, level + 1) for operand in operands))
        raise _SyntaxError
