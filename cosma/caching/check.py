"""An independent replay of what a policy did. It imports nothing that decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cosma.compiled import kernel
from cosma.errors import CosmaError

if TYPE_CHECKING:
    from cosma.caching.requests import Requests

Int64s = NDArray[np.int64]

#: Codes of transfers, the judge's own.
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
    hosted, hosted_visits
        Requests computed on the host instead, and the visits of tokens that these stand for.
    """

    hits: int
    fetches: int
    prefetches: int
    hosted: int
    hosted_visits: int


def check_schedule(
    requests: Requests,
    group: Int64s,
    slots: Int64s,
    events: Int64s,
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
    strange = (events < 0).any(axis=1) | (events[:, 1] > HOST) | (events[:, 2] >= len(group))
    if strange.any():
        raise CosmaError(f"event {int(strange.argmax())}: {events[strange][0].tolist()} names no step, kind or page")
    counts = np.zeros(6, dtype=np.int64)
    fault, step, page = _replay(requests.start, requests.page, requests.visits, group, slots, events, together, counts)
    if fault:
        raise CosmaError(f"step {step}: page {page} {_FAULTS[fault]}")
    return ScheduleCount(int(counts[4]), int(counts[FETCH]), int(counts[PREFETCH]), int(counts[HOST]), int(counts[5]))


_FAULTS = (
    "",
    "gives up a slot it does not have",
    "gives up its slot while its step needs it",
    "is computed on the host without need",
    "is fetched though it is in a slot",
    "is fetched by a step that does not need it",
    "finds no free slot",
    "is needed and not at hand",
    "has an event behind the last step",
)


@kernel
def _replay(
    start: Int64s, page: Int64s, visits: Int64s, group: Int64s, slots: Int64s, events: Int64s, together: bool,
    counts: Int64s,
) -> Any:  # fmt: skip
    """Replay events into ``counts`` (events by kind, hits, visits on the host).

    Returns the first fault, its step and its page.
    """
    steps = len(start) - 1
    resident = np.zeros(len(group), dtype=np.bool_)
    served = np.zeros(len(group), dtype=np.bool_)
    wanted = np.full(len(group), -1, dtype=np.int64)  # the last step that needs each page
    tokens = np.zeros(len(group), dtype=np.int64)  # which visit it then
    held = np.zeros(len(slots), dtype=np.int64)
    spare = 0 if together else 1  # the slot set aside
    cursor = 0
    for step in range(steps):
        open_needs = start[step + 1] - start[step]
        for r in range(start[step], start[step + 1]):
            p = page[r]
            wanted[p] = step
            tokens[p] = visits[r]
            served[p] = resident[p]
            if resident[p]:
                counts[4] += 1
                open_needs -= 1
        ahead = False
        while cursor < len(events) and events[cursor, 0] == step:
            kind, p = events[cursor, 1], events[cursor, 2]
            cursor += 1
            counts[kind] += 1
            g = group[p]
            needed = wanted[p] == step
            if kind == EVICT:
                if not resident[p]:
                    return 1, step, p
                if together and needed and open_needs:
                    return 2, step, p
                resident[p] = False
                held[g] -= 1
            elif kind == HOST:
                if not needed or served[p]:
                    return 3, step, p
                served[p] = True
                open_needs -= 1
                counts[5] += tokens[p]
            else:
                if resident[p]:
                    return 4, step, p
                ahead = ahead or kind == PREFETCH
                if kind == FETCH:
                    if not needed or ahead:
                        return 5, step, p
                    if not served[p]:
                        open_needs -= 1
                    served[p] = True
                resident[p] = True
                held[g] += 1
                if held[g] > slots[g] - (spare if kind == PREFETCH else 0):
                    return 6, step, p
        for r in range(start[step], start[step + 1]):
            p = page[r]
            if not served[p]:
                return 7, step, p
            if held[group[p]] > slots[group[p]] - spare:
                return 6, step, p
    if cursor < len(events):
        return 8, events[cursor, 0], events[cursor, 2]
    return 0, 0, 0
