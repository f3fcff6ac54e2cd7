"""A plan's tiles run without its memory: what the plan's execution must agree with bit for bit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cosma.execute.compare import Comparison, compare
from cosma.execute.plain import digest
from cosma.graph.join import pieces_of_outputs
from cosma.plan.instructions import Execute
from cosma.plan.tiles import untiled_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cosma.arrays import Bytes
    from cosma.execute.operators import Operators
    from cosma.graph import Graph, Operator


@dataclass(slots=True)
class TiledRun:
    """The operators of a plan in its order, every tensor and part in an array of its own."""

    #: Fingerprint of every tensor that an operator yields.
    digests: dict[str, bytes] = field(default_factory=dict)
    #: Bytes of the graph outputs, put together from parts.
    outputs: dict[str, Bytes] = field(default_factory=dict)
    #: What operators yield, put together from parts, against the same nodes run whole.
    results: list[Comparison] = field(default_factory=list)
    #: Tensors that follow from rounding, and differ from those of the run without tiles by more than it.
    moved: set[str] = field(default_factory=set)
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
            targets = _execute(operators, operator, held)
            model = operators.constants.model
            for name, data in targets.items():
                held[name] = data
                run.digests[name] = digest(model.bytes_of(operators.value(name), data))
                run._compare(operators, operator, name, data, expected)
            for name in operator.operands:
                uses[name] -= 1
                if uses[name] == 0 and name not in kept:
                    held.pop(name)
        run._join(operators, held)
        return run

    def _compare(
        self, operators: Operators, operator: Operator, name: str, data: Bytes, expected: dict[str, Bytes]
    ) -> None:
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
        ours, theirs = model.read(value, made), model.read(value, expected.pop(root))
        self.results.append(compare(root, ours, theirs, operators.step_of(operator)))
        del self._waiting[root]

    @property
    def apart(self) -> set[str]:
        """Tensors that differ from those of the run without tiles by more than rounding."""
        return {result.name for result in self.results if not result.is_equal}

    def read_from(self, operators: Operators) -> set[str]:
        """Tensors that :meth:`look_again` needs: operands and results of the operators that are apart."""
        names = {name for one in _makers(operators, self.apart) for name in (*one.operands, *one.outputs)}
        regions = {name: operators.cuts.region(name) for name in names}
        return {name if region is None else region.root for name, region in regions.items()}

    def look_again(self, operators: Operators, plain: dict[str, Bytes]) -> None:
        """Compare what is apart again, its tiles on the operands of the run without tiles.

        Rounding moves what follows it by more than rounding where values are quantised, compared or ordered. On the
        same operands only an operator that rounds within itself may still be a step apart.
        """
        found = {result.name: result for result in self.results}
        expected = {name: plain[name] for name in found if name in plain and not found[name].is_equal}
        held = operators.contents()
        for name, data in plain.items():
            operators.put(name, data, held)
        again = TiledRun()
        for operator in _makers(operators, set(expected)):
            targets = _execute(operators, operator, held)
            held.update((name, data) for name, data in targets.items() if operators.is_sum(name))
            for name, data in targets.items():
                again._compare(operators, operator, name, data, expected)
        found.update((result.name, result) for result in again.results)
        self.moved = {result.name for result in again.results if result.is_equal}
        self.results = list(found.values())

    def _join(self, operators: Operators, held: dict[str, Bytes]) -> None:
        graph = operators.plan.graph
        pieces = pieces_of_outputs(graph.joins, graph.roots)  # they are stored, and no outputs of the model
        for tensor in (*graph.tensors.values(), *graph.roots.values()):
            if tensor.kind == "output" and tensor.region is None and tensor.name not in pieces:
                cut = operators.cuts.is_root(tensor.name)
                self.outputs[tensor.name] = operators.cuts.join(tensor.name, held) if cut else held[tensor.name]


def _execute(operators: Operators, operator: Operator, held: dict[str, Bytes]) -> dict[str, Bytes]:
    """What an operator yields of the operands at hand; rows that it selects are put among them."""
    for name in operator.weights:
        rows = operators.selected(name, held.__getitem__)
        if rows is not None:
            held[name] = rows
    targets = {name: np.empty(operators.true_size(name), np.uint8) for name in operator.outputs}
    operators.compute(operator, {name: held[name] for name in operator.operands}, targets, held.__getitem__)
    return targets


def _makers(operators: Operators, tensors: set[str]) -> Iterator[Operator]:
    """Operators of which a tile or a step of a sum yields some of the tensors, in the plan's order."""
    graph, cuts = operators.plan.graph, operators.cuts
    regions = ((name, cuts.region(name), one) for one in graph.operators for name in one.outputs)
    owners = {untiled_name(one) for name, region, one in regions if (region.root if region else name) in tensors}
    for instruction in operators.plan.instructions:
        if isinstance(instruction, Execute) and untiled_name(graph.operator(instruction.operator)) in owners:
            yield graph.operator(instruction.operator)


def _kept(graph: Graph) -> set[str]:
    """Tensors that are needed to the end: outputs, and indices that select rows."""
    rows = {index for tensor in graph.tensors.values() if tensor.rows is not None for index in tensor.rows.indices}
    return {
        tensor.name
        for tensor in graph.tensors.values()
        if tensor.kind == "output" or (tensor.name if tensor.region is None else tensor.region.root) in rows
    }
