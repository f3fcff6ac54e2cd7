"""Addresses for long orders, section by section.

Packing thousands of steps at once fails where any one of them does, and repairing them together is slow. A long order
is therefore packed as it is if that works at once; if not, it is cut where least crosses, what crosses the cut goes
off-chip there, and each side is packed on its own, and cut again if need be. Short sections are repaired as usual.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.intervals import sums_over
from cosma.lowering.choices import GapForm
from cosma.lowering.realise import Realised, realise, try_realise
from cosma.lowering.repair import NoAddressesError
from cosma.parameters.lowering import LoweringParameters
from cosma.problem import noncompulsory_bytes, touches_of
from cosma.problem.reductions import join_sections, section_of
from cosma.problem.rules import arrival_bytes, store_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from cosma.plan.instructions import Instruction
    from cosma.problem import Decisions, Problem
    from cosma.problem.reductions import Section

DEFAULTS = LoweringParameters()


def realise_in_sections(
    problem: Problem,
    decisions: Decisions,
    *,
    stop: Callable[[], bool] = bool,
    parameters: LoweringParameters = DEFAULTS,
) -> Realised | None:
    """Pack decisions for a long order, cutting it into sections where it cannot be packed as it is.

    Deterministic; takes time in proportion to the steps, times the logarithm of how many sections there are. Raises
    NoAddressesError as :func:`realise` does.

    Parameters
    ----------
    problem, decisions
        What to pack; decisions must hold each step within the capacity.
    stop
        Polled between sections; None comes back once it returns True.
    """
    form = GapForm.of(problem, decisions)
    instructions: list[Instruction] = []
    lifted: list[Decisions] = []
    repairs = 0
    todo = [(0, len(decisions.order))]
    while todo:
        if stop():
            return None
        begin, end = todo.pop()
        section, wanted = _section_with_decisions(problem, form, begin, end)
        steps = end - begin
        found = try_realise(section.problem, wanted, work_limit=parameters.as_is_units_per_step * steps)
        if found is None and steps > parameters.section_steps:
            cut = _cheapest_cut(problem, form, begin, end)
            todo += [(cut, end), (begin, cut)]
            repairs += 1
            continue
        if found is None:
            limit = parameters.units_per_step * steps
            found = realise(section.problem, wanted, work_limit=limit, parameters=parameters)
        repairs += found.repairs
        instructions += found.instructions
        lifted.append(section.lift(found.decisions))
    return Realised(join_sections(lifted), tuple(instructions), repairs)


def packing_loss(
    problem: Problem, decisions: Decisions, begin: int, end: int, *, parameters: LoweringParameters = DEFAULTS
) -> float:
    """Share by which packing raises the traffic of the steps ``[begin, end)``, taken by themselves."""
    section, wanted = _section_with_decisions(problem, GapForm.of(problem, decisions), begin, end)
    try:
        found = realise_in_sections(section.problem, wanted, parameters=parameters)
    except NoAddressesError:
        return float("inf")
    assert found is not None
    wanted_bytes = noncompulsory_bytes(section.problem, wanted)
    lost = noncompulsory_bytes(section.problem, found.decisions) - wanted_bytes
    return lost / wanted_bytes if wanted_bytes else float(lost)


def _section_with_decisions(problem: Problem, form: GapForm, begin: int, end: int) -> tuple[Section, Decisions]:
    """The steps ``[begin, end)`` as a problem of their own, and what was decided for them."""
    section = section_of(problem, form.order, form.touches, begin, end)
    touches = touches_of(section.problem, section.order)
    keep = np.zeros(len(touches.step), dtype=np.bool_)
    alone: set[int] = set()
    for i, t in enumerate(section.tensors.tolist()):
        first = int(form.touches.start[t]) + int(np.searchsorted(form.touches.of(t), begin))
        here, count = int(touches.start[i]), int(touches.start[i + 1] - touches.start[i])
        keep[here : here + count] = form.keep[first : first + count]
        alone.update(here + k for k in range(count) if first + k in form.resident_touches)
    number = {t: i for i, t in enumerate(section.tensors.tolist())}
    takeovers = {
        number[result]: number[operand]
        for result, operand in form.takeovers.items()
        if result in number and operand in number and section.problem.producer[number[result]] >= 0
    }
    return section, GapForm(section.order, touches, keep, alone, takeovers).decisions(section.problem)


def _cheapest_cut(problem: Problem, form: GapForm, begin: int, end: int) -> int:
    """The step in the middle half of ``[begin, end)`` before which clearing the scratchpad costs least."""
    start, step = form.touches.start, form.touches.step
    tensor = np.repeat(np.arange(problem.tensor_count), np.diff(start))
    gaps = np.flatnonzero(form.keep[:-1] & (tensor[:-1] == tensor[1:]))
    gaps = gaps[(step[gaps] < end) & (step[gaps + 1] > begin)]
    cost = arrival_bytes(problem, tensor[gaps]) + store_bytes(problem, tensor[gaps])
    first, last = (np.clip(step[at] + 1 - begin, 0, end - begin) for at in (gaps, gaps + 1))
    crossing = sums_over(first, last, cost, end - begin)
    low, high = (end - begin) // 4, 3 * (end - begin) // 4
    return begin + low + int(np.argmin(crossing[low : high + 1]))
