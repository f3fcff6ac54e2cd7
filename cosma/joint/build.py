"""The joint program, put together from its families, and how large it would be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.errors import InputError
from cosma.joint.addresses import add_interval_addresses, add_linear_addresses
from cosma.joint.builder import JointBuilder
from cosma.problem.precedence import windows_of
from cosma.problem.support import Support, one_takeover_each, up_to

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cosma.joint.program import Addresses, Joint, JointConflict
    from cosma.problem import Problem

#: Programs with more variables than this are not built: they would not be solved either.
MOST_VARIABLES = 60_000


def build_joint(
    problem: Problem,
    *,
    addresses: Addresses = "none",
    conflicts: Iterable[JointConflict] = (),
    ordered: Sequence[tuple[int, int]] = (),
) -> Joint:
    """Build the program.

    Parameters
    ----------
    conflicts
        Residencies that may not all occur; rows ``address conflict``.
    ordered
        Pairs of operators of which the first may be assumed to run before the second, as
        :func:`~cosma.problem.symmetry.ordered_pairs` finds them. Windows shrink by them, so other orders have
        no assignment; see :func:`~cosma.problem.symmetry.arrange`.
    """
    builder = JointBuilder(problem, addresses, windows_of(problem, ordered))
    builder.add_program(ordered)
    if addresses == "linear":
        add_linear_addresses(builder)
    elif addresses == "intervals":
        add_interval_addresses(builder)
    for conflict in conflicts:
        builder.add_conflict(conflict)
    return builder.finish()


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
