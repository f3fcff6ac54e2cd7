"""What is handed on names only what the plan has, also where its replay fails."""

from __future__ import annotations

import cosma.door as door
from cosma.errors import PlanInvalidError
from cosma.plan import Plan
from cosma.plan.instructions import Allocate, Execute, Load


def named_plan(plan: object) -> Plan:
    """Take a plan whose instructions name its own tensors and operators, at addresses of at least 0.

    Raises PlanInvalidError with the first instruction that does not. Raises InputError if it is no plan.
    """
    taken = door.instance(plan, Plan, "the plan")
    tensors = taken.graph.tensors
    operators = {operator.name for operator in taken.graph.operators}
    for index, instruction in enumerate(taken.instructions):
        if isinstance(instruction, Execute):
            if instruction.operator not in operators:
                raise PlanInvalidError(f"instruction {index}: the plan has no operator {instruction.operator!r}")
            named = instruction.streamed
        else:
            named = (instruction.tensor,)
            if isinstance(instruction, Allocate) and instruction.in_place_of is not None:
                named = (instruction.tensor, instruction.in_place_of)
            if isinstance(instruction, Load | Allocate) and instruction.address < 0:
                raise PlanInvalidError(f"instruction {index}: the address {instruction.address} is negative")
        for name in named:
            if name not in tensors:
                raise PlanInvalidError(f"instruction {index}: the plan has no tensor {name!r}")
    return taken
