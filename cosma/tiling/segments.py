"""Segments: operators that run stripe by stripe, and how each is cut."""

from __future__ import annotations

from dataclasses import dataclass

from cosma.tiling.grid import Grid

#: Stripes tried for a segment; not measured.
LADDER = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128)


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """Operators that run stripe by stripe."""

    #: Operators, half-open, by number.
    begin: int
    end: int
    #: How many.
    stripes: int
    #: For each operator, into how many groups of channels it is cut.
    pieces: tuple[int, ...]
    #: Whether one group of channels runs through all stripes before the next: the weights of a group are then read
    #: once, and what it reads once for each group. Otherwise all groups of a stripe run before the next stripe.
    channels_outside: bool = False
    #: Into how many strips of columns: all stripes of one run before the next strip.
    strips: int = 1
    #: For each operator, into how many partial sums that of a tile is cut; by default none is. They run one after the
    #: other, each in the place of the one before.
    sums: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.sums:
            object.__setattr__(self, "sums", (1,) * (self.end - self.begin))


Segmentation = tuple[Segment, ...]


def pieces_for(grid: Grid, begin: int, end: int, most_bytes: int) -> tuple[int, ...]:
    """Into how many groups of channels to cut each operator so that the weights of a tile take at most so much."""
    return tuple(
        max(1, min(int(grid.width[v]), -(-int(grid.weight[v]) // most_bytes))) for v in range(begin, end)
    )
