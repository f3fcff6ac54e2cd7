"""Sums that are computed by steps: the tiles over one region form one chain, and its intervals share out the sum.

Whether the intervals cover the axis that the model's node sums over is for :mod:`cosma.validator.tiles` to say.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from cosma.validator.verdicts import Verdict, Violation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.graph import Graph, Operator


def partial_sums(graph: Graph) -> set[str]:
    """Tensors that are partial sums: no tensors of the model."""
    return {name for o in graph.operators if o.accumulation is not None for name in o.accumulation.sums}


def last_steps(tiles: Sequence[Operator]) -> list[Operator]:
    """Tiles of an operator that write its result: steps of sums that no other step adds to, and plain tiles."""
    read = {name for one in tiles if one.accumulation is not None for name in one.accumulation.sums}
    return [one for one in tiles if not read & set(one.outputs)]


def check_sums(graph: Graph, name: str, tiles: Sequence[Operator]) -> list[Violation]:
    """Check that the tiles of an operator that sum by steps form one chain over each region."""
    if all(one.accumulation is None for one in tiles):
        return []

    def wrong(message: str) -> list[Violation]:
        return [Violation(Verdict.TILES_WRONG, None, message)]

    over: dict[tuple[tuple[int, ...], tuple[int, ...]], list[Operator]] = {}
    for one in tiles:
        if one.tile is None or one.accumulation is None:
            return wrong(f"some tiles of {name!r} are steps of sums, {one.name!r} is none")
        over.setdefault((one.tile.start, one.tile.stop), []).append(one)
    extents = set()
    for steps in over.values():
        message = _broken(graph, steps)
        if message:
            return wrong(message)
        extents.add(max(one.accumulation.stop for one in steps if one.accumulation is not None))
    if len(extents) > 1:
        return wrong(f"tiles of {name!r} sum over axes of {' and '.join(map(str, sorted(extents)))} elements")
    return []


def _broken(graph: Graph, steps: Sequence[Operator]) -> str:
    """What is wrong with the steps over one region; empty where they are one chain."""
    spans = sorted((one.accumulation.start, one.accumulation.stop) for one in steps if one.accumulation is not None)
    region = f"the region of {steps[0].name!r}"
    if spans[0][0] != 0 or any(a[1] != b[0] for a, b in pairwise(spans)):
        return f"steps over {region} sum over {', '.join(f'{a} to {b}' for a, b in spans[:4])}: not each element once"
    ends = last_steps(steps)
    if len(ends) != 1:
        return f"{len(ends)} steps over {region} write its result"
    maker = {name: one for one in steps for name in one.outputs}
    one, seen = ends[0], 1
    while one.accumulation is not None and one.accumulation.sums:
        sums = one.accumulation.sums
        before = maker.get(sums[0])
        if before is None or sums != before.outputs or len(sums) != len(one.outputs):
            return f"step {one.name!r} does not add to what another step over its region wrote"
        message = _misused(graph, one, sums)
        if message:
            return message
        one, seen = before, seen + 1
        if seen > len(steps):
            break
    return "" if seen == len(steps) else f"{len(steps)} steps over {region} are no single chain"


def _misused(graph: Graph, one: Operator, sums: Sequence[str]) -> str:
    for partial, result in zip(sums, one.outputs, strict=True):
        if partial not in one.inputs or graph.consumers(partial) != (one.name,):
            return f"partial sum {partial!r} is not read by {one.name!r} alone"
        size, least = graph.tensors[partial].size_bytes, graph.tensors[result].size_bytes
        if size < least or (graph.tensors[partial].kind != "intermediate"):
            return f"partial sum {partial!r} has {size} bytes for {least} of {result!r}"
        shape, whole = graph.tensors[partial].shape, graph.tensors[result].shape
        if whole is None and one.tile is not None and len(sums) == 1:
            whole = one.tile.shape  # a file says no shape of a result that is not cut
        if None not in (shape, whole) and shape != whole:
            return f"partial sum {partial!r} has the shape {shape} and not {whole}, that of {result!r}"
    return ""
