"""Graphs as JSON files: ``{"format": "cosma-graph", "version": 1, "name", "tensors", "operators"}``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

import cosma.door as door
from cosma.errors import FormatError
from cosma.files import other_than, read_bytes, write_atomic
from cosma.graph.accumulation import Accumulation
from cosma.graph.graph import Graph
from cosma.graph.join import Join, Piece
from cosma.graph.mode import Mode
from cosma.graph.region import Region
from cosma.graph.tensor import Attributes, Operator, Part, Rows, Tensor, TensorKind


class _TensorRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    bytes: int
    kind: TensorKind = TensorKind.INTERMEDIATE
    dtype: str | None = None
    shape: tuple[int, ...] | None = None
    rows: Rows | None = None
    region: Region | None = None
    state: str | None = None


class _PartRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    type: str
    domain: str = ""
    attributes: dict[str, Any] = {}


class _ModeRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    may_stream: tuple[str, ...] = ()
    workspace: int = 0


class _PieceRecord(msgspec.Struct, frozen=True):
    tensor: str
    start: tuple[int, ...]
    stop: tuple[int, ...]


class _JoinRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    root: str
    pieces: tuple[_PieceRecord, ...]
    covers: tuple[str, ...] = ()


class _OperatorRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()
    macs: int | None = None
    domain: str = ""
    attributes: dict[str, Any] = {}
    fused: tuple[_PartRecord, ...] = ()
    reads: tuple[Region, ...] = ()
    tile: Region | None = None
    accumulation: Accumulation | None = None
    modes: tuple[_ModeRecord, ...] = ()
    joined: tuple[str, ...] = ()


class _GraphRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    format: Literal["cosma-graph"]
    version: Literal[1]
    name: str
    tensors: tuple[_TensorRecord, ...]
    operators: tuple[_OperatorRecord, ...]
    roots: tuple[_TensorRecord, ...] = ()
    joins: tuple[_JoinRecord, ...] = ()


def graph_to_json(graph: Graph) -> str:
    """Write a graph as JSON text; the same graph always gives the same text."""
    record = _GraphRecord(
        format="cosma-graph",
        version=1,
        name=graph.name,
        tensors=tuple(map(_tensor_record, graph.tensors.values())),
        operators=tuple(map(_operator_record, graph.operators)),
        roots=tuple(map(_tensor_record, graph.roots.values())),
        joins=tuple(map(_join_record, graph.joins.values())),
    )
    return msgspec.json.format(msgspec.json.encode(record).decode(), indent=1) + "\n"


def graph_from_json(text: str | bytes, where: str = "graph") -> Graph:
    """Read a graph from JSON text.

    Raises FormatError if the text is not JSON or does not follow the format; the message names the path in the file.
    Raises GraphError if the graph breaks an invariant.
    """
    try:
        record = msgspec.json.decode(text, type=_GraphRecord)
    except msgspec.DecodeError as error:
        other = other_than("a cosma-graph file", text)
        why = f"{other}; give the model itself" if other else f"not a cosma-graph file of version 1: {error}"
        raise FormatError(f"{where}: {why}") from error
    return Graph(
        (_tensor(t) for t in record.tensors),
        (_operator(o, where) for o in record.operators),
        record.name,
        (_tensor(root) for root in record.roots),
        map(_join, record.joins),
    )


def _operator_record(o: Operator) -> _OperatorRecord:
    return _OperatorRecord(
        o.name, o.type, o.inputs, o.outputs, o.weights, o.covers, o.macs, o.domain, dict(o.attributes),
        tuple(_PartRecord(p.type, p.domain, dict(p.attributes)) for p in o.fused),
        o.reads, o.tile, o.accumulation,
        tuple(_ModeRecord(m.name, m.may_stream, m.workspace_bytes) for m in o.modes),
        o.joined,
    )  # fmt: skip


def _operator(record: _OperatorRecord, where: str) -> Operator:
    return Operator(
        record.name, record.type, record.inputs, record.outputs, record.weights, record.covers, record.macs,
        record.domain, _attributes(record.attributes, f"{where}: operator {record.name!r}"),
        tuple(Part(p.type, p.domain, _attributes(p.attributes, where)) for p in record.fused),
        record.reads, record.tile,
        tuple(Mode(m.name, m.may_stream, m.workspace) for m in record.modes),
        record.accumulation, record.joined,
    )  # fmt: skip


def _join_record(join: Join) -> _JoinRecord:
    pieces = tuple(_PieceRecord(piece.tensor, piece.region.start, piece.region.stop) for piece in join.pieces)
    return _JoinRecord(join.root, pieces, join.covers)


def _join(record: _JoinRecord) -> Join:
    pieces = (Piece(piece.tensor, Region(record.root, piece.start, piece.stop)) for piece in record.pieces)
    return Join(record.root, pieces, record.covers)


def _attributes(record: dict[str, Any], where: str) -> Attributes:
    """Attributes of a record: scalars and flat lists of one type, sorted by name."""
    found = []
    for name, value in sorted(record.items()):
        flat = value if isinstance(value, list) else [value]
        if any(isinstance(x, bool) or not isinstance(x, int | float | str) for x in flat):
            raise FormatError(f"{where}: attribute {name!r} must be a number, a text or a flat list of these")
        found.append((name, tuple(flat) if isinstance(value, list) else value))
    return tuple(found)


def _tensor_record(tensor: Tensor) -> _TensorRecord:
    return _TensorRecord(
        tensor.name, tensor.size_bytes, tensor.kind, tensor.dtype, tensor.shape, tensor.rows, tensor.region,
        tensor.state,
    )  # fmt: skip


def _tensor(record: _TensorRecord) -> Tensor:
    return Tensor(
        record.name, record.bytes, record.kind, record.dtype, record.shape, record.rows, record.region, record.state
    )


def save_graph(graph: Graph, path: Path | str) -> None:
    """Write a graph to a JSON file, whole or not at all."""
    write_atomic(door.path(path, "graph file"), graph_to_json(door.instance(graph, Graph, "the graph")))


def load_graph(path: Path | str) -> Graph:
    """Read a graph from a JSON file; raises what :func:`graph_from_json` raises."""
    file = door.path(path, "graph file")
    return graph_from_json(read_bytes(file, "graph"), str(path))
