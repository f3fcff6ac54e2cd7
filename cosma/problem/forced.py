"""What constraints make of an instance: order, places, what stays and what never comes in.

An order of two operators is precedence. A tensor that is never on chip takes more space than there is. A tensor that
must stay costs more to bring in a second time than all else together, and no operator may stream it. What is excluded
lowers the capacity. So engines that know no addresses need to know no constraints either, and those that give
addresses read :class:`Places`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cosma.accelerator import Operands, Weights
from cosma.accelerator.constraints import Constraints
from cosma.errors import ConstraintError, InputError
from cosma.graph import Graph, TensorKind
from cosma.rewrite.constraints import resolve
from cosma.topological import find_cycle, nearest_order
from cosma.units import align_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.accelerator import Accelerator
    from cosma.graph import Tensor


@dataclass(frozen=True, slots=True)
class Places:
    """Where things may lie, if not anywhere below the capacity."""

    #: Address ranges that may be used, multiples of the alignment, in order.
    windows: tuple[tuple[int, int], ...]
    #: Fixed addresses by tensor.
    address: Mapping[int, int] = field(default_factory=dict)
    #: What an address is a multiple of beside the accelerator's alignment, by tensor.
    alignment: Mapping[int, int] = field(default_factory=dict)

    @property
    def limit_bytes(self) -> int:
        """End of the addresses that may be used."""
        return self.windows[-1][1] if self.windows else 0

    @property
    def excluded(self) -> tuple[tuple[int, int], ...]:
        """Ranges below the limit that may not be used."""
        ends = [0, *(stop for _, stop in self.windows)]
        return tuple((a, b) for a, (b, _) in zip(ends, self.windows, strict=False) if a < b)

    def room(self, address: int, space_bytes: int) -> bool:
        """Whether so many bytes at an address lie in one of the ranges."""
        return not space_bytes or any(a <= address and address + space_bytes <= b for a, b in self.windows)

    def of(self, number: Mapping[int, int]) -> Places:
        """The same for some tensors, by their new numbers."""
        return Places(
            self.windows,
            {number[t]: at for t, at in self.address.items() if t in number},
            {number[t]: n for t, n in self.alignment.items() if t in number},
        )


@dataclass(frozen=True, slots=True)
class Forced:
    """A graph and its constraints in terms of each other."""

    #: Its operators in an order that keeps the constraints.
    graph: Graph
    #: By exact names of the graph.
    constraints: Constraints
    #: Why they cannot hold, as far as that was looked at; empty otherwise.
    conflict: str = ""


def forced_on(graph: Graph, accelerator: Accelerator) -> Forced:
    """Resolve the constraints of an accelerator on a graph, and order its operators by them."""
    try:
        forced = resolve(accelerator.constraints, graph)
    except ConstraintError as error:
        return Forced(graph, Constraints(excluded=accelerator.constraints.excluded), str(error))
    if not forced.before:
        return Forced(graph, forced)
    order, cycle = _sorted(graph, forced.before)
    if cycle:
        rest = Constraints.of(entry for entry in forced.entries if entry.field != "before")
        return Forced(graph, rest, f"the order of operators is a cycle: {' before '.join(map(repr, cycle))}")
    if order == list(range(len(graph.operators))):
        return Forced(graph, forced)
    operators = [graph.operators[v] for v in order]
    return Forced(graph.replace(operators=operators), forced)


def _sorted(graph: Graph, before: Sequence[tuple[str, str]]) -> tuple[list[int], list[str]]:
    """Operators in an order that keeps pairs too, close to the one given; or a cycle, as names."""
    followers: list[set[int]] = [set() for _ in graph.operators]
    for v, operator in enumerate(graph.operators):
        for name in operator.outputs:
            followers[v].update(map(graph.operator_index, graph.consumers(name)))
    for a, b in before:
        followers[graph.operator_index(a)].add(graph.operator_index(b))
    order = nearest_order(followers)
    if len(order) == len(followers):
        return order, []
    return order, [graph.operators[v].name for v in find_cycle(followers, order)]


def places_of(forced: Constraints, accelerator: Accelerator, number: Mapping[str, int]) -> Places | None:
    """Where tensors may lie, by their numbers; None where that is anywhere below the capacity."""
    if not (accelerator.reserved_ranges or forced.excluded or forced.addresses or forced.alignments):
        return None
    return Places(
        accelerator.replace(constraints=forced).windows,
        {number[name]: at for name, at in forced.addresses if name in number},
        {number[name]: n for name, n in forced.alignments if name in number},
    )


def spaces_of(
    tensors: Sequence[Tensor], forced: Constraints, places: Places | None, accelerator: Accelerator, capacity: int
) -> list[int]:
    """Space of each tensor in the scratchpad: more than there is where it can never lie there."""
    widest = capacity if places is None else max((b - a for a, b in places.windows), default=0)
    never = set(forced.never_on_chip)
    spaces = [align_up(tensor.size_bytes, accelerator.alignment) for tensor in tensors]
    return [
        max(space, capacity + accelerator.alignment) if space and (t.name in never or space > widest) else space
        for t, space in zip(tensors, spaces, strict=True)
    ]


def arrivals_of(tensors: Sequence[Tensor], reads: Sequence[int], kept: frozenset[int]) -> list[int]:
    """Bytes of bringing each tensor in: for what must stay, more than all other traffic of any plan.

    Such a tensor arrives once in every plan that keeps it, and that costs nothing beyond the compulsory. Raises
    InputError if sums of them would not fit 64 bits.
    """
    sizes = [tensor.size_bytes for tensor in tensors]
    if not kept:
        return sizes
    granule = math.gcd(*sizes) or 1
    total = sum(size * (count + 2) for size, count in zip(sizes, reads, strict=True))
    dear = granule * (total // granule + 1)
    if total + dear * sum(reads[t] + 2 for t in kept) >= 1 << 62:
        raise InputError("constraints: resident: the tensors have more bytes over all their uses than cosma counts")
    return [dear if t in kept and size else size for t, size in enumerate(sizes)]


def settings_conflict(graph: Graph, forced: Constraints, accelerator: Accelerator) -> str:
    """Constraints that contradict the accelerator or each other whatever the plan: the first found, or nothing."""
    capacity, never = sum(b - a for a, b in accelerator.replace(constraints=forced).windows), set(forced.never_on_chip)
    passing = accelerator.weights == Weights.STREAM
    for name in (*forced.resident, *(name for name, _ in forced.addresses)):
        if passing and graph.tensors[name].kind is TensorKind.WEIGHT:
            return f"weight {name!r} never lies in the scratchpad: weights = stream"
    for name in forced.resident:
        if name in never:
            return f"{name!r} is to stay resident and never to be on chip"
    for name in forced.never_on_chip:
        tensor = graph.tensors[name]
        touched = graph.consumers(name) or graph.producer(name) is not None
        weight = passing and tensor.kind is TensorKind.WEIGHT
        if accelerator.operands == Operands.RESIDENT and tensor.size_bytes and touched and not weight:
            return f"{name!r} is never to be on chip, and operands = resident lets nothing stream"
    alignments = dict(forced.alignments)
    windows = Places(accelerator.replace(constraints=forced).windows)
    for name, address in forced.addresses:
        step = math.lcm(accelerator.alignment, alignments.get(name, 1))
        space = align_up(graph.tensors[name].size_bytes, accelerator.alignment)
        if address % step:
            return f"address {address} of {name!r} is not a multiple of {step}"
        if not windows.room(address, space):
            return f"{name!r} at [{address}, {address + space}) is not within {_shown(windows.windows)}"
    for name, size in forced.workspaces:
        if size > capacity:
            return f"operator {name!r} is to have {size} bytes of workspace, {capacity} are available"
    return ""


def _shown(windows: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"[{a}, {b})" for a, b in windows) or "any range: nothing is left of the scratchpad"
