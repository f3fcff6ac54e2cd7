"""The replacement rule of `cosma.evaluation.kernels` in plain Python, written to be read.

It is the oracle of the kernel's tests: same order, same victims, same bytes. About a thousand times slower.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from cosma.evaluation.network import Network


@dataclass(slots=True)
class PlainReplay:
    """What a replay finds."""

    #: Non-compulsory bytes, without the problem's constant.
    cost: int = 0
    #: Live bytes above the capacity, summed over the steps.
    excess: int = 0
    #: Bytes paid at each step.
    step_cost: list[int] = field(default_factory=list)
    #: (tensor, search operator): the tensor is off-chip just before that operator reads it, after an earlier touch.
    dropped: set[tuple[int, int]] = field(default_factory=set)
    #: Results that had no room while their operator ran.
    homeless: set[int] = field(default_factory=set)
    #: Those of them that belong to a chain and had room once its head had run.
    late: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Held:
    """A tensor in the scratchpad: when it is read next, and whether it has an off-chip copy."""

    next_use: int
    stored: bool


class _Step:
    """One operator under execution: who is in use, who is new, who leaves."""

    def __init__(self, net: Network, order: Sequence[int], reads: list[list[int]], i: int) -> None:
        self.net, self.i, self.n = net, i, len(order)
        self.v = int(order[i])
        self.order = order
        self.reads = reads
        self.operands = _row(net.operand_start, net.operand, self.v)
        self.results = _row(net.result_start, net.result, self.v)
        self.pair = int(net.pair_result[self.v])
        self.partners = _row(net.pair_start, net.pair_operand, self.v)
        self.spread = int(net.streamable[0])
        self.fixed = {
            *_fixed(net.operand_start, net.operand, net.operand_streams, self.v),
            *_fixed(net.result_start, net.result, net.result_streams, self.v),
        }
        self.pinned: set[int] = set()
        self.leaving: set[int] = set()

    def next_use(self, tensor: int) -> int:
        return next((at for at in self.reads[tensor] if at > self.i), self.n)

    def bring_in(self, held: dict[int, _Held]) -> None:
        """Operands and results enter; in use for certain are those that cannot be streamed."""
        for t in self.operands:
            following = self.next_use(t)
            if t in held:
                held[t].next_use = following
                self.pinned.add(t)
            elif t in self.fixed or following < self.n:
                held[t] = _Held(following, True)
                if t in self.fixed:
                    self.pinned.add(t)
        for t in self.results:
            following = self.next_use(t)
            wanted = following < self.n or self.net.store[t] > 0 or self.net.chain_cost[self.v] > 0
            if t in self.fixed or wanted:
                held[t] = _Held(following, False)
                if t in self.fixed:
                    self.pinned.add(t)

    def saved(self, held: dict[int, _Held]) -> int:
        """Bytes saved because the result takes over an operand that ends here."""
        if self.pair not in held:
            return 0
        ends = (t in held and t in self.pinned and held[t].next_use in (self.n, -1) for t in self.partners)
        return int(self.net.space[self.pair]) if any(ends) else 0

    def victims(self, held: dict[int, _Held], over: int, saved: int) -> list[tuple[float, int, str, int]]:
        """(score, tensor, kind, price) of whatever could give way."""
        net, found = self.net, []
        spread = self.spread

        def offer(tensor: int, kind: str, price: int, wait: int, gain: int) -> None:
            score = price * float(max(wait + spread, 1)) ** -1.0 / min(gain, over)
            found.append((score, tensor, kind, price))

        for t, state in held.items():
            size, space = int(net.size[t]), int(net.space[t])
            store = 0 if state.stored else int(net.store[t])
            wait = state.next_use - self.i
            again = state.next_use < self.n
            if t in self.pinned:
                if state.next_use < 0:
                    continue
                if not saved and self.pair in held and again and t in self.partners:
                    offer(t, "pair", size + store, wait, int(net.space[self.pair]))
                if t not in self.fixed:
                    offer(t, "in use", size + store + (size if again else 0), 0, space)
                continue
            if t in self.results and net.chain_cost[self.v] > 0:
                offer(t, "late", 2 * size, 0, space)
                continue
            price = size + store if again else store
            offer(t, "waits", price, wait if again else 0, space)
        return found


def replay_plainly(net: Network, order: Sequence[int]) -> PlainReplay:
    """Replay an order of search operators by the same rule as the kernel."""
    found = PlainReplay()
    position = {int(v): i for i, v in enumerate(order)}
    reads = [
        sorted(position[v] for v in _row(net.consumer_start, net.consumer, t)) for t in range(len(net.size))
    ]
    held: dict[int, _Held] = {}
    live: set[int] = set()
    for i in range(len(order)):
        step = _Step(net, order, reads, i)
        step.bring_in(held)
        found.step_cost.append(_make_room(step, held, found))
        live |= {*step.operands, *step.results}
        gone = {t for t in [*step.operands, *step.results] if step.next_use(t) == step.n}
        overlaid = int(net.space[step.pair]) if any(t in gone for t in step.partners) else 0
        found.excess += max(0, sum(int(net.space[t]) for t in live) - overlaid - int(net.capacity[0]))
        live -= gone
        for t in [*step.operands, *step.results]:
            if t in held and held[t].next_use in (step.n, -1):
                del held[t]
        found.step_cost[-1] += _let_in_late(step, held, found)
    found.cost = sum(found.step_cost)
    return found


def _make_room(step: _Step, held: dict[int, _Held], found: PlainReplay) -> int:
    """Give up victims until the step fits, then take back those that need not have gone; returns bytes paid."""
    net, capacity = step.net, int(step.net.capacity[0])
    paid = 0
    gone: list[tuple[int, int, _Held]] = []

    def over() -> int:
        return sum(int(net.space[t]) for t in held) - step.saved(held) - capacity

    while over() > 0:
        _, t, kind, price = min(step.victims(held, over(), step.saved(held)), key=lambda item: item[:2])
        paid += price
        if 0 <= held[t].next_use < step.n and kind != "late":
            found.dropped.add((t, int(step.order[held[t].next_use])))
        if kind == "pair":
            held[t].next_use = -1
            continue
        if kind == "in use":
            found.dropped.add((t, step.v))
        else:
            gone.append((t, price, held[t]))
            if t in step.results:
                found.homeless.add(t)
        del held[t]
    for t, price, state in gone[:-1]:
        if over() + int(net.space[t]) <= 0 and t != step.pair:
            held[t] = state
            paid -= price
            if t in step.results:
                found.homeless.discard(t)
            if state.next_use < step.n:
                found.dropped.discard((t, int(step.order[state.next_use])))
    return paid


def _let_in_late(step: _Step, held: dict[int, _Held], found: PlainReplay) -> int:
    """The result of a chain whose head had no room for it enters now, or the whole chain goes off-chip."""
    net = step.net
    if not net.chain_cost[step.v] or not found.homeless & set(step.results):
        return 0
    (t,) = step.results
    following, size = step.next_use(t), int(net.size[t])
    if sum(int(net.space[u]) for u in held) + int(net.space[t]) <= int(net.capacity[0]):
        found.late.add(t)
        if following < step.n:
            held[t] = _Held(following, False)
        return 0
    paid = int(net.chain_cost[step.v]) - 2 * size
    if following < step.n:
        found.dropped.add((t, int(step.order[following])))
        paid += size + int(net.store[t])
    return paid


def _fixed(
    start: NDArray[np.int32], values: NDArray[np.int32], streams: NDArray[np.uint8], i: int
) -> list[int]:
    return [int(values[k]) for k in range(int(start[i]), int(start[i + 1])) if not streams[k]]


def _row(start: NDArray[np.int32], values: NDArray[np.int32], i: int) -> list[int]:
    return [int(x) for x in values[int(start[i]) : int(start[i + 1])]]
