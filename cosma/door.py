"""What callers hand in, converted or refused by name: the one set of checks behind every public record and function.

Numpy integers are numbers here, a size may be text (``"16KiB"``), a list or a generator is a sequence, and the value
of an enumeration may stand for its member. Booleans are no numbers, text is no sequence, and nothing is rounded.
Every refusal says what the value is for, what it is, and what is accepted.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Mapping
from enum import StrEnum
from numbers import Real
from pathlib import Path
from typing import Any, SupportsIndex, TypeAlias, TypeVar

from cosma.errors import InputError
from cosma.units import parse_size

#: A number of bytes as callers may write it.
Size: TypeAlias = SupportsIndex | str

#: Largest number counted: IEEE doubles, JSON readers and sums in 64 bits are exact up to it.
MOST = 2**53

#: Largest capacity: "no limit" for those who want none.
UNLIMITED = 2**62

_Kind = TypeVar("_Kind")
_Error: TypeAlias = type[InputError]


class Choice(StrEnum):
    """An enumeration of texts that refuses an unknown one with an :class:`~cosma.errors.InputError`."""

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise InputError(f"{cls.__name__} is one of {', '.join(cls)}, not {shown(value)}")


_Choice = TypeVar("_Choice", bound=StrEnum)


def shown(value: object) -> str:
    """Write any value for a message: short, on one line, and never failing."""
    if isinstance(value, int) and abs(value) >= UNLIMITED * 4:
        return f"an integer of {value.bit_length()} bits"
    try:
        text = repr(value)
    except Exception:  # a value may refuse to be shown; the message must not fail for it
        return f"a {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def integer(
    value: object, what: str, *, least: int | None = None, most: int = MOST, error: _Error = InputError
) -> int:
    """Take a whole number, numpy's included; booleans, fractions and text are refused."""
    if type(value) is int:
        found = value
    else:
        try:
            # NumPy 1 still lets its booleans be indices.
            if isinstance(value, bool) or type(value).__name__ == "bool_":
                raise TypeError
            found = operator.index(value)  # type: ignore[arg-type]  # what has no index raises TypeError
        except TypeError:
            raise error(f"{what} must be a whole number, not {shown(value)}") from None
    if least == 0 and found < 0:
        raise error(f"{what}: {shown(found)} is negative")
    if least is not None and found < least:
        raise error(f"{what} must be at least {least}, not {shown(found)}")
    if abs(found) > most:
        raise error(f"{what} is {shown(found)}, larger than is counted here (2^{most.bit_length() - 1})")
    return found


def seed(value: object) -> int:
    """Take a seed: a whole number within [0, 2^31), which every generator and solver takes."""
    return integer(value, "seed", least=0, most=2**31 - 1)


def size(value: object, what: str, *, least: int = 0, most: int = MOST, error: _Error = InputError) -> int:
    """Take a number of bytes: a whole number, or text such as ``"16KiB"``."""
    if isinstance(value, str):
        try:
            value = parse_size(value, what)
        except InputError as wrong:
            raise error(str(wrong)) from None
    elif type(value) is not int and not hasattr(value, "__index__"):
        raise error(f"{what} must be a number of bytes or text such as '512KiB', not {shown(value)}")
    return integer(value, what, least=least, most=most, error=error)


def number(
    value: object, what: str, *, least: float = 0.0, below: float = float("inf"), error: _Error = InputError
) -> float:
    """Take a finite number within ``[least, below)``; booleans, NaN and text are refused."""
    if isinstance(value, bool) or not isinstance(value, Real | float | int):
        raise error(f"{what} must be a number, not {shown(value)}")
    try:
        found = value if isinstance(value, int) else float(value)
        inside = least <= float(found) < below
    except (OverflowError, ValueError):
        inside = False
    if not inside:
        upper = f" and less than {below:g}" if below != float("inf") else " and finite"
        raise error(f"{what} must be at least {least:g}{upper}, not {shown(value)}")
    return found


def flag(value: object, what: str, *, error: _Error = InputError) -> bool:
    """Take a truth value, numpy's included; numbers and text are refused."""
    if isinstance(value, bool):
        return value
    if type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"):
        return bool(value)
    raise error(f"{what} must be true or false, not {shown(value)}")


def text(value: object, what: str, *, empty: bool = True, error: _Error = InputError) -> str:
    """Take text that can be written to a file; with ``empty`` false it must have a character."""
    if not isinstance(value, str):
        raise error(f"{what} must be text, not {shown(value)}")
    found = value if type(value) is str else str(value)
    if not found and not empty:
        raise error(f"{what} is empty")
    if not found.isascii():
        try:
            found.encode()
        except UnicodeEncodeError:
            raise error(f"{what} {found!r} holds half a surrogate pair, which no file can hold") from None
    return found


def optional_text(value: object, what: str, *, error: _Error = InputError) -> str | None:
    """Take text or None."""
    return None if value is None else text(value, what, error=error)


