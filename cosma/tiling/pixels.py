"""Tilings of a few convolutions by rows and columns, for scratchpads that their weights nearly fill.

Stripes of whole rows keep a few rows of every map between two operators. Where the weights leave no room for that, a
stripe is cut along its columns too, and the operators are parted into segments, so that the weights of one segment
alone have to lie in the scratchpad. For a few operators every way to part them is tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations, pairwise

from cosma.access import NodeSite
from cosma.access.operator import operator_access
from cosma.graph import Graph
from cosma.rewrite.tiling import Cuts, Tiling, step_cuts

#: Most operators: four can be parted in eight ways, each of which costs a quick plan.
MOST_OPERATORS = 4
#: Columns of a tile of one row; a few columns of many channels are some hundred bytes.
COLUMNS = (8, 16)
#: Most tiles of all operators.
MOST_PIXEL_TILES = 2000


def pixel_tilings(graph: Graph, sites: Mapping[str, NodeSite]) -> list[Tiling]:
    """Tilings by one row and a few columns, parted in every way; none for networks of other or more operators."""
    if not 0 < len(graph.operators) <= MOST_OPERATORS:
        return []
    accesses = [operator_access(graph, sites, operator) for operator in graph.operators]
    found = []
    for columns in COLUMNS:
        cuts: dict[str, tuple[Cuts, ...]] = {}
        tiles = 0
        for one in accesses:
            shape, allowed = one.shapes.get(one.result, ()), one.cuts()
            if len(shape) != 4 or not (allowed[2] and allowed[3]):
                return []
            cuts[one.operator.name] = ((), (), step_cuts(shape[2], 1), step_cuts(shape[3], columns))
            tiles += shape[2] * -(-shape[3] // columns)
        if tiles <= MOST_PIXEL_TILES:
            found += [Tiling(cuts, way) for way in _partings([o.name for o in graph.operators])]
    return found


def _partings(names: list[str]) -> Iterator[tuple[tuple[str, ...], ...]]:
    """Every way to part operators in their order, those of few segments first."""
    for count in range(len(names)):
        for inner in combinations(range(1, len(names)), count):
            yield tuple(tuple(names[a:b]) for a, b in pairwise((0, *inner, len(names))))
