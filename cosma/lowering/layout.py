"""Where slots lie while decisions are repaired, and where one of them could."""

from __future__ import annotations

from math import lcm
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.arrays import Bools, Ints
    from cosma.lowering.buffers import Slots
    from cosma.problem import Problem


class Layout:
    """Addresses of slots.

    Parameters
    ----------
    addresses
        One for each slot, -1 for one that has no place yet. They may overlap nothing.

    Attributes
    ----------
    address
        As given; to be changed.
    size, lower, upper
        Bytes of each slot, and the steps ``[lower, upper)`` at which it is alive.
    limit
        Where the last address ends.
    """

    def __init__(self, problem: Problem, slots: Slots, addresses: Sequence[int]) -> None:
        buffers = slots.buffers
        self.address = np.array(addresses, dtype=np.int64)
        self.size = np.array([buffer.size for buffer in buffers], dtype=np.int64)
        self.lower = np.array([buffer.lower for buffer in buffers], dtype=np.int64)
        self.upper = np.array([buffer.upper for buffer in buffers], dtype=np.int64)
        self.limit = problem.address_limit_bytes
        self._buffers, self._places, self._alignment = buffers, problem.places, problem.alignment
        self._excluded = () if problem.places is None else problem.places.excluded

    @property
    def stuck(self) -> list[int]:
        """Slots without a place."""
        found: list[int] = np.flatnonzero(self.address < 0).tolist()
        return found

    def stuck_within(self, lower: int, upper: int) -> list[int]:
        """Slots without a place that are alive at some step of ``[lower, upper)``."""
        return [k for k in self.stuck if self.lower[k] < upper and self.upper[k] > lower]

    def alive_with(self, number: int) -> Bools:
        """Slots alive at some step at which a slot is, itself among them."""
        alive: Bools = (self.lower < self.upper[number]) & (self.upper > self.lower[number])
        return alive

    def allowed(self, number: int, address: int) -> bool:
        """Whether a slot may lie at an address, whatever else lies there."""
        buffer, end = self._buffers[number], address + int(self.size[number])
        step = lcm(buffer.alignment, self._alignment)
        return (
            buffer.offset in (None, address)
            and not address % step
            and end <= self.limit
            and all(end <= low or high <= address for low, high in self._excluded)
        )

    def free_gaps(self, number: int) -> list[tuple[int, int]]:
        """Address ranges in which a slot could lie: no other one touches them while it is alive."""
        others = self.alive_with(number) & (self.address >= 0)
        others[number] = False
        low, high = self.address[others], self.address[others] + self.size[others]
        if self._excluded:
            low = np.concatenate([low, [a for a, _ in self._excluded]])
            high = np.concatenate([high, [b for _, b in self._excluded]])
        order = np.argsort(low, kind="stable")
        begin = np.append(low[order], self.limit)
        top = np.maximum.accumulate(np.concatenate([[0], high[order]]))
        buffer = self._buffers[number]
        if buffer.offset is not None:
            at = buffer.offset
            free = np.flatnonzero((top <= at) & (at + self.size[number] <= begin))
            return [(at, at + int(self.size[number])) for _ in free[:1]]
        if buffer.alignment > 1:
            step = lcm(buffer.alignment, self._alignment)
            top = -(-top // step) * step
        free = np.flatnonzero(begin - top >= self.size[number])
        return list(zip(top[free].tolist(), begin[free].tolist(), strict=True))

    def candidates(self, number: int, low: Ints, high: Ints) -> list[int]:
        """Addresses worth trying for a slot: its own, or those at the ends of what lies in between, ascending."""
        size = int(self.size[number])
        places: list[int] = np.unique(np.concatenate([[0], high, (low - size).clip(0)])).tolist()
        if self._places is None:
            return places
        buffer = self._buffers[number]
        if buffer.offset is not None:
            return [buffer.offset]
        step = lcm(buffer.alignment, self._alignment)
        tops = [stop for _, stop in self._excluded]
        places = [-(-at // step) * step for at in (*places, *tops)] + [at // step * step for at in places]
        return [at for at in sorted(set(places)) if self.allowed(number, at)]
