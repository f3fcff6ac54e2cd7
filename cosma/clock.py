"""When a compile stops: interrupted, or out of time. Work limits decide all else, so that plans can be repeated."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def never() -> bool:
    """Answer False: the ``stop`` of a run that nobody interrupts."""
    return False


@dataclass(slots=True)
class Clock:
    """One run's time and interruption.

    Attributes
    ----------
    limit_s
        Seconds after which to stop; None for no limit.
    asked_to_stop
        Polled; True ends the run.
    timed_out, interrupted
        Why :meth:`stop` has answered True, once it has.
    """

    limit_s: float | None = None
    asked_to_stop: Callable[[], bool] = never
    timed_out: bool = False
    interrupted: bool = False
    began_s: float = field(default_factory=time.monotonic)

    def stop(self, ahead_s: float = 0.0) -> bool:
        """Whether to stop at once, or before something that takes so many seconds. Poll it often."""
        if self.asked_to_stop():
            self.interrupted = True
        if self.limit_s is not None and self.elapsed_s() + ahead_s >= self.limit_s:
            self.timed_out = True
        return self.ended_early

    @property
    def ended_early(self) -> bool:
        """Whether a clock or an interrupt ended the run: then it cannot be repeated."""
        return self.interrupted or self.timed_out

    def left_s(self) -> float | None:
        """Seconds until the limit, a little at least; None where there is none."""
        return None if self.limit_s is None else max(0.05, self.limit_s - self.elapsed_s())

    def elapsed_s(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.began_s
