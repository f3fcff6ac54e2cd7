"""The fewest fetches any schedule needs, with a proof that a few lines can check.

Between two consecutive requests of a page it is either kept or fetched again. Keeping it takes a slot at every
*position* between the two, so the most intervals that can be kept under the capacity of each position gives the fewest
fetches. Dropping the interval that ends last wherever there are too many is optimal (Belady's rule, carried to sets of
pages). The program has consecutive ones in its columns, so its linear relaxation is integral: there are prices per
position, whole numbers, under which no other choice keeps more. :func:`proven_kept` reads the bound off them without
trusting how they were found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.caching.kernels import keep_most, raise_prices

if TYPE_CHECKING:

    from cosma.arrays import Bools, Ints
    from cosma.caching.requests import Requests


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """Stretches of time over which one group may keep a page from one request to the next."""

    #: ``int64[intervals]``: the later request of each interval, by its number in the trace.
    request: Ints
    #: ``int64[intervals]``: positions covered, half-open; an empty interval takes no room.
    begin: Ints
    end: Ints
    #: ``int64[positions]``: slots left for keeping at each position.
    capacity: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Optimum:
    """The fewest fetches over all groups.

    Attributes
    ----------
    kept
        ``bool[requests]``: whether the page was kept since its last request, so that it need not be fetched.
    fetches
        Requests that are fetched.
    lower_bound
        Fetches that every schedule needs, from the prices.
    """

    kept: Bools
    fetches: int
    lower_bound: int

    @property
    def proven(self) -> bool:
        """Whether the schedule meets the bound."""
        return self.fetches == self.lower_bound


def intervals_of(requests: Requests, step_of: Ints, members: Ints, slots: int, *, together: bool) -> Intervals:
    """Build the intervals of one group.

    Parameters
    ----------
    step_of
        The step of each request of the trace.
    members
        Numbers of the requests of the group, ascending.
    together
        Whether all pages of a step are in slots at once. Positions are then the group's steps, and a step's own
        requests take their slots from its capacity. Otherwise pages run one by one through a slot set aside for it,
        and positions are the gaps behind steps.
    """
    step, local = np.unique(step_of[members], return_inverse=True)
    page = requests.page[members]
    order = np.lexsort((local, page))
    again = np.flatnonzero(page[order[1:]] == page[order[:-1]])
    earlier, later = order[again], order[again + 1]
    needed = np.bincount(local, minlength=len(step)).astype(np.int64)
    capacity = slots - needed if together else np.full(len(step), slots - 1, dtype=np.int64)
    begin = local[earlier].astype(np.int64) + int(together)
    by_begin = np.argsort(begin, kind="stable")
    return Intervals(
        request=members[later][by_begin],
        begin=begin[by_begin],
        end=local[later].astype(np.int64)[by_begin],
        capacity=capacity,
    )


def proven_kept(intervals: Intervals, price: Ints) -> int:
    """Return how many intervals any choice can keep at the most, by weak duality: any prices of at least 0 will do.

    A kept interval is worth 1 and pays the prices of its positions; what is left of its worth, if anything, counts in
    full, and each position pays its price for each of its slots.
    """
    if (price < 0).any():
        raise AssertionError("a price below 0 proves nothing")
    total = np.concatenate([[0], np.cumsum(price)])
    left = 1 - (total[intervals.end] - total[intervals.begin])
    return int((intervals.capacity * price).sum() + np.maximum(left, 0).sum())


def members_by_group(requests: Requests, group: Ints, groups: int) -> tuple[Ints, list[int]]:
    """Return the requests ordered by group, ascending in each, and where each group ends."""
    of_request = group[requests.page]
    return np.argsort(of_request, kind="stable"), np.cumsum(np.bincount(of_request, minlength=groups)).tolist()


def best_schedule(requests: Requests, group: Ints, slots: Ints, *, together: bool) -> Optimum:
    """Find the fewest fetches for groups of pages that share slots.

    Parameters
    ----------
    requests
        The trace.
    group
        ``int64[pages]``: group of each page.
    slots
        ``int64[groups]``: slots of each group.
    together
        See :func:`intervals_of`.
    """
    kept = np.zeros(len(requests.page), dtype=np.bool_)
    bound = 0
    step_of = requests.step_of_request()
    by_group, ends = members_by_group(requests, group, len(slots))
    for number, last in enumerate(ends):
        members = by_group[(ends[number - 1] if number else 0) : last]
        if len(members) == 0:
            continue
        intervals = intervals_of(requests, step_of, members, int(slots[number]), together=together)
        chosen = keep_most(intervals.begin, intervals.end, intervals.capacity)
        price = raise_prices(intervals.begin, intervals.end, intervals.capacity, chosen)
        kept[intervals.request[chosen]] = True
        bound += len(members) - proven_kept(intervals, price)
    return Optimum(kept, int(len(kept) - kept.sum()), bound)
