"""State: a graph output that is the next value of a graph input, in the same place off-chip from run to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import cosma.door as door
from cosma.errors import InputError
from cosma.graph import Graph, TensorKind


def with_states(graph: Graph, states: Mapping[str, str]) -> Graph:
    """Note which outputs of a whole graph are the next values of which inputs.

    Raises InputError if a name is no output or no input, an input has two next values, or an output is smaller than its
    input or of another type.
    """
    pairs = dict(door.items(dict(states).items(), "states"))
    if not pairs:
        return graph
    before: dict[str, str] = {}
    for output, given in pairs.items():
        after, first = graph.tensors.get(output), graph.tensors.get(door.text(given, f"states: {output!r}"))
        if after is None or after.kind is not TensorKind.OUTPUT:
            known = _names(graph, TensorKind.OUTPUT)
            raise InputError(f"states: {output!r} is no graph output; the outputs are {known}")
        if first is None or first.kind is not TensorKind.INPUT:
            raise InputError(f"states: {given!r} is no graph input; the inputs are {_names(graph, TensorKind.INPUT)}")
        if before.setdefault(given, output) != output:
            raise InputError(f"states: {given!r} has two next values, {before[given]!r} and {output!r}")
        if after.dtype != first.dtype or after.size_bytes < first.size_bytes:
            raise InputError(
                f"states: {output!r} ({after.dtype}, {after.size_bytes} bytes) cannot be where {given!r} "
                f"({first.dtype}, {first.size_bytes} bytes) was"
            )
    tensors = [replace(t, state=pairs[t.name]) if t.name in pairs else t for t in graph.tensors.values()]
    return graph.replace(tensors=tensors)


def _names(graph: Graph, kind: TensorKind) -> str:
    return ", ".join(repr(tensor.name) for tensor in graph.of_kind(kind)) or "none"
