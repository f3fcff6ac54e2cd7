"""Walking a plan: one call per instruction, with everything a code generator asks for at hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cosma.door as door
from cosma.accelerator import Weights
from cosma.errors import GraphError, InputError, PlanInvalidError
from cosma.plan import Plan
from cosma.plan.instructions import Allocate, Execute, Free, Load, Store

if TYPE_CHECKING:
    from cosma.graph import Operator, Tensor


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
        """Run an operator; ``operands`` lists activations, then weights, in the operator's order."""

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
    for method in ("begin", "load", "allocate", "execute", "store", "free", "end"):
        if not callable(getattr(visitor, method, None)):
            raise InputError(f"the visitor {door.shown(visitor)} has no method {method!r}; derive it from PlanVisitor")
    tensors = plan.graph.tensors
    address: dict[str, int] = {}
    takes: dict[str, str | None] = {}
    streams_weights = plan.accelerator.weights == Weights.STREAM

    def where(name: str, index: int) -> int:
        if name not in address:
            raise PlanInvalidError(f"instruction {index}: tensor {name!r} is not in the scratchpad; replay the plan")
        return address[name]

    def tensor_of(name: str, index: int) -> Tensor:
        if name not in tensors:
            raise PlanInvalidError(f"instruction {index}: the plan has no tensor {name!r}")
        return tensors[name]

    def operator_of(name: str, index: int) -> Operator:
        try:
            return plan.graph.operator(name)
        except GraphError:
            raise PlanInvalidError(f"instruction {index}: the plan has no operator {name!r}") from None

    visitor.begin(plan)
    for index, instruction in enumerate(plan.instructions):
        match instruction:
            case Load(name, at):
                address[name] = at
                visitor.load(tensor_of(name, index), at)
            case Allocate(name, at, operand):
                address[name], takes[name] = at, operand
                visitor.allocate(tensor_of(name, index), at, operand)
            case Execute(name, streamed):
                operator = operator_of(name, index)
                through = {*streamed, *(operator.weights if streams_weights else ())}

                def place(tensor: str, through: set[str] = through, index: int = index) -> Place:
                    at = None if tensor in through else where(tensor, index)
                    return Place(tensors[tensor], at, takes.get(tensor))

                operands = tuple(place(tensor) for tensor in operator.operands)
                results = tuple(place(tensor) for tensor in operator.outputs)
                visitor.execute(operator, operands, results)
                for tensor in operator.outputs:
                    operand = takes.pop(tensor, None)
                    if operand is not None:
                        address.pop(operand, None)
            case Store(name):
                visitor.store(tensor_of(name, index), where(name, index))
            case Free(name):
                visitor.free(tensor_of(name, index), where(name, index))
                del address[name]
    visitor.end(plan)
