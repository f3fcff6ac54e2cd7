"""Which tilings the bound over rows and channels speaks of."""

from __future__ import annotations

from cosma.graph import Graph
from cosma.tiling.rows import row_axis


def covers(tiled: Graph) -> bool:
    """Whether every operator of a graph of tiles is cut along rows and channels alone, and no sum is."""
    shapes: dict[str, list[int]] = {}
    for operator in tiled.operators:
        if operator.tile is not None:
            stops = shapes.setdefault(operator.tile.root, list(operator.tile.stop))
            shapes[operator.tile.root] = [max(a, b) for a, b in zip(stops, operator.tile.stop, strict=True)]
    for operator in tiled.operators:
        tile = operator.tile
        if operator.accumulation is not None:
            return False
        if tile is None:
            continue
        shape = shapes[tile.root]
        spans = zip(tile.start, tile.stop, shape, strict=True)
        cut = {axis for axis, (start, stop, size) in enumerate(spans) if stop - start < size}
        if cut - {row_axis(len(shape)), channel_axis_of(len(shape))}:
            return False
    return True


def channel_axis_of(rank: int) -> int:
    """Axis of the channels of a result: the second of feature maps, else the last."""
    return 1 if rank == 4 else rank - 1
