"""Forced liveness: what must be alive while an operator runs, whatever the order."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.problem.precedence import Reach


def alive_untouched(producer: int, consumers: Sequence[int], reach: Reach) -> tuple[int, int]:
    """Operators during which a tensor is alive without being touched: two masks, in every order, and in some order.

    ``producer`` is -1 for what none produces; ``reach`` holds for the orders that count.
    """
    touched = 0
    some_read_after = 0  # in every order some consumer follows
    all_read_before = -1  # in every order all consumers precede (or are) the operator
    some_read_before = 0
    all_read_after = -1
    for c in consumers:
        touched |= 1 << c
        some_read_after |= reach.before[c]
        all_read_before &= reach.after[c] | 1 << c
        some_read_before |= reach.after[c]
        all_read_after &= reach.before[c] | 1 << c
    if producer >= 0:
        touched |= 1 << producer
        born, unborn = reach.after[producer], reach.before[producer]
    else:
        born, unborn = some_read_before, all_read_after
    sure = born & some_read_after & ~touched
    possible = reach.everything & ~(unborn | all_read_before | touched)
    return sure, possible
