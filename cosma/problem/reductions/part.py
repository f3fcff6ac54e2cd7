"""Some operators and some tensors of a problem: a relaxation.

Look only at the steps of a plan that run the kept operators, and at the bytes that the kept tensors hold. What is left
is a plan of the part: what it moves of those tensors is no more than what the whole plan does, and it holds no more. A
tensor that the part does not produce comes from off-chip in the part, where its first read counts as compulsory; a
result whose readers lie outside is one that nobody reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cosma.problem.reductions.selection import select

if TYPE_CHECKING:

    from cosma.arrays import Ints
    from cosma.problem.problem import Problem


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A part of a problem as a problem of its own."""

    #: What it is a part of, and the part.
    whole: Problem
    problem: Problem
    #: Numbers in the whole, ascending, by number in the part.
    operators: Ints
    tensors: Ints

    def lift_bound(self, bound_bytes: int) -> int:
        """A bound of the whole: the part's, and the constant part of the whole's traffic."""
        return bound_bytes + self.whole.constant_noncompulsory_bytes


def part_of(problem: Problem, operators: Ints, tensors: Ints) -> Part:
    """Restrict a problem to some operators and tensors.

    Parameters
    ----------
    problem
        The whole.
    operators, tensors
        Numbers in the whole, ascending; some kept operator touches each kept tensor.
    """
    return Part(problem, select(problem, operators, tensors), operators, tensors)
