"""Segments: operators that run stripe by stripe, and how each is cut."""

from __future__ import annotations

from dataclasses import dataclass
from operator import mul

from cosma.tiling.grid import Grid

#: Stripes tried for a segment; not measured.
LADDER = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128)
#: More than any segmentation costs.
FAR = 1 << 62
#: Loops over groups of channels; see :class:`Segment`.
BY_OPERATOR, GROUPS_OUTSIDE, GROUPS_WITHIN = 0, 1, 2


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
    #: What groups of channels run through before the next group. ``BY_OPERATOR``: one operator's stripe.
    #: ``GROUPS_WITHIN``: all operators of a stripe, so that what lies between two of them exists a group at a time.
    #: ``GROUPS_OUTSIDE``: all stripes of all operators; the weights of a group are then read once, and what it reads
    #: once for each group. In both, an operator that sums over the channels of another takes a step for each group.
    loop: int = BY_OPERATOR
    #: Into how many strips of columns: all stripes of one run before the next strip.
    strips: int = 1
    #: For each operator, into how many partial sums that of a tile is cut; by default none is. They run one after the
    #: other, each in the place of the one before.
    sums: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.sums:
            object.__setattr__(self, "sums", (1,) * (self.end - self.begin))

    @property
    def tile_count(self) -> int:
        """Number of tiles, at the most: stripes and strips without rows and columns of their own make none."""
        return self.stripes * self.strips * int(sum(map(mul, self.pieces, self.sums)))


Segmentation = tuple[Segment, ...]


def pieces_for(grid: Grid, begin: int, end: int, most_bytes: int) -> tuple[int, ...]:
    """Into how many groups of channels to cut each operator so that the weights of a tile take at most so much."""
    return tuple(
        max(1, min(int(grid.width[v]), -(-int(grid.weight[v]) // most_bytes))) for v in range(begin, end)
    )
