"""The smallest capacity that holds the buffers, with proof, or the best found and a lower bound."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, SupportsIndex

import cosma.door as door
from cosma.errors import InputError
from cosma.packing.bounds import quick_conflict
from cosma.packing.engine import (
    WORK_LIMIT,
    Engine,
    exact_packing,
    heuristic_packing,
    late,
    make_task,
)
from cosma.packing.exact import LARGEST_COMPONENT, beyond_search, largest_component
from cosma.packing.result import PackingResult, PackingStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cosma.packing.buffers import Buffer, Forbidden

UNBOUNDED = 1 << 62
"""More than any height."""

FIRST_BUDGET = 100_000
"""Units of work per capacity in the first round."""


def minimise(
    buffers: Iterable[Buffer],
    *,
    alignment: door.Size = 1,
    forbidden: Iterable[Forbidden] = (),
    engine: Engine = "auto",
    work_limit: SupportsIndex = WORK_LIMIT,
    time_limit: float | None = None,
    seed: SupportsIndex = 0,
    progress: Callable[[PackingResult], None] | None = None,
) -> PackingResult:
    """Pack as low as possible.

    First the bytes alive at the fullest step are tried, then capacities between what is proven and what is
    reached, with small limits first; the lowest packing so far is always kept. Parameters are those of
    `cosma.packing.engine.pack`; `progress` is called with every better packing.

    Returns
    -------
    PackingResult
        ``packed`` with `height` and `lower_bound`; `optimal` says whether they meet. ``infeasible`` only when
        fixed buffers clash.

    Raises
    ------
    InputError
        For meaningless arguments.
    """
    if progress is not None and not callable(progress):
        raise InputError(f"progress must be callable, not {door.shown(progress)}")
    work_limit = door.integer(work_limit, "work limit", least=0, most=door.UNLIMITED)
    task = make_task(
        buffers, alignment=alignment, forbidden=forbidden, engine=engine, seed=seed, time_limit=time_limit
    )
    clash = quick_conflict(task.buffers, UNBOUNDED, task.forbidden)
    if clash is not None:
        return clash
    best = heuristic_packing(task, UNBOUNDED)
    low = best.lower_bound
    tighter = best if late(task) or best.height == low else heuristic_packing(task, low)
    if tighter.height is not None and best.height is not None and tighter.height < best.height:
        best = replace(tighter, status=PackingStatus.PACKED, reason="")
    _report(progress, best, low)
    work = dict(best.work)
    if engine == "heuristics" or best.height == low or (engine == "auto" and _beyond(task.buffers)):
        return _final(best, low, work, cut_short=late(task))
    spent = 0
    budget = max(1, min(FIRST_BUDGET, work_limit // 20))
    while low < _height(best) and spent < work_limit:
        bottom = low
        guess = bottom
        while bottom < _height(best) and spent < work_limit:
            if late(task):
                return _final(best, low, work, cut_short=True)
            answer = exact_packing(task, guess, min(budget, work_limit - spent))
            spent += max(1, answer.work["units"])
            for name, amount in answer.work.items():
                work[name] = work.get(name, 0) + amount
            if answer.packed:
                best = answer
                _report(progress, best, low)
            else:
                bottom = guess + 1
                if answer.status is PackingStatus.INFEASIBLE:
                    low = max(low, bottom)
            guess = (bottom + _height(best) - 1) // 2
        budget *= 4
    return _final(best, low, work, cut_short=late(task))


def _beyond(buffers: Sequence[Buffer]) -> bool:
    """Whether no capacity can be decided: tables or a component are larger than the search takes."""
    return largest_component(buffers) > LARGEST_COMPONENT or beyond_search(buffers)


def _height(result: PackingResult) -> int:
    if result.height is None:
        raise AssertionError("a packing without height")
    return result.height


def _report(progress: Callable[[PackingResult], None] | None, best: PackingResult, low: int) -> None:
    if progress is not None:
        progress(_final(best, low, best.work, cut_short=False))


def _final(best: PackingResult, low: int, work: dict[str, int], *, cut_short: bool) -> PackingResult:
    height = _height(best)
    low = min(low, height)
    reason = "" if low == height else f"a height between {low} and {height} is neither reached nor excluded"
    if reason and cut_short:
        reason += ": the time limit ended the search"
    return replace(best, capacity=height, lower_bound=low, work=work, reason=reason)
