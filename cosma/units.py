"""Byte sizes as people write them, in and out."""

from __future__ import annotations

import re
from fractions import Fraction
from math import ceil, log2

from cosma.errors import InputError

_FACTOR = {
    "": 1, "b": 1,
    "k": 1000, "kb": 1000, "m": 1000**2, "mb": 1000**2, "g": 1000**3, "gb": 1000**3,
    "t": 1000**4, "tb": 1000**4,
    "ki": 1024, "kib": 1024, "mi": 1024**2, "mib": 1024**2, "gi": 1024**3, "gib": 1024**3,
    "ti": 1024**4, "tib": 1024**4,
}  # fmt: skip
#: Largest size: sums of a few sizes still fit 64 bits.
MOST_BYTES = 2**62
#: Digits of a number that are read, and characters of a wrong one that a message repeats.
_MOST_DIGITS, _SHOWN_DIGITS = 100, 40
_SIZE = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([a-zA-Z]*)\s*")


def parse_size(text: str | int, what: str = "size") -> int:
    """Read a byte count such as ``524288``, ``"512KiB"``, ``"2MiB"`` or ``"1.5MB"``.

    Decimal prefixes (kB, MB, GB) are powers of 1000, binary ones (KiB, MiB, GiB) powers of 1024. Raises InputError if
    the text is no size, is negative, or is not a whole number of bytes; the message calls the quantity ``what``.
    """
    shown = _shorten(text)
    if isinstance(text, int) and not isinstance(text, bool):
        if text < 0:
            raise InputError(f"{what}: {shown} is negative; give a number of bytes such as 512KiB")
        return _limited(text, what, shown)
    match = _SIZE.fullmatch(text) if isinstance(text, str) else None
    factor = _FACTOR.get(match.group(2).lower()) if match else None
    if match is None or factor is None:
        raise InputError(f"{what}: cannot read {shown} as a size; write bytes or a unit, such as 512KiB or 1.5MB")
    value = _exact(match.group(1), what, shown) * factor
    if value.denominator != 1:
        raise InputError(f"{what}: {shown} is {_decimal(value)} bytes; a size is a whole number of bytes")
    return _limited(value.numerator, what, shown)


def _exact(number: str, what: str, shown: str) -> Fraction:
    """Read a number exactly, without ever writing out a huge exponent."""
    digits, _, exponent = number.lower().partition("e")
    if len(digits) > _MOST_DIGITS:
        raise InputError(f"{what}: {shown} has too many digits; write bytes or a unit, such as 512KiB or 1.5MB")
    value = Fraction(digits)
    # Compared as text first: an exponent may itself have more digits than a machine likes to convert.
    size = exponent.lstrip("+-").lstrip("0")
    if len(size) > 2 and value:
        if exponent.startswith("-"):
            raise InputError(f"{what}: {shown} is less than a byte; a size is a whole number of bytes")
        raise InputError(f"{what}: {shown} is more than {format_size(MOST_BYTES)}, the largest size there is")
    return value * Fraction(10) ** int(exponent or 0) if value else value


def _shorten(value: object) -> str:
    if isinstance(value, int) and abs(value) > 10**_SHOWN_DIGITS:
        return f"a number of {value.bit_length()} bits"  # Python may refuse to write it in decimal
    text = str(value) if isinstance(value, int) else repr(value)
    return text if len(text) <= _SHOWN_DIGITS else text[:_SHOWN_DIGITS] + "..."


def _limited(value: int, what: str, shown: str) -> int:
    if value > MOST_BYTES:
        raise InputError(f"{what}: {shown} is more than {format_size(MOST_BYTES)}, the largest size there is")
    return value


def _decimal(value: Fraction) -> str:
    return f"{float(value):.12g}"


def unit_for(size_bytes: int) -> tuple[int, str]:
    """Largest binary unit in which a size is at least about four: the factor and its name."""
    for factor, name in ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB")):
        if size_bytes >= 4 * factor:
            return factor, name
    return 1, "B"


def tick_step(most: float, count: int) -> float:
    """Distance of ticks on an axis of sizes: a power of two, with at most ``count`` of them in ``(0, most]``."""
    return float(2.0 ** max(-4, ceil(log2(max(most, 0.25) / count))))


def format_size(size_bytes: int) -> str:
    """Write a byte count for people: exact below 10 KiB, otherwise with a binary unit."""
    if abs(size_bytes) < 10 * 1024:
        return f"{size_bytes} B"
    for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"), 1):
        value = size_bytes / 1024**power
        if abs(value) < 1024 or unit == "EiB":
            return f"{value:.0f} {unit}" if value == int(value) else f"{value:.2f} {unit}"
    raise AssertionError("unreachable")


def format_exact(size_bytes: int) -> str:
    """Write a byte count for people, and exactly behind that where it is rounded or in another unit."""
    text = format_size(size_bytes)
    return text if text == f"{size_bytes} B" else f"{text} ({size_bytes} B)"


def align_up(size_bytes: int, alignment: int) -> int:
    """Round a byte count up to a multiple of ``alignment``."""
    return -(-size_bytes // alignment) * alignment
