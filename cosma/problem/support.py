"""Whether an engine can take a problem, and if not, why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Support:
    """What an engine says of a problem; true where it can take it.

    Attributes
    ----------
    why_not
        Why it cannot; empty where it can.
    """

    why_not: str = ""

    def __bool__(self) -> bool:
        return not self.why_not


#: An engine that can take any problem.
SUPPORTED = Support()


def up_to(most: int, count: int, what: str) -> Support:
    """Support for up to so many of something, of which a problem has ``count``."""
    return SUPPORTED if count <= most else Support(f"{count:,} {what}, {most:,} at most")
