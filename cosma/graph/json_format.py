"""Graphs as JSON files: ``{"format": "cosma-graph", "version": 1, "name", "tensors", "operators"}``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from cosma.errors import FormatError
from cosma.files import read_bytes, write_atomic
from cosma.graph.graph import Graph
from cosma.graph.tensor import Operator, Tensor, TensorKind


class _TensorRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    bytes: int
    kind: TensorKind = TensorKind.INTERMEDIATE
    dtype: str | None = None
    shape: tuple[int, ...] | None = None


class _OperatorRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()
    macs: int | None = None


class _GraphRecord(msgspec.Struct, frozen=True):
    format: Literal["cosma-graph"]
    version: Literal[1]
    name: str
    tensors: tuple[_TensorRecord, ...]
    operators: tuple[_OperatorRecord, ...]


def graph_to_json(graph: Graph) -> str:
    """Write a graph as JSON text; the same graph always gives the same text."""
    record = _GraphRecord(
        format="cosma-graph",
        version=1,
        name=graph.name,
        tensors=tuple(
            _TensorRecord(t.name, t.size_bytes, t.kind, t.dtype, t.shape) for t in graph.tensors.values()
        ),
        operators=tuple(
            _OperatorRecord(o.name, o.type, o.inputs, o.outputs, o.weights, o.covers, o.macs)
            for o in graph.operators
        ),
    )
    return msgspec.json.format(msgspec.json.encode(record).decode(), indent=1) + "\n"


def graph_from_json(text: str | bytes, where: str = "graph") -> Graph:
    """Read a graph from JSON text.

    Raises
    ------
    FormatError
        If the text is not JSON or does not follow the format; the message names the path in the file.
    GraphError
        If the graph breaks an invariant.
    """
    try:
        record = msgspec.json.decode(text, type=_GraphRecord)
    except msgspec.DecodeError as error:
        raise FormatError(f"{where}: not a cosma-graph file of version 1: {error}") from error
    return Graph(
        (Tensor(t.name, t.bytes, t.kind, t.dtype, t.shape) for t in record.tensors),
        (Operator(o.name, o.type, o.inputs, o.outputs, o.weights, o.covers, o.macs) for o in record.operators),
        record.name,
    )


def save_graph(graph: Graph, path: Path | str) -> None:
    """Write a graph to a JSON file, whole or not at all."""
    write_atomic(path, graph_to_json(graph))


def load_graph(path: Path | str) -> Graph:
    """Read a graph from a JSON file; raises what :func:`graph_from_json` raises."""
    return graph_from_json(read_bytes(path, "graph"), str(path))
