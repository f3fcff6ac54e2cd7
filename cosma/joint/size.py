"""How large the joint program would be, told without building it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.errors import InputError
from cosma.problem.precedence import windows_of
from cosma.problem.support import Support, one_takeover_each, up_to

if TYPE_CHECKING:
    from cosma.problem import Problem

#: Programs with more variables than this are not built: they would not be solved either.
MOST_VARIABLES = 60_000


def joint_size(problem: Problem) -> int:
    """Number of variables of the joint program without addresses, counted without building it."""
    windows = windows_of(problem)
    operators = sum(b - a + 1 for a, b in zip(windows.earliest, windows.latest, strict=True))
    tensors = sum(2 * (b - a + 1) for a, b in zip(windows.born, windows.dies, strict=True))
    return operators + tensors


def supports(problem: Problem) -> Support:
    """Whether the joint program is small enough to be solved."""
    return one_takeover_each(problem) and up_to(MOST_VARIABLES, joint_size(problem), "variables before addresses")


def check_supported(problem: Problem) -> None:
    """Refuse a problem whose joint program is beyond any solver; raises :class:`InputError`."""
    support = supports(problem)
    if not support:
        raise InputError(
            f"the joint program of {problem.operator_count} operators has {support.why_not}; use strategy 'exact', "
            "which solves it by layers"
        )
