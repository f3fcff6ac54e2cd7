"""When a compile may stop, and its progress on the way."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import cosma.door as door
from cosma.clock import Clock
from cosma.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

#: Share of the time for tilings, and seconds at the most, that are left behind a search. Without any, ResNet-50 at
#: 256 KiB ended 2.0 seconds after a limit of 6, starting aside, NASNet (mobile) 1.4.
LEFT_SHARE, LEFT_S = 0.25, 2.0
#: Seconds left for judging a plan, for each operator or tile. U-Net in 3,512 tiles took 0.5 to 0.8 milliseconds each,
#: on a machine about twice as slow as a usual one.
JUDGING_S = 0.4e-3
#: Share of the effort and of the time that goes to the search for tilings; not measured.
TILING_SHARE = 0.8
#: Share of the effort that goes to a better order of tiles. As a part of the search's share, at effort 5: at 256 KiB
#: SqueezeBERT, DistilBERT, PVT and Inception moved 0.64, 1.91, 0.24 and 0.71 MB without, 0.42, 1.58, 0.25 and 0.86 with
#: 0.15, 0.24, 0.76, 0.10 and 0.86 with 0.3; at 512 KiB U-Net and ResNet-50 12.1 and 2.3 without, 12.8 and 2.5 with 0.3.
#: So it takes nothing from the search.
TURNS_SHARE = 0.2


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


@dataclass(slots=True)
class TilingWork:
    """How long tilings are searched for, and what that has taken.

    Attributes
    ----------
    effort, seed
        Nominal seconds to spend; same seed, same result.
    clock
        Ends the search early.
    sink, granted, before
        What hears of progress, the effort of the whole compile, and what of it was spent before.
    spent
        Nominal seconds spent.
    sooner
        What ends the search itself, so that time is left to make tiles of what it found, and to plan and replay them.
    """

    effort: float = 0.0
    seed: int = 0
    clock: Clock = field(default_factory=Clock)
    sink: ProgressSink | None = None
    granted: float = 0.0
    before: float = 0.0
    spent: float = 0.0
    sooner: Clock = field(init=False)

    def report(self, cost_bytes: int, share: float) -> None:
        """Tell of the best tiling so far."""
        if self.sink is not None:
            done = self.before + share * self.effort
            self.sink(Progress("tilings", cost_bytes, 0, self.clock.elapsed_s(), done, self.granted))

    def __post_init__(self) -> None:
        """Let the search end some time before the clock does."""
        limit_s = self.clock.limit_s
        sooner_s = None if limit_s is None else limit_s - min(LEFT_SHARE * limit_s, LEFT_S)
        self.sooner = Clock(sooner_s, self.clock.asked_to_stop, began_s=self.clock.began_s)

    @property
    def timed_out(self) -> bool:
        """Whether a clock ended the search, or what came behind it."""
        return self.clock.timed_out or self.sooner.timed_out

    def next(self, effort: float) -> TilingWork:
        """Work that comes behind this."""
        return TilingWork(effort, self.seed, self.clock, self.sink, self.granted, self.before + self.effort)

    def rest(self, limits: Limits, operators: int = 0) -> Limits:
        """What is left of the limits for planning so many operators, or tiles; the plan is judged afterwards."""
        ahead_s = self.clock.elapsed_s() + JUDGING_S * operators
        left_s = None if limits.time_limit_s is None else max(0.05, limits.time_limit_s - ahead_s)
        return replace(limits, effort=max(0.0, limits.effort - self.spent), time_limit_s=left_s)


def tiling_search(
    limits: Limits, seed: int, sink: ProgressSink | None, interrupted: Callable[[], bool], began_s: float
) -> TilingWork:
    """The share of a compile's limits that goes to the search for tilings; its time began with the compile."""
    clock_s = None if limits.time_limit_s is None else limits.time_limit_s * TILING_SHARE
    clock = Clock(clock_s, interrupted, began_s=began_s)
    return TilingWork(limits.effort * TILING_SHARE, seed, clock, sink, limits.effort)
