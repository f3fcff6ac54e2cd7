"""The true optimum of small instances by search over machine states: the oracle of all exact methods.

Nothing here knows about gaps between uses, residency intervals or integer programs. A state is what a machine
running a plan is in between two operators: which operators have run, which tensors lie in the scratchpad (and
at which addresses, if asked), and which have an off-chip copy. Uniform-cost search takes whole operators as
steps: before an operator runs, some tensors are given up (stored first where they must not be lost), operands
are loaded or streamed, results get space, stream out, or take over an operand. What loses nothing and keeps the
search small: a tensor is loaded only for the operator that reads it next, stored only when it is given up, and
given up only when the next operator runs (or when nothing needs it any more) and only if that operator could
not run with it still inside, for giving it up later costs no more. For the same reason nothing is streamed, or
overwritten in place, that fits beside the rest. ``prune=False`` searches without that last rule.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import gcd

from cosma.accelerator import Accelerator
from cosma.graph import Graph
from cosma.problem import Problem, build_problem

#: A state: (operators run, tensors in the scratchpad, tensors with an off-chip copy, their addresses or ()).
State = tuple[int, int, int, tuple[tuple[int, int], ...]]


@dataclass(frozen=True, slots=True)
class Optimum:
    """The least non-compulsory traffic (None: no plan exists) and an order that reaches it."""

    noncompulsory_bytes: int | None
    order: tuple[int, ...]
    states: int


class TooLargeError(Exception):
    """The search met more states than allowed."""


def brute_force(
    problem: Problem,
    *,
    order: tuple[int, ...] | list[int] | None = None,
    addresses: bool = False,
    most_states: int = 200_000,
    prune: bool = True,
) -> Optimum:
    """Search all plans of a small instance.

    Parameters
    ----------
    problem
        The instance; up to about seven operators.
    order
        If given, only plans that run the operators in this order.
    addresses
        Whether every tensor in the scratchpad has an address it keeps; otherwise only the sum of sizes counts,
        which is a relaxation.
    most_states
        States to remember before :class:`TooLargeError`.
    prune
        Whether to skip choices that give up more than they must.
    """
    return Search(problem, order, addresses, prune).run(most_states)


def brute_force_modes(
    graph: Graph, accelerator: Accelerator, *, order: tuple[int, ...] | None = None, addresses: bool = False
) -> Optimum:
    """Search all plans under ``operands = stationary``: each operator may run in any of its modes."""
    problem = build_problem(graph, accelerator.replace(operands="streamable"))
    number = {name: t for t, name in enumerate(problem.tensor_names)}
    alignment = accelerator.alignment
    modes = [
        [
            (
                sum(1 << number[t] for t in mode.may_stream if t in number),
                -(-mode.workspace_bytes // alignment) * alignment,
            )
            for mode in operator.modes
        ]
        or [(0, 0)]
        for operator in graph.operators
    ]
    return Search(problem, order, addresses, True, modes).run(200_000)


class Search:
    def __init__(
        self, problem: Problem, order: tuple[int, ...] | list[int] | None, addresses: bool, prune: bool,
        modes: list[list[tuple[int, int]]] | None = None,
    ) -> None:  # fmt: skip
        self.problem = problem
        self.addresses = addresses
        self.order = order
        self.prune = prune
        self.size = problem.size_bytes.tolist()
        self.space = problem.space_bytes.tolist()
        self.tensors = range(problem.tensor_count)
        self.everything = (1 << problem.operator_count) - 1
        self.operands = [sum(1 << t for t in problem.operands_of(v).tolist()) for v in range(problem.operator_count)]
        self.results = [sum(1 << t for t in problem.results_of(v).tolist()) for v in range(problem.operator_count)]
        self.readers = [sum(1 << v for v in problem.consumers_of(t).tolist()) for t in self.tensors]
        self.before = [
            sum(1 << u for u in problem.predecessors_of(v).tolist()) for v in range(problem.operator_count)
        ]
        self.pairs = [problem.pairs_of(v) for v in range(problem.operator_count)]
        self.outputs = problem.must_store.tolist()
        #: By operator: (what may be streamed together, workspace in bytes) of each way to run it.
        self.modes = modes if modes is not None else [[(self._streams(v), 0)] for v in range(problem.operator_count)]
        self.granule = gcd(*[s for s in self.space if s], *[w for row in self.modes for _, w in row if w], 0) or 1
        self.sum_of = lru_cache(maxsize=None)(self._sum_of)
        self._bytes = lru_cache(maxsize=None)(self._bytes_of)
        self.initial = sum(1 << t for t in self.tensors if problem.starts_off_chip[t])

    def _streams(self, v: int) -> int:
        """What an operator may stream, as a bit set; what stands for its workspace is among what it holds."""
        problem = self.problem
        found = 0
        for start, touched, streams in (
            (problem.operand_start, problem.operand, problem.operand_streams),
            (problem.result_start, problem.result, problem.result_streams),
        ):
            row = slice(int(start[v]), int(start[v + 1]))
            found |= sum(1 << t for t, may in zip(touched[row].tolist(), streams[row], strict=True) if may)
        return found

    def run(self, most_states: int) -> Optimum:
        problem = self.problem
        compulsory = sum(
            self.size[t] for t in self.tensors if problem.starts_off_chip[t] or problem.must_store[t]
        )
        start: State = (0, 0, self.initial, ())
        best: dict[State, int] = {start: 0}
        came_from: dict[State, tuple[State, int]] = {}
        # Among equal costs the state with the most operators behind it goes first.
        heap: list[tuple[int, int, State]] = [(0, 0, start)]
        expanded = tried = 0
        while heap:
            cost, _, state = heapq.heappop(heap)
            if cost > best[state]:
                continue
            if state[0] == self.everything:
                order = []
                while state in came_from:
                    state, v = came_from[state]
                    order.append(v)
                total = cost - compulsory + problem.constant_noncompulsory_bytes
                return Optimum(total, tuple(reversed(order)), expanded)
            expanded += 1
            for v in self.candidates(state[0]):
                for step, after in self.execute(state, v):
                    tried += 1
                    if tried > 20 * most_states:
                        raise TooLargeError(f"more than {tried} ways to run an operator")
                    if cost + step < best.get(after, cost + step + 1):
                        best[after] = cost + step
                        if len(best) > most_states:
                            raise TooLargeError(f"more than {most_states} states")
                        came_from[after] = (state, v)
                        heapq.heappush(heap, (cost + step, -after[0].bit_count(), after))
        return Optimum(None, (), expanded)

    def candidates(self, done: int) -> Iterator[int]:
        if self.order is not None:
            yield self.order[done.bit_count()]
            return
        for v in range(self.problem.operator_count):
            if not done >> v & 1 and not self.before[v] & ~done:
                yield v

    def _sum_of(self, mask: int) -> int:
        return sum(self.space[t] for t in self.tensors if mask >> t & 1)

    def execute(self, state: State, v: int) -> Iterator[tuple[int, State]]:
        """All ways worth trying to run one operator: bytes moved and the state after."""
        for streams, workspace in self.modes[v]:
            yield from self.execute_in(state, v, streams, workspace)

    def execute_in(self, state: State, v: int, streams: int, workspace: int) -> Iterator[tuple[int, State]]:
        """The same in one mode."""
        inside, copied = state[1:3]
        reads = self.operands[v]
        room = self.problem.capacity_bytes - workspace
        for kept in _subsets(inside):
            given_up = inside & ~kept
            if given_up & reads & ~streams or not self.may_leave(given_up, state[0]):
                continue
            storing = self._to_store(given_up, state[0], copied)
            missing = reads & ~kept
            if missing & ~(copied | storing):
                continue
            for loaded in _subsets(missing) if streams else (missing,):
                if missing & ~loaded & ~streams or not self.may_be_inside(loaded):
                    continue
                used = self.sum_of(kept | loaded)
                if used > room:
                    continue
                outside = given_up | (missing & ~loaded)
                for written in _subsets(self.results[v]) if streams else (self.results[v],):
                    if self.results[v] & ~written & ~streams or not self.may_be_inside(written):
                        continue
                    for takeover in self.takeovers(v, kept | loaded, written):
                        left = room - used - self.sum_of(written & ~sum(1 << t for t in takeover))
                        if left >= 0 and not self.wasteful(left, v, outside, written, takeover):
                            yield from self.outcomes(state, v, kept, loaded, written, takeover, workspace)

    def wasteful(self, left: int, v: int, outside: int, written: int, takeover: dict[int, int]) -> bool:
        """Whether something was given up, streamed or overwritten although it fits beside the rest."""
        if not self.prune or self.addresses:
            return False
        outside |= self.results[v] & ~written
        return any(self.space[t] <= left for t in self.tensors if outside >> t & 1) or any(
            self.space[t] <= left for t in takeover
        )

    def outcomes(
        self, state: State, v: int, kept: int, loaded: int, written: int, takeover: dict[int, int], workspace: int
    ) -> Iterator[tuple[int, State]]:
        """Bytes moved and the state after one way to run an operator, for each choice of addresses."""
        done, inside, copied, places = state
        after = done | 1 << v
        storing = self._to_store(inside & ~kept, done, copied)
        streamed = self.results[v] & ~written
        cost = self._bytes(storing) + self._bytes(self.operands[v] & ~kept) + self._bytes(streamed)
        copied |= storing | streamed
        overwritten = sum(1 << u for u in takeover.values())
        if not self.may_leave(overwritten, after):
            return
        saved = self._to_store(overwritten, after, copied)
        remaining = ((kept | loaded) & ~overwritten) | written
        retired, final, copies = self._retire(after, remaining, copied | saved)
        cost += self._bytes(saved) + retired
        if not self.addresses:
            yield cost, (after, final, copies, ())
            return
        held = {t: a for t, a in places if kept >> t & 1}
        gone = [(t, a) for t, a in places if not kept >> t & 1]
        entering = [t for t in self.tensors if (loaded | written) >> t & 1 and t not in takeover]
        for at in self.placements(held, entering):
            if self.prune and any(self._free(at, a, a + self.space[t]) for t, a in gone):
                continue
            if workspace and not any(
                self._free(at, a, a + workspace) and self.may_lie(None, a, workspace)
                for a in range(0, self.problem.capacity_bytes - workspace + 1, self.granule)
            ):
                continue
            for t, u in takeover.items():
                at[t] = at[u]
            if not all(self.may_lie(t, at[t], self.space[t]) for t in takeover):
                continue
            yield cost, (after, final, copies, tuple(sorted((t, a) for t, a in at.items() if final >> t & 1)))

    def takeovers(self, v: int, present: int, written: int) -> Iterator[dict[int, int]]:
        """All sets of results over operands that lie in the scratchpad, each operand taken over by one."""
        pairs = [(r, u) for r, u in self.pairs[v] if written >> r & 1 and present >> u & 1]
        for count in range(len({r for r, _ in pairs}) + 1):
            for chosen in combinations(pairs, count):
                if len({r for r, _ in chosen}) == count == len({u for _, u in chosen}):
                    yield dict(chosen)

    def placements(self, held: dict[int, int], entering: list[int]) -> Iterator[dict[int, int]]:
        """All addresses for the tensors that enter, given those that stay.

        Multiples of the greatest common divisor of all sizes are enough: any packing can be pushed down until
        every address is a sum of sizes.
        """
        if not entering:
            yield dict(held)
            return
        t, rest = entering[0], entering[1:]
        if self.space[t] == 0:
            yield from self.placements({**held, t: 0}, rest)
            return
        for address in range(0, self.problem.capacity_bytes - self.space[t] + 1, self.granule):
            if self._free(held, address, address + self.space[t]) and self.may_lie(t, address, self.space[t]):
                yield from self.placements({**held, t: address}, rest)

    def _free(self, at: dict[int, int], low: int, high: int) -> bool:
        return all(high <= a or a + self.space[u] <= low for u, a in at.items())

    def may_leave(self, mask: int, done: int) -> bool:
        """Whether constraints let some tensors leave the scratchpad when some operators have run."""
        return True

    def may_be_inside(self, mask: int) -> bool:
        """Whether constraints let some tensors be in the scratchpad."""
        return True

    def may_lie(self, tensor: int | None, address: int, space: int) -> bool:
        """Whether constraints let a tensor, or scratch space, lie at an address."""
        return True

    def _needed(self, t: int, done: int) -> bool:
        return bool(self.readers[t] & ~done)

    def _to_store(self, mask: int, done: int, copied: int) -> int:
        """Which of some tensors would be lost if given up now: outputs, and what is still to be read."""
        return sum(
            1 << t
            for t in self.tensors
            if mask >> t & 1 and not copied >> t & 1 and (self.outputs[t] or self._needed(t, done))
        )

    def _retire(self, done: int, inside: int, copied: int) -> tuple[int, int, int]:
        """Give up what nothing reads any more, storing outputs; forget copies that no longer matter."""
        useless = sum(1 << t for t in self.tensors if inside >> t & 1 and not self._needed(t, done))
        storing = self._to_store(useless, done, copied)
        alive = sum(1 << t for t in self.tensors if self._needed(t, done))
        return self._bytes(storing), inside & ~useless, (copied | storing) & alive

    def _bytes_of(self, mask: int) -> int:
        return sum(self.size[t] for t in self.tensors if mask >> t & 1)


def _subsets(mask: int) -> Iterator[int]:
    """All subsets of a bit set, the whole first."""
    subset = mask
    while True:
        yield subset
        if subset == 0:
            return
        subset = (subset - 1) & mask
