"""Consecutive steps of an order as a problem of their own: a restriction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.problem.decisions import Decisions
from cosma.problem.reductions.selection import select

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cosma.arrays import Ints
    from cosma.problem.decisions import Residency, Touches
    from cosma.problem.problem import Problem


@dataclass(frozen=True, slots=True, eq=False)
class Section:
    """Steps ``[begin, end)`` of an order, with nothing held across either end.

    What the section reads and does not produce is off-chip before it; what is read after it is stored in it.
    """

    #: The operators of those steps and all tensors that they touch.
    problem: Problem
    #: Steps of the whole.
    begin: int
    end: int
    #: Numbers in the whole, ascending, by number in the problem.
    operators: Ints
    tensors: Ints
    #: The operators in the order of their steps, by number in the problem.
    order: tuple[int, ...]

    def lift(self, decisions: Decisions) -> Decisions:
        """The decisions in terms of the whole, for these steps alone; see :func:`join_sections`."""
        tensors, operators = self.tensors.tolist(), self.operators.tolist()
        return Decisions(
            tuple(operators[v] for v in decisions.order),
            tuple(r.renumbered(tensors, self.begin) for r in decisions.residencies),
        )


def section_of(problem: Problem, order: Sequence[int], touches: Touches, begin: int, end: int) -> Section:
    """Take some steps of an order.

    Parameters
    ----------
    problem, order
        The whole, and an order of its operators.
    touches
        When that order touches each tensor.
    begin, end
        The steps ``[begin, end)``.
    """
    row = np.array(order[begin:end], dtype=np.int64)
    operators = np.sort(row)
    touched = [problem.operands_of(v) for v in row.tolist()] + [problem.results_of(v) for v in row.tolist()]
    tensors = np.unique(np.concatenate(touched)).astype(np.int64)
    part = select(problem, operators, tensors)
    last = touches.step[touches.start[tensors + 1] - 1]
    must_store = (part.producer >= 0) & (problem.must_store[tensors] | (last >= end))
    numbers = tuple(np.searchsorted(operators, row).tolist())
    return Section(part.derived(must_store=must_store), begin, end, operators, tensors, numbers)


def join_sections(lifted: Iterable[Decisions]) -> Decisions:
    """Decisions for the whole from those of sections that follow each other, lifted, from the first step to the last.

    Their traffic is that of the sections and of what sections read that others produced.
    """
    order: list[int] = []
    residencies: list[Residency] = []
    for decisions in lifted:
        order += decisions.order
        residencies += decisions.residencies
    residencies.sort(key=lambda residency: (residency.start, residency.tensor))
    return Decisions(tuple(order), tuple(residencies))
