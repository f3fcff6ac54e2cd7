"""A problem in which no operator takes over several operands at once: a relaxation.

Engines that prove know of one takeover for each operator. Steps of a chain of partial sums make several, and so do
tiles that work element by element on several parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.csr import csr

if TYPE_CHECKING:
    from cosma.problem.problem import Problem


@dataclass(frozen=True, slots=True, eq=False)
class SingleTakeovers:
    """A problem in which what several results of an operator may take over needs no space.

    Sound: while the operator runs, each of these results has a space of its own or that of an operand, so that the
    space of the results alone is never more than they need together.
    """

    #: The same problem, those operands without space, those operators without takeovers.
    problem: Problem

    def lift_bound(self, bound_bytes: int) -> int:
        """The bound itself: every plan is one of the relaxed problem, at the same traffic."""
        return bound_bytes


def single_takeovers(problem: Problem) -> SingleTakeovers | None:
    """Relax the operators that may take over several operands at once; None where there are none."""
    pairs = [problem.pairs_of(v) for v in range(problem.operator_count)]
    several = [len({result for result, _ in row}) > 1 for row in pairs]
    if not any(several):
        return None
    space = problem.space_bytes.copy()
    for row, relaxed in zip(pairs, several, strict=True):
        if relaxed:
            space[[operand for _, operand in row]] = 0
    kept = [[] if relaxed else row for row, relaxed in zip(pairs, several, strict=True)]
    start, result = csr([[r for r, _ in row] for row in kept])
    return SingleTakeovers(
        problem.derived(
            space_bytes=space,
            pair_start=start,
            pair_result=np.asarray(result),
            pair_operand=csr([[u for _, u in row] for row in kept])[1],
        )
    )
