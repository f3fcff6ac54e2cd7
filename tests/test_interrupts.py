"""An interrupt stays one, however many compiled functions it passes through."""

from __future__ import annotations

import pytest

from cosma.errors import plain_interrupts


def wrapped(error: BaseException, times: int, *, said: bool) -> BaseException:
    """An error as compiled code hands it on; ``said`` is whether it names the cause."""
    for _ in range(times):
        outer = SystemError("lay_tiles returned a result with an exception set")
        outer.__cause__, outer.__context__ = (error, error) if said else (None, error)
        error = outer
    return error


@pytest.mark.parametrize("times", [0, 1, 3])
@pytest.mark.parametrize("said", [True, False])
def test_an_interrupt_comes_out_as_one(times: int, said: bool) -> None:
    with pytest.raises(KeyboardInterrupt), plain_interrupts():
        raise wrapped(KeyboardInterrupt(), times, said=said)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(SystemError, match="exception set"), plain_interrupts():
        raise wrapped(ValueError("x"), 2, said=True)
    with pytest.raises(SystemError, match="alone"), plain_interrupts():
        raise SystemError("alone")
