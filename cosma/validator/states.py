"""States: whether a graph input can lie off-chip where the graph output lies that is its next value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.graph import TensorKind
from cosma.graph.in_place import may_overwrite
from cosma.plan.instructions import Execute, Load, Store
from cosma.validator.verdicts import Verdict, Violation

if TYPE_CHECKING:
    from cosma.graph import Tensor
    from cosma.plan.plan import Plan


def check_states(plan: Plan) -> list[Violation]:
    """Violations of what a plan says of states; those of outputs that nothing writes are for the check of joins."""
    graph = plan.graph
    found = [
        _note(f"{root.name!r} is to be the next value of {root.state!r}, and is cut into parts")
        for root in graph.roots.values()
        if root.state is not None and root.name not in graph.joins
    ]
    taken = {str(root.state): name for name in graph.joins if (root := graph.roots[name]).state is not None}
    for after in graph.tensors.values():
        if after.state is None:
            continue
        before = graph.tensors.get(after.state)
        if before is None or before.kind is not TensorKind.INPUT or after.kind is not TensorKind.OUTPUT:
            found.append(_note(f"{after.name!r} is to be the next value of {after.state!r}, which is no graph input"))
        elif taken.setdefault(before.name, after.name) != after.name:
            found.append(_note(f"{before.name!r} has two next values, {taken[before.name]!r} and {after.name!r}"))
        elif before.size_bytes > after.size_bytes:
            found.append(_note(f"{before.name!r} does not fit where its next value {after.name!r} lies"))
        else:
            found += _reads_too_late(plan, before, after)
    return found


def _note(message: str, instruction: int | None = None) -> Violation:
    return Violation(Verdict.STATE_WRONG, instruction, message)


def _reads_too_late(plan: Plan, before: Tensor, after: Tensor) -> list[Violation]:
    """Reads of a state off-chip once its next value has been written there, or while it is, element by element."""
    is_written = False
    operators = {operator.name: operator for operator in plan.graph.operators}
    for i, instruction in enumerate(plan.instructions):
        reads = writes = at_once = False
        if isinstance(instruction, Load):
            reads = instruction.tensor == before.name
        elif isinstance(instruction, Store):
            writes = instruction.tensor == after.name
        elif isinstance(instruction, Execute):
            reads, writes = before.name in instruction.streamed, after.name in instruction.streamed
            at_once = reads and writes
        if at_once and isinstance(instruction, Execute):
            operator = operators.get(instruction.operator)  # unknown names are for the replay to say
            at_once = operator is not None and not may_overwrite(operator, after, before)
        if reads and (is_written or at_once):
            return [_note(f"{before.name!r} is read off-chip where its next value {after.name!r} lies by then", i)]
        is_written = is_written or writes
    return []
