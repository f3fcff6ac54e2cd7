"""A first bound without a solver: rows that share no tensor, each paid by its cheapest bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.bounds.lifetimes import Lifetime
    from cosma.bounds.rows import Row


def disjoint_rows(rows: Sequence[Row], lifetimes: dict[int, Lifetime]) -> int:
    """Add up the least costs of rows over disjoint tensors, chosen greedily from the dearest. Bytes."""
    priced = sorted(((_least_cost(row, lifetimes), row) for row in rows), key=lambda pair: (-pair[0], pair[1].operator))
    taken: set[int] = set()
    total = 0
    for cost, row in priced:
        tensors = _tensors(row)
        if cost > 0 and taken.isdisjoint(tensors):
            taken |= tensors
            total += cost
    return total


def _tensors(row: Row) -> set[int]:
    found = {absence.tensor for absence, _ in row.absences + row.loose}
    return found | {credit.given_up.tensor for credit in row.credits if credit.given_up is not None}


def _least_cost(row: Row, lifetimes: dict[int, Lifetime]) -> int:
    """Fractional cover of one row: each absence costs one gap, takeovers come free, rounded up."""
    left = row.need_bytes - max((credit.space_bytes for credit in row.credits), default=0)
    cost = 0.0
    prices = []
    for absence, space in row.absences + row.loose:
        life = lifetimes[absence.tensor]
        prices.append(((life.read_bytes + life.store_bytes) / space, space))
    for price, space in sorted(prices):
        if left <= 0:
            break
        cost += price * min(space, left)
        left -= space
    # Prices are ratios of whole numbers; a thousandth of a byte is far beyond their rounding.
    return max(0, -int(-(cost - 1e-3) // 1))
