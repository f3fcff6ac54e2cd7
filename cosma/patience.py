"""Stopping early: what a caller that asked for the best so far gets when it is interrupted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from cosma.errors import plain_interrupts

_Result = TypeVar("_Result")


def patiently(work: Callable[[], _Result], fallback: Callable[[], _Result], interrupted: Callable[[], bool]) -> _Result:
    """Return what ``work`` yields, or, if it is interrupted and the caller asked for the best so far, the fallback.

    Work polls ``interrupted`` itself where it can; where it does not in time, a KeyboardInterrupt comes. It reaches a
    caller that polls nothing.
    """
    if interrupted():
        return fallback()
    try:
        with plain_interrupts():
            return work()
    except KeyboardInterrupt:
        if not interrupted():
            raise
        return fallback()
