"""One pass over an order with a replacement and an address policy: the existing methods, and first plans."""

from __future__ import annotations

from itertools import chain, pairwise, takewhile
from typing import TYPE_CHECKING

from cosma.heuristics.addresses import make_arena
from cosma.heuristics.replacement import NEVER, Queue, Resident
from cosma.problem import Decisions, Residency, touches_of
from cosma.problem.rules import best_takeovers, may_stream, may_stream_anything, store_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cosma.problem import Problem


def simulate(
    problem: Problem, order: Sequence[int], replacement: str, address_policy: str
) -> tuple[Decisions, list[int]]:
    """Run an order step by step, bringing in what each operator touches and evicting what the policy says.

    Tensors without a later use leave at once. Where fragmentation leaves no hole even with everything else evicted, the
    step starts over with an empty scratchpad (``resident``) or streams the tensor (``streamable``). With
    ``greedy-by-size`` addresses are only counted, not given. Returns decisions, and the address of each residency in
    the same order.

    The instance is feasible (see :func:`cosma.problem.check_feasible`), and the policies are names from
    :data:`cosma.heuristics.replacement.REPLACEMENTS` and :data:`ADDRESS_POLICIES`.
    """
    run = _Simulation(problem, order, replacement, address_policy)
    for step in range(len(run.order)):
        run.execute(step)
    return run.finish()


