"""Modes of tiles: a tile runs in the ways its operator does, on the parts that it touches.

What an operator may stream, its tiles may stream part by part; of what stays, the parts stay that a tile touches.
Workspace shrinks with the tile: it holds the rows of a window, or all that it reads if that is less, and sums for its
own region of the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import prod

from cosma.access.modes import ACCUMULATOR_BYTES, OUTPUT_STATIONARY, undominated
from cosma.graph import Graph, Mode, Operator
from cosma.graph.join import roots_by_piece

#: Operands that a mode reads otherwise than in lockstep with the result, the first of an operator; 1 where not named.
_FACTORS = {"lockstep": 0, "input-stationary": 2, "weight-stationary": 2, OUTPUT_STATIONARY: 2}


def with_tile_modes(tiled: Graph, whole: Graph) -> Graph:
    """Give tiles the modes that their operators have in the graph that was cut.

    Operators that were not cut get their modes as well, for the parts that they touch.
    """
    operators, joined = [], roots_by_piece(tiled.joins)
    for operator in tiled.operators:
        source = whole.operator(operator.name if operator.tile is None else operator.tile.root)
        roots = {
            name: next((root for root in joined.get(name, ()) if root in operator.joined), _root(tiled, name))
            for name in (*operator.operands, *operator.outputs)
        }
        modes = undominated(_of_tile(mode, tiled, operator, whole, source, roots) for mode in source.modes)
        operators.append(replace(operator, modes=modes))
    return tiled.replace(operators=operators)


def _of_tile(
    mode: Mode, tiled: Graph, tile: Operator, whole: Graph, source: Operator, roots: Mapping[str, str]
) -> Mode:
    streamed = set(mode.may_stream)
    streamed -= _out_of_step(mode, tiled, tile, whole, source, roots)
    parts = [name for name, root in roots.items() if root in streamed]
    read = sum(tiled.tensors[name].size_bytes for name in parts if name in tile.operands)
    if tile.accumulation is not None and streamed.intersection(source.outputs):
        # Partial sums come and go element by element, as the result does.
        parts += [name for name in (*tile.accumulation.sums, *tile.outputs) if name not in parts]
    sums = tile_sums = 0
    if mode.name == OUTPUT_STATIONARY:
        sums, tile_sums = _accumulator_bytes(whole, source.outputs), _accumulator_bytes(tiled, tile.outputs)
    return Mode(mode.name, parts, min(mode.workspace_bytes - sums, read) + min(sums, tile_sums))


def _out_of_step(
    mode: Mode, tiled: Graph, tile: Operator, whole: Graph, source: Operator, roots: Mapping[str, str]
) -> set[str]:
    """Operands in lockstep with the result of an operator, of which a tile reads more elements than it yields.

    They are views whose regions are no boxes of what is viewed: a tile then reads what it has no use for.
    """
    behind = _FACTORS.get(mode.name, 1)
    size = prod(whole.tensors[source.outputs[0]].shape or ())
    lockstep = {
        name for name in source.inputs[behind:]
        if name in whole.tensors and prod(whole.tensors[name].shape or ()) == size
    }  # fmt: skip
    made = sum(prod(tiled.tensors[name].shape or ()) for name in tile.outputs if roots[name] == source.outputs[0])
    read: dict[str, int] = {}
    for name in dict.fromkeys(tile.operands):
        read[roots[name]] = read.get(roots[name], 0) + prod(tiled.tensors[name].shape or ())
    return {root for root, elements in read.items() if root in lockstep and elements != made}


def _root(graph: Graph, name: str) -> str:
    region = graph.tensors[name].region
    return name if region is None else region.root


def _accumulator_bytes(graph: Graph, results: Iterable[str]) -> int:
    """Room for sums of the first result, over the parts of it among some tensors; see :mod:`cosma.access.modes`."""
    names = list(results)
    first = [graph.tensors[name] for name in names if _root(graph, name) == _root(graph, names[0])]
    elements = sum(prod(tensor.shape or ()) for tensor in first)
    return ACCUMULATOR_BYTES * elements if sum(tensor.size_bytes for tensor in first) <= elements else 0
