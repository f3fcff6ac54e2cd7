"""A schedule known in advance, as events: when each fetch may be issued, and when each slot is given up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cosma.caching.optimum import members_by_group
from cosma.caching.replacement import EVICT, FETCH, HOST, PREFETCH
from cosma.compiled import kernel

if TYPE_CHECKING:
    from cosma.caching.requests import Requests

Int64s = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class PlannedSchedule:
    """What happens to every request.

    Attributes
    ----------
    fetched, hosted
        ``bool[requests]``.
    issue_step
        ``int64[requests]``: step whose begin is the earliest moment for the fetch.
    events
        ``int64[events, 3]``: step, kind and page; see :func:`cosma.caching.check.check_schedule`.
    """

    fetched: Bools
    hosted: Bools
    issue_step: Int64s
    events: Int64s


def schedule_events(
    requests: Requests, group: Int64s, slots: Int64s, fetched: Bools, hosted: Bools, depth: int, *, together: bool
) -> PlannedSchedule:
    """Lay out a choice of fetches in time: every slot is given up as soon as it can be.

    Parameters
    ----------
    requests, group, slots, together
        See :func:`cosma.caching.optimum.best_schedule`.
    fetched, hosted
        What is done for each request; what is neither is kept from the request before.
    depth
        Steps by which a fetch may be issued ahead, where slots are free all the while.
    """
    step_of = requests.step_of_request()
    count = len(requests.page)
    order = np.lexsort((step_of, requests.page))
    same = requests.page[order[1:]] == requests.page[order[:-1]]
    kept_on = np.zeros(count, dtype=np.bool_)  # kept until the next request of the page
    kept_on[order[:-1][same]] = ~(fetched | hosted)[order[1:][same]]
    until = step_of.copy()
    until[order[:-1][same]] = step_of[order[1:][same]]
    until[~kept_on] = step_of[~kept_on]
    by_group, ends = members_by_group(requests, group, len(slots))
    issue_step = issue_early(
        step_of, by_group, np.array(ends), slots, fetched, hosted, until, requests.steps, depth, together
    )

    resident = ~hosted
    early = fetched & (issue_step < step_of)
    number = np.arange(count, dtype=np.int64)
    late = fetched & ~early
    passing = late & ~kept_on
    leaving = resident & ~kept_on
    parts = [
        _rows(step_of, 0, number, HOST, requests.page, hosted),
        _rows(issue_step - 1, 5, number, PREFETCH, requests.page, early),
    ]
    if together:
        parts += [
            _rows(step_of, 1, number, FETCH, requests.page, late),
            _rows(step_of, 2, number, EVICT, requests.page, leaving),
        ]
    else:
        parts += [
            _rows(step_of, 1, number, EVICT, requests.page, leaving & ~passing),
            _rows(step_of, 2, 2 * number, FETCH, requests.page, passing),
            _rows(step_of, 2, 2 * number + 1, EVICT, requests.page, passing),
            _rows(step_of, 3, number, FETCH, requests.page, late & kept_on),
        ]
    rows = np.concatenate(parts)
    rows = rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]
    return PlannedSchedule(fetched, hosted, issue_step, np.ascontiguousarray(rows[:, [0, 3, 4]]))


def _rows(step: Int64s, phase: int, rank: Int64s, kind: int, page: Int64s, chosen: Bools) -> Int64s:
    """Build rows (step, phase, rank within it, kind, page) for the requests chosen."""
    picked = np.flatnonzero(chosen)
    rows = np.empty((len(picked), 5), dtype=np.int64)
    rows[:, 0], rows[:, 1], rows[:, 2] = step[picked], phase, rank[picked]
    rows[:, 3], rows[:, 4] = kind, page[picked]
    return rows


@kernel
def issue_early(
    step_of: Int64s, by_group: Int64s, ends: Int64s, slots: Int64s, fetched: Bools, hosted: Bools, until: Int64s,
    steps: int, depth: int, together: bool,
) -> Any:  # fmt: skip
    """Find the earliest step at whose begin each fetch may be issued, earlier needs first.

    A page issued at the begin of step t holds its slot from there on. ``until`` is the step up to which each request
    keeps its page, its own where it does not. ``by_group`` lists the requests of each group, up to its end in ``ends``.
    """
    issue = step_of.copy()
    if depth == 0:
        return issue
    # Together, positions are steps. One by one, position g is the gap behind step g, and a page issued at the begin of
    # step t also holds the gap before it.
    behind = 0 if together else 1
    taken = np.empty(steps + 1, dtype=np.int64)
    for group in range(len(slots)):
        room = slots[group] - behind
        members = by_group[(ends[group - 1] if group else 0) : ends[group]]
        if len(members) == 0:
            continue
        # No fetch looks further back than to the first request, less the depth.
        first = max(0, step_of[members[0]] - depth - 1)
        taken[first:] = 0
        for r in members:
            if not hosted[r]:
                taken[step_of[r]] += 1
                taken[max(until[r], step_of[r] + 1 - behind)] -= 1
        for step in range(first + 1, steps + 1):
            taken[step] += taken[step - 1]
        for r in members:
            if not fetched[r]:
                continue
            begin = step_of[r]
            if begin < 1 or (behind and taken[begin - 1] >= room):
                continue
            while begin > 1 and begin > step_of[r] - depth and taken[begin - 1 - behind] < room:
                begin -= 1
            if begin < step_of[r]:
                for position in range(begin - behind, step_of[r]):
                    taken[position] += 1
                issue[r] = begin
    return issue


@kernel
def play_plan(
    start: Int64s,
    page: Int64s,
    fetched: NDArray[np.bool_],
    issue_step: Int64s,
    hosted: NDArray[np.bool_],
    visits: Int64s,
    device: Int64s,
    devices: int,
    clock: NDArray[np.float64],
) -> Any:
    """Time a schedule that is known in advance: each fetch may start once the step it is issued at has started.

    Returns
    -------
    (stalled seconds, seconds in all)
    """
    steps = len(start) - 1
    fetch_s, step_s, host_s = clock[0], clock[1], clock[2]
    began = np.zeros(steps + 1, dtype=np.float64)
    link = np.zeros(devices, dtype=np.float64)
    host = np.zeros(devices, dtype=np.float64)
    now = 0.0
    stalled = 0.0
    for step in range(steps):
        began[step] = now
        wait = now
        end_host = now
        for r in range(start[step], start[step + 1]):
            d = device[page[r]]
            if hosted[r]:
                host[d] = max(host[d], now) + host_s * visits[r]
                end_host = max(end_host, host[d])
            elif fetched[r]:
                link[d] = max(link[d], began[issue_step[r]]) + fetch_s
                wait = max(wait, link[d])
        stalled += wait - now
        now = max(wait + step_s, end_host)
    return stalled, now
