"""Walking a plan: one call per instruction, with everything a code generator asks for at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cosma.door as door
from cosma.errors import GraphError, InputError, PlanInvalidError
from cosma.plan import Plan
from cosma.plan.instructions import Allocate, Execute, Free, Load, Store
from cosma.plan.timeline import passing_by, scratch_bytes

if TYPE_CHECKING:
    from cosma.graph import Operator, Tensor
    from cosma.plan.instructions import Instruction


@dataclass(frozen=True, slots=True)
class Place:
    """Where an operator finds an operand or leaves a result.

    Attributes
    ----------
    tensor
        Which.
    address
        Byte address in the scratchpad; None where it is streamed from or to off-chip memory.
    in_place_of
        For a result: the operand whose space it takes over, if any.
    """

    tensor: Tensor
    address: int | None
    in_place_of: str | None = None


class PlanVisitor:
    """What :func:`visit` calls; override what you need, the rest does nothing."""

    def begin(self, plan: Plan) -> None:
        """Take note of the plan, before its first instruction."""

    def load(self, tensor: Tensor, address: int) -> None:
        """Copy a tensor from off-chip memory to an address."""

    def allocate(self, tensor: Tensor, address: int, in_place_of: str | None) -> None:
        """Reserve space for a result; usually there is nothing to emit."""

    def execute(self, operator: Operator, operands: tuple[Place, ...], results: tuple[Place, ...]) -> None:
        """Run an operator; ``operands`` lists activations, then weights, in the operator's order.

        A tile has ``operator.tile``, its box of the untiled result; a part has ``place.tensor.region``, its box of a
        root in ``plan.graph.roots``. Strides and pads follow from boxes and the roots' shapes. A step of a sum has
        ``operator.accumulation``: what it adds up, and the partial sums among the operands that it adds to.
        """

    def workspace(self, operator: Operator, address: int, size_bytes: int) -> None:
        """Take note of the scratch space of the operator that executes next; only where it needs any."""

    def store(self, tensor: Tensor, address: int) -> None:
        """Copy a tensor from an address to off-chip memory."""

    def free(self, tensor: Tensor, address: int) -> None:
        """Give up a tensor's space; usually there is nothing to emit."""

    def end(self, plan: Plan) -> None:
        """Take note of the end, after the last instruction."""


def visit(plan: Plan, visitor: PlanVisitor) -> None:
    """Call a visitor once per instruction, in order, with tensors, operators and addresses resolved.

    Parameters
    ----------
    plan
        A valid plan.
    visitor
        Anything with the methods of :class:`PlanVisitor`.

    Raises
    ------
    PlanInvalidError
        If an instruction speaks of a tensor that is not in the scratchpad; :func:`cosma.replay` says more.
    InputError
        If the visitor lacks a method.
    """
    door.instance(plan, Plan, "the plan")
    needed = ["begin", "load", "allocate", "execute", "store", "free", "end"]
    if any(isinstance(i, Execute) and i.workspace is not None for i in plan.instructions):
        needed.append("workspace")
    for method in needed:
        if not callable(getattr(visitor, method, None)):
            raise InputError(f"the visitor {door.shown(visitor)} has no method {method!r}; derive it from PlanVisitor")
    walk = _Walk(plan, visitor)
    visitor.begin(plan)
    for index, instruction in enumerate(plan.instructions):
        try:
            walk.step(instruction)
        except _UnresolvedError as error:
            raise PlanInvalidError(f"instruction {index}: {error}") from None
    visitor.end(plan)


class _UnresolvedError(Exception):
    """A name in an instruction stands for nothing."""


class _Walk:
    """Where tensors lie at an instruction, and what it resolves to."""

    def __init__(self, plan: Plan, visitor: PlanVisitor) -> None:
        self.plan = plan
        self.visitor = visitor
        self.address: dict[str, int] = {}
        self.takes: dict[str, str | None] = {}

    def step(self, instruction: Instruction) -> None:
        """Resolve one instruction and hand it to the visitor."""
        match instruction:
            case Load(name, at):
                self.address[name] = at
                self.visitor.load(self._tensor(name), at)
            case Allocate(name, at, operand):
                self.address[name], self.takes[name] = at, operand
                self.visitor.allocate(self._tensor(name), at, operand)
            case Execute(name, streamed, workspace):
                self._execute(name, streamed, workspace)
            case Store(name):
                self.visitor.store(self._tensor(name), self._where(name))
            case Free(name):
                self.visitor.free(self._tensor(name), self._where(name))
                del self.address[name]

    def _execute(self, name: str, streamed: tuple[str, ...], workspace: int | None) -> None:
        try:
            operator = self.plan.graph.operator(name)
        except GraphError:
            raise _UnresolvedError(f"the plan has no operator {name!r}") from None
        through = passing_by(operator, streamed, self.plan.accelerator)
        operands = tuple(self._place(tensor, through) for tensor in operator.operands)
        results = tuple(self._place(tensor, through) for tensor in operator.outputs)
        if workspace is not None:
            self.visitor.workspace(operator, workspace, scratch_bytes(operator, self.plan.accelerator))
        self.visitor.execute(operator, operands, results)
        for tensor in operator.outputs:
            taken = self.takes.pop(tensor, None)
            if taken is not None:
                self.address.pop(taken, None)

    def _place(self, tensor: str, through: tuple[str, ...]) -> Place:
        at = None if tensor in through else self._where(tensor)
        return Place(self.plan.graph.tensors[tensor], at, self.takes.get(tensor))

    def _where(self, name: str) -> int:
        if name not in self.address:
            raise _UnresolvedError(f"tensor {name!r} is not in the scratchpad; replay the plan")
        return self.address[name]

    def _tensor(self, name: str) -> Tensor:
        if name not in self.plan.graph.tensors:
            raise _UnresolvedError(f"the plan has no tensor {name!r}")
        return self.plan.graph.tensors[name]
