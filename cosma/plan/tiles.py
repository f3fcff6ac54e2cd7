"""Tiles of a plan by the operators they were cut from, and which operators run interleaved."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from cosma.graph import Operator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.graph import Graph, Tensor


@dataclass(frozen=True, slots=True)
class FusedGroup:
    """A stretch of a schedule in which tiles of several operators take turns."""

    #: Steps ``[start, end)``.
    start: int
    end: int
    #: The untiled operators, by their first tile.
    operators: tuple[str, ...]
    #: How many steps are tiles.
    tiles: int


def untiled_name(operator: Operator) -> str:
    """Name of the operator that a tile was cut from; an operator that is no tile is its own."""
    return operator.name if operator.tile is None else operator.tile.root


def root_name(tensor: Tensor) -> str:
    """Name of the tensor that a part belongs to; a whole tensor is its own."""
    return tensor.name if tensor.region is None else tensor.region.root


def untiled_operators(graph: Graph) -> dict[str, Operator]:
    """Operators over whole tensors, by name: those that tiles were cut from, and those that read or write parts."""
    root_of = {tensor.name: root_name(tensor) for tensor in graph.tensors.values()}
    sums = {name for one in graph.operators if one.accumulation is not None for name in one.accumulation.sums}
    found: dict[str, Operator] = {}

    def merged(*names: Sequence[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(root_of.get(name, name) for row in names for name in row if name not in sums))

    for one in graph.operators:
        if one.tile is None and not any(graph.tensors[name].region for name in (*one.operands, *one.outputs)):
            continue
        name = untiled_name(one)
        first = found.get(name, one)
        found[name] = replace(
            first,
            name=name,
            tile=None,
            accumulation=None,
            inputs=merged(first.inputs, one.inputs),
            outputs=merged(first.outputs, one.outputs),
            weights=merged(first.weights, one.weights),
            joined=merged(first.joined, one.joined),
        )
    return found


def untiled_graph(graph: Graph) -> Graph:
    """Return the graph with tiles and parts put together again; modes are those of single tiles.

    What is not copied in it is copied by a Concat again.
    """
    whole = untiled_operators(graph)
    consists = {
        root: tuple(dict.fromkeys(root_name(graph.tensors[name]) for name in join.tensors))
        for root, join in graph.joins.items()
    }
    operators: dict[str, Operator] = {}

    def copy(root: str) -> None:
        name, covers = f"join {root}", graph.joins[root].covers
        operators.setdefault(name, Operator(name, "Concat", consists[root], (root,), covers=covers))

    for name in dict.fromkeys(untiled_name(one) for one in graph.operators):
        one = whole[name] if name in whole else graph.operator(name)
        of = {piece: root for root in one.joined for piece in consists[root]}
        for root in one.joined:
            copy(root)
        inputs = tuple(dict.fromkeys(of.get(tensor, tensor) for tensor in one.inputs))
        operators[name] = replace(one, inputs=inputs, joined=()) if of else one
    for root in graph.joins:
        if graph.roots[root].kind == "output":
            copy(root)
    touched = {name for one in operators.values() for name in (*one.inputs, *one.outputs, *one.weights)}
    tensors = [
        tensor for name, tensor in {**graph.roots, **graph.tensors}.items()
        if name in touched and tensor.region is None
    ]  # fmt: skip
    return type(graph)(tensors, tuple(operators.values()), graph.name)


def tile_shares(graph: Graph) -> dict[str, Fraction]:
    """Tell for each operator which share of its untiled operator it computes: 1 where it is no tile.

    Tiles of one operator share out its result; tiles over the same box (a cut along a reduced axis) share it evenly.
    """
    volumes = {
        operator.name: operator.tile.count
        for operator in graph.operators
        if operator.tile is not None
    }
    whole: dict[str, int] = {}
    for operator in graph.operators:
        if operator.tile is not None:
            whole[operator.tile.root] = whole.get(operator.tile.root, 0) + volumes[operator.name]
    return {
        operator.name: Fraction(1)
        if operator.tile is None or not whole[operator.tile.root]
        else Fraction(volumes[operator.name], whole[operator.tile.root])
        for operator in graph.operators
    }


def fused_groups(graph: Graph, schedule: Sequence[str]) -> tuple[FusedGroup, ...]:
    """Find the stretches of a schedule in which operators run interleaved, tile by tile.

    Two operators belong together where one begins before the last tile of the other has run.
    """
    owners = [untiled_name(graph.operator(name)) for name in schedule]
    last = {owner: step for step, owner in enumerate(owners)}
    tiled = {untiled_name(operator) for operator in graph.operators if operator.tile is not None}
    groups: list[FusedGroup] = []
    start = end = 0
    for step, owner in enumerate(owners):
        if step >= end:
            start = step
        end = max(end, last[owner] + 1)
        if step + 1 == end:
            members = tuple(dict.fromkeys(owners[start:end]))
            if len(members) > 1:
                groups.append(FusedGroup(start, end, members, sum(o in tiled for o in owners[start:end])))
    return tuple(groups)
