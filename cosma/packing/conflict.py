"""Shrink a set of buffers that does not fit to one from which nothing can be left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Conflict:
    """Indices that do not fit together, whether that set is proven irreducible, and the tests it took."""

    members: tuple[int, ...]
    irreducible: bool
    tests: int


def shrink(
    members: Sequence[int],
    infeasible: Callable[[list[int]], bool | None],
    test_limit: int = 2000,
    exhausted: Callable[[], bool] = bool,
) -> Conflict:
    """Drop members while the rest is still infeasible, in blocks that halve down to single members.

    ``members`` is infeasible; earlier ones are dropped first. ``infeasible`` says of a subset whether it is, and None
    where that could not be decided. After ``test_limit`` subsets it gives up, and where ``exhausted``, asked before
    each, says so: then `irreducible` is false.
    """
    kept = list(members)
    block = max(1, len(kept) // 2)
    tests = 0
    while True:
        sure = True
        position = 0
        while position < len(kept):
            if tests >= test_limit or exhausted():
                return Conflict(tuple(kept), False, tests)
            rest = kept[:position] + kept[position + block :]
            tests += 1
            verdict = infeasible(rest) if rest else False
            if verdict:
                kept = rest
                continue
            sure = sure and verdict is False
            position += block
        if block == 1:
            return Conflict(tuple(kept), sure, tests)
        block = max(1, block // 2)
