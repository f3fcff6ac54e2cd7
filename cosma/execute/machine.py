"""A plan's instructions carried out on the plan's bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.accelerator import Weights
from cosma.errors import PlanInvalidError
from cosma.execute.elements import bits_of
from cosma.execute.memory import POISON, OffChip, Scratchpad
from cosma.execute.plain import digest
from cosma.plan.instructions import Allocate, Execute, Free, Instruction, Load, Store
from cosma.plan.timeline import scratch_bytes
from cosma.units import align_up

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cosma.arrays import Array, Bytes
    from cosma.execute.kernels import TakenOver
    from cosma.execute.operators import Operators
    from cosma.frontend.records import Step
    from cosma.frontend.values import Value
    from cosma.graph import Operator
    from cosma.plan import Plan


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where a planned run leaves the plain one."""

    #: Index of the execute.
    instruction: int
    #: Which operator yielded other bytes for which result.
    operator: str
    tensor: str


class PlannedRun:
    """Executes a plan's instructions on real bytes; it trusts the plan and checks nothing but what it must.

    Parameters
    ----------
    operators
        How its operators are computed, and what off-chip memory holds at the start.
    expected
        Fingerprints of the run without a plan: of parts, where the plan has tiles, else of the tensors that were cut.
    scale
        Real bytes for each byte of the plan: 1, unless the plan counted elements narrower than they are.
    """

    def __init__(
        self,
        plan: Plan,
        operators: Operators,
        expected: Mapping[str, bytes],
        scale: int = 1,
    ) -> None:
        self._plan, self._operators, self._expected = plan, operators, expected
        self.constants = operators.constants
        self._scale = scale
        self.scratchpad = Scratchpad(plan.accelerator.scratchpad * scale)
        self.off_chip = OffChip(operators.contents())
        self.difference: Difference | None = None
        self.highest = 0
        self._cuts = operators.cuts
        self._address: dict[str, int] = {}
        self._takes: dict[str, str | None] = {}
        self._streams_weights = plan.accelerator.weights == Weights.STREAM

    @property
    def steps(self) -> Mapping[str, tuple[Step, ...]]:
        """Nodes of each operator."""
        return self._operators.steps

    @property
    def taken_over(self) -> tuple[TakenOver, ...]:
        """Nodes, and regions of nodes, that other kernels than the preferred ones have run."""
        return self._operators.taken_over

    def run(self, instructions: Iterable[Instruction]) -> None:
        """Execute all instructions.

        Raises PlanInvalidError if an instruction cannot be carried out at all: bytes that are nowhere, or outside the
        scratchpad.
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
            case Execute(name, streamed, workspace):
                self._scratch(name, workspace)
                self._execute(self._plan.graph.operator(name), set(streamed), index)
            case Store(name):
                self.off_chip.store(name, self._bytes(name))
            case Free(name):
                self._bytes(name)
                self.scratchpad.poison(self._address.pop(name), self._space(name))

    def read(self, value: Value) -> Array | list[Array]:
        """A value as the run left it: a constant, or what lies off-chip; a sequence as a list.

        Raises PlanInvalidError if it never reached off-chip memory.
        """
        if value.elements is not None:
            parts = [self.read(part) for part in value.elements]
            return [part for part in parts if not isinstance(part, list)]
        if value.constant:
            return self.constants.get(value)
        return self.constants.model.read(value, self.off_chip_bytes(value.root))

    def off_chip_bytes(self, name: str) -> Bytes:
        """Bytes of a tensor of the model in off-chip memory, put together from its parts where it was cut.

        Raises PlanInvalidError if some of it never reached off-chip memory.
        """
        if not self._cuts.is_root(name):
            return self.off_chip.read(name)
        return self._cuts.join(name, {part: self.off_chip.read(part) for part in self._cuts.parts(name)})

    def _scratch(self, name: str, workspace: int | None) -> None:
        """Write over an operator's scratch space before it runs: whatever lay there is lost."""
        size = scratch_bytes(self._plan.graph.operator(name), self._plan.accelerator)
        if workspace is None or not size:
            return
        start = workspace * self._scale
        space = size * self._scale
        self.scratchpad.poison(start, space)
        self.highest = max(self.highest, start + space)

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
            targets[name] = np.empty(self._operators.true_size(name), np.uint8) if through else self._bytes(name)
        operands = {name: self._takes.pop(name, None) for name in operator.outputs}
        taken = {name: operand for name, operand in operands.items() if operand is not None}
        if taken:
            self._in_place(operator, held, targets, taken)
        else:
            self._operators.compute(operator, held, targets, self._at_hand)
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
            if self.difference is None and (self._operators.has_tiles or self._cuts.region(name) is None):
                self._compare(index, operator, name, targets[name])
        for root in [] if self._operators.has_tiles else self._cuts.roots(operator.outputs):
            if self.difference is None:
                self._compare(index, operator, root, self._cuts.join(root, targets))

    def _compare(self, index: int, operator: Operator, name: str, data: Bytes) -> None:
        if digest(self.constants.model.bytes_of(self._operators.value(name), data)) != self._expected.get(name):
            self.difference = Difference(index, operator.name, name)

    def _in_place(
        self, operator: Operator, held: Mapping[str, Bytes], targets: Mapping[str, Bytes], taken: Mapping[str, str]
    ) -> None:
        """Write results over operands in two halves, computing each half from what is there by then.

        For an elementwise operator the second half does not depend on the first, so this gives the bytes of an
        execution in one go. For any other it does not, and a takeover that the plan should not have made shows. A
        takeover that a constraint permits is one that the user's kernel can make, so the result comes in one go.
        """
        if all(self._is_permitted(operator, *pair) for pair in taken.items()):
            whole = {name: np.empty(len(target), np.uint8) for name, target in targets.items()}
            self._operators.compute(operator, held, whole, self._at_hand)
            for name, target in targets.items():
                target[:] = whole[name]
            return
        aside = {name: np.empty(len(target), np.uint8) for name, target in targets.items()}
        self._operators.compute(operator, held, aside, self._at_hand)
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
        self._operators.compute(operator, then, aside, self._at_hand)
        for name, target in targets.items():
            half = self._half(name)
            target[:half] = first[name][:half]
            target[half:] = aside[name][half:]

    def _is_permitted(self, operator: Operator, result: str, operand: str) -> bool:
        """Whether a constraint permits a takeover, whatever the operator's type says."""
        forced = self._plan.accelerator.constraints
        if (result, operand) in forced.in_place_permitted:
            return True
        types = {operator.type, *(part.type for part in operator.parts)}
        return bool(types.intersection(forced.in_place_permitted_types))

    def _half(self, name: str) -> int:
        """Bytes of the first half of a tensor's elements."""
        value = self._operators.value(name)
        return value.count // 2 * bits_of(value.element) // 8

    def _bits(self, name: str) -> int:
        return bits_of(self._operators.value(name).element)

    # -- row sets -----------------------------------------------------------------------------------------

    def _select(self, name: str) -> None:
        """Put the rows that the indices name now in off-chip memory, as one tensor, for a transfer to read."""
        rows = self._operators.selected(name, self._at_hand)
        if rows is not None:
            self.off_chip.content[name] = rows

    def _at_hand(self, name: str) -> Bytes:
        """A tensor as it is in the scratchpad, else off-chip."""
        return self._bytes(name) if name in self._address else self.off_chip.read(name)

    # -- places -------------------------------------------------------------------------------------------

    def _space(self, name: str) -> int:
        accelerator = self._plan.accelerator
        return align_up(self._plan.graph.tensors[name].size_bytes, accelerator.alignment) * self._scale

    def _place(self, name: str, address: int) -> None:
        self._address[name] = address * self._scale
        self.highest = max(self.highest, self._address[name] + self._space(name))

    def _bytes(self, name: str) -> Bytes:
        if name not in self._address:
            raise PlanInvalidError(f"tensor {name!r} is not in the scratchpad")
        return self.scratchpad.view(self._address[name], self._operators.true_size(name), f"tensor {name!r}")
