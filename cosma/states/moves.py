"""States and single moves: what lies in the scratchpad, and what running one operator makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cosma.problem.rules import arrival_bytes, departure_bytes, may_stream, store_bytes, streams_out_for_free

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cosma.problem import Problem


class State(NamedTuple):
    """Cost so far, tensors inside, those of them with an off-chip copy, bytes used, how it came about.

    ``operator`` is named as in ``parent``; after it ran, all was renamed by the swaps numbered ``renamed``, in turn.
    """

    cost: int
    inside: int
    copied: int
    used: int
    operator: int
    parent: State | None
    renamed: tuple[int, ...] = ()


class Moves:
    """How states follow from one another.

    Parameters
    ----------
    problem
        The instance; every operator fits.

    Attributes
    ----------
    readers
        By tensor: operators that read it, as a bit set.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.room = problem.capacity_bytes
        self.space: list[int] = problem.space_bytes.tolist()
        count = problem.operator_count
        self.readers = [sum(1 << v for v in problem.consumers_of(t).tolist()) for t in range(problem.tensor_count)]
        self.operands = [[t for t in problem.operands_of(v).tolist() if self.space[t]] for v in range(count)]
        self.results = [[t for t in problem.results_of(v).tolist() if self.space[t]] for v in range(count)]
        self.operand_mask = [sum(1 << t for t in row) for row in self.operands]
        self.pairs = [problem.pairs_of(v) for v in range(count)]
        self.arrival: list[int] = arrival_bytes(problem).tolist()
        self.store: list[int] = store_bytes(problem).tolist()

    # -- single moves -------------------------------------------------------------------------------------

    def _loss(self, t: int, copied: int) -> int:
        """Cost of losing a tensor that is still needed: its next read, and its store unless it has a copy."""
        return departure_bytes(self.arrival[t], self.store[t], copied=bool(copied >> t & 1))

    def free_move(self, done: int, v: int, state: State) -> State | None:
        """Run an operator that gives nothing up and leaves the scratchpad no fuller, if it is one."""
        reads = self.operand_mask[v]
        if reads & ~state.inside:
            return None
        after = done | 1 << v
        dying = [t for t in self.operands[v] if not self.readers[t] & ~after]
        alive = [t for t in self.results[v] if self.readers[t] & ~after]
        if len(alive) > 1:
            return None
        if alive:
            r = alive[0]
            loss = self._loss(r, 0)
            if not any(self.space[r] <= self.space[u] and loss <= self._loss(u, state.copied) for u in dying):
                return None
        written = self._must_be_written(v, after)
        need = state.used + sum(self.space[t] for t in written)
        need -= max((self.space[r] for r, u in self.pairs[v] if r in written and u in dying), default=0)
        if need > self.room:
            return None
        gone = sum(1 << t for t in dying)
        inside = (state.inside & ~gone) | sum(1 << t for t in alive)
        used = state.used - sum(self.space[t] for t in dying) + sum(self.space[t] for t in alive)
        return State(state.cost, inside, state.copied & inside, used, v, state)

    def _must_be_written(self, v: int, after: int) -> list[int]:
        """Results that need space to cost nothing: all, but for outputs nobody reads where those may stream."""
        return [
            t
            for t in self.results[v]
            if not streams_out_for_free(self.problem, v, t, read_later=bool(self.readers[t] & ~after))
        ]

    def ways(self, done: int, v: int, state: State) -> Iterator[State]:
        """All ways worth trying to run an operator: what is inside meanwhile, and what is left inside after."""
        after = done | 1 << v
        results = self._must_be_written(v, after)
        others = [t for t in range(state.inside.bit_length()) if (state.inside & ~self.operand_mask[v]) >> t & 1]
        touched = [*self.operands[v], *results]
        optional = others + [t for t in touched if may_stream(self.problem, v, t)]
        need = sum(self.space[t] for t in others) + sum(self.space[t] for t in touched)
        plain = None
        for overlay in [None, *self.pairs[v]]:
            excess = need - self.room
            if overlay is not None:
                if overlay[0] not in results:
                    continue
                excess -= self.space[overlay[0]]
                if plain is not None and plain <= 0 and self.readers[overlay[1]] & ~after:
                    continue  # fits without overwriting what is still needed
            else:
                plain = excess
            keepable = [t for t in optional if overlay is None or t not in overlay]
            for excluded in self._minimal(keepable, excess):
                yield self._outcome(v, after, state, set(excluded), overlay, others)

    def _minimal(self, optional: list[int], excess: int) -> Iterator[list[int]]:
        """Minimal sets of tensors whose spaces sum to at least ``excess``."""
        if excess <= 0:
            yield []
            return
        row = sorted((t for t in optional if self.space[t]), key=lambda t: (-self.space[t], t))
        rest = [0]
        for t in reversed(row):
            rest.append(rest[-1] + self.space[t])
        rest.reverse()
        chosen: list[int] = []

        # From large to small: the last one chosen is the smallest, and a set is minimal if it is needed.
        def extend(k: int, left: int) -> Iterator[list[int]]:
            if left <= 0:
                yield list(chosen)
                return
            for j in range(k, len(row)):
                if rest[j] < left:
                    return
                chosen.append(row[j])
                yield from extend(j + 1, left - self.space[row[j]])
                chosen.pop()

        yield from extend(0, excess)

    def _outcome(
        self,
        v: int,
        after: int,
        state: State,
        excluded: set[int],
        overlay: tuple[int, int] | None,
        others: list[int],
    ) -> State:
        cost, copied, inside, used = state.cost, state.copied, 0, 0
        for t in others:
            if t in excluded:
                cost += self._loss(t, copied)
            else:
                inside |= 1 << t
                used += self.space[t]
        for t in self.operands[v]:
            needed = bool(self.readers[t] & ~after)
            was_inside = bool(state.inside >> t & 1)
            if self.store[t] and not was_inside:
                copied |= 1 << t
            if t in excluded and was_inside:
                # Given up before this operator streams it: this read is paid, and the next one too.
                cost += self._loss(t, copied)
                if self.store[t]:
                    copied |= 1 << t
            if not needed:
                continue
            if t in excluded or (overlay is not None and t == overlay[1]):
                cost += self._loss(t, copied)
            else:
                inside |= 1 << t
                used += self.space[t]
        for t in self.results[v]:
            needed = bool(self.readers[t] & ~after)
            if t in excluded:
                # Streamed out: the store, and the next read if there is one.
                cost += departure_bytes(self.arrival[t], self.store[t], copied=False, read_again=needed)
            elif needed:
                inside |= 1 << t
                used += self.space[t]
        return State(cost, inside, copied & inside, used, v, state)

    # -- dominance ----------------------------------------------------------------------------------------

    def undominated(self, states: list[State]) -> list[State]:
        """Drop states that another can turn into for no more than they cost."""
        if len(states) == 1:
            return states
        kept: list[State] = []
        for state in sorted(states, key=lambda s: (s.cost, -s.used, s.inside, s.copied)):
            if not any(self._reaches(better, state) for better in kept):
                kept.append(state)
        return kept

    def _reaches(self, one: State, other: State) -> bool:
        """Whether ``one`` can become ``other``: it gives up what is too much, and loads what it has paid for."""
        slack = other.cost - one.cost
        surplus = one.inside & ~other.inside
        while surplus:
            low = surplus & -surplus
            slack -= self._loss(low.bit_length() - 1, one.copied)
            if slack < 0:
                return False
            surplus ^= low
        uncopied = one.inside & other.inside & other.copied & ~one.copied
        while uncopied:
            low = uncopied & -uncopied
            slack -= self.store[low.bit_length() - 1]
            if slack < 0:
                return False
            uncopied ^= low
        return True
