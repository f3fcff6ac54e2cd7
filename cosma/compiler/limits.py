"""When a compile may stop, and its progress on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cosma.door as door
from cosma.errors import InputError


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a compile stands.

    Attributes
    ----------
    phase
        What is being done.
    noncompulsory_bytes, bound_bytes
        Best plan and best bound so far.
    seconds
        Since the compile began.
    spent, effort
        Work spent by the methods that have reported, and the limit on all work, both in nominal seconds.
    """

    phase: str
    noncompulsory_bytes: int
    bound_bytes: int
    seconds: float
    spent: float = 0.0
    effort: float = 0.0


class ProgressSink(Protocol):
    """Receives progress; called often, so it must be quick."""

    def __call__(self, progress: Progress) -> None:
        """Take note of where a compile stands."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a compile may stop before it has a proof."""

    #: Work to spend, in nominal seconds on a reference machine; counted in steps of the algorithms, so that the result
    #: does not depend on the speed of this one.
    effort: float = 10.0
    #: A clock on top; where it bites, the plan is not reproducible.
    time_limit_s: float | None = None
    #: Stop at a proven gap of at most this (0.01 is one per cent).
    gap: float = 0.0
    #: Share of the traffic that a plan may move more than the best if it takes fewer transfers.
    trade_off: float = 0.0

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "effort", float(door.number(self.effort, "effort, in nominal seconds,")))
        put(self, "gap", float(door.number(self.gap, "gap (0.01 is one per cent)", below=1.0)))
        put(self, "trade_off", float(door.number(self.trade_off, "trade-off (0.05 is five per cent)", below=1.0)))
        if self.time_limit_s is not None:
            limit = float(door.number(self.time_limit_s, "time limit, in seconds,"))
            if limit == 0:
                raise InputError("time limit, in seconds, must be more than 0")
            put(self, "time_limit_s", limit)
