"""Dimension expressions of many terms: one answer, whatever called for it."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TypeVar

import pytest

from cosma.frontend.expressions import Call, evaluate, parse, symbols

T = TypeVar("T")


def deeper(frames: int, work: Callable[[], T]) -> T:
    return work() if frames == 0 else deeper(frames - 1, work)


@pytest.mark.parametrize("frames", [0, 600])
def test_a_long_sum_is_a_sum_however_deep_the_stack(frames: int) -> None:
    text = "+".join(["a", "b"] * 225) + " - c*2"

    def work() -> tuple[bool, list[str], Fraction | None, Fraction | None]:
        parsed = parse(text)
        sizes = {"a": 2, "b": 3, "c": 4}
        return isinstance(parsed, Call), symbols(parsed), evaluate(parsed, sizes), evaluate(parsed, {"a": 2, "c": 4})

    assert deeper(frames, work) == (True, ["a", "b", "c"], Fraction(225 * 5 - 8), None)


def test_operators_in_a_row_apply_from_the_left() -> None:
    assert parse("a - b*c + d") == Call("+", (Call("-", ("a", Call("*", ("b", "c")))), "d"))
    assert parse("-a**b**2") == Call("negative", (Call("**", ("a", Call("**", ("b", Fraction(2))))),))


@pytest.mark.parametrize("frames", [0, 600])
@pytest.mark.parametrize("text", ["-" * 51 + "a", "**".join("a" * 52), "(" * 51 + "a" + ")" * 51])
def test_what_nests_too_deep_is_a_symbol(text: str, frames: int) -> None:
    assert deeper(frames, lambda: parse(text)) == text
