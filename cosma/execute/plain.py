"""The run without a plan: node by node, every tensor in an array of its own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cosma.errors import PlanInvalidError
from cosma.execute.constants import stand_in
from cosma.execute.elements import to_bytes
from cosma.execute.kernels import MISREAD, TOO_MUCH, ResultMismatchError
from cosma.execute.model import parts_of
from cosma.frontend.loaded import NodeFate
from cosma.frontend.parameters import type_only_positions

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cosma.arrays import Array, Bytes
    from cosma.execute.constants import Constants
    from cosma.execute.model import Model
    from cosma.frontend.records import Step
    from cosma.frontend.values import Value


#: Views that no kernel runs alone: they have branches or optional types. The second reading runs them.
_NOT_ALONE = frozenset({"If", "Optional", "OptionalGetElement"})


def digest(data: Bytes) -> bytes:
    """Fingerprint of a tensor's bytes."""
    return hashlib.blake2b(np.ascontiguousarray(data).data, digest_size=16).digest()


class Operands:
    """Arrays of values from the bytes at hand.

    Parameters
    ----------
    constants
        Where parameters come from.
    held
        Bytes of the tensors that are at hand: activations and weights.
    """

    def __init__(self, constants: Constants, held: Mapping[str, Bytes]) -> None:
        self._constants, self._held = constants, held
        self._computed: dict[str, Array] = {}

    def feeds(self, step: Step) -> dict[str, Array]:
        """Operands of a node, by the names it reads them under."""
        values = self._constants.model.values
        feeds: dict[str, Array] = {}
        ignored = type_only_positions(step.node)
        unread = {step.node.inputs[i] for i in ignored if i < len(step.node.inputs)}
        unread -= {name for i, name in enumerate(step.node.inputs) if i not in ignored}
        for name in dict.fromkeys(step.node.reads):
            value = values.get(name)
            if value is None:
                continue
            if name in unread and value.root not in self._held:
                feeds[name] = stand_in(value)
            elif value.elements is not None:
                feeds.update((element.root, self.array(element, step)) for element in value.elements)
            else:
                feeds[name] = self.array(value, step)
        return feeds

    def array(self, value: Value, step: Step) -> Array:
        """One value that a node reads."""
        constants, held, computed = self._constants, self._held, self._computed
        if value.root in held:
            return constants.model.read(value, held[value.root])
        if value.source is not None and value.is_computed:
            # A computed constant is made of the stored weights at hand, each time they are read.
            if value.name not in computed:
                computed[value.name] = constants.compute(*value.source, lambda one: self.array(one, step))
            return computed[value.name]
        source = constants.model.scaled_by.get(value.root)
        if source is not None and value.root != step.node.first_output:
            # De- and requantising is part of every operator that reads the result.
            if value.root not in computed:
                inner = Operands(constants, held).feeds(source)
                computed[value.root] = constants.kernels.compute(source.node, source.results, inner)[value.root]
            return computed[value.root].reshape(constants.model.shape_of(value))
        if not value.constant:
            raise PlanInvalidError(f"{step.node} reads {value.root!r}, which its operator does not list as an operand")
        return constants.get(value)


@dataclass(slots=True)
class PlainRun:
    """The model run node by node in the order given, every tensor in an array of its own, views included."""

    #: Fingerprint of every tensor.
    digests: dict[str, bytes] = field(default_factory=dict)
    #: Bytes of the graph outputs.
    outputs: dict[str, Bytes] = field(default_factory=dict)
    #: Nodes taken for views whose result is not its operand, byte for byte.
    broken_views: list[str] = field(default_factory=list)
    #: Bytes of the tensors that were asked for, until somebody takes them.
    kept: dict[str, Bytes] = field(default_factory=dict)

    @classmethod
    def of(
        cls, model: Model, constants: Constants, inputs: Mapping[str, Array], keep_results: Collection[str] = ()
    ) -> PlainRun:
        """Run the model, and keep some of what its nodes yield."""
        run = cls()
        graph = model.loaded.finest_graph
        held = {name: to_bytes(array, model.values[name].element) for name, array in inputs.items()}
        uses = dict.fromkeys(graph.tensors, 0)
        for step in model.steps:
            for part in parts_of(step.reads):
                for name in {part.root, *part.stored}:
                    uses[name] = uses.get(name, 0) + 1
        keep = {t.name for t in graph.tensors.values() if t.kind == "output"} | set(inputs)
        for step in model.steps:
            run._step(step, constants, held)
            for part in parts_of(step.reads):
                for name in {part.root, *part.stored}:
                    uses[name] -= 1
                    if uses[name] == 0 and name not in keep:
                        held.pop(name, None)
            made = (value.root for value in parts_of(step.results))
            run.kept.update((name, held[name]) for name in made if name in keep_results and name in held)
        run.outputs = {t.name: held[t.name] for t in graph.tensors.values() if t.kind == "output"}
        return run

    def _step(self, step: Step, constants: Constants, held: dict[str, Bytes]) -> None:
        graph = constants.model.loaded.finest_graph
        for value in step.reads:
            for name in value.stored:
                if name in graph.tensors and name not in held:
                    weight = constants.model.values[name]
                    held[name] = to_bytes(constants.get(weight), weight.element)
        results = parts_of(step.results)
        if step.fate is NodeFate.VIEW:
            if step.node.type in _NOT_ALONE or any(v.elements is not None for v in (*step.results, *step.reads)):
                return
            if step.node.type.startswith("Sequence") or results[0].root not in held:
                return
        out = self._compute(step, results, constants, Operands(constants, held).feeds(step))
        made = {v.root: to_bytes(out[v.name if v.name in out else v.root], v.element) for v in results}
        if step.fate is NodeFate.VIEW:
            if digest(made[results[0].root]) != digest(held[results[0].root]):
                self.broken_views.append(step.node.first_output)
            return
        for value in results:
            data = made[value.root]
            held[value.root] = data
            self.digests[value.root] = digest(data)

    def _compute(
        self, step: Step, results: list[Value], constants: Constants, feeds: dict[str, Array]
    ) -> dict[str, Array]:
        model = constants.model
        if not model.is_bounded:
            return constants.kernels.compute(step.node, results, feeds)
        out = constants.kernels.evaluate(step.node, results, feeds)
        for value in results:
            name = value.name if value.name in out else value.root
            if not model.settle_shape(value, out[name].shape):
                planned = np.empty(value.shape, out[name].dtype)
                why = TOO_MUCH if model.exceeds_bound(value, out[name].shape) else MISREAD
                raise ResultMismatchError(step.node, name, planned, out[name], why)
        return out
