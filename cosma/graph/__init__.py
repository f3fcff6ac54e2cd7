"""The data: tensors, operators and the graph they form."""

from cosma.graph.graph import Graph
from cosma.graph.tensor import Operator, Part, Tensor, TensorKind

__all__ = ["Graph", "Operator", "Part", "Tensor", "TensorKind"]
