"""Running operators: without a plan, every tensor in an array of its own; with one, on the plan's bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.accelerator import Weights
from cosma.errors import PlanInvalidError
from cosma.execute.constants import stand_in
from cosma.execute.elements import bits_of, is_writable_in_place, numpy_dtype, size_bytes, to_array, to_bytes
from cosma.execute.kernels import KernelError, ResultMismatchError
from cosma.execute.memory import POISON, OffChip, Scratchpad
from cosma.execute.model import parts_of
from cosma.execute.parts import Cuts
from cosma.execute.rows import select_rows, table_of_rows
from cosma.frontend.loaded import NodeFate
from cosma.frontend.parameters import type_only_positions
from cosma.plan.instructions import Allocate, Execute, Free, Instruction, Load, Store
from cosma.units import align_up

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from cosma.execute.constants import Constants
    from cosma.execute.memory import Bytes
    from cosma.execute.model import Model
    from cosma.frontend.records import Step
    from cosma.frontend.values import Value
    from cosma.graph import Operator
    from cosma.plan import Plan

    Array = NDArray[Any]


def digest(data: Bytes) -> bytes:
    """Fingerprint of a tensor's bytes."""
    return hashlib.blake2b(np.ascontiguousarray(data).data, digest_size=16).digest()


def feeds_of(step: Step, constants: Constants, held: Mapping[str, Bytes]) -> dict[str, Array]:
    """Operands of a node as arrays, by the names it reads them under.

    Parameters
    ----------
    step
        The node.
    constants
        Where parameters come from.
    held
        Bytes of the tensors that are at hand: activations and weights.
    """
    values = constants.model.values
    feeds: dict[str, Array] = {}
    computed: dict[str, Array] = {}

    def array(value: Value) -> Array:
        if value.root in held:
            return constants.model.read(value, held[value.root])
        if value.source is not None and value.is_computed:
            # A computed constant is made of the stored weights at hand, each time they are read.
            if value.name not in computed:
                computed[value.name] = constants.compute(*value.source, array)
            return computed[value.name]
        source = constants.model.scaled_by.get(value.root)
        if source is not None and value.root != step.node.first_output:
            # De- and requantising is part of every operator that reads the result.
            if value.root not in computed:
                inner = feeds_of(source, constants, held)
                computed[value.root] = constants.kernels.compute(source.node, source.results, inner)[value.root]
            return computed[value.root].reshape(constants.model.shape_of(value))
        if not value.constant:
            raise PlanInvalidError(f"{step.node} reads {value.root!r}, which its operator does not list as an operand")
        return constants.get(value)

    ignored = type_only_positions(step.node)
    unread = {step.node.inputs[i] for i in ignored if i < len(step.node.inputs)}
    unread -= {name for i, name in enumerate(step.node.inputs) if i not in ignored}
    for name in dict.fromkeys(step.node.reads):
        value = values.get(name)
        if value is None:
            continue
        if name in unread and value.root not in held:
            feeds[name] = stand_in(value)
        elif value.elements is not None:
            feeds.update((element.root, array(element)) for element in value.elements)
        else:
            feeds[name] = array(value)
    return feeds


