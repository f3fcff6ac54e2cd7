"""What the walk over a model leaves behind for the graph to be assembled from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cosma.frontend.gathered import TableRead
from cosma.frontend.loaded import NodeFate
from cosma.frontend.nodes import Node
from cosma.frontend.selects import Box
from cosma.frontend.values import Value
from cosma.graph.tensor import Part


@dataclass(frozen=True, slots=True)
class Step:
    """One live node of the model and how it takes part in the graph.

    Attributes
    ----------
    node
        The node.
    fate
        Operator, view or folded.
    reads
        Values whose bytes it needs; for a view, those it stands for; for a folded node, its constant operands.
    results
        Its results that exist. For an operator each is a new tensor.
    macs
        Multiply-accumulates, where known.
    part
        What the operator means; None for steps that are no operators.
    tables
        Constants among ``reads`` of which only rows are read.
    boxes
        Boxes of the first operand outside of which the results depend on nothing; none where that may be all.
    operands
        For an operator, its operands by position; None for an absent one.
    contents
        For an operator, the values of short constant parameters, by position.
    """

    node: Node
    fate: NodeFate
    reads: tuple[Value, ...]
    results: tuple[Value, ...]
    macs: int | None = None
    part: Part | None = None
    tables: tuple[TableRead, ...] = ()
    boxes: tuple[Box, ...] = ()
    operands: tuple[Value | None, ...] = ()
    contents: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
