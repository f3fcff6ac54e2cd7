"""Whether an instance has a plan at all, and how much capacity that takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.errors import InfeasibleError
from cosma.problem.problem import Instance
from cosma.problem.remedies import find_remedies
from cosma.problem.rules import need_bytes
from cosma.rewrite.fuse import smallest_capacity
from cosma.units import format_size

if TYPE_CHECKING:
    from cosma.errors import Remedy
    from cosma.graph import Graph
    from cosma.problem.problem import Problem

#: Tensors of an operator that a message lists.
_SHOWN = 8


def check_feasible(problem: Problem) -> None:
    """Raise :class:`InfeasibleError` if some operator cannot run at all; of an instance, it says what would help."""
    if isinstance(problem, Instance):
        error = infeasible(problem, problem.graph)
    else:
        error = _misfit(problem)
    if error is not None:
        raise error


def infeasible(instance: Instance, graph: Graph) -> InfeasibleError | None:
    """The error of an instance in which some operator does not fit, with what would help; None where all do.

    Parameters
    ----------
    instance
        What does not fit.
    graph
        The network it was made from, before fusion.
    """
    return _misfit(instance, (graph, instance))


def _misfit(problem: Problem, network: tuple[Graph, Instance] | None = None) -> InfeasibleError | None:
    """The error, with what would help where the network before fusion and the instance of it are given."""
    needs = [need_bytes(problem, v) for v in range(problem.operator_count)]
    worst = max(range(len(needs)), key=needs.__getitem__, default=None)
    if worst is None or needs[worst] <= problem.capacity_bytes:
        return None
    names = [*problem.operands_of(worst).tolist(), *problem.results_of(worst).tolist()]
    sizes = (f"{problem.tensor_names[t]} ({format_size(int(problem.size_bytes[t]))})" for t in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    name = problem.operator_names[worst]
    kind: str | None = None
    smallest: int | None = None
    remedies: tuple[Remedy, ...] = ()
    if network is not None:
        graph, instance = network
        kind = instance.graph.operators[worst].type
        smallest = smallest_capacity(graph, instance.accelerator)
        remedies = tuple(find_remedies(graph, instance.accelerator))
    return InfeasibleError(
        f"does not fit: operator {name!r}{f' ({kind})' if kind else ''} needs {needs[worst]} bytes "
        f"({format_size(needs[worst])}) at once, {problem.capacity_bytes} bytes "
        f"({format_size(problem.capacity_bytes)}) are available",
        operator=name,
        operator_type=kind,
        needed_bytes=needs[worst],
        available_bytes=problem.capacity_bytes,
        smallest_capacity_bytes=smallest,
        remedies=remedies,
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
