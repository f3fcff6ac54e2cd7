"""What the planner must know of an accelerator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, SupportsIndex

import cosma.door as door
from cosma.accelerator.constraints import FREE, Constraints, ranges
from cosma.accelerator.tables import read_preset
from cosma.errors import AcceleratorError
from cosma.text import short_repr
from cosma.units import align_up, format_size


class Operands(door.Choice):
    """Where an operator may find its operands and leave its results."""

    #: Each operand and result lies whole in the scratchpad while the operator runs (COSMA's model).
    RESIDENT = "resident"
    #: An operator may also read an operand straight from, or write a result straight to, off-chip memory.
    STREAMABLE = "streamable"
    #: As streamable, in the ways alone that the operator's modes allow (see :mod:`cosma.access.modes`).
    STATIONARY = "stationary"


class Weights(door.Choice):
    """How constants reach the operators."""

    #: Through a buffer of their own, read once per operator that uses them; they never take scratchpad.
    STREAM = "stream"
    #: As tensors like any other, off-chip at first.
    SCRATCHPAD = "scratchpad"


class Fusion(door.Choice):
    """Which operators run as one."""

    NONE = "none"
    #: An operator absorbs the elementwise operators that follow it on a single-consumer path.
    EPILOGUE = "epilogue"


#: Largest alignment, 1 GiB: with it a million tensors rounded up still have a sum that 64 bits hold.
_MOST_ALIGNED = 2**30

#: Fields of an accelerator that only estimates of time and energy use.
_ESTIMATES = (
    "bandwidth_bytes_per_s", "dma_latency_s", "clock_hz", "macs_per_cycle", "energy_pj_per_byte", "energy_pj_per_mac",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """A scratchpad, the rules for using it, and optional figures for time and energy estimates.

    There is no default: a capacity must be given. Sizes may be written as text (``"512KiB"``), and so may members of
    the enumerations (``operands="resident"``).

    Attributes
    ----------
    scratchpad
        Capacity in bytes.
    alignment
        Every address is a multiple of it, in bytes; a tensor occupies its size rounded up to it.
    operands, weights, fusion
        See :class:`Operands`, :class:`Weights`, :class:`Fusion`.
    reserved
        Bytes at the top of the scratchpad that are not ours (stream buffers, firmware). Address ranges
        ``[start, stop)`` anywhere may be given instead; they become :attr:`reserved_ranges`.
    in_place
        Whether a result may take over the space of an operand that dies with its operator.
    min_transfer
        Bytes below which a transfer costs the DMA engine as much as one of so many. Of plans that move as much, the
        one whose short transfers lack less is kept; traffic counts true bytes.
    zero_copy
        Whether Concat, Split and Slice may be nothing but places: their results are then read where others wrote them.
        None for Concats of plans with tiles alone.
    pieces
        Most address ranges that one operand or result of an operator may consist of; None for any number.
    name
        What reports call it.
    bandwidth_bytes_per_s, dma_latency_s, clock_hz, macs_per_cycle, overlap
        Off-chip bandwidth, latency of one transfer, clock, multiply-accumulates per cycle, and whether
        transfers overlap with computation. Estimates only.
    energy_pj_per_byte, energy_pj_per_mac
        Energy of one off-chip byte and of one multiply-accumulate. Estimates only.
    reserved_ranges
        Address ranges ``[start, stop)`` that are not ours, sorted and apart.
    constraints
        What a plan must keep to beside these rules, by exact names of what is planned; it is set by
        :func:`cosma.compile`, from constraints that may hold patterns.

    Raises
    ------
    AcceleratorError
        If a value is out of range or contradicts another.
    """

    __repr__ = short_repr

    scratchpad: int
    alignment: int = 64
    operands: Operands = Operands.STREAMABLE
    weights: Weights = Weights.STREAM
    reserved: int = 0
    in_place: bool = True
    fusion: Fusion = Fusion.NONE
    min_transfer: int = 0
    zero_copy: bool | None = None
    pieces: int | None = None
    name: str | None = None
    bandwidth_bytes_per_s: float | None = None
    dma_latency_s: float | None = None
    clock_hz: float | None = None
    macs_per_cycle: float | None = None
    overlap: bool = True
    energy_pj_per_byte: float | None = None
    energy_pj_per_mac: float | None = None
    reserved_ranges: tuple[tuple[int, int], ...] = ()
    constraints: Constraints = FREE

    if TYPE_CHECKING:  # what callers may write; dataclass makes the constructor, and __post_init__ converts

        def __init__(
            self,
            *,
            scratchpad: door.Size,
            alignment: door.Size = ...,
            operands: Operands | str = ...,
            weights: Weights | str = ...,
            reserved: door.Size | Iterable[Iterable[door.Size]] = ...,
            in_place: bool = ...,
            fusion: Fusion | str = ...,
            min_transfer: door.Size = ...,
            zero_copy: bool | None = ...,
            pieces: SupportsIndex | None = ...,
            name: str | None = ...,
            bandwidth_bytes_per_s: float | None = ...,
            dma_latency_s: float | None = ...,
            clock_hz: float | None = ...,
            macs_per_cycle: float | None = ...,
            overlap: bool = ...,
            energy_pj_per_byte: float | None = ...,
            energy_pj_per_mac: float | None = ...,
            reserved_ranges: Iterable[Iterable[door.Size]] = ...,
            constraints: Constraints = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        put, wrong = object.__setattr__, AcceleratorError
        put(self, "name", door.optional_text(self.name, "accelerator: name", error=wrong))
        where = f"accelerator {self.name}" if self.name else "accelerator"
        given: object = self.reserved
        if isinstance(given, Iterable) and not isinstance(given, str):
            put(self, "reserved_ranges", (*self.reserved_ranges, *given))
            put(self, "reserved", 0)
        put(self, "reserved_ranges", ranges(self.reserved_ranges, f"{where}: reserved", error=wrong))
        door.instance(self.constraints, Constraints, f"{where}: constraints", error=wrong)
        for name in ("scratchpad", "alignment", "reserved", "min_transfer"):
            most = _MOST_ALIGNED if name == "alignment" else door.UNLIMITED
            put(self, name, door.size(getattr(self, name), f"{where}: {name}", most=most, error=wrong))
        for name, kind in (("operands", Operands), ("weights", Weights), ("fusion", Fusion)):
            put(self, name, door.choice(kind, getattr(self, name), f"{where}: {name}", error=wrong))
        for name in ("in_place", "overlap") if self.zero_copy is None else ("in_place", "overlap", "zero_copy"):
            put(self, name, door.flag(getattr(self, name), f"{where}: {name}", error=wrong))
        if self.pieces is not None:
            put(self, "pieces", door.integer(self.pieces, f"{where}: pieces", least=1, error=wrong))
        for name in _ESTIMATES:
            if getattr(self, name) is not None:
                put(self, name, door.number(getattr(self, name), f"{where}: {name}", error=wrong))
        if self.scratchpad == 0:
            raise wrong(f"{where}: the scratchpad has no bytes; give a capacity such as 512KiB")
        if self.alignment == 0:
            raise wrong(f"{where}: alignment must be at least 1 byte")
        if self.reserved >= self.scratchpad:
            raise wrong(
                f"{where}: {format_size(self.reserved)} reserved leave nothing of a scratchpad of "
                f"{format_size(self.scratchpad)}; reserve less"
            )
        if self.reserved_ranges and self.reserved_ranges[-1][1] > self.scratchpad:
            start, stop = self.reserved_ranges[-1]
            raise wrong(f"{where}: reserved range [{start}, {stop}) ends beyond the scratchpad of {self.scratchpad}")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Accelerator:
        """Look up a preset that ships with the package, with some fields changed.

        Parameters
        ----------
        name
            As ``cosma presets`` lists it, such as ``"ethos-u65-mid"``.
        changes
            Fields to set otherwise, such as ``scratchpad="1MiB"``.

        Raises
        ------
        AcceleratorError
            If there is none of that name, or a change is wrong.
        """
        return cls(**read_preset(name, FILE_FIELDS).values).replace(**changes)

    @property
    def capacity_bytes(self) -> int:
        """End of the addresses a plan may use: the scratchpad less what is reserved at its top."""
        return self.scratchpad - self.reserved

    @property
    def usable_bytes(self) -> int:
        """What tensors, rounded up to the alignment, can fill: the sum of the windows."""
        return sum(stop - start for start, stop in self.windows)

    @property
    def windows(self) -> tuple[tuple[int, int], ...]:
        """Address ranges a plan may use, as multiples of the alignment, in order: what no range takes away."""
        found = []
        start = 0
        taken = ranges((*self.reserved_ranges, *self.constraints.excluded), "ranges")
        for low, high in (*taken, (door.UNLIMITED, door.UNLIMITED)):
            stop = min(low, self.capacity_bytes) // self.alignment * self.alignment
            if stop > start:
                found.append((start, stop))
            start = align_up(high, self.alignment)
        return tuple(found)

    def replace(self, **changes: Any) -> Accelerator:
        """Return a copy with some fields changed, validated anew; ``reserved`` takes the place of ranges as well.

        Raises
        ------
        AcceleratorError
            If a field is unknown or a value wrong.
        """
        unknown = [name for name in changes if name not in FIELDS]
        if unknown:
            raise AcceleratorError(f"accelerator: unknown field {unknown[0]!r}; known are {', '.join(FIELDS)}")
        if "reserved" in changes:
            changes = {"reserved_ranges": (), **changes}
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
        if self.zero_copy is not None:
            parts.append(f"zero-copy {'on' if self.zero_copy else 'off'}")
        if self.pieces is not None:
            parts.append(f"pieces {self.pieces}")
        if self.reserved:
            parts.insert(1, f"reserved {format_size(self.reserved)}")
        if self.min_transfer:
            parts.append(f"min-transfer {format_size(self.min_transfer)}")
        if self.reserved_ranges:
            parts.insert(1, f"reserved {', '.join(f'[{a}, {b})' for a, b in self.reserved_ranges)}")
        if self.constraints:
            parts.append(f"{len(self.constraints.entries)} constraints")
        return (f"{self.name}: " if self.name else "") + ", ".join(parts)


#: Names of its fields.
FIELDS: tuple[str, ...] = tuple(field.name for field in fields(Accelerator))

#: Fields that a file may set; ranges are set by ``reserved``, constraints have a file of their own.
FILE_FIELDS: tuple[str, ...] = tuple(name for name in FIELDS if name not in ("reserved_ranges", "constraints"))

#: Fields with one value that plans depend on, beside the scratchpad: sweeps may vary them, plans may differ in them.
PLANNING_FIELDS: tuple[str, ...] = tuple(
    name for name in FILE_FIELDS if name not in ("scratchpad", "name", "overlap", *_ESTIMATES)
)
