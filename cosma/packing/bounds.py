"""Proofs of infeasibility that need no search: one buffer too large, two fixed ones in the way, one step too full."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.packing.buffers import Buffer, Forbidden, fullest_step, parts_of, tallest
from cosma.packing.result import PackingResult, PackingStatus
from cosma.packing.verify import verify

if TYPE_CHECKING:
    from collections.abc import Sequence


def quick_conflict(
    buffers: Sequence[Buffer], capacity: int, forbidden: Sequence[Forbidden] = ()
) -> PackingResult | None:
    """Return the infeasible answer when simple arithmetic proves it, otherwise ``None``.

    The conflict sets are irreducible: one buffer; two fixed buffers that overlap; or, at the fullest step,
    the largest buffers alive, as few as do not fit together.
    """
    step, peak = fullest_step(buffers)
    bound = max(peak, tallest(buffers))
    for buffer in buffers:
        if buffer.size > capacity:
            return _refuse(
                capacity, bound, (buffer.id,), f"buffer {buffer.id!r} needs {buffer.size} bytes of {capacity}"
            )
    fixed = [buffer for buffer in buffers if buffer.offset is not None]
    places = {buffer.id: buffer.offset for buffer in fixed if buffer.offset is not None}
    for violation in verify(fixed, places, capacity, forbidden=forbidden):
        return _refuse(capacity, bound, violation.ids, f"fixed addresses clash: {violation.message}")
    if peak <= capacity:
        return None
    sizes = {
        buffer.id: part.high - part.low
        for buffer in buffers
        for part in parts_of(buffer)
        if part.lower <= step < part.upper
    }
    chosen: list[str] = []
    total = 0
    for size, name in sorted(((size, name) for name, size in sizes.items()), key=lambda pair: (-pair[0], pair[1])):
        chosen.append(name)
        total += size
        if total > capacity:
            break
    return _refuse(
        capacity,
        bound,
        tuple(chosen),
        f"at step {step} the buffers alive need {sum(sizes.values())} bytes of {capacity}",
    )


def _refuse(capacity: int, bound: int, conflict: tuple[str, ...], reason: str) -> PackingResult:
    return PackingResult(
        PackingStatus.INFEASIBLE,
        capacity,
        lower_bound=bound,
        conflict=conflict,
        irreducible=True,
        reason=reason,
        engine="bound",
    )
