"""A plan's tiles run without its memory: what the plan's execution must agree with bit for bit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cosma.execute.compare import Comparison, compare
from cosma.execute.plain import digest
from cosma.graph.join import pieces_of_outputs
from cosma.plan.instructions import Execute

if TYPE_CHECKING:
    from cosma.arrays import Bytes
    from cosma.execute.operators import Operators
    from cosma.graph import Graph


@dataclass(slots=True)
class TiledRun:
    """The operators of a plan in its order, every tensor and part in an array of its own."""

    #: Fingerprint of every tensor that an operator yields.
    digests: dict[str, bytes] = field(default_factory=dict)
    #: Bytes of the graph outputs, put together from parts.
    outputs: dict[str, Bytes] = field(default_factory=dict)
    #: What operators yield, put together from parts, against the same nodes run whole.
    results: list[Comparison] = field(default_factory=list)
    #: Parts of tensors that others are still missing of, by tensor.
    _waiting: dict[str, dict[str, Bytes]] = field(default_factory=dict)

    @classmethod
    def of(cls, operators: Operators, expected: dict[str, Bytes]) -> TiledRun:
        """Run the plan's operators.

        ``expected`` are tensors of the run without tiles to compare with; each is taken out once it is compared.
        """
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
                run._compare(operators, name, data, expected)
            for name in operator.operands:
                uses[name] -= 1
                if uses[name] == 0 and name not in kept:
                    held.pop(name)
        run._join(operators, held)
        return run

    def _compare(self, operators: Operators, name: str, data: Bytes, expected: dict[str, Bytes]) -> None:
        """Compare a tensor once it is there as a whole."""
        region = operators.cuts.region(name)
        root = name if region is None else region.root
        if root not in expected:
            return
        parts = self._waiting.setdefault(root, {})
        parts[name] = data
        if region is not None and len(parts) < len(operators.cuts.parts(root)):
            return
        made = data if region is None else operators.cuts.join(root, parts)
        model, value = operators.constants.model, operators.constants.model.values[root]
        self.results.append(compare(root, model.read(value, made), model.read(value, expected.pop(root))))
        del self._waiting[root]

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