class _Simulation:
    def __init__(self, problem: Problem, order: Sequence[int], replacement: str, address_policy: str) -> None:
        self.problem = problem
        self.order = tuple(int(v) for v in order)
        self.queue = Queue(replacement)
        self.address_policy = address_policy
        self.arena = make_arena(address_policy, problem.capacity_bytes)
        self.space: list[int] = problem.space_bytes.tolist()
        self.clean: list[bool] = (store_bytes(problem) == 0).tolist()
        self.streams = may_stream_anything(problem)
        touches = touches_of(problem, self.order)
        starts = touches.start.tolist()
        steps = touches.step.tolist()
        self.touches = [steps[a:b] for a, b in pairwise(starts)]
        self.next_index = [0] * problem.tensor_count
        self.resident: dict[int, Resident] = {}
        self.used_bytes = 0
        self.found: list[tuple[Residency, int]] = []
        #: Ends of operands that smaller results take over in the step at hand: address and bytes.
        self.outgrown: list[tuple[int, int]] = []
        #: How many were found before the step at hand.
        self.found_before = 0

    # -- bookkeeping --------------------------------------------------------------------------------------

    def next_touch(self, tensor: int) -> int:
        """Step of the touch after the current one."""
        row, i = self.touches[tensor], self.next_index[tensor] + 1
        return row[i] if i < len(row) else NEVER

    def leave(self, tensor: int, end: int) -> None:
        """End a residency at step ``end``; its space is the caller's."""
        r = self.resident.pop(tensor)
        self.queue.leave(tensor)
        self.used_bytes -= r.space_bytes
        if r.next_touch != NEVER:
            self.clean[tensor] = True  # stored when it was produced
        if r.start < end:
            self.found.append((Residency(tensor, r.start, end, r.loaded, r.in_place_of), r.address))

    def evict(self, tensor: int, end: int) -> None:
        r = self.resident[tensor]
        self.arena.free(r.address, r.space_bytes)
        self.leave(tensor, end)

    def admit(self, tensor: int, step: int, address: int, *, loaded: bool, in_place_of: int | None = None) -> None:
        self.resident[tensor] = Resident(
            tensor, step, loaded, address, self.space[tensor], step, self.next_touch(tensor), self.clean[tensor],
            in_place_of,
        )  # fmt: skip
        self.queue.enter(self.resident[tensor])
        self.used_bytes += self.space[tensor]

    def make_room(self, tensor: int, step: int, pinned: set[int], *, may_bypass: bool) -> int | None:
        """Find an address, evicting by the policy; None if there is none, or if bypassing is better."""
        size = self.space[tensor]
        if size > self.problem.capacity_bytes:
            return None
        address = self.arena.allocate(size)
        if address is not None:
            return address
        needed = 0
        floor = None
        if may_bypass:
            held = sum(self.resident[t].space_bytes for t in pinned if t in self.resident)
            if held + size > self.problem.capacity_bytes:
                return None
            if self.queue.bypass:
                mine = Resident(tensor, step, True, 0, size, step, self.next_touch(tensor), self.clean[tensor])
                floor = self.queue.policy(mine, step)
                needed = size - (self.problem.capacity_bytes - self.used_bytes)
        leaving = self.queue.leaving(step)
        try:
            return self._evict_for(size, step, needed, takewhile(
                lambda r: floor is None or self.queue.policy(r, step) > floor,
                (r for r in leaving if r.tensor not in pinned and r.tensor not in self.problem.kept),
            ))  # fmt: skip
        finally:
            leaving.close()

    def _evict_for(self, size: int, step: int, needed: int, candidates: Iterator[Resident]) -> int | None:
        """Evict until there is a hole; nobody where all candidates together give up less than is needed."""
        victims = []
        while needed > 0:
            victim = next(candidates, None)
            if victim is None:
                return None
            victims.append(victim)
            needed -= victim.space_bytes
        for victim in chain(victims, candidates):
            self.evict(victim.tensor, step)
            address = self.arena.allocate(size)
            if address is not None:
                return address
        return None

    # -- one step -----------------------------------------------------------------------------------------

    def execute(self, step: int) -> None:
        operator = self.order[step]
        self.found_before = len(self.found)
        operands = self.problem.operands_of(operator).tolist()
        results = self.problem.results_of(operator).tolist()
        run_step = self.stream_step if self.streams else self.resident_step
        if not run_step(step, operator, operands, results):
            self.start_over(step, operator, operands, results)
        for t in (*operands, *results):
            if t in self.resident:
                r = self.resident[t]
                r.last_touch, r.next_touch = step, self.next_touch(t)
                self.queue.enter(r)
            elif self.next_touch(t) != NEVER:
                self.clean[t] = True  # taken over while still needed: stored before
            self.next_index[t] += 1
        for address, rest in self.outgrown:
            self.arena.free(address, rest)
        self.outgrown.clear()
        for t in (*operands, *results):
            if t in self.resident and self.resident[t].next_touch == NEVER:
                self.evict(t, step + 1)

    def resident_step(self, step: int, operator: int, operands: list[int], results: list[int]) -> bool:
        """Bring in all operands and make room for all results; False if fragmentation prevents it."""
        pinned = {*operands, *results}
        for t in operands:
            if t not in self.resident:
                address = self.make_room(t, step, pinned, may_bypass=False)
                if address is None:
                    return False
                self.admit(t, step, address, loaded=True)
        for t in results:
            if self.take_over(t, step, operator):
                continue
            address = self.make_room(t, step, pinned, may_bypass=False)
            if address is None:
                return False
            self.admit(t, step, address, loaded=False)
        return True

    def stream_step(self, step: int, operator: int, operands: list[int], results: list[int]) -> bool:
        """Keep what is needed again and fits; stream the rest."""
        pinned = {*operands, *results}
        held = self.held_by(operator)
        if held and not self.hold(step, operator, operands, results, held):
            return False
        for t in operands:
            if t not in self.resident and self.next_touch(t) != NEVER:
                address = self.make_room(t, step, pinned, may_bypass=True)
                if address is not None:
                    self.admit(t, step, address, loaded=True)
        for t in results:
            if t in self.resident:
                continue
            if self.next_touch(t) != NEVER and not self.take_over(t, step, operator):
                address = self.make_room(t, step, pinned, may_bypass=True)
                if address is not None:
                    self.admit(t, step, address, loaded=False)
        return True

    def held_by(self, operator: int) -> set[int]:
        """What an operator touches and may not stream."""
        problem = self.problem
        if not problem.held:
            return set()
        touched = (*problem.operands_of(operator).tolist(), *problem.results_of(operator).tolist())
        return {t for t in touched if not may_stream(problem, operator, t)}

    def hold(self, step: int, operator: int, operands: list[int], results: list[int], held: set[int]) -> bool:
        """Bring in what may not stream; False if that does not fit beside what may, or for fragmentation."""
        for t in operands:
            if t in held and t not in self.resident:
                address = self.make_room(t, step, {*operands, *results}, may_bypass=False)
                if address is None:
                    return False
                self.admit(t, step, address, loaded=True)
        for t in results:
            if t not in held or self.take_over(t, step, operator):
                continue
            address = self.make_room(t, step, {*operands, *results}, may_bypass=False)
            if address is None:
                return False
            self.admit(t, step, address, loaded=False)
        return True

    def take_over(self, result: int, step: int, operator: int) -> bool:
        """Write a result over an operand that is not needed again, where the table allows it."""
        for r, operand in self.problem.pairs_of(operator):
            if r == result and operand in self.resident and self.next_touch(operand) == NEVER:
                self.replace(result, operand, step)
                return True
        return False

    def replace(self, result: int, operand: int, step: int) -> None:
        old = self.resident[operand]
        # The operand is read until the operator has run: what the result does not take is free only then.
        self.outgrown.append((old.address + self.space[result], old.space_bytes - self.space[result]))
        self.leave(operand, step + 1)
        self.admit(result, step, old.address, loaded=False, in_place_of=operand)

    def start_over(self, step: int, operator: int, operands: list[int], results: list[int]) -> None:
        """Empty the scratchpad and lay out without gaps what an operator may not stream.

        What was placed in this very step is forgotten: its residency would have no step. The takeovers that
        save most are made even where the operand is needed later, since it has an off-chip copy then.
        """
        # Whatever ended before this step ended by its beginning, so only what was found since is looked at.
        recent = self.found[self.found_before :]
        self.found[self.found_before :] = [
            (Residency(r.tensor, r.start, min(r.end, step), r.loaded, r.in_place_of), a)
            for r, a in recent
            if r.start < step
        ]
        for t in list(self.resident):
            self.leave(t, step)
        self.arena = make_arena(self.address_policy, self.problem.capacity_bytes)
        self.outgrown.clear()
        if self.streams:
            held = self.held_by(operator)
            operands, results = [t for t in operands if t in held], [t for t in results if t in held]
        taken = best_takeovers(self.problem, operator, {*operands, *results})
        for t in operands:
            address = self.arena.allocate(self.space[t])
            assert address is not None
            self.admit(t, step, address, loaded=True)
        for t in results:
            if t in taken:
                self.replace(t, taken[t], step)
                continue
            address = self.arena.allocate(self.space[t])
            assert address is not None
            self.admit(t, step, address, loaded=False)

    def finish(self) -> tuple[Decisions, list[int]]:
        for t in list(self.resident):
            self.evict(t, len(self.order))
        self.found.sort(key=lambda pair: (pair[0].start, pair[0].tensor))
        return Decisions(self.order, tuple(r for r, _ in self.found)), [address for _, address in self.found]
