"""When a tensor can be, and when it must be, alive: over all orders at once.

A tensor's consumers that follow one another in every order form a *chain of touches*. It cuts the tensor's
life into *stretches*: stretch 0 from its birth to the first of them, stretch ``k`` from the ``k``-th to the
next, the last one open. Being absent from the scratchpad anywhere in a stretch, and read afterwards, costs one
read of its own, because no read outside the stretch can serve it. That is what makes costs add up over
steps although the order is not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cosma.problem.liveness import alive_untouched
from cosma.problem.rules import arrival_bytes, may_stream, store_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.problem import Problem
    from cosma.problem.precedence import Reach

#: Consumers above which the chain of touches is found greedily.
_EXACT_CHAIN = 48


@dataclass(frozen=True, slots=True)
class Lifetime:
    """One tensor over all orders."""

    #: Its number.
    tensor: int
    #: Cost of one transfer, and space of residency.
    size_bytes: int
    space_bytes: int
    #: Cost of a read that a gap in the scratchpad causes, and of the store before the first such read (0 where an
    #: off-chip copy is compulsory or there from the start).
    read_bytes: int
    store_bytes: int
    #: Producing operator, or -1.
    producer: int
    #: Operators that read it, ancestors first; the same as a bit set.
    consumers: tuple[int, ...]
    consumer_mask: int
    #: The chain of touches: consumers that are totally ordered, first to last.
    chain: tuple[int, ...]
    #: The chain as a bit set.
    chain_mask: int
    #: Operators that do not touch it and that run, in every order (in some order), after its birth or first touch and
    #: before its last.
    sure: int
    possible: int
    #: A result nobody reads and nobody wants. Its only cost is that of streaming it out.
    dead: bool

    def stretches(self, reach: Reach, operator: int) -> tuple[int, int]:
        """First and last stretch during which an operator that is not on the chain can run."""
        first = (self.chain_mask & reach.before[operator]).bit_count()
        last = len(self.chain) - (self.chain_mask & reach.after[operator]).bit_count()
        return first, last


def lifetimes_of(problem: Problem, reach: Reach) -> dict[int, Lifetime]:
    """Describe every tensor whose absence can cost anything, by number."""
    found: dict[int, Lifetime] = {}
    arrival, store = arrival_bytes(problem).tolist(), store_bytes(problem).tolist()
    for t in range(problem.tensor_count):
        space, size = int(problem.space_bytes[t]), int(problem.size_bytes[t])
        # A consumer has more ancestors than any of its ancestors, under any order that the reach describes.
        consumers = sorted(problem.consumers_of(t).tolist(), key=lambda c: (reach.before[c].bit_count(), c))
        producer = int(problem.producer[t])
        if space == 0 or (producer < 0 and len(consumers) < 2):
            continue
        if not consumers:
            if may_stream(problem, producer, t) and store[t]:
                found[t] = Lifetime(t, size, space, store[t], 0, producer, (), 0, (), 0, 0, 0, True)
            continue
        chain = _chain(consumers, reach)
        sure, possible = alive_untouched(producer, consumers, reach)
        mask, readers = sum(1 << v for v in chain), sum(1 << v for v in consumers)
        found[t] = Lifetime(
            t, size, space, arrival[t], store[t], producer,
            tuple(consumers), readers, chain, mask, sure, possible, False,
        )  # fmt: skip
    return found


def _chain(consumers: Sequence[int], reach: Reach) -> tuple[int, ...]:
    """Find a longest chain of consumers (greedily where there are many); ties go to the earliest operators."""
    if len(consumers) > _EXACT_CHAIN:
        chain = [consumers[0]]
        for c in consumers[1:]:
            if reach.before[c] >> chain[-1] & 1:
                chain.append(c)
        return tuple(chain)
    length: dict[int, int] = {}
    follows: dict[int, int] = {}
    for i in range(len(consumers) - 1, -1, -1):
        c = consumers[i]
        length[c], follows[c] = 1, -1
        for d in consumers[i + 1 :]:
            if reach.after[c] >> d & 1 and length[d] + 1 > length[c]:
                length[c], follows[c] = length[d] + 1, d
    at = max(consumers, key=lambda c: (length[c], -c))
    chain = [at]
    while follows[at] >= 0:
        at = follows[at]
        chain.append(at)
    return tuple(chain)
