"""Orders of execution that need no search: given, depth-first, memory-greedy, peak-minimising.

Each is a topological order, a function of the instance alone.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.clock import never

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cosma.problem import Problem

Order = tuple[int, ...]

#: Partial orders kept at each step of the peak-minimising search.
BEAM_WIDTH = 8
#: Ready operators looked at from one partial order: as many of those ready longest as of those ready last.
BEAM_CANDIDATES = 32
#: Most ready operators held in the lists of all partial orders together, roughly.
BEAM_READY = 2000


def given_order(problem: Problem) -> Order:
    """The order of the model file."""
    return tuple(range(problem.operator_count))


def depth_first_order(problem: Problem) -> Order:
    """Follow each result at once: of the operators that are ready, run the one that became so last."""
    waiting = np.diff(problem.predecessor_start).tolist()
    ready = [v for v in reversed(range(problem.operator_count)) if waiting[v] == 0]
    order: list[int] = []
    while ready:
        v = ready.pop()
        order.append(v)
        for w in problem.successors_of(v)[::-1].tolist():
            waiting[w] -= 1
            if waiting[w] == 0:
                ready.append(w)
    return tuple(order)


def memory_greedy_order(problem: Problem) -> Order:
    """Of the operators that are ready, run the one that leaves the fewest bytes live; ties as given.

    An operator's key changes only when it becomes the last reader of an operand, so a heap with stale
    entries keeps the cost near linear.
    """
    live = LiveBytes(problem)
    waiting = np.diff(problem.predecessor_start).tolist()
    uses_left = np.diff(problem.consumer_start).tolist()
    done = [False] * problem.operator_count
    heap = [(live.change(v, uses_left), v) for v in range(problem.operator_count) if waiting[v] == 0]
    heapq.heapify(heap)
    order: list[int] = []
    while heap:
        change, v = heapq.heappop(heap)
        if done[v] or change != live.change(v, uses_left):
            continue
        done[v] = True
        order.append(v)
        for t in live.operands[v]:
            uses_left[t] -= 1
            if uses_left[t] == 1:
                w = next(w for w in live.consumers[t] if not done[w])
                if waiting[w] == 0:
                    heapq.heappush(heap, (live.change(w, uses_left), w))
        for w in problem.successors_of(v).tolist():
            waiting[w] -= 1
            if waiting[w] == 0:
                heapq.heappush(heap, (live.change(w, uses_left), w))
    return tuple(order)


def peak_minimising_order(problem: Problem, stop: Callable[[], bool] = never) -> Order:
    """An order with a low peak of live bytes, the goal of HMCOS and SERENITY.

    Beam search over down-sets: of all partial orders with the same number of operators, those with the lowest
    (peak, live bytes) survive, one per down-set. The result is the best of it and the other orders here, so
    it is never worse in peak than any of them. Once ``stop`` says so, the best of the others.
    """
    candidates: list[Order] = [given_order(problem), depth_first_order(problem), memory_greedy_order(problem)]
    found = _beam_order(problem, stop)
    if found is not None:
        candidates.append(found)
    return min(candidates, key=lambda order: peak_live_bytes(problem, order))


def peak_live_bytes(problem: Problem, order: Sequence[int]) -> int:
    """Most bytes live at once when nothing is ever spilled, in-place takeovers counted; inputs from first use."""
    live = LiveBytes(problem)
    uses_left = np.diff(problem.consumer_start).tolist()
    loaded = (problem.producer >= 0).tolist()
    held = peak = 0
    for v in order:
        during, after = live.step(v, uses_left, loaded)
        peak = max(peak, held + during)
        held += after
        for t in live.operands[v]:
            uses_left[t] -= 1
            loaded[t] = True
    return peak


@dataclass(frozen=True, slots=True, init=False)
class LiveBytes:
    """How many bytes live an operator adds and frees; ragged tables as plain lists for speed."""

    space: list[int]
    operands: list[list[int]]
    results: list[list[int]]
    consumers: list[list[int]]
    pairs: list[list[tuple[int, int]]]
    uses: list[int]
    off_chip: list[bool]

    def __init__(self, problem: Problem) -> None:
        set_ = object.__setattr__
        set_(self, "space", problem.space_bytes.tolist())
        set_(self, "operands", [problem.operands_of(v).tolist() for v in range(problem.operator_count)])
        set_(self, "results", [problem.results_of(v).tolist() for v in range(problem.operator_count)])
        set_(self, "consumers", [problem.consumers_of(t).tolist() for t in range(problem.tensor_count)])
        set_(self, "pairs", [problem.pairs_of(v) for v in range(problem.operator_count)])
        set_(self, "uses", [len(row) for row in self.consumers])
        set_(self, "off_chip", problem.starts_off_chip.tolist())

    def change(self, v: int, uses_left: Sequence[int]) -> int:
        """Bytes live after ``v`` less bytes live before it (inputs counted as live from the start)."""
        kept = sum(self.space[t] for t in self.results[v] if self.uses[t])
        return kept - sum(self.space[t] for t in self.operands[v] if uses_left[t] == 1)

    def step(self, v: int, uses_left: Sequence[int], loaded: Sequence[bool]) -> tuple[int, int]:
        """Bytes added while ``v`` runs, and bytes added once it has run."""
        fresh = sum(self.space[t] for t in self.operands[v] if not loaded[t])
        born = sum(self.space[t] for t in self.results[v])
        shared = max((self.space[r] for r, u in self.pairs[v] if uses_left[u] == 1), default=0)
        dead = sum(self.space[t] for t in self.operands[v] if uses_left[t] == 1)
        unread = sum(self.space[t] for t in self.results[v] if not self.uses[t])
        return fresh + born - shared, fresh + born - dead - unread


@dataclass(slots=True)
class _Partial:
    """A down-set reached by some order, as what differs from its parent."""

    peak: int
    held: int
    operator: int
    parent: _Partial | None
    ready: tuple[int, ...]  # in the order they became so
    done_count: dict[int, int]  # operator -> predecessors executed, where some but not all are
    uses_gone: dict[int, int]  # tensor -> uses executed, where some but not all are
    key: int  # Zobrist hash of the down-set


def _beam_order(problem: Problem, stop: Callable[[], bool]) -> Order | None:
    live = LiveBytes(problem)
    predecessors = np.diff(problem.predecessor_start).tolist()
    rng = np.random.default_rng(0)
    zobrist = [int(x) for x in rng.integers(1, 2**62, size=problem.operator_count)]
    start = tuple(v for v in range(problem.operator_count) if predecessors[v] == 0)
    beam = [_Partial(0, 0, -1, None, start, {}, {}, 0)]
    for _ in range(problem.operator_count):
        if stop():
            return None
        found: dict[int, tuple[int, int, int, _Partial]] = {}
        for state in beam:
            ready, half = state.ready, BEAM_CANDIDATES // 2
            for v in ready if len(ready) <= BEAM_CANDIDATES else ready[:half] + ready[-half:]:
                peak, held = _advance(live, state, v)
                key = state.key ^ zobrist[v]
                if key not in found or (peak, held, v) < found[key][:3]:
                    found[key] = (peak, held, v, state)
        # Where thousands are ready at once, copying that list dominates: keep fewer partial orders.
        width = max(1, min(BEAM_WIDTH, BEAM_READY // max(1, len(beam[0].ready))))
        ranked = sorted(found.items(), key=lambda item: item[1][:3])[:width]
        beam = [_extend(problem, live, predecessors, key, *choice) for key, choice in ranked]
    order: list[int] = []
    last = beam[0]
    while last.parent is not None:
        order.append(last.operator)
        last = last.parent
    return tuple(reversed(order))


def _advance(live: LiveBytes, state: _Partial, v: int) -> tuple[int, int]:
    gone = state.uses_gone
    fresh = dead = 0
    dying: set[int] = set()
    for t in live.operands[v]:
        count = gone.get(t, 0)
        if count == 0 and live.off_chip[t]:
            fresh += live.space[t]
        if count + 1 == live.uses[t]:
            dead += live.space[t]
            dying.add(t)
    born = unread = 0
    for t in live.results[v]:
        born += live.space[t]
        if not live.uses[t]:
            unread += live.space[t]
    shared = max((live.space[r] for r, u in live.pairs[v] if u in dying), default=0)
    return max(state.peak, state.held + fresh + born - shared), state.held + fresh + born - dead - unread


def _extend(
    problem: Problem,
    live: LiveBytes,
    predecessors: Sequence[int],
    key: int,
    peak: int,
    held: int,
    v: int,
    state: _Partial,
) -> _Partial:
    done_count = dict(state.done_count)
    at = state.ready.index(v)
    ready = list(state.ready[:at] + state.ready[at + 1 :])
    for w in problem.successors_of(v).tolist():
        count = done_count.pop(w, 0) + 1
        if count == predecessors[w]:
            ready.append(w)
        else:
            done_count[w] = count
    uses_gone = dict(state.uses_gone)
    for t in live.operands[v]:
        count = uses_gone.pop(t, 0) + 1
        if count < live.uses[t]:
            uses_gone[t] = count
    return _Partial(peak, held, v, state, tuple(ready), done_count, uses_gone, key)


ORDERS: dict[str, Callable[[Problem], Order]] = {
    "given": given_order,
    "depth-first": depth_first_order,
    "memory-greedy": memory_greedy_order,
    "peak-minimising": peak_minimising_order,
}
