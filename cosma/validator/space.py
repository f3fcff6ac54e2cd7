"""Which address ranges of the scratchpad are taken, and by which tensor."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field


@dataclass(slots=True)
class Space:
    """Occupied address ranges, disjoint and sorted, so that a clash is found in logarithmic time."""

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)

    def clash(self, start: int, end: int) -> str | None:
        """Return a tensor that overlaps ``[start, end)``, if any."""
        i = bisect_left(self.ends, start + 1)
        return self.owners[i] if i < len(self.starts) and self.starts[i] < end else None

    def add(self, start: int, end: int, owner: str) -> None:
        """Take a range for a tensor."""
        i = bisect_left(self.starts, start)
        self.starts.insert(i, start)
        self.ends.insert(i, end)
        self.owners.insert(i, owner)

    def remove(self, start: int, owner: str) -> None:
        """Give up the range that a tensor has from an address on."""
        i = bisect_left(self.starts, start)
        while i < len(self.owners) and self.owners[i] != owner:
            i += 1
        if i < len(self.owners):
            del self.starts[i], self.ends[i], self.owners[i]
