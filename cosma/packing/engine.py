"""The packing engine: quick bounds, fast heuristics, then a complete search or CP-SAT.

`pack` answers for one capacity; `minimise` looks for the smallest.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from cosma.errors import InputError
from cosma.packing.arrays import flatten, run_heuristics
from cosma.packing.bounds import quick_conflict
from cosma.packing.buffers import check_buffers, live_peak, tallest
from cosma.packing.result import PackingResult, PackingStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.packing.buffers import Buffer, Forbidden

Engine = Literal["auto", "heuristics", "search", "cp-sat"]

ENGINES: tuple[Engine, ...] = ("auto", "heuristics", "search", "cp-sat")
HEURISTIC_ROUNDS = 64


def pack(
    buffers: Sequence[Buffer],
    capacity: int,
    *,
    alignment: int = 1,
    forbidden: Sequence[Forbidden] = (),
    engine: Engine = "auto",
    work_limit: int | None = None,
    time_limit: float | None = None,
    seed: int = 0,
    explain: bool = True,
) -> PackingResult:
    """Give every buffer an address below `capacity`, or prove that there are none.

    Parameters
    ----------
    buffers
        What to place; ids are unique.
    capacity
        Bytes available, addresses ``[0, capacity)``.
    alignment
        Every address the engine chooses is a multiple of it and of the buffer's own.
    forbidden
        Address ranges no buffer may touch.
    engine
        ``auto`` (heuristics, then the complete search, CP-SAT where shapes need it), ``heuristics`` (never
        proves more than the quick bounds), ``search`` or ``cp-sat``.
    work_limit
        Search nodes (for CP-SAT: milliseconds of deterministic time) before the answer is ``unknown``.
    time_limit
        Seconds; only then does the answer depend on the clock.
    seed
        Start of every pseudo-random choice; same input, limits and seed give the same addresses.
    explain
        Whether to reduce the conflict set of an infeasible packing until it is irreducible.

    Raises
    ------
    InputError
        For meaningless buffers, capacity, alignment or engine.
    """
    _check(buffers, capacity, alignment, forbidden, engine)
    deadline = None if time_limit is None else time.monotonic() + time_limit
    early = quick_conflict(buffers, capacity, forbidden)
    if early is not None:
        return early
    instance = flatten(buffers, alignment, forbidden)
    offsets, height, tried = run_heuristics(instance, capacity, HEURISTIC_ROUNDS, seed)
    bound = max(live_peak(buffers), tallest(buffers))
    if height <= capacity:
        return PackingResult(
            status=PackingStatus.PACKED,
            capacity=capacity,
            offsets={buffer.id: int(offset) for buffer, offset in zip(buffers, offsets, strict=False)},
            height=height,
            lower_bound=bound,
            engine="first-fit",
            work={"placements": tried},
        )
    del deadline, work_limit, explain
    return PackingResult(
        PackingStatus.UNKNOWN, capacity, lower_bound=bound, engine="first-fit", work={"placements": tried}
    )


def _check(
    buffers: Sequence[Buffer], capacity: int, alignment: int, forbidden: Sequence[Forbidden], engine: str
) -> None:
    if capacity < 0:
        raise InputError(f"capacity {capacity} is negative; give a number of bytes")
    if alignment < 1:
        raise InputError(f"alignment {alignment} is not a positive number of bytes")
    if engine not in ENGINES:
        raise InputError(f"packing engine {engine!r} is unknown; choose one of {', '.join(ENGINES)}")
    check_buffers(buffers, forbidden)
