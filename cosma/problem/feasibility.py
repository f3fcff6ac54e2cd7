"""Whether an instance has a plan at all, and how much capacity that takes."""

from __future__ import annotations

from math import lcm
from typing import TYPE_CHECKING, Any

from cosma.accelerator import Fusion, Operands, Weights
from cosma.errors import InfeasibleError, Remedy
from cosma.packing import Buffer, Forbidden, PackingStatus, pack
from cosma.problem.problem import Instance
from cosma.problem.rules import may_stream, need_bytes
from cosma.rewrite.fuse import smallest_capacity
from cosma.text import counted
from cosma.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cosma.accelerator import Accelerator
    from cosma.graph import Graph
    from cosma.problem.problem import Problem

#: Tensors of an operator that a message lists.
_SHOWN = 8
#: How an error begins of what the planner does not do, though a plan may exist.
NOT_PLANNED = "not planned: "
#: Packing units for the tensors of one operator: there are a few dozen at most, so the search ends far earlier.
_STEP_WORK = 20_000


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

    ``graph`` is the network that the instance was made from, before fusion.
    """
    if instance.conflict:
        return InfeasibleError(f"constraints cannot hold: {instance.conflict}")
    if instance.refused:
        name, root, forced = instance.refused[0]
        limit = instance.accelerator.pieces
        assert limit is not None
        ranges = counted(limit, "address range")
        if forced:
            return InfeasibleError(
                f"{NOT_PLANNED}operator {name!r} takes {ranges} for {root!r}; its pieces are not "
                "laid side by side under constraints on addresses, or on whether they stay"
            )
        return InfeasibleError(
            f"operator {name!r} touches {root!r} in more than {counted(limit, 'piece')}, which cannot lie side by "
            f"side, and takes {ranges} for an operand"
        )
    return _misfit(instance, (graph, instance)) or _without_addresses(instance)


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
        # What helps is looked for by rules that know no constraints; under some, nothing is promised.
        accelerator = instance.accelerator
        if not (accelerator.constraints or accelerator.reserved_ranges):
            if instance.graph.is_tiled:
                # The tiles are what has to fit, and what is fused was fused before it was cut.
                graph, accelerator = instance.graph, accelerator.replace(fusion=Fusion.NONE)
            smallest = smallest_capacity(graph, accelerator)
            remedies = tuple(_remedies(graph, accelerator))
    return InfeasibleError(
        f"does not fit: operator {name!r}{f' ({kind})' if kind else ''} needs {_bytes(needs[worst])} at once, "
        f"{_bytes(problem.capacity_bytes)} are available",
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


def fits(instance: Instance) -> bool:
    """Whether every operator can run by itself, as far as is known, constraints included."""
    if instance.conflict or smallest_feasible_capacity(instance) > instance.capacity_bytes:
        return False
    return _without_addresses(instance) is None


def _without_addresses(instance: Instance) -> InfeasibleError | None:
    """The error of an instance in which some operator finds no addresses by itself; None where none is known to.

    Only constraints on addresses bring that about: without them, what fits by its bytes fits.
    """
    if instance.places is None:
        return None
    for v, operator in enumerate(instance.graph.operators):
        if not _has_addresses(instance, v):
            return InfeasibleError(
                f"constraints cannot hold: what operator {operator.name!r} ({operator.type}) needs in the scratchpad "
                "has no addresses there, even alone",
                operator=operator.name,
                operator_type=operator.type,
            )
    return None


def _has_addresses(problem: Problem, operator: int) -> bool:
    """Whether what an operator may not stream can be placed together, with one takeover or none; True if unknown."""
    places = problem.places
    assert places is not None
    touched = [*problem.operands_of(operator).tolist(), *problem.results_of(operator).tolist()]
    held = [t for t in touched if problem.space_bytes[t] and not may_stream(problem, operator, t)]
    pairs = [(r, u) for r, u in problem.pairs_of(operator) if r in held and u in held]
    for pair in (None, *pairs):
        buffers = []
        for t in held:
            if pair is not None and t == pair[0]:
                continue
            shared = [t, pair[0]] if pair is not None and t == pair[1] else [t]
            offset = next((places.address[u] for u in shared if u in places.address), None)
            step = lcm(*(places.alignment.get(u, 1) for u in shared))
            buffers.append(Buffer(str(t), 0, 1, int(problem.space_bytes[t]), alignment=step, offset=offset))
        found = pack(
            buffers,
            places.limit_bytes,
            alignment=problem.alignment,
            forbidden=[Forbidden(a, b) for a, b in places.excluded],
            work_limit=_STEP_WORK,
            explain=False,
        )
        if found.status is not PackingStatus.INFEASIBLE:
            return True
    return False


def smallest_feasible_capacity(problem: Problem) -> int:
    """Least capacity in bytes at which a plan of this instance exists, without what is reserved.

    It is 0 if everything may stream. Of a network, :func:`cosma.rewrite.smallest_capacity` says it for every choice of
    operators to fuse.
    """
    return max((need_bytes(problem, v) for v in range(problem.operator_count)), default=0)


def _remedies(graph: Graph, accelerator: Accelerator) -> Iterator[Remedy]:
    """Settings that let a network fit which does not, each with the smallest scratchpad that works with it."""
    alignment, reserved = accelerator.alignment, accelerator.reserved
    least = smallest_capacity(graph, accelerator)
    yield Remedy("scratchpad", least + reserved, least + reserved, enough=True)
    changes: dict[str, Any] = {
        "operands": Operands.STREAMABLE, "in_place": True, "fusion": Fusion.EPILOGUE, "weights": Weights.STREAM,
    }  # fmt: skip
    for setting, value in changes.items():
        if getattr(accelerator, setting) == value:
            continue
        if setting == "fusion" and graph.is_tiled:
            continue  # tiles are never fused
        if setting == "weights" and accelerator.operands == Operands.STATIONARY:
            continue  # modes are made for weights as they are
        need = smallest_capacity(graph, accelerator.replace(**{setting: value}))
        if need < least:
            yield Remedy(setting, value, max(need, alignment) + reserved, enough=need <= accelerator.usable_bytes)


def _bytes(count: int) -> str:
    """A number of bytes, and what that is where it says more."""
    short = format_size(count)
    return f"{count} bytes" if short == f"{count} B" else f"{count} bytes ({short})"
