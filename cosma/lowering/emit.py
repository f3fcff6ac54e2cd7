"""Decisions and addresses as the instructions of a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.plan.instructions import Allocate, Execute, Free, Instruction, Load, Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.problem import Decisions, Problem, Residency


def emit(problem: Problem, decisions: Decisions, addresses: Sequence[int]) -> tuple[Instruction, ...]:
    """Write instructions, step by step: loads, allocations, execution, stores, frees.

    Addresses are in the order of ``decisions.residencies``. A tensor that must reach off-chip memory is stored right
    after its producer, or written there directly if it is not resident then.
    """
    names = problem.tensor_names
    steps = len(decisions.order)
    starting: list[list[int]] = [[] for _ in range(steps)]
    ending: list[list[Residency]] = [[] for _ in range(steps + 1)]
    taken_over = {(r.in_place_of, r.start + 1) for r in decisions.residencies if r.in_place_of is not None}
    for i, residency in enumerate(decisions.residencies):
        starting[residency.start].append(i)
        if (residency.tensor, residency.end) not in taken_over:
            ending[residency.end].append(residency)
    needs_store = _tensors_to_store(problem, decisions)
    resident: set[int] = set()
    out: list[Instruction] = []
    for step, operator in enumerate(decisions.order):
        produced: list[tuple[Residency, int]] = []
        for i in starting[step]:
            residency = decisions.residencies[i]
            if residency.loaded:
                out.append(Load(names[residency.tensor], addresses[i]))
            else:
                produced.append((residency, addresses[i]))
            resident.add(residency.tensor)
        scratch = problem.workspace.get(operator)
        workspace = next((address for residency, address in produced if residency.tensor == scratch), None)
        for residency, address in produced:
            if residency.tensor == scratch:
                continue
            operand = residency.in_place_of
            out.append(Allocate(names[residency.tensor], address, None if operand is None else names[operand]))
        touched = [*problem.operands_of(operator).tolist(), *problem.results_of(operator).tolist()]
        streamed = tuple(names[t] for t in touched if t not in resident)
        out.append(Execute(problem.operator_names[operator], streamed, workspace))
        for residency, _ in produced:
            if residency.in_place_of is not None:
                resident.discard(residency.in_place_of)
        out.extend(Store(names[residency.tensor]) for residency, _ in produced if residency.tensor in needs_store)
        for residency in ending[step + 1]:
            if residency.tensor != scratch:
                out.append(Free(names[residency.tensor]))
            resident.discard(residency.tensor)
    return tuple(out)


def _tensors_to_store(problem: Problem, decisions: Decisions) -> set[int]:
    """Produced tensors that need an off-chip copy: outputs, and those read again after leaving."""
    position = {operator: step for step, operator in enumerate(decisions.order)}
    stays: dict[int, list[Residency]] = {}
    for residency in decisions.residencies:
        stays.setdefault(residency.tensor, []).append(residency)
    found: set[int] = set()
    for tensor, row in stays.items():
        if problem.starts_off_chip[tensor]:
            continue
        if problem.must_store[tensor] or any(residency.loaded for residency in row):
            found.add(tensor)
            continue
        steps = (position[int(v)] for v in problem.consumers_of(tensor))
        if any(not any(r.start <= step < r.end for r in row) for step in steps):
            found.add(tensor)
    return found
