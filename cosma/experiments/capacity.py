"""Capacities as experiments write them: bytes, multiples of the smallest feasible one, and ranges of both."""

from __future__ import annotations

import re
from decimal import Decimal
from math import ceil
from typing import TYPE_CHECKING, Any

import cosma.door as door
from cosma.errors import InputError
from cosma.units import align_up, parse_size

if TYPE_CHECKING:
    from cosma.accelerator import Accelerator
    from cosma.graph import Graph

_MULTIPLE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*x")
#: Most values one range may stand for.
MAX_RANGE = 10_000


def multiple_of_smallest(capacity: str) -> Decimal | None:
    """Read ``"1.25x"``, a multiple of the smallest feasible capacity; None where the text is a size in bytes."""
    match = _MULTIPLE.fullmatch(capacity.strip())
    return Decimal(match.group(1)) if match else None


def check_capacity(value: str | int, where: str) -> str:
    """Check a capacity as written and return its canonical text: ``"1.25x"`` or a number of bytes.

    Raises InputError if it is neither, or is zero.
    """
    text = str(value)
    factor = multiple_of_smallest(text)
    if factor is not None:
        if factor <= 0:
            raise InputError(f"{where}: {text!r} is nothing; write a multiple such as 1.1x")
        return f"{factor.normalize():f}x"
    size = parse_size(value, f"{where}: capacity")
    if size == 0:
        raise InputError(f"{where}: a capacity must have bytes; write a size such as 512KiB or a multiple such as 1.1x")
    return str(size)


def resolve_capacity(capacity: str, graph: Graph, fields: dict[str, Any]) -> int:
    """Find the scratchpad in bytes that a capacity, as :func:`check_capacity` returns it, stands for.

    A multiple is of the smallest feasible capacity with every operand and result resident, under the accelerator's
    other settings (alignment, weights, in-place, fusion), rounded up to the alignment; what is reserved comes on top.
    The element type is applied to the graph already; ``fields`` are the accelerator's, scratchpad excepted.
    """
    factor = multiple_of_smallest(capacity)
    if factor is None:
        return parse_size(capacity)
    from cosma.accelerator import Accelerator, Operands
    from cosma.rewrite import smallest_capacity

    ample = {**fields, "scratchpad": door.UNLIMITED, "operands": Operands.RESIDENT}
    accelerator: Accelerator = Accelerator(**ample)
    smallest = smallest_capacity(graph, accelerator)
    return max(align_up(ceil(factor * smallest), accelerator.alignment), accelerator.alignment) + accelerator.reserved


def expand_range(value: Any, where: str) -> list[Any]:
    """Turn what an experiment gives for one field into the list of its values.

    A list is taken as it is, a single value as a list of one. A table is a range of sizes, both ends included:
    ``{from = "64KiB", to = "1MiB", factor = 2}`` or ``{from = 16, to = 64, step = 16}``; both ends may be
    multiples of the smallest feasible capacity. Raises InputError if a range is empty, endless or has other keys, or a
    list is empty.
    """
    if isinstance(value, list):
        if not value:
            raise InputError(f"{where}: the list is empty; give at least one value")
        return value
    if not isinstance(value, dict):
        return [value]
    if not {"from", "to"} <= set(value) or len(value) != 3 or not set(value) & {"factor", "step"}:
        raise InputError(f"{where}: a range has from, to and one of factor and step, not {sorted(value)}")
    first, last = str(value["from"]), str(value["to"])
    low, high = multiple_of_smallest(first), multiple_of_smallest(last)
    if (low is None) != (high is None):
        raise InputError(f"{where}: from and to must both be sizes or both be multiples such as 1.1x")
    suffix = "" if low is None else "x"
    if low is None or high is None:
        low, high = Decimal(parse_size(value["from"], where)), Decimal(parse_size(value["to"], where))
    geometric = "factor" in value
    stride = _stride(value["factor" if geometric else "step"], geometric, suffix, where)
    values = []
    current = low
    while current <= high:
        values.append(f"{current.normalize():f}x" if suffix else int(current))
        current = current * stride if geometric else current + stride
        if len(values) > MAX_RANGE or (geometric and low <= 0):
            raise InputError(f"{where}: the range has no end or more than {MAX_RANGE} values")
    if not values:
        raise InputError(f"{where}: the range is empty: from {first} is more than to {last}")
    return values


def _stride(value: Any, geometric: bool, suffix: str, where: str) -> Decimal:
    if geometric or suffix:
        text = str(value).removesuffix("x").strip()
        stride = Decimal(text) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else Decimal(0)
    else:
        stride = Decimal(parse_size(value, f"{where}: step"))
    if stride <= (1 if geometric else 0):
        raise InputError(f"{where}: {'factor must be more than 1' if geometric else 'step must be more than 0'}")
    return stride
