"""What reading a model yields: the graph, and what became of every node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import cosma.door as door
from cosma.access import NodeSite
from cosma.graph import Graph
from cosma.text import counted, shortened


class NodeFate(StrEnum):
    """What became of an ONNX node."""

    #: It is an operator of the graph.
    OPERATOR = "operator"
    #: It is computed within an operator that stands for several nodes.
    FUSED = "fused"
    #: It moves no data: its result is its operand.
    VIEW = "view"
    #: It is known before the model runs: a computed weight, or shape computation.
    FOLDED = "folded"
    #: No graph output depends on it.
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One ONNX node (after local functions are inlined) and what became of it."""

    #: Name of its first result.
    output: str
    #: ONNX operator type, with the domain before it unless that is ONNX's own.
    type: str
    #: What became of it.
    fate: NodeFate
    #: Name of the operator whose ``covers`` lists it; None for folded and dead nodes, and for views between a graph
    #: input and a graph output, which no operator stands for.
    operator: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class LoadedModel:
    """A model read for planning.

    Attributes
    ----------
    graph
        Operators over tensors, every size known. Each stands for one node with its views, or for a quantised group:
        a float operator with the nodes that dequantise its operands and quantise its result.
    name
        The file's name without its ending.
    sha256
        Of the ``.onnx`` file as it is on disk; None for a graph that comes from no such file.
    notes
        What was assumed, bound, folded or dropped, one sentence each.
    nodes
        Every node and its fate, in the order they are executed.
    path
        The file.
    dims
        Every dynamic dimension that was bound.
    aliases
        For every view and every renamed value, the tensor that holds its bytes.
    assumptions
        Those of the notes that the sizes of tensors rest on: limits of what is known only at run time, rounding.
    node_graph
        The same model with an operator for each node, quantised groups taken apart; what plans are checked against.
    sites
        Every node that computes, by its first result: operands by position, in terms of the graph.
    """

    graph: Graph
    name: str
    sha256: str | None
    notes: tuple[str, ...] = ()
    nodes: tuple[NodeRecord, ...] = ()
    path: Path | None = None
    dims: Mapping[str, int] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    node_graph: Graph | None = None
    sites: Mapping[str, NodeSite] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()

    @property
    def finest_graph(self) -> Graph:
        """The graph with an operator for each node, where it is known."""
        return self.graph if self.node_graph is None else self.node_graph

    def __post_init__(self) -> None:
        door.instance(self.graph, Graph, "loaded model: graph")
        door.text(self.name, "loaded model: name")
        door.optional_text(self.sha256, "loaded model: sha256")
        put = object.__setattr__
        put(self, "notes", door.texts(self.notes, "loaded model: notes"))
        put(self, "assumptions", door.texts(self.assumptions, "loaded model: assumptions"))
        put(self, "nodes", door.sequence(self.nodes, NodeRecord, "loaded model: nodes"))
        if self.path is not None:
            put(self, "path", door.path(self.path, "loaded model: path"))
        put(self, "dims", door.counts_by_name(self.dims, "loaded model: dims"))
        put(self, "aliases", door.mapping(self.aliases, "loaded model: aliases"))

    def __repr__(self) -> str:
        return (
            f"LoadedModel({shortened(repr(self.name))}, {counted(len(self.graph.operators), 'operator')}, "
            f"{counted(len(self.graph.tensors), 'tensor')}, {counted(len(self.nodes), 'node')}, "
            f"{counted(len(self.notes), 'note')})"
        )
