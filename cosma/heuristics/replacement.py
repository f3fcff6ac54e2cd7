"""Replacement policies: which tensor leaves when space is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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


#: name -> (policy, whether a tensor needed later than every candidate is streamed instead of admitted)
REPLACEMENTS: dict[str, tuple[Replacement, bool]] = {
    "lru": (lru, False),
    "belady": (belady, True),
    "cost-aware-belady": (cost_aware_belady, True),
}
