"""Whether an instance has a plan at all, and how much capacity that takes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cosma.errors import InfeasibleError
from cosma.problem.remedies import find_remedies
from cosma.problem.rules import need_bytes
from cosma.rewrite.fuse import smallest_capacity
from cosma.units import format_size

if TYPE_CHECKING:
    from cosma.graph import Graph
    from cosma.problem.problem import Problem

#: Tensors of an operator that a message lists.
_SHOWN = 8


def check_feasible(problem: Problem) -> None:
    """Raise :class:`InfeasibleError` if some operator cannot run at all, saying which and what would help."""
    error = infeasible(problem, problem.graph)
    if error is not None:
        raise error


def infeasible(problem: Problem, graph: Graph) -> InfeasibleError | None:
    """The error of an instance in which some operator does not fit; None where all do.

    Parameters
    ----------
    problem
        The instance.
    graph
        The network it was made from, before fusion.
    """
    needs = [need_bytes(problem, v) for v in range(problem.operator_count)]
    worst = max(range(len(needs)), key=needs.__getitem__, default=None)
    if worst is None or needs[worst] <= problem.capacity_bytes:
        return None
    names = [*problem.operands_of(worst).tolist(), *problem.results_of(worst).tolist()]
    sizes = (f"{problem.tensor_names[t]} ({format_size(int(problem.size_bytes[t]))})" for t in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    name, kind = problem.operator_names[worst], problem.graph.operators[worst].type
    return InfeasibleError(
        f"does not fit: operator {name!r} ({kind}) needs {needs[worst]} bytes ({format_size(needs[worst])}) at once, "
        f"{problem.capacity_bytes} bytes ({format_size(problem.capacity_bytes)}) are available",
        operator=name,
        operator_type=kind,
        needed_bytes=needs[worst],
        available_bytes=problem.capacity_bytes,
        smallest_capacity_bytes=smallest_capacity(graph, problem.accelerator),
        remedies=tuple(find_remedies(graph, problem.accelerator)),
    ).with_details(
        [
            f"  its tensors: {', '.join(sizes)}{more}",
            f"  {sum(need > problem.capacity_bytes for need in needs)} of {len(needs)} operators do not fit",
        ]
    )


def smallest_feasible_capacity(problem: Problem) -> int:
    """Least capacity in bytes at which a plan of this instance exists, without what is reserved.

    It is 0 if everything may stream. Of a network, :func:`cosma.rewrite.smallest_capacity` says it for every choice of
    operators to fuse.
    """
    return max((need_bytes(problem, v) for v in range(problem.operator_count)), default=0)


def tightened(problem: Problem, share: float) -> Problem | None:
    """Build the same problem with a share of the capacity; None if an operator does not fit then."""
    alignment = problem.accelerator.alignment
    tighter = replace(problem, capacity_bytes=int(problem.capacity_bytes * share) // alignment * alignment)
    return tighter if smallest_feasible_capacity(tighter) <= tighter.capacity_bytes else None
