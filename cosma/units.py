"""Byte sizes as people write them, in and out."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from cosma.errors import InputError

_FACTOR = {
    "": 1, "b": 1,
    "k": 1000, "kb": 1000, "m": 1000**2, "mb": 1000**2, "g": 1000**3, "gb": 1000**3,
    "ki": 1024, "kib": 1024, "mi": 1024**2, "mib": 1024**2, "gi": 1024**3, "gib": 1024**3,
}  # fmt: skip
_SIZE = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([a-zA-Z]*)\s*")


def parse_size(text: str | int, what: str = "size") -> int:
    """Read a byte count such as ``524288``, ``"512KiB"``, ``"2MiB"`` or ``"1.5MB"``.

    Decimal prefixes (kB, MB, GB) are powers of 1000, binary ones (KiB, MiB, GiB) powers of 1024.

    Parameters
    ----------
    text
        The number of bytes, or a number with a unit.
    what
        Name of the quantity, for the error message.

    Raises
    ------
    InputError
        If the text is no size, is negative, or is not a whole number of bytes.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        if text < 0:
            raise InputError(f"{what}: {text} is negative; give a number of bytes such as 512KiB")
        return text
    match = _SIZE.fullmatch(text) if isinstance(text, str) else None
    factor = _FACTOR.get(match.group(2).lower()) if match else None
    if match is None or factor is None:
        raise InputError(f"{what}: cannot read {text!r} as a size; write bytes or a unit, such as 512KiB or 1.5MB")
    try:
        value = Decimal(match.group(1)) * factor
    except InvalidOperation as error:  # pragma: no cover - the pattern admits numbers only
        raise InputError(f"{what}: cannot read {text!r} as a number") from error
    if value != value.to_integral_value():
        raise InputError(f"{what}: {text!r} is {value} bytes; a size is a whole number of bytes")
    return int(value)


def format_size(size_bytes: int) -> str:
    """Write a byte count for people: exact below 10 KiB, otherwise with a binary unit."""
    if abs(size_bytes) < 10 * 1024:
        return f"{size_bytes} B"
    for unit, factor in (("KiB", 1024), ("MiB", 1024**2), ("GiB", 1024**3), ("TiB", 1024**4)):
        value = size_bytes / factor
        if abs(value) < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if value == int(value) else f"{value:.2f} {unit}"
    raise AssertionError("unreachable")


def align_up(size_bytes: int, alignment: int) -> int:
    """Round a byte count up to a multiple of ``alignment``."""
    return -(-size_bytes // alignment) * alignment
