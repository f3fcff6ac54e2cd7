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
    """One live node of the model and how it takes part in the graph."""

    #: The node.
    node: Node
    #: Operator, view or folded.
    fate: NodeFate
    #: Values whose bytes it needs; for a view, those it stands for; for a folded node, its constant operands.
    reads: tuple[Value, ...]
    #: Its results that exist. For an operator each is a new tensor.
    results: tuple[Value, ...]
    #: Multiply-accumulates, where known.
    macs: int | None = None
    #: What the operator means; None for steps that are no operators.
    part: Part | None = None
    #: Constants among ``reads`` of which only rows are read.
    tables: tuple[TableRead, ...] = ()
    #: Boxes of the first operand outside of which the results depend on nothing; none where that may be all.
    boxes: tuple[Box, ...] = ()
    #: For an operator, its operands by position; None for an absent one.
    operands: tuple[Value | None, ...] = ()
    #: For an operator, the values of short constant parameters, by position.
    contents: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