def choice(kind: type[_Choice], value: object, what: str, *, error: _Error = InputError) -> _Choice:
    """Take a member of an enumeration, or its value as text."""
    if isinstance(value, kind):
        return value
    for member in kind:
        if isinstance(value, str) and member.value == value:
            return member
    raise error(f"{what} must be one of {', '.join(kind)}, not {shown(value)}")


def one_of(value: object, accepted: Iterable[str], what: str) -> str:
    """Take one of the texts accepted."""
    known = tuple(accepted)
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{what} {shown(value)} is unknown; expected one of {', '.join(known)}")
    return str(value)


def instance(value: object, kind: type[_Kind], what: str, *, error: _Error = InputError) -> _Kind:
    """Take an object of one class."""
    if not isinstance(value, kind):
        raise error(f"{what} must be a {kind.__name__}, not {shown(value)}")
    return value


def items(value: object, what: str, *, error: _Error = InputError) -> Iterable[Any]:
    """Take anything that can be walked through, but no text, bytes or mapping: those are single values."""
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | bytearray | Mapping):
        try:
            return iter(value)
        except TypeError:  # numpy's arrays of no dimension only look as if one could walk through them
            pass
    raise error(f"{what} must be a sequence, not {shown(value)}")


def sequence(value: object, kind: type[_Kind], what: str, *, error: _Error = InputError) -> tuple[_Kind, ...]:
    """Take a sequence or generator of objects of one class."""
    found = []
    for i, one in enumerate(items(value, what, error=error)):
        if not isinstance(one, kind):
            raise error(f"{what}[{i}] must be a {kind.__name__}, not {shown(one)}")
        found.append(one)
    return tuple(found)


def texts(value: object, what: str, *, empty: bool = True, error: _Error = InputError) -> tuple[str, ...]:
    """Take a sequence of texts; a single text is refused, since its letters are hardly meant."""
    if isinstance(value, str):
        raise error(f"{what} must be a sequence of names, not the text {shown(value)}; write [{shown(value)}]")
    if type(value) is tuple and all(type(one) is str and one.isascii() and (one or empty) for one in value):
        return value
    return tuple(
        text(one, f"{what}[{i}]", empty=empty, error=error) for i, one in enumerate(items(value, what, error=error))
    )


def integers(
    value: object, what: str, *, least: int | None = None, most: int = MOST, error: _Error = InputError
) -> tuple[int, ...]:
    """Take a sequence of whole numbers, a numpy array included."""
    lowest = -most if least is None else least
    if type(value) is tuple and all(type(one) is int and lowest <= one <= most for one in value):
        return value
    return tuple(
        integer(one, f"{what}[{i}]", least=least, most=most, error=error)
        for i, one in enumerate(items(value, what, error=error))
    )


def numbers(value: object, what: str, *, error: _Error = InputError) -> tuple[float, ...]:
    """Take a sequence of finite numbers of at least 0."""
    return tuple(number(one, f"{what}[{i}]", error=error) for i, one in enumerate(items(value, what, error=error)))


def array(value: object, what: str, *, kinds: str = "iu", error: _Error = InputError) -> Any:
    """Take an array of numpy, or nested lists, of whole numbers (or of numpy's other kinds where said)."""
    import numpy as np

    try:
        found = np.asarray(value)
    except (ValueError, TypeError, OverflowError, RuntimeError):
        raise error(f"{what} must be an array of numbers, not {shown(value)}") from None
    if found.dtype.kind not in kinds or found.ndim == 0:
        raise error(f"{what} must be an array of whole numbers, not {found.dtype} of shape {found.shape}")
    return found


def mapping(value: object, what: str, *, error: _Error = InputError) -> dict[str, Any]:
    """Take a mapping whose keys are texts."""
    if not isinstance(value, Mapping):
        raise error(f"{what} must be a mapping, not {shown(value)}")
    return {text(name, f"a name in {what}", error=error): entry for name, entry in value.items()}


def counts_by_name(value: object, what: str, *, error: _Error = InputError) -> dict[str, int]:
    """Take a mapping from names to whole numbers; None is an empty one."""
    if value is None:
        return {}
    return {
        name: integer(count, f"{what}[{shown(name)}]", least=0, error=error)
        for name, count in mapping(value, what, error=error).items()
    }


def path(value: object, what: str, *, error: _Error = InputError) -> Path:
    """Take the path of a file as text or as a path; numbers (file descriptors) and bytes are refused."""
    if not isinstance(value, str | os.PathLike):
        raise error(f"{what} must be a path, not {shown(value)}")
    given = os.fspath(value)
    if not isinstance(given, str):
        raise error(f"{what} must be a path in text, not {shown(given)}")
    if not given or "\0" in given:
        raise error(f"{what}: {shown(given)} names no file")
    try:
        os.fsencode(given)
    except UnicodeEncodeError:
        raise error(f"{what}: {shown(given)} cannot be the name of a file") from None
    return Path(given)
