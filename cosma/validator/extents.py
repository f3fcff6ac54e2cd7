"""Extents that a plan states: nothing is laid out by them before they are known to be possible."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from cosma.validator.sums import partial_sums
from cosma.validator.verdicts import Verdict, Violation

if TYPE_CHECKING:
    from cosma.graph import Graph


def check_extents(graph: Graph) -> list[Violation]:
    """Roots with more elements than their bytes can hold, and tiles that reach beyond the results they are cut from."""
    found = []
    for root in graph.roots.values():
        elements = 0 if root.shape is None else prod(root.shape)
        if elements > 8 * root.size_bytes:  # no element takes less than a bit
            message = f"{root.name!r} has {root.size_bytes} bytes for {elements} elements"
            found.append(Violation(Verdict.PART_SIZE, None, message))
    known, sums = {**graph.tensors, **graph.roots}, partial_sums(graph)
    for operator in graph.operators:
        if operator.tile is None:
            continue
        # The first result says what a tile is cut from; steps of a sum are compared with the last step elsewhere.
        written = next((name for name in operator.outputs if name not in sums), None)
        if written is None:
            continue
        region = graph.tensors[written].region
        shape = known[written if region is None else region.root].shape
        if shape is not None and not operator.tile.is_within(shape):
            box = f"{list(operator.tile.start)} to {list(operator.tile.stop)}"
            message = f"tile {operator.name!r} is {box} of a result whose shape is {list(shape)}"
            found.append(Violation(Verdict.TILES_WRONG, None, message))
    return found
