"""Whether an engine can take a problem, and if not, why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cosma.problem.problem import Problem


@dataclass(frozen=True, slots=True)
class Support:
    """What an engine says of a problem; true where it can take it."""

    #: Why it cannot; empty where it can.
    why_not: str = ""

    def __bool__(self) -> bool:
        return not self.why_not


#: An engine that can take any problem.
SUPPORTED = Support()


def up_to(most: int, count: int, what: str) -> Support:
    """Support for up to so many of something, of which a problem has ``count``."""
    return SUPPORTED if count <= most else Support(f"{count:,} {what}, {most:,} at most")


def one_takeover_each(problem: Problem) -> Support:
    """Support for operators of which one result at most may take over an operand."""
    operator = np.repeat(np.arange(problem.operator_count), np.diff(problem.pair_start))
    pairs = np.unique(np.stack([operator, problem.pair_result]), axis=1)
    several = int((np.bincount(pairs[0]) > 1).sum()) if pairs.size else 0
    return Support(f"{several:,} operators that take over several operands at once") if several else SUPPORTED
