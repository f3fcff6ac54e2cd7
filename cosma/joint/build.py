"""The joint program, put together from its families."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.joint.addresses import add_interval_addresses, add_linear_addresses
from cosma.joint.builder import JointBuilder
from cosma.problem.precedence import windows_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cosma.joint.program import Addresses, Joint, JointConflict
    from cosma.problem import Problem


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
