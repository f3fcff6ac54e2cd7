"""Addresses for long orders, section by section.

Packing thousands of steps at once fails where any one of them does, and repairing them together is slow. A long order
is therefore packed as it is if that works at once; if not, it is cut where least crosses, what crosses the cut goes
off-chip there, and each side is packed on its own, and cut again if need be. Short sections are repaired as usual.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cosma.lowering.choices import GapForm
from cosma.lowering.realise import Realised, realise, try_realise
from cosma.parameters.lowering import LoweringParameters
from cosma.problem import Decisions, Residency, noncompulsory_bytes, part_of, touches_of
from cosma.problem.rules import arrival_bytes, store_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from cosma.plan.instructions import Instruction
    from cosma.problem import Problem

    Int64s = NDArray[np.int64]

DEFAULTS = LoweringParameters()


def realise_in_sections(
    problem: Problem,
    decisions: Decisions,
    *,
    stop: Callable[[], bool] = bool,
    parameters: LoweringParameters = DEFAULTS,
) -> Realised | None:
    """Pack decisions for a long order, cutting it into sections where it cannot be packed as it is.

    Deterministic; takes time in proportion to the steps, times the logarithm of how many sections there are.

    Parameters
    ----------
    problem, decisions
        What to pack; decisions must hold each step within the capacity.
    stop
        Polled between sections; None comes back once it returns True.
    parameters
        Tuning parameters.
    """
    form = GapForm.of(problem, decisions)
    instructions: list[Instruction] = []
    residencies: list[Residency] = []
    repairs = 0
    todo = [(0, len(decisions.order))]
    while todo:
        if stop():
            return None
        begin, end = todo.pop()
        section = _Section(problem, form, begin, end)
        steps = end - begin
        found = try_realise(section.part, section.decisions, work_limit=parameters.as_is_units_per_step * steps)
        if found is None and steps > parameters.section_steps:
            cut = _cheapest_cut(problem, form, begin, end)
            todo += [(cut, end), (begin, cut)]
            repairs += 1
            continue
        if found is None:
            limit = parameters.units_per_step * steps
            found = realise(section.part, section.decisions, work_limit=limit, parameters=parameters)
        repairs += found.repairs
        instructions += found.instructions
        residencies += section.whole(found.decisions)
    residencies.sort(key=lambda residency: (residency.start, residency.tensor))
    return Realised(Decisions(decisions.order, tuple(residencies)), tuple(instructions), repairs)


def packing_loss(
    problem: Problem, decisions: Decisions, begin: int, end: int, *, parameters: LoweringParameters = DEFAULTS
) -> float:
    """Share by which packing raises the traffic of the steps ``[begin, end)``, taken by themselves."""
    section = _Section(problem, GapForm.of(problem, decisions), begin, end)
    found = realise_in_sections(section.part, section.decisions, parameters=parameters)
    assert found is not None
    wanted = noncompulsory_bytes(section.part, section.decisions)
    lost = noncompulsory_bytes(section.part, found.decisions) - wanted
    return lost / wanted if wanted else float(lost)


class _Section:
    """Steps ``[begin, end)`` of decisions as a problem of their own, with nothing held across either end.

    What the section reads and does not produce is off-chip before it; what is read after it is stored in it.
    """

    def __init__(self, problem: Problem, form: GapForm, begin: int, end: int) -> None:
        self.begin = begin
        row = np.array(form.order[begin:end], dtype=np.int64)
        operators = np.sort(row)
        touched = [problem.operands_of(v) for v in row.tolist()] + [problem.results_of(v) for v in row.tolist()]
        self.tensors: Int64s = np.unique(np.concatenate(touched)).astype(np.int64)
        part = part_of(problem, operators, self.tensors)
        last = form.touches.step[form.touches.start[self.tensors + 1] - 1]
        self.part = replace(part, must_store=(part.producer >= 0) & (problem.must_store[self.tensors] | (last >= end)))
        order = np.searchsorted(operators, row).tolist()
        touches = touches_of(self.part, order)
        keep = np.zeros(len(touches.step), dtype=np.bool_)
        alone: set[int] = set()
        for i, t in enumerate(self.tensors.tolist()):
            first = int(form.touches.start[t]) + int(np.searchsorted(form.touches.of(t), begin))
            here, count = int(touches.start[i]), int(touches.start[i + 1] - touches.start[i])
            keep[here : here + count] = form.keep[first : first + count]
            alone.update(here + k for k in range(count) if first + k in form.resident_touches)
        number = {t: i for i, t in enumerate(self.tensors.tolist())}
        takeovers = {
            number[result]: number[operand]
            for result, operand in form.takeovers.items()
            if result in number and operand in number and self.part.producer[number[result]] >= 0
        }
        self.decisions = GapForm(tuple(order), touches, keep, alone, takeovers).decisions(self.part)

    def whole(self, decisions: Decisions) -> list[Residency]:
        """Residencies of the section in terms of the whole."""
        return [
            Residency(
                int(self.tensors[r.tensor]),
                r.start + self.begin,
                r.end + self.begin,
                r.loaded,
                None if r.in_place_of is None else int(self.tensors[r.in_place_of]),
            )
            for r in decisions.residencies
        ]


def _cheapest_cut(problem: Problem, form: GapForm, begin: int, end: int) -> int:
    """The step in the middle half of ``[begin, end)`` before which clearing the scratchpad costs least."""
    start, step = form.touches.start, form.touches.step
    tensor = np.repeat(np.arange(problem.tensor_count), np.diff(start))
    gaps = np.flatnonzero(form.keep[:-1] & (tensor[:-1] == tensor[1:]))
    gaps = gaps[(step[gaps] < end) & (step[gaps + 1] > begin)]
    cost = arrival_bytes(problem, tensor[gaps]) + store_bytes(problem, tensor[gaps])
    change = np.zeros(end - begin + 1, dtype=np.int64)
    np.add.at(change, np.clip(step[gaps] + 1 - begin, 0, end - begin), cost)
    np.add.at(change, np.clip(step[gaps + 1] + 1 - begin, 0, end - begin), -cost)
    crossing = np.cumsum(change)
    low, high = (end - begin) // 4, 3 * (end - begin) // 4
    return begin + low + int(np.argmin(crossing[low : high + 1]))
