"""What a rewritten graph stands for: each of its operators and tensors, in terms of the graph it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cosma.graph import Graph


@dataclass(frozen=True, slots=True)
class Lineage:
    """What the parts of a rewritten graph stand for."""

    #: For each operator of the new graph, the operators of the old one that it stands for, in the order they compute.
    #: Each old operator is listed once.
    operators: Mapping[str, tuple[str, ...]]
    #: For each old tensor that is not in the new graph, the new tensor its readers read instead; None where it is
    #: inside an operator and never exists in a memory.
    tensors: Mapping[str, str | None] = field(default_factory=dict)
    #: For each old tensor that was cut, the new tensors it consists of.
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def identity(cls, graph: Graph) -> Lineage:
        """Lineage of a graph that is what it was."""
        return cls({operator.name: (operator.name,) for operator in graph.operators})


@dataclass(frozen=True, slots=True, eq=False)
class Rewritten:
    """A graph made from another one."""

    #: The new graph.
    graph: Graph
    #: What its parts stand for in the old one.
    lineage: Lineage
