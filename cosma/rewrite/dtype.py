"""What-if studies: floating-point tensors counted in another element type."""

from __future__ import annotations

from cosma.graph import Graph
from cosma.rewrite.lineage import Lineage, Rewritten


def count_as(graph: Graph, dtype: str | None) -> Rewritten:
    """Count floating-point tensors in another element type, None for their own; operators stay as they are.

    Raises GraphError if the type is unknown, or a tensor carries no element type or shape to recount it by.
    """
    return Rewritten(graph if dtype is None else graph.with_dtype(dtype), Lineage.identity(graph))
