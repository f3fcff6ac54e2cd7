"""What an optimiser decides, before addresses: the order, and which tensors stay in the scratchpad when.

Step ``i`` is the execution of the ``i``-th operator of the order. A residency ``[start, end)`` keeps a tensor
in the scratchpad during steps ``start .. end - 1``. Whatever an operator touches outside a residency is
streamed, which only ``operands = streamable`` allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.intervals import sums_over
from cosma.problem.rules import arrival_bytes, first_arrival_is_compulsory, may_stream, store_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from cosma.arrays import Bools, Ints
    from cosma.problem.problem import Problem


@dataclass(frozen=True, slots=True)
class Residency:
    """One stay of a tensor in the scratchpad."""

    #: Number of the tensor.
    tensor: int
    #: Steps ``[start, end)`` during which it is there.
    start: int
    end: int
    #: True if it is loaded before step ``start``, False if step ``start`` produces it.
    loaded: bool
    #: Operand whose address it takes over at step ``start`` (that operand's residency ends at ``start + 1``), or None.
    in_place_of: int | None = None

    def renumbered(self, tensors: Sequence[int], later: int = 0) -> Residency:
        """The same stay with tensors numbered as ``tensors`` says, so many steps later."""
        operand = None if self.in_place_of is None else tensors[self.in_place_of]
        return Residency(tensors[self.tensor], self.start + later, self.end + later, self.loaded, operand)


@dataclass(frozen=True, slots=True)
class Decisions:
    """An order and all residencies, sorted by (start, tensor)."""

    order: tuple[int, ...]
    residencies: tuple[Residency, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Touches:
    """When each tensor is touched under a fixed order: once by its producer, then by each consumer.

    A *gap* lies between consecutive touches of one tensor. Row ``t`` of the CSR table ``step`` holds the steps
    at which tensor ``t`` is touched, ascending; gap ``k`` of a tensor lies between its touches ``k``
    and ``k + 1``. Gaps are numbered like the touches they start at: ``start[t] + k``.
    """

    start: Ints
    step: Ints

    def of(self, tensor: int) -> Ints:
        """Steps at which a tensor is touched, ascending."""
        return self.step[self.start[tensor] : self.start[tensor + 1]]


def touches_of(problem: Problem, order: Sequence[int]) -> Touches:
    """List when each tensor is touched under ``order`` (a permutation of the operators)."""
    position = np.empty(problem.operator_count, dtype=np.int64)
    position[np.asarray(order, dtype=np.int64)] = np.arange(problem.operator_count)
    produced = (problem.producer >= 0).astype(np.int64)
    count = produced + np.diff(problem.consumer_start)
    start = np.zeros(problem.tensor_count + 1, dtype=np.int64)
    np.cumsum(count, out=start[1:])
    step = np.empty(int(start[-1]), dtype=np.int64)
    for t in range(problem.tensor_count):
        row = position[problem.consumers_of(t)]
        row.sort()
        begin = int(start[t])
        if produced[t]:
            step[begin] = position[problem.producer[t]]
            begin += 1
        step[begin : int(start[t + 1])] = row
    return Touches(start, step)


def decisions_from_gaps(
    problem: Problem,
    order: Sequence[int],
    keep: Callable[[int], bool] | Sequence[bool] | Bools,
    *,
    takeovers: Mapping[int, int] | None = None,
    touches: Touches | None = None,
    resident_touches: Iterable[int] = (),
) -> Decisions:
    """Turn "keep this tensor between these two touches" into residencies.

    A touch with no kept gap on either side is streamed under ``operands = streamable`` and is a residency of
    one step under ``operands = resident``.

    Parameters
    ----------
    keep
        One truth value per gap, numbered as in :class:`Touches` (the last touch of a tensor starts no gap;
        its value is ignored).
    takeovers
        Result -> operand it takes over. By default every allowed takeover is made: the operand's residency
        ends with the operator and the result is resident; the smallest such operand is chosen.
    touches
        ``touches_of(problem, order)``, where the caller has it already.
    resident_touches
        Touches (by gap number) that must be resident even if no gap beside them is kept.
    """
    touches = touches if touches is not None else touches_of(problem, order)
    kept = keep if callable(keep) else keep.__getitem__
    always = set(resident_touches)
    found: list[Residency] = []
    for t in range(problem.tensor_count):
        first, last = int(touches.start[t]), int(touches.start[t + 1]) - 1
        g = first
        while g <= last:
            end = g
            while end < last and kept(end):
                end += 1
            if end > g or g in always or not may_stream(problem, order[int(touches.step[g])], t):
                produced = g == first and problem.producer[t] >= 0
                found.append(Residency(t, int(touches.step[g]), int(touches.step[end]) + 1, not produced))
            g = end + 1
    return with_takeovers(problem, Decisions(tuple(int(v) for v in order), tuple(found)), takeovers)


def with_takeovers(problem: Problem, decisions: Decisions, takeovers: Mapping[int, int] | None = None) -> Decisions:
    """Fix which results are written in place: the given ones, or all that are possible (see above).

    Residencies come out sorted by (start, tensor).
    """
    ends_at = {(r.tensor, r.end): r for r in decisions.residencies}
    found: list[Residency] = []
    for residency in sorted(decisions.residencies, key=lambda r: (r.start, r.tensor)):
        operand: int | None = None
        if not residency.loaded:
            operator = decisions.order[residency.start]
            dying = [
                operand
                for result, operand in problem.pairs_of(operator)
                if result == residency.tensor and (operand, residency.start + 1) in ends_at
            ]
            if takeovers is None:
                operand = min(dying, key=lambda u: int(problem.space_bytes[u]), default=None)
            elif takeovers.get(residency.tensor) in dying:
                operand = takeovers[residency.tensor]
        found.append(Residency(residency.tensor, residency.start, residency.end, residency.loaded, operand))
    return Decisions(decisions.order, tuple(found))


def occupancy_bytes(problem: Problem, decisions: Decisions) -> Ints:
    """Bytes the scratchpad must hold during each step; a takeover counts its operand only. ``int64[steps]``."""
    stays = decisions.residencies
    begin = [r.start + (r.in_place_of is not None) for r in stays]
    space = problem.space_bytes[np.array([r.tensor for r in stays], dtype=np.int64)]
    return sums_over(begin, [r.end for r in stays], space, len(decisions.order))


def noncompulsory_bytes(problem: Problem, decisions: Decisions) -> int:
    """Non-compulsory traffic that decisions imply. Replay has the last word; this is for comparing candidates."""
    total = problem.constant_noncompulsory_bytes
    arrival, store = arrival_bytes(problem).tolist(), store_bytes(problem).tolist()
    first_is_compulsory = first_arrival_is_compulsory(problem).tolist()
    reads = np.zeros(problem.tensor_count, dtype=np.int64)
    position = {v: i for i, v in enumerate(decisions.order)}
    covered: list[list[Residency]] = [[] for _ in range(problem.tensor_count)]
    for r in decisions.residencies:
        covered[r.tensor].append(r)
        reads[r.tensor] += r.loaded
    for t in range(problem.tensor_count):
        steps = [position[int(v)] for v in problem.consumers_of(t)]
        reads[t] += sum(not any(r.start <= s < r.end for r in covered[t]) for s in steps)
        total += (int(reads[t]) - first_is_compulsory[t]) * arrival[t]
        if store[t] and (reads[t] or _streamed_at_birth(problem, position, covered, t)):
            total += store[t]
    return total


def _streamed_at_birth(
    problem: Problem, position: Mapping[int, int], covered: Sequence[Sequence[Residency]], tensor: int
) -> bool:
    birth = position[int(problem.producer[tensor])]
    return not any(not r.loaded and r.start == birth for r in covered[tensor])
