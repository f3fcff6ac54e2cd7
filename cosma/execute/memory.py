"""The memory a plan runs in: one poisoned array of bytes, and an off-chip dictionary that counts what crosses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cosma.errors import PlanInvalidError

if TYPE_CHECKING:

    from cosma.arrays import Bytes

#: What free bytes hold: a NaN in every floating-point width, -1 in every integer, no legal bool.
POISON = 0xFF


class Scratchpad:
    """Exactly as many bytes as the accelerator offers, poisoned wherever nothing lives."""

    def __init__(self, size_bytes: int) -> None:
        # The array starts at a multiple of 64, so that the plan's alignment holds for real addresses as well.
        whole = np.empty(size_bytes + 64, dtype=np.uint8)
        start = -whole.ctypes.data % 64
        self.bytes: Bytes = whole[start : start + size_bytes]
        self.bytes[:] = POISON

    def view(self, address: int, size_bytes: int, what: str) -> Bytes:
        """Bytes ``[address, address + size_bytes)`` themselves, not a copy.

        Raises PlanInvalidError if they are not inside the scratchpad.
        """
        if address < 0 or address + size_bytes > len(self.bytes):
            raise PlanInvalidError(
                f"{what} at [{address}, {address + size_bytes}) is outside a scratchpad of {len(self.bytes)} bytes"
            )
        return self.bytes[address : address + size_bytes]

    def poison(self, address: int, size_bytes: int) -> None:
        """Make bytes unusable; those outside the scratchpad are no bytes."""
        self.bytes[max(0, address) : max(0, address + size_bytes)] = POISON


@dataclass(slots=True)
class OffChip:
    """Off-chip memory by tensor, and the bytes copied between it and the chip."""

    #: Bytes of every tensor that has an off-chip copy.
    content: dict[str, Bytes] = field(default_factory=dict)
    #: Bytes copied so far, by instruction.
    loaded: int = 0
    stored: int = 0
    streamed: int = 0
    #: How often each tensor was copied, by kind of copy and name.
    counts: dict[tuple[str, str], int] = field(default_factory=dict)

    def read(self, name: str) -> Bytes:
        """Bytes of a tensor; the caller copies them and counts.

        Raises PlanInvalidError if it was never stored.
        """
        if name not in self.content:
            raise PlanInvalidError(f"tensor {name!r} is read from off-chip memory, where it never was")
        return self.content[name]

    def load(self, name: str, target: Bytes) -> None:
        """Copy a tensor to the scratchpad."""
        source = self.read(name)
        target[:] = source
        self.loaded += source.nbytes
        self._count("loaded", name)

    def store(self, name: str, source: Bytes) -> None:
        """Copy a tensor from the scratchpad."""
        self.content[name] = source.copy()
        self.stored += source.nbytes
        self._count("stored", name)

    def stream_in(self, name: str) -> Bytes:
        """Copy a tensor to the operator that reads it, past the scratchpad."""
        source = self.read(name)
        self.streamed += source.nbytes
        self._count("streamed", name)
        return source.copy()

    def stream_out(self, name: str, source: Bytes) -> None:
        """Copy a tensor from the operator that makes it, past the scratchpad."""
        self.content[name] = source.copy()
        self.streamed += source.nbytes
        self._count("streamed", name)

    def _count(self, kind: str, name: str) -> None:
        self.counts[kind, name] = self.counts.get((kind, name), 0) + 1