@dataclass(slots=True)
class PlainRun:
    """The model run node by node in the order given, every tensor in an array of its own, views included.

    Attributes
    ----------
    digests
        Fingerprint of every tensor.
    outputs
        Bytes of the graph outputs.
    broken_views
        Nodes taken for views whose result is not its operand, byte for byte.
    """

    digests: dict[str, bytes] = field(default_factory=dict)
    outputs: dict[str, Bytes] = field(default_factory=dict)
    broken_views: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, model: Model, constants: Constants, inputs: Mapping[str, Array]) -> PlainRun:
        """Run the model."""
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
            if step.node.type == "If" or any(v.elements is not None for v in (*step.results, *step.reads)):
                return
            if step.node.type.startswith("Sequence") or results[0].root not in held:
                return
        out = self._compute(step, results, constants, feeds_of(step, constants, held))
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
                raise ResultMismatchError(step.node, name, planned, out[name])
        return out


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where a planned run leaves the plain one.

    Attributes
    ----------
    instruction
        Index of the execute.
    operator, tensor
        Which operator yielded other bytes for which result.
    """

    instruction: int
    operator: str
    tensor: str


class PlannedRun:
    """Executes a plan's instructions on real bytes; it trusts the plan and checks nothing but what it must.

    Parameters
    ----------
    plan
        What to execute.
    steps
        Nodes of each operator.
    constants, inputs
        Contents at the start of off-chip memory.
    expected
        Fingerprints of the plain run.
    scale
        Real bytes for each byte of the plan: 1, unless the plan counted elements narrower than they are.
    """

    def __init__(
        self,
        plan: Plan,
        steps: Mapping[str, tuple[Step, ...]],
        constants: Constants,
        inputs: Mapping[str, Array],
        expected: Mapping[str, bytes],
        scale: int = 1,
    ) -> None:
        self._plan, self.steps, self.constants, self._expected = plan, steps, constants, expected
        self._scale = scale
        self.scratchpad = Scratchpad(plan.accelerator.scratchpad * scale)
        self.off_chip = OffChip()
        self.difference: Difference | None = None
        self.highest = 0
        self._values = {value.root: value for v in steps.values() for s in v for value in parts_of(s.results)}
        weights = [weight for operator in plan.graph.operators for weight in operator.weights]
        graph = plan.graph
        self._values |= {name: constants.model.values[name] for name in (*inputs, *weights) if name in graph.tensors}
        self._values |= {name: constants.model.values[name] for name in graph.roots if name in constants.model.values}
        self._cuts = Cuts(graph, self._values)
        self._values |= self._cuts.values
        for name, array in inputs.items():
            self._put_off_chip(name, to_bytes(array, constants.model.values[name].element))
        self._address: dict[str, int] = {}
        self._takes: dict[str, str | None] = {}
        self._streams_weights = plan.accelerator.weights == Weights.STREAM
        self._rows = {rows.name: rows for v in steps.values() for s in v for table in s.tables for rows in table.rows}
        for weight in weights:
            region = self._cuts.region(weight)
            name = weight if region is None else region.root
            if weight not in self.off_chip.content and weight not in self._rows:
                value = self._values[name]
                self._put_off_chip(name, to_bytes(constants.get(value), value.element))

    def run(self, instructions: Iterable[Instruction]) -> None:
        """Execute all instructions.

        Raises
        ------
        PlanInvalidError
            If an instruction cannot be carried out at all: bytes that are nowhere, or outside the scratchpad.
        """
        for index, instruction in enumerate(instructions):
            try:
                self._carry_out(instruction, index)
            except PlanInvalidError as error:
                raise PlanInvalidError(f"instruction {index} ({instruction.do}): {error}") from error

    def _carry_out(self, instruction: Instruction, index: int) -> None:
        match instruction:
            case Load(name, address):
                self._select(name)
                self._place(name, address)
                self.off_chip.load(name, self._bytes(name))
            case Allocate(name, address, operand):
                self._place(name, address)
                self._takes[name] = operand
                if operand is None:
                    self.scratchpad.poison(self._address[name], self._space(name))
            case Execute(name, streamed):
                self._execute(self._plan.graph.operator(name), set(streamed), index)
            case Store(name):
                self.off_chip.store(name, self._bytes(name))
            case Free(name):
                self._bytes(name)
                self.scratchpad.poison(self._address.pop(name), self._space(name))

    def read(self, value: Value) -> Array | list[Array]:
        """A value as the run left it: a constant, or what lies off-chip; a sequence as a list.

        Raises
        ------
        PlanInvalidError
            If it never reached off-chip memory.
        """
        if value.elements is not None:
            parts = [self.read(part) for part in value.elements]
            return [part for part in parts if not isinstance(part, list)]
        if value.constant:
            return self.constants.get(value)
        return self.constants.model.read(value, self.off_chip_bytes(value.root))

    def off_chip_bytes(self, name: str) -> Bytes:
        """Bytes of a tensor of the model in off-chip memory, put together from its parts where it was cut.

        Raises
        ------
        PlanInvalidError
            If some of it never reached off-chip memory.
        """
        if not self._cuts.is_root(name):
            return self.off_chip.read(name)
        return self._cuts.join(name, {part: self.off_chip.read(part) for part in self._cuts.parts(name)})

    def _put_off_chip(self, name: str, data: Bytes) -> None:
        """Let off-chip memory hold a tensor from the start, as its parts where it was cut."""
        if not self._cuts.is_root(name):
            self.off_chip.content[name] = data
            return
        parts = {part: np.empty(self._true_size(part), np.uint8) for part in self._cuts.parts(name)}
        self._cuts.split(name, data, parts)
        self.off_chip.content.update(parts)

    # -- operators ----------------------------------------------------------------------------------------

    def _execute(self, operator: Operator, streamed: set[str], index: int) -> None:
        held: dict[str, Bytes] = {}
        for name in operator.inputs:
            held[name] = self.off_chip.stream_in(name) if name in streamed else self._bytes(name)
        for name in operator.weights:
            through = self._streams_weights or name in streamed
            if through:
                self._select(name)
            held[name] = self.off_chip.stream_in(name) if through else self._bytes(name)
        targets: dict[str, Bytes] = {}
        for name in operator.outputs:
            through = name in streamed
            targets[name] = np.empty(self._true_size(name), np.uint8) if through else self._bytes(name)
        operands = {name: self._takes.pop(name, None) for name in operator.outputs}
        taken = {name: operand for name, operand in operands.items() if operand is not None}
        if taken:
            self._in_place(operator, held, targets, taken)
        else:
            self._compute(operator, held, targets)
        for name in operator.outputs:
            if name in streamed:
                self.off_chip.stream_out(name, targets[name])
            operand = operands[name]
            if operand is not None and operand in self._address and operand != name:
                # The operand is gone; what it had beyond the result is free.
                start = self._address.pop(operand)
                end = start + self._space(operand)
                keep = self._address[name] + self._space(name) if start == self._address[name] else start
                self.scratchpad.poison(keep, end - keep)
            if self.difference is None and self._cuts.region(name) is None:
                self._compare(index, operator, name, targets[name])
        for root in self._cuts.roots(operator.outputs):
            if self.difference is None:
                self._compare(index, operator, root, self._cuts.join(root, targets))

    def _compare(self, index: int, operator: Operator, name: str, data: Bytes) -> None:
        if digest(self.constants.model.bytes_of(self._value(name), data)) != self._expected.get(name):
            self.difference = Difference(index, operator.name, name)

    def _in_place(
        self, operator: Operator, held: Mapping[str, Bytes], targets: Mapping[str, Bytes], taken: Mapping[str, str]
    ) -> None:
        """Write results over operands in two halves, computing each half from what is there by then.

        For an elementwise operator the second half does not depend on the first, so this gives the bytes of an
        execution in one go. For any other it does not, and a takeover that the plan should not have made shows.
        """
        aside = {name: np.empty(len(target), np.uint8) for name, target in targets.items()}
        self._compute(operator, held, aside)
        then = dict(held)
        for name, target in targets.items():
            half = self._half(name)
            operand = taken.get(name)
            known = operand is not None and operand in held
            if self._scale > 1 and operand is not None and known and self._bits(name) > self._bits(operand):
                # The plan counts both as equally wide. Real elements of the result are wider, so that they
                # would run ahead of the operand's: it is the operand's first half that is gone by now.
                then[operand] = held[operand].copy()
                then[operand][: self._half(operand)] = POISON
            else:
                target[:half] = aside[name][:half]
        first = {name: aside[name].copy() for name in targets}
        self._compute(operator, then, aside)
        for name, target in targets.items():
            half = self._half(name)
            target[:half] = first[name][:half]
            target[half:] = aside[name][half:]

    def _half(self, name: str) -> int:
        """Bytes of the first half of a tensor's elements."""
        value = self._value(name)
        return value.count // 2 * bits_of(value.element) // 8

    def _bits(self, name: str) -> int:
        return bits_of(self._value(name).element)

    def _value(self, name: str) -> Value:
        if name not in self._values:
            raise PlanInvalidError(f"tensor {name!r} is not in the model")
        return self._values[name]

    def _compute(self, operator: Operator, held: Mapping[str, Bytes], targets: Mapping[str, Bytes]) -> None:
        """Run an operator's nodes. Parts are put together for them, poison for those it does not read."""
        at_hand = dict(held)
        at_hand.update((root, self._cuts.join(root, held)) for root in self._cuts.roots(held))
        cut = {root: np.empty(self._true_size(root), np.uint8) for root in self._cuts.roots(targets)}
        self._run_nodes(operator, at_hand, {**targets, **cut})
        for root, data in cut.items():
            self._cuts.split(root, data, targets)

    def _run_nodes(self, operator: Operator, at_hand: dict[str, Bytes], targets: Mapping[str, Bytes]) -> None:
        for step in self.steps[operator.name]:
            for rows in (rows for table in step.tables for rows in table.rows):
                at_hand[rows.table.root] = table_of_rows(rows, at_hand[rows.name], self._index_content)
            results = parts_of(step.results)
            feeds = feeds_of(step, self.constants, at_hand)
            out: dict[str, Array] = {}
            packed: list[tuple[Value, Array]] = []
            for value in results:
                data = targets.get(value.root)
                if data is None:  # within a fused operator; it never exists in any memory
                    data = np.empty(self._true_size(value.root), np.uint8)
                at_hand[value.root] = data
                if is_writable_in_place(value.element):
                    array = self.constants.model.read(value, data)
                else:
                    shape = self.constants.model.shape_of(value)
                    array = np.empty(shape, numpy_dtype(value.element, value.name))
                    packed.append((value, array))
                out[value.name if value.name in step.node.outputs else value.root] = array
            try:
                self.constants.kernels.run(step.node, results, feeds, out)
            except KernelError as error:
                # The same node ran without a plan, so it is what the plan hands it that it cannot work on.
                raise PlanInvalidError(f"{step.node} fails on the bytes the plan gives it: {error.reason}") from error
            for value, array in packed:
                data = to_bytes(array, value.element)
                at_hand[value.root][: len(data)] = data

    # -- row sets -----------------------------------------------------------------------------------------

    def _select(self, name: str) -> None:
        """Put the rows that the indices name now in off-chip memory, as one tensor, for a transfer to read."""
        rows = self._rows.get(name)
        if rows is not None:
            table = self.constants.get(rows.table)
            self.off_chip.content[name] = select_rows(rows, table, self._index_content)

    def _index_content(self, index: Value) -> Array:
        """Indices as they are in the scratchpad, else off-chip."""
        if index.constant:
            return self.constants.get(index)
        names = self._cuts.parts(index.root) if self._cuts.is_root(index.root) else [index.root]
        at_hand = {name: self._bytes(name) if name in self._address else self.off_chip.read(name) for name in names}
        data = self._cuts.join(index.root, at_hand) if self._cuts.is_root(index.root) else at_hand[index.root]
        return to_array(data, index.element, index.shape, index.name)

    # -- places -------------------------------------------------------------------------------------------

    def _true_size(self, name: str) -> int:
        value = self._value(name)
        return size_bytes(value.element, value.shape)

    def _space(self, name: str) -> int:
        accelerator = self._plan.accelerator
        return align_up(self._plan.graph.tensors[name].size_bytes, accelerator.alignment) * self._scale

    def _place(self, name: str, address: int) -> None:
        self._address[name] = address * self._scale
        self.highest = max(self.highest, self._address[name] + self._space(name))

    def _bytes(self, name: str) -> Bytes:
        if name not in self._address:
            raise PlanInvalidError(f"tensor {name!r} is not in the scratchpad")
        return self.scratchpad.view(self._address[name], self._true_size(name), f"tensor {name!r}")
