"""Parts of a network that repeat: what is good for one block is tried in the others."""

from __future__ import annotations

import numpy as np

from cosma.arrays import Ints
from cosma.tiling.grid import Grid

#: Least share of the operators that have a like one behind them, of the largest such share, for a shorter period to be
#: taken; not measured.
NEARLY_ALL = 0.9


def likeness(grid: Grid, begin: int, end: int) -> bytes:
    """What runs of operators that are cut in the same way have in common."""
    edges, own = slice(int(grid.start[begin]), int(grid.start[end])), slice(begin, end)
    results = grid.result[grid.result_start[begin] : grid.result_start[end]]
    both = np.concatenate((grid.operand[edges], results))
    made_here = (grid.maker[both] >= begin) & (grid.maker[both] < end)
    # Tensors by where they first occur, so that their numbers do not matter.
    _, first, again = np.unique(both, return_index=True, return_inverse=True)
    columns = (
        grid.start[begin : end + 1] - grid.start[begin], grid.result_start[begin : end + 1] - grid.result_start[begin],
        grid.height[own], grid.width[own], grid.breadth[own], grid.depth[own], first[again], grid.size[both],
        grid.rows[both], grid.channels[both], grid.columns[both], grid.is_weight[both], grid.stored[both] * made_here,
        np.where(made_here, grid.maker[both] - begin, -1), grid.row_source[edges], grid.row_table[edges],
        grid.channel_source[edges], grid.channel_table[edges], grid.column_source[edges], grid.column_table[edges],
        grid.read_by[edges], grid.given_up[edges],
    )  # fmt: skip
    return np.concatenate([np.asarray(column, dtype=np.int64) for column in columns]).tobytes()


class Repeats:
    """Operators that are alike, and how far apart they are.

    Attributes
    ----------
    period
        Distance at which most operators have a like one; 0 where fewer than a quarter have one.
    kind
        Number of each operator's likeness.
    """

    __slots__ = ("kind", "period")

    def __init__(self, grid: Grid) -> None:
        count = len(grid.height)
        known: dict[bytes, int] = {}
        self.kind: Ints = np.array(
            [known.setdefault(likeness(grid, v, v + 1), len(known)) for v in range(count)], dtype=np.int64
        )
        alike = [int(np.sum(self.kind[d:] == self.kind[:-d])) for d in range(2, count // 2 + 1)]
        most = max(alike, default=0)
        far = [d for d, n in enumerate(alike, 2) if n >= NEARLY_ALL * most]
        self.period = far[0] if 4 * most >= count else 0

    def places(self, begin: int, end: int) -> list[int]:
        """Where else operators like these, half-open, stand in a row, from the first; they do not overlap."""
        count = end - begin
        runs = np.lib.stride_tricks.sliding_window_view(self.kind, count)
        found: list[int] = []
        free = 0
        for place in np.flatnonzero((runs == self.kind[begin:end]).all(axis=1)).tolist():
            if place >= free and (place >= end or place + count <= begin):
                found.append(place)
                free = place + count
        return found
