"""Stopping early: what a caller that asked for the best so far gets when it is interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from cosma.errors import plain_interrupts

_Result = TypeVar("_Result")


def patiently(work: Callable[[], _Result], fallback: Callable[[], _Result], interrupted: Callable[[], bool]) -> _Result:
    """Return what ``work`` yields, or, if it is interrupted and the caller asked for the best so far, the fallback.

    Work polls ``interrupted`` itself where it can; where it does not in time, a KeyboardInterrupt comes. It reaches a
    caller that polls nothing.
    """
    if not interrupted():
        with until_interrupted(interrupted):
            return work()
    return fallback()


@contextmanager
def until_interrupted(interrupted: Callable[[], bool]) -> Iterator[None]:
    """End the body at a KeyboardInterrupt if the caller asked for the best so far, which is what the body has kept."""
    try:
        with plain_interrupts():
            yield
    except KeyboardInterrupt:
        if not interrupted():
            raise
