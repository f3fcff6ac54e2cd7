"""The pass of `cosma.lowering.along_kernels` in plain Python, written to be read: the same places, the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from cosma.csr import rows_of
from cosma.lowering.along import Steps
from cosma.lowering.free_kernels import BEST, FIRST, STEPS_APART

FAR_AWAY = 1 << 40


@dataclass
class PlainPass:
    """Bytes paid at each step; arrivals, None where a limit is exceeded. Neither where a step does not fit."""

    cost: list[int] = field(default_factory=list)
    arrivals: list[list[int]] | None = field(default_factory=list)
    fits: bool = True
    #: How often all had to leave.
    cleared: int = 0


class _Scratchpad:
    def __init__(self, steps: Steps, capacity: int, favour: Sequence[float]) -> None:
        self.capacity, self.rule, self.favour = capacity, FIRST, favour
        self.size, self.space, self.store = steps.size.tolist(), steps.space.tolist(), steps.store.tolist()
        self.copied = {t for t, clean in enumerate(steps.clean) if clean}
        self.readers = rows_of(steps.consumer_start, steps.consumer)
        self.last_use = [max(readers, default=-1) for readers in self.readers]
        for i in reversed(range(len(steps.pair_start) - 1)):  # what takes over a place holds it as long
            pairs = slice(steps.pair_start[i], steps.pair_start[i + 1])
            for result, operand in zip(steps.pair_result[pairs], steps.pair_operand[pairs], strict=True):
                if self.last_use[operand] == i:
                    self.last_use[operand] = max(i, self.last_use[result])
        self.partial: set[int] = set()
        self.address: dict[int, int] = {}

    def occupants(self) -> list[int]:
        """Tensors that take room, by address."""
        return sorted((t for t in self.address if self.space[t]), key=lambda t: self.address[t])

    def end(self, t: int) -> int:
        return int(self.address[t] + self.space[t])

    def leave(self, t: int) -> int:
        """Bytes paid when a tensor that is read again leaves."""
        del self.address[t]
        paid = self.price(t)
        self.copied.add(t)
        return paid

    def price(self, t: int) -> int:
        """The store, if there is no copy yet, and the load."""
        store = self.size[t] if t in self.partial else self.store[t]
        return int(self.size[t] + (0 if t in self.copied else store))

    def free_place(self, need: int, leaves: int) -> int | None:
        """Address in a gap for a tensor of ``need`` bytes that is last used at step ``leaves``."""
        around = [None, *self.occupants(), None]
        choices: list[tuple[float, int]] = []
        for below, above in pairwise(around):
            low = 0 if below is None else self.end(below)
            high = self.capacity if above is None else self.address[above]
            if high - low < need:
                continue
            apart = [abs((FAR_AWAY if t is None else self.last_use[t]) - leaves) for t in (below, above)]
            if self.rule == FIRST:
                choices.append((low, low))
            elif self.rule == BEST:
                choices.append((high - low, low if apart[0] <= apart[1] else high - need))
            else:
                waste = (high - low - need) / self.capacity
                for steps, address in zip(apart, (low, high - need), strict=True):
                    choices.append((waste + (steps / (steps + STEPS_APART) if high - low > need else 0.0), address))
        return min(choices, key=lambda choice: choice[0])[1] if choices else None

    def window(self, need: int, step: int, stay: set[int]) -> int | None:
        """Address whose next ``need`` bytes are cheapest to clear: bytes paid by steps until they are read again."""
        occupants = self.occupants()
        worth = {}
        for t in set(occupants) - stay:
            worth[t] = self.favour[t] * self.price(t) / (min(v for v in self.readers[t] if v > step) - step)
        best, least = None, float("inf")
        for start in (*map(self.address.__getitem__, occupants), *map(self.end, occupants), 0, self.capacity):
            start = min(start, self.capacity - need)
            hit = [t for t in occupants if self.address[t] < start + need and self.end(t) > start]
            total = sum((worth.get(t, float("inf")) for t in hit), 0.0)
            if total < least:
                best, least = start, total
        return best

    def bring(self, wanted: Sequence[int], step: int, stay: set[int]) -> tuple[int, bool, list[list[int]]]:
        """Place tensors, the largest first: bytes paid, whether all are placed, and arrivals."""
        paid, arrivals, new = 0, [], set()
        for t in sorted(wanted, key=lambda t: (-self.space[t], t)):
            at = self.free_place(self.space[t], self.last_use[t]) if self.space[t] else 0
            if at is None:
                start = self.window(self.space[t], step, stay | new)
                if start is None:
                    return paid, False, arrivals
                for u in self.occupants():
                    if self.address[u] < start + self.space[t] and self.end(u) > start:
                        paid += self.leave(u)
                at = self.free_place(self.space[t], self.last_use[t])
                assert at is not None
            self.address[t] = at
            new.add(t)
            arrivals.append([t, step, at, -1, step])
        return paid, True, arrivals


def run_plainly(
    steps: Steps, capacity: int, rules: Sequence[int], limit: Sequence[int] | None = None,
    favour: Sequence[float] | None = None,
) -> PlainPass:  # fmt: skip
    """Plan steps in order, each by its rule; a tensor in favour is dearer to give up."""
    pad, found = _Scratchpad(steps, capacity, favour or [1.0] * len(steps.size)), PlainPass()
    log: list[list[int]] = []
    entry: dict[int, list[int]] = {}
    overwriting = rows_of(steps.pair_start, steps.pair_result)
    overwritten = rows_of(steps.pair_start, steps.pair_operand)
    both = zip(rows_of(steps.operand_start, steps.operand), rows_of(steps.result_start, steps.result), strict=True)
    for i, (operands, results) in enumerate(both):
        pad.rule = rules[i]
        dying = {t for t in operands if not any(v > i for v in pad.readers[t])}
        taken: dict[int, int] = {}
        for result, operand in zip(overwriting[i], overwritten[i], strict=True):
            if operand in dying and operand not in taken.values():
                taken.setdefault(result, operand)
        for t in results:
            pad.last_use[t] = max(pad.last_use[t], i)
        fresh = [t for t in results if t not in taken]
        if sum(pad.space[t] for t in {*operands, *fresh}) > capacity:
            return PlainPass(fits=False)
        for t in operands:
            if t in pad.address:
                entry[t][4] = i
        stay = {*operands, *results}
        held = set(pad.address)
        paid, done, arrivals = pad.bring([t for t in operands if t not in held] + fresh, i, stay)
        if not done:  # what stays lies so badly that nothing else fits: all leaves, and the step starts anew
            found.cleared += 1
            for t in {row[0] for row in arrivals}:
                del pad.address[t]
            for t in pad.occupants():
                paid += pad.leave(t)
                if t in stay:
                    entry[t][4] = i - 1
            again, done, arrivals = pad.bring([t for t in operands if t not in pad.address] + fresh, i, stay)
            paid += again
            if not done:
                return PlainPass(fits=False)
        for result, operand in taken.items():
            pad.address[result] = pad.address.pop(operand)
            arrivals.append([result, i, pad.address[result], operand, i])
        log += arrivals
        entry |= {row[0]: row for row in arrivals}
        added = operands[: steps.added[i]]
        pad.copied -= {*added}
        changed = {*added, *results}
        pad.partial = pad.partial | changed if steps.unfinished[i] else pad.partial - changed
        for t in stay & set(pad.address):
            if not any(v > i for v in pad.readers[t]):
                del pad.address[t]
        found.cost.append(paid)
        if limit is not None and sum(found.cost) > limit[i]:
            found.arrivals = None
            return found
    found.arrivals = log
    return found
