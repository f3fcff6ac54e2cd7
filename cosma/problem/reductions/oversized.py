"""A problem without the tensors that are larger than the scratchpad: exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.problem.decisions import Decisions
from cosma.problem.reductions.selection import select
from cosma.problem.rules import arrival_bytes, first_arrival_is_compulsory, store_bytes

if TYPE_CHECKING:

    from cosma.arrays import Ints
    from cosma.problem.problem import Problem


@dataclass(frozen=True, slots=True, eq=False)
class WithoutOversized:
    """A feasible problem without the tensors that are streamed in every plan."""

    #: What is left; operators keep their numbers. Its constant holds what the oversized tensors cost. It is the whole
    #: itself where nothing is oversized.
    problem: Problem
    #: Numbers in the whole, by number in the problem.
    tensors: Ints

    def lift(self, decisions: Decisions) -> Decisions:
        """The same decisions in terms of the whole, at the same traffic: oversized tensors are streamed."""
        tensors = self.tensors.tolist()
        return Decisions(decisions.order, tuple(r.renumbered(tensors) for r in decisions.residencies))

    def lift_bound(self, bound_bytes: int) -> int:
        """The bound itself: the constant of the problem holds what was left out."""
        return bound_bytes


def without_oversized(problem: Problem) -> WithoutOversized:
    """Leave out tensors that are larger than the scratchpad; what they cost in every plan becomes part of the constant.

    Such a tensor is streamed wherever it is touched: each read costs its bytes, but for the compulsory one of what
    starts off-chip, and so does writing it, unless that is compulsory.
    """
    oversized = problem.space_bytes > problem.capacity_bytes
    if not oversized.any():
        return WithoutOversized(problem, np.arange(problem.tensor_count))
    arrivals = (np.diff(problem.consumer_start) - first_arrival_is_compulsory(problem)).clip(min=0)
    forced_bytes = int((arrivals * arrival_bytes(problem) + store_bytes(problem))[oversized].sum())
    tensors = np.flatnonzero(~oversized)
    rest = select(problem, np.arange(problem.operator_count), tensors)
    constant = problem.constant_noncompulsory_bytes + forced_bytes
    return WithoutOversized(rest.derived(constant_noncompulsory_bytes=constant), tensors)
