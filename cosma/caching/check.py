"""An independent replay of what a policy did. It imports nothing that decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cosma.errors import CosmaError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cosma.caching.requests import Requests

FETCH, PREFETCH, EVICT, HOST = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class ScheduleCount:
    """What a replay counted.

    Attributes
    ----------
    hits
        Requests whose page was in a slot when its step began.
    fetches
        Pages fetched because a step needed them.
    prefetches
        Pages fetched ahead of their step.
    hosted
        Requests computed on the host instead.
    """

    hits: int
    fetches: int
    prefetches: int
    hosted: int


def check_schedule(
    requests: Requests,
    group: NDArray[np.int64],
    slots: NDArray[np.int64],
    events: NDArray[np.int64],
    *,
    together: bool,
) -> ScheduleCount:
    """Replay events and count them.

    Parameters
    ----------
    requests, group, slots, together
        See :func:`cosma.caching.optimum.best_schedule`.
    events
        ``int64[events, 3]``: step, kind (0 fetch, 1 prefetch, 2 evict, 3 host) and page, in order. A step's
        prefetches come behind its fetches.

    Raises
    ------
    CosmaError
        If a step's page is neither in a slot nor fetched nor computed on the host, a slot is used twice, or an event
        makes no sense where it stands: a defect of what made the events.
    """
    owner = group.tolist()
    room = slots.tolist()
    resident: set[int] = set()
    held = [0] * len(room)
    counts = [0, 0, 0, 0]
    hits = 0
    cursor = 0
    rows = events.tolist()
    for step in range(requests.steps):
        needed = requests.page[requests.start[step] : requests.start[step + 1]].tolist()
        hits += sum(p in resident for p in needed)
        served = {p for p in needed if p in resident}
        ahead = False
        while cursor < len(rows) and rows[cursor][0] == step:
            _, kind, page = rows[cursor]
            cursor += 1
            counts[kind] += 1
            if kind == EVICT:
                if page not in resident:
                    raise _wrong(step, page, "gives up a slot it does not have")
                if together and page in needed and any(p not in served for p in needed):
                    raise _wrong(step, page, "gives up its slot while its step needs it")
                resident.discard(page)
                held[owner[page]] -= 1
                continue
            if kind == HOST:
                if page not in needed or page in served:
                    raise _wrong(step, page, "is computed on the host without need")
                served.add(page)
                continue
            if page in resident:
                raise _wrong(step, page, "is fetched though it is in a slot")
            if kind == FETCH and (page not in needed or ahead):
                raise _wrong(step, page, "is fetched by a step that does not need it")
            ahead = ahead or kind == PREFETCH
            if kind == FETCH:
                served.add(page)
            resident.add(page)
            held[owner[page]] += 1
            passing = 0 if together or kind == FETCH else 1
            if held[owner[page]] > room[owner[page]] - passing:
                raise _wrong(step, page, "finds no free slot")
        missing = [p for p in needed if p not in served]
        if missing:
            raise _wrong(step, missing[0], "is needed and not at hand")
        for number, taken in enumerate(held):
            if taken > room[number] - (0 if together else 1):
                raise CosmaError(f"step {step}: group {number} holds {taken} pages in {room[number]} slots")
    if cursor < len(rows):
        raise CosmaError(f"{len(rows) - cursor} events follow the last step")
    return ScheduleCount(hits, counts[FETCH], counts[PREFETCH], counts[HOST])


def _wrong(step: int, page: int, what: str) -> CosmaError:
    return CosmaError(f"step {step}: page {page} {what}")
