"""States: graph outputs that are the next values of graph inputs, each pair in one place off-chip."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cosma.graph.in_place import may_overwrite
from cosma.plan.instructions import Execute, Load, Store

if TYPE_CHECKING:
    from cosma.graph import Graph, Tensor
    from cosma.plan.instructions import Instruction


def whole_states(graph: Graph) -> dict[str, str]:
    """States by the outputs that are their next values, of outputs that some operator writes whole."""
    return {t.name: t.state for t in graph.tensors.values() if t.state is not None}


def with_states_that_hold(graph: Graph, instructions: Sequence[Instruction]) -> Graph:
    """The graph of a plan without those states that cannot be where their next values are.

    A state that was cut is none, nor is one that is read off-chip after its next value is first written there.
    """
    def kept(tensor: Tensor) -> Tensor:
        if tensor.state is None or (tensor.state in graph.tensors and _holds(graph, instructions, tensor)):
            return tensor
        return replace(tensor, state=None)

    def kept_root(root: Tensor) -> Tensor:
        return root if root.name in graph.joins else replace(root, state=None)

    tensors, roots = [*map(kept, graph.tensors.values())], [*map(kept_root, graph.roots.values())]
    return graph.replace(tensors=tensors, roots=roots)


def lost_states(graph: Graph, states: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Which states that were asked for a plan's graph does not have."""
    known = {(t.name, t.state) for t in (*graph.tensors.values(), *graph.roots.values())}
    return [pair for pair in states if pair not in known]


def _holds(graph: Graph, instructions: Sequence[Instruction], after: Tensor) -> bool:
    before = graph.tensors[str(after.state)]
    written = len(instructions)
    for i, instruction in enumerate(instructions):
        match instruction:
            case Store(name) if name == after.name:
                written = min(written, i)
            case Load(name, _) if name == before.name and i > written:
                return False
            case Execute(name, streamed, _):
                writes, reads = after.name in streamed, before.name in streamed
                if reads and i > written:
                    return False
                if reads and writes and not may_overwrite(graph.operator(name), after, before):
                    return False
                if writes:
                    written = min(written, i)
    return True
