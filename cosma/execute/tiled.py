"""A plan's tiles run without its memory: what the plan's execution must agree with bit for bit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cosma.execute.plain import digest
from cosma.graph.join import pieces_of_outputs
from cosma.plan.instructions import Execute

if TYPE_CHECKING:
    from cosma.execute.memory import Bytes
    from cosma.execute.operators import Operators
    from cosma.graph import Graph


@dataclass(slots=True)
class TiledRun:
    """The operators of a plan in its order, every tensor and part in an array of its own."""

    #: Fingerprint of every tensor that an operator yields.
    digests: dict[str, bytes] = field(default_factory=dict)
    #: Bytes of the graph outputs, put together from parts.
    outputs: dict[str, Bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, operators: Operators) -> TiledRun:
        """Run the plan's operators."""
        run = cls()
        graph = operators.plan.graph
        held = operators.contents()
        kept = _kept(graph)
        uses = {name: len(graph.consumers(name)) for name in graph.tensors}
        for instruction in operators.plan.instructions:
            if not isinstance(instruction, Execute):
                continue
            operator = graph.operator(instruction.operator)
            for name in operator.weights:
                rows = operators.selected(name, held.__getitem__)
                if rows is not None:
                    held[name] = rows
            targets = {name: np.empty(operators.true_size(name), np.uint8) for name in operator.outputs}
            operands = {name: held[name] for name in operator.operands}
            operators.compute(operator, operands, targets, held.__getitem__)
            model = operators.constants.model
            for name, data in targets.items():
                held[name] = data
                run.digests[name] = digest(model.bytes_of(operators.value(name), data))
            for name in operator.operands:
                uses[name] -= 1
                if uses[name] == 0 and name not in kept:
                    held.pop(name)
        run._join(operators, held)
        return run

    def _join(self, operators: Operators, held: dict[str, Bytes]) -> None:
        graph = operators.plan.graph
        pieces = pieces_of_outputs(graph.joins, graph.roots)  # they are stored, and no outputs of the model
        for tensor in (*graph.tensors.values(), *graph.roots.values()):
            if tensor.kind == "output" and tensor.region is None and tensor.name not in pieces:
                cut = operators.cuts.is_root(tensor.name)
                self.outputs[tensor.name] = operators.cuts.join(tensor.name, held) if cut else held[tensor.name]


def _kept(graph: Graph) -> set[str]:
    """Tensors that are needed to the end: outputs, and indices that select rows."""
    rows = {index for tensor in graph.tensors.values() if tensor.rows is not None for index in tensor.rows.indices}
    return {
        tensor.name
        for tensor in graph.tensors.values()
        if tensor.kind == "output" or (tensor.name if tensor.region is None else tensor.region.root) in rows
    }
