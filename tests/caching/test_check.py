"""False schedules are refused by the replay, each for what is wrong with it."""

from __future__ import annotations

import numpy as np
import pytest

from cosma.caching import best_schedule, check_schedule
from cosma.caching.planned import schedule_events
from cosma.errors import CosmaError
from tests.caching.test_caching import groups_of, random_requests


def changed(events, row, column, by):
    """Events with one number changed."""
    events = events.copy()
    events[row, column] += by
    return events


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda e: np.delete(e, 0, axis=0), "while its step needs it"),
        (lambda e: e[e[:, 1] == 2][:0], "needed and not at hand"),
        (lambda e: np.insert(e, 1, e[0], axis=0), "fetched though it is in a slot"),
        (lambda e: np.vstack([e, [10**6, 0, 0]]), "behind the last step"),
        (lambda e: np.delete(e, np.flatnonzero(e[:, 1] == 2)[0], axis=0), "slot"),
        (lambda e: np.insert(e, 0, [0, 2, 5], axis=0), "gives up a slot it does not have"),
        (lambda e: np.insert(e, 0, [0, 3, 5], axis=0), "without need"),
        (lambda e: np.insert(e, 0, [0, 0, 5], axis=0), "by a step that does not need it"),
        (lambda e: np.insert(e, 0, [0, 1, 5], axis=0), "by a step that does not need it"),
        (lambda e: np.delete(e, np.flatnonzero(e[:, 1] == 0)[-1], axis=0), "its step needs it|at hand"),
        (lambda e: changed(e, 1, 2, 1), "does not need it|its step needs it|not at hand"),
        (lambda e: changed(e, 1, 0, 1), "its step needs it|not at hand"),
        (lambda e: np.insert(e, 1, [0, 4, 0], axis=0), r"event 1: \[0, 4, 0\] names no step, kind or page"),
        (lambda e: np.insert(e, 0, [0, 0, 16], axis=0), "event 0"),
        (lambda e: np.insert(e, 0, [0, 0, -1], axis=0), "event 0"),
    ],
)
def test_false_schedules_are_refused(change, says):
    requests = random_requests(3, tokens=30, layers=2, experts=8, k=2)
    group = groups_of(requests, False)
    slots = np.full(2, 3)
    best = best_schedule(requests, group, slots, together=True)
    plan = schedule_events(requests, group, slots, ~best.kept, np.zeros_like(best.kept), 0, together=True)
    assert 5 not in requests.page[: requests.start[1]]
    with pytest.raises(CosmaError, match=says):
        check_schedule(requests, group, slots, change(plan.events), together=True)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("depth", [0, 2])
def test_no_event_can_be_left_out_or_done_twice(depth, together):
    """Leaving out or repeating any one fetch is refused, or seen in the counts; so is any eviction done twice."""
    requests = random_requests(6, tokens=25, layers=2, experts=8, k=2)
    group, slots = groups_of(requests, False), np.full(2, 4)
    best = best_schedule(requests, group, slots, together=together)
    plan = schedule_events(requests, group, slots, ~best.kept, np.zeros_like(best.kept), depth, together=together)
    true = check_schedule(requests, group, slots, plan.events, together=together)
    for number, (_, kind, _) in enumerate(plan.events.tolist()):
        without, twice = np.delete(plan.events, number, axis=0), np.insert(plan.events, number, plan.events[number], 0)
        with pytest.raises(CosmaError):
            check_schedule(requests, group, slots, twice, together=together)
        if kind != 2:
            with pytest.raises(CosmaError):
                check_schedule(requests, group, slots, without, together=together)
    assert true.hits + true.fetches == len(requests.page)
