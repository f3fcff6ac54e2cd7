"""What the planner must know of an accelerator."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

from cosma.errors import AcceleratorError, InputError
from cosma.units import format_size, parse_size


class Operands(StrEnum):
    """Where an operator may find its operands and leave its results."""

    #: Each operand and result lies whole in the scratchpad while the operator runs (COSMA's model).
    RESIDENT = "resident"
    #: An operator may also read an operand straight from, or write a result straight to, off-chip memory.
    STREAMABLE = "streamable"


class Weights(StrEnum):
    """How constants reach the operators."""

    #: Through a buffer of their own, read once per operator that uses them; they never take scratchpad.
    STREAM = "stream"
    #: As tensors like any other, off-chip at first.
    SCRATCHPAD = "scratchpad"


class Fusion(StrEnum):
    """Which operators run as one."""

    NONE = "none"
    #: An operator absorbs the elementwise operators that follow it on a single-consumer path.
    EPILOGUE = "epilogue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """A scratchpad, the rules for using it, and optional figures for time and energy estimates.

    There is no default: a capacity must be given. Sizes may be written as text (``"512KiB"``).

    Attributes
    ----------
    scratchpad
        Capacity in bytes.
    alignment
        Every address is a multiple of it, in bytes; a tensor occupies its size rounded up to it.
    operands, weights, fusion
        See :class:`Operands`, :class:`Weights`, :class:`Fusion`.
    reserved
        Bytes at the top of the scratchpad that are not ours (stream buffers, firmware).
    in_place
        Whether a result may take over the space of an operand that dies with its operator.
    name
        What reports call it.
    bandwidth_bytes_per_s, dma_latency_s, clock_hz, macs_per_cycle, overlap
        Off-chip bandwidth, latency of one transfer, clock, multiply-accumulates per cycle, and whether
        transfers overlap with computation. Estimates only.
    energy_pj_per_byte, energy_pj_per_mac
        Energy of one off-chip byte and of one multiply-accumulate. Estimates only.

    Raises
    ------
    AcceleratorError
        If a value is out of range or contradicts another.
    """

    scratchpad: int
    alignment: int = 64
    operands: Operands = Operands.STREAMABLE
    weights: Weights = Weights.STREAM
    reserved: int = 0
    in_place: bool = True
    fusion: Fusion = Fusion.NONE
    name: str | None = None
    bandwidth_bytes_per_s: float | None = None
    dma_latency_s: float | None = None
    clock_hz: float | None = None
    macs_per_cycle: float | None = None
    overlap: bool = True
    energy_pj_per_byte: float | None = None
    energy_pj_per_mac: float | None = None

    def __post_init__(self) -> None:
        try:
            for name in ("scratchpad", "alignment", "reserved"):
                object.__setattr__(self, name, parse_size(getattr(self, name), name))
            for name, kind in (("operands", Operands), ("weights", Weights), ("fusion", Fusion)):
                object.__setattr__(self, name, _choice(kind, getattr(self, name), name))
        except InputError as error:
            raise AcceleratorError(f"accelerator {self.name or ''}: {error}".replace(" :", ":")) from error
        if self.scratchpad == 0:
            raise AcceleratorError("accelerator: the scratchpad has no bytes; give a capacity such as 512KiB")
        if self.alignment == 0:
            raise AcceleratorError("accelerator: alignment must be at least 1 byte")
        if self.reserved >= self.scratchpad:
            raise AcceleratorError(
                f"accelerator: {format_size(self.reserved)} reserved leave nothing of a scratchpad of "
                f"{format_size(self.scratchpad)}; reserve less"
            )
        for name in ("in_place", "overlap"):
            if not isinstance(getattr(self, name), bool):
                raise AcceleratorError(f"accelerator: {name} must be true or false, not {getattr(self, name)!r}")
        for field in fields(self):
            value = getattr(self, field.name)
            if "float" in str(field.type) and value is not None and not (
                isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
            ):
                raise AcceleratorError(f"accelerator: {field.name} must be a number of at least 0, not {value!r}")

    @property
    def capacity_bytes(self) -> int:
        """Bytes a plan may use, ``[0, capacity)``: the scratchpad less what is reserved."""
        return self.scratchpad - self.reserved

    def replace(self, **changes: Any) -> Accelerator:
        """Return a copy with some fields changed, validated anew."""
        return replace(self, **changes)

    def describe(self) -> str:
        """Write in one line what a plan assumes of the hardware."""
        parts = [
            f"scratchpad {format_size(self.scratchpad)}",
            f"alignment {self.alignment} B",
            f"operands {self.operands}",
            f"weights {self.weights}",
            f"in-place {'on' if self.in_place else 'off'}",
            f"fusion {self.fusion}",
        ]
        if self.reserved:
            parts.insert(1, f"reserved {format_size(self.reserved)}")
        return (f"{self.name}: " if self.name else "") + ", ".join(parts)


def _choice(kind: type[StrEnum], value: str, what: str) -> StrEnum:
    try:
        return kind(value)
    except ValueError:
        raise InputError(f"{what} must be one of {', '.join(kind)}, not {value!r}") from None
