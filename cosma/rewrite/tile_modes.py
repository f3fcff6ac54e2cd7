"""Modes of tiles: a tile runs in the ways its operator does, on the parts that it touches.

What an operator may stream, its tiles may stream part by part; of what stays, the parts stay that a tile touches.
Workspace shrinks with the tile: it holds the rows of a window, or all that it reads if that is less, and sums for its
own region of the result.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import prod

from cosma.access.modes import ACCUMULATOR_BYTES, OUTPUT_STATIONARY, undominated
from cosma.graph import Graph, Mode, Operator


def with_tile_modes(tiled: Graph, whole: Graph) -> Graph:
    """Give tiles the modes of their operators.

    Parameters
    ----------
    tiled
        The graph of tiles; operators that were not cut get their modes as well, for the parts that they touch.
    whole
        The graph that was cut, with modes.
    """
    operators = []
    for operator in tiled.operators:
        source = whole.operator(operator.name if operator.tile is None else operator.tile.root)
        modes = undominated(_of_tile(mode, tiled, operator, whole, source) for mode in source.modes)
        operators.append(replace(operator, modes=modes))
    return tiled.replace(operators=operators)


def _of_tile(mode: Mode, tiled: Graph, tile: Operator, whole: Graph, source: Operator) -> Mode:
    streamed = set(mode.may_stream)
    joined = {tensor: root for root in tile.joined for tensor in tiled.joins[root].tensors}
    touched = dict.fromkeys((*tile.operands, *tile.outputs))
    parts = [name for name in touched if joined.get(name, _root(tiled, name)) in streamed]
    read = sum(tiled.tensors[name].size_bytes for name in parts if name in tile.operands)
    if tile.accumulation is not None and streamed.intersection(source.outputs):
        # Partial sums come and go element by element, as the result does.
        parts += [name for name in (*tile.accumulation.sums, *tile.outputs) if name not in parts]
    sums = tile_sums = 0
    if mode.name == OUTPUT_STATIONARY:
        sums, tile_sums = _accumulator_bytes(whole, source.outputs), _accumulator_bytes(tiled, tile.outputs)
    return Mode(mode.name, parts, min(mode.workspace_bytes - sums, read) + min(sums, tile_sums))


def _root(graph: Graph, name: str) -> str:
    region = graph.tensors[name].region
    return name if region is None else region.root


def _accumulator_bytes(graph: Graph, results: Iterable[str]) -> int:
    """Room for sums of the first result, over the parts of it among some tensors; see :mod:`cosma.access.modes`."""
    names = list(results)
    first = [graph.tensors[name] for name in names if _root(graph, name) == _root(graph, names[0])]
    elements = sum(prod(tensor.shape or ()) for tensor in first)
    return ACCUMULATOR_BYTES * elements if sum(tensor.size_bytes for tensor in first) <= elements else 0
