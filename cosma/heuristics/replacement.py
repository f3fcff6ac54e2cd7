"""Replacement policies: which tensor leaves when space is needed."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TypeAlias

#: Step at which a tensor that is never touched again is said to be touched next.
NEVER = 2**60


@dataclass(slots=True)
class Resident:
    """A tensor in the scratchpad, as a policy sees it."""

    #: Its number.
    tensor: int
    #: Step at which its residency began.
    start: int
    #: Whether it was loaded, rather than produced.
    loaded: bool
    #: Where it lies.
    address: int
    space_bytes: int
    #: Steps at which it was touched last and will be touched next.
    last_touch: int
    next_touch: int
    #: Whether a valid off-chip copy exists, so that dropping it moves no bytes now.
    clean: bool
    #: Operand it took over.
    in_place_of: int | None = None


#: (resident, current step) -> key; the resident with the greatest key leaves first.
Replacement: TypeAlias = Callable[[Resident, int], tuple[float, int]]


def lru(resident: Resident, step: int) -> tuple[float, int]:
    """Least recently used leaves first."""
    return float(-resident.last_touch), resident.tensor


def belady(resident: Resident, step: int) -> tuple[float, int]:
    """Furthest next use leaves first (Belady's rule)."""
    return float(resident.next_touch), resident.tensor


def cost_aware_belady(resident: Resident, step: int) -> tuple[float, int]:
    """Longest wait per byte moved leaves first: a dirty tensor costs a store and a load, a clean one a load."""
    wait = resident.next_touch - step
    return float(wait if resident.clean else wait / 2), resident.tensor


def _by_next_touch(resident: Resident) -> int:
    return resident.next_touch


def _by_last_touch(resident: Resident) -> int:
    return -resident.last_touch


#: name -> (policy; what orders residents by it that are all clean, or all not, whatever the step; whether a tensor
#: needed later than every candidate is streamed instead of admitted)
REPLACEMENTS: dict[str, tuple[Replacement, Callable[[Resident], int], bool]] = {
    "lru": (lru, _by_last_touch, False),
    "belady": (belady, _by_next_touch, True),
    "cost-aware-belady": (cost_aware_belady, _by_next_touch, True),
}


class Queue:
    """Residents in the order in which a policy lets them leave.

    Those with a copy off-chip and those without are kept apart, each in an order that no step changes. A resident that
    changes is entered anew, and its old entry passed over.
    """

    def __init__(self, replacement: str) -> None:
        self.policy, self._rank, self.bypass = REPLACEMENTS[replacement]
        self._heaps: tuple[list[tuple[int, int, int]], ...] = ([], [])
        self._entered: dict[int, tuple[int, Resident]] = {}
        self._count = 0

    def enter(self, resident: Resident) -> None:
        """Take note of a resident that is new, or was touched."""
        self._count += 1
        self._entered[resident.tensor] = self._count, resident
        entry = -self._rank(resident), -resident.tensor, self._count
        heappush(self._heaps[resident.clean], entry)

    def leave(self, tensor: int) -> None:
        """Forget a tensor."""
        del self._entered[tensor]

    def leaving(self, step: int) -> Generator[Resident, None, None]:
        """Residents, the one that leaves first first; the queue stays as it is."""
        aside: list[tuple[list[tuple[int, int, int]], tuple[int, int, int]]] = []
        try:
            while True:
                first = [self._first(heap) for heap in self._heaps]
                found = [(self.policy(r, step), k, r) for k, r in enumerate(first) if r is not None]
                if not found:
                    return
                _, k, resident = max(found, key=lambda one: one[0])
                aside.append((self._heaps[k], heappop(self._heaps[k])))
                yield resident
        finally:
            for heap, entry in aside:
                heappush(heap, entry)

    def _first(self, heap: list[tuple[int, int, int]]) -> Resident | None:
        while heap:
            number, resident = self._entered.get(-heap[0][1], (0, None))
            if number == heap[0][2]:
                return resident
            heappop(heap)
        return None
