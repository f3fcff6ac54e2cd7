"""Address policies of an allocator that places one tensor after the other."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Protocol

from cosma.errors import InputError


class Arena(Protocol):
    """Hands out address ranges of a scratchpad."""

    def allocate(self, size_bytes: int) -> int | None:
        """Reserve a range and return its address, or None if no hole is large enough."""
        ...

    def free(self, address: int, size_bytes: int) -> None:
        """Give a range, or any part of one, back."""
        ...


class FitArena:
    """Contiguous allocation from a list of holes.

    Parameters
    ----------
    best
        Take the smallest hole that fits (best-fit) instead of the lowest (first-fit).
    """

    def __init__(self, capacity_bytes: int, *, best: bool) -> None:
        self._best = best
        self._holes: list[tuple[int, int]] = [(0, capacity_bytes)] if capacity_bytes else []

    def allocate(self, size_bytes: int) -> int | None:
        """Reserve a range by the policy; zero bytes lie at address 0."""
        if size_bytes == 0:
            return 0
        chosen: int | None = None
        for i, (start, end) in enumerate(self._holes):
            if end - start < size_bytes:
                continue
            if not self._best:
                chosen = i
                break
            if chosen is None or end - start < self._holes[chosen][1] - self._holes[chosen][0]:
                chosen = i
        if chosen is None:
            return None
        start, end = self._holes[chosen]
        if end - start == size_bytes:
            del self._holes[chosen]
        else:
            self._holes[chosen] = (start + size_bytes, end)
        return start

    def free(self, address: int, size_bytes: int) -> None:
        """Return a range and merge it with the holes beside it."""
        if size_bytes == 0:
            return
        end = address + size_bytes
        i = bisect_left(self._holes, (address, end))
        if i < len(self._holes) and self._holes[i][0] == end:
            end = self._holes.pop(i)[1]
        if i > 0 and self._holes[i - 1][1] == address:
            address = self._holes.pop(i - 1)[0]
        insort(self._holes, (address, end))


class CountingArena:
    """Counts bytes and leaves addresses to a later packing; every range is at address 0."""

    def __init__(self, capacity_bytes: int) -> None:
        self._free_bytes = capacity_bytes

    def allocate(self, size_bytes: int) -> int | None:
        """Reserve bytes if there are as many."""
        if size_bytes > self._free_bytes:
            return None
        self._free_bytes -= size_bytes
        return 0

    def free(self, address: int, size_bytes: int) -> None:
        """Give bytes back."""
        self._free_bytes += size_bytes


#: Policies by name. ``greedy-by-size`` decides addresses after the fact, largest buffer first.
ADDRESS_POLICIES = ("first-fit", "best-fit", "greedy-by-size")


def make_arena(policy: str, capacity_bytes: int) -> Arena:
    """Build the arena of an address policy; raises InputError if there is no policy of that name."""
    if policy == "first-fit":
        return FitArena(capacity_bytes, best=False)
    if policy == "best-fit":
        return FitArena(capacity_bytes, best=True)
    if policy == "greedy-by-size":
        return CountingArena(capacity_bytes)
    raise InputError(f"address policy {policy!r} is unknown; choose one of {', '.join(ADDRESS_POLICIES)}")
