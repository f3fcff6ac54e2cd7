"""Instructions back to decisions: the inverse of :func:`cosma.lowering.emit.emit`, for anyone's valid plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.lowering.emit import emit
from cosma.lowering.realise import Realised
from cosma.plan.instructions import Allocate, Execute, Free, Load
from cosma.problem import Decisions, Residency, touches_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.plan.instructions import Instruction
    from cosma.problem import Problem


@dataclass(frozen=True, slots=True)
class _Stay:
    """A tensor at one address during the steps ``[start, end)``, as a plan has it."""

    tensor: int
    address: int
    start: int
    end: int
    loaded: bool
    in_place_of: int | None


def lift(problem: Problem, instructions: Sequence[Instruction]) -> Decisions:
    """Read off what a valid plan decided.

    ``lift(problem, emit(problem, decisions, addresses))`` gives the decisions again where their residencies begin
    and end at touches. Plans of others are cut down to what matters, so that the decisions never move more bytes
    or hold more at any step: a tensor stays from its first to its last touch within its stay; what is loaded and
    not touched is not loaded; an operand read off-chip while it is in the scratchpad is read there; a tensor
    is stored once, if it must be. Work is near-linear in the number of instructions. Raises ValueError if not every
    operator executes exactly once.

    Parameters
    ----------
    problem
        What the plan is valid for; the mode may be another than the plan was made for, if it is valid in both.
    instructions
        A valid plan's; see :func:`cosma.validator.replay_instructions`. Stays of tensors that cannot occupy the
        scratchpad in this mode (streamed weights) are ignored.
    """
    return lift_with_addresses(problem, instructions)[0]


def lift_realised(problem: Problem, instructions: Sequence[Instruction]) -> Realised:
    """Like :func:`lift`, with the plan's addresses kept: valid, and by no measure worse than the plan itself.

    Bytes, transfers and peak are at most the plan's: stays only shrink, so what was apart stays apart.
    """
    decisions, addresses = lift_with_addresses(problem, instructions)
    return Realised(decisions, emit(problem, decisions, addresses), 0)


def lift_order(problem: Problem, instructions: Sequence[Instruction]) -> tuple[int, ...]:
    """Operators in the order they execute, by number; the plan need not be valid otherwise.

    Raises ValueError if not every operator executes exactly once; the message names one that does not.
    """
    number = {name: v for v, name in enumerate(problem.operator_names)}
    order: dict[int, None] = {}
    for instruction in instructions:
        if isinstance(instruction, Execute):
            v = number.get(instruction.operator)
            if v is None:
                raise ValueError(f"operator {instruction.operator!r} executes, but is not in the network")
            if v in order:
                raise ValueError(f"operator {instruction.operator!r} executes twice")
            order[v] = None
    if len(order) < problem.operator_count:
        missing = next(v for v in range(problem.operator_count) if v not in order)
        raise ValueError(f"operator {problem.operator_names[missing]!r} never executes")
    return tuple(order)


def lift_with_addresses(problem: Problem, instructions: Sequence[Instruction]) -> tuple[Decisions, list[int]]:
    """Decisions, and the address of each residency."""
    order = lift_order(problem, instructions)
    touches = touches_of(problem, order)
    pairs = [dict.fromkeys(problem.pairs_of(v)) for v in order]
    found: list[tuple[Residency, int]] = []
    for stay in _stays(problem, instructions):
        row = touches.of(stay.tensor)
        low, high = np.searchsorted(row, [stay.start, stay.end])
        if low == high:
            continue
        # A result of no bytes takes over nothing, whatever the plan says.
        operand = stay.in_place_of
        if operand is not None and (stay.tensor, operand) not in pairs[stay.start]:
            operand = None
        residency = Residency(stay.tensor, int(row[low]), int(row[high - 1]) + 1, stay.loaded, operand)
        found.append((residency, stay.address))
    found.sort(key=lambda pair: (pair[0].start, pair[0].tensor))
    return Decisions(order, tuple(residency for residency, _ in found)), [address for _, address in found]


def _stays(problem: Problem, instructions: Sequence[Instruction]) -> list[_Stay]:
    """Every stay of every tensor of the problem; what happens between two steps belongs to the later one."""
    number = {name: t for t, name in enumerate(problem.tensor_names)}
    scratch = {problem.operator_names[v]: t for v, t in problem.workspace.items()}
    open_: dict[int, _Stay] = {}
    closed: list[_Stay] = []
    awaiting: list[_Stay] = []
    step = 0

    def close(tensor: int, end: int) -> None:
        stay = open_.pop(tensor, None)
        if stay is not None:
            closed.append(_Stay(tensor, stay.address, stay.start, end, stay.loaded, stay.in_place_of))

    for instruction in instructions:
        match instruction:
            case Load(name, address) if name in number:
                open_[number[name]] = _Stay(number[name], address, step, step, True, None)
            case Allocate(name, address, operand) if name in number:
                taken = None if operand is None else number.get(operand)
                stay = _Stay(number[name], address, step, step, False, taken)
                open_[stay.tensor] = stay
                awaiting.append(stay)
            case Execute(name, _, workspace):
                if workspace is not None and name in scratch:
                    closed.append(_Stay(scratch[name], workspace, step, step + 1, False, None))
                step += 1
                for stay in awaiting:
                    if stay.in_place_of is not None:
                        close(stay.in_place_of, step)
                awaiting.clear()
            case Free(name) if name in number:
                close(number[name], step)
            case _:
                pass
    for tensor in list(open_):
        close(tensor, step)
    return closed
