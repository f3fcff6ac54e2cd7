"""The data: tensors, operators and the graph they form."""

from cosma.graph.accumulation import Accumulation
from cosma.graph.graph import Graph
from cosma.graph.join import Join, Piece
from cosma.graph.mode import Mode
from cosma.graph.region import Region
from cosma.graph.tensor import Operator, Part, Rows, Tensor, TensorKind

__all__ = [
    "Accumulation", "Graph", "Join", "Mode", "Operator", "Part", "Piece", "Region", "Rows", "Tensor", "TensorKind",
]  # fmt: skip
