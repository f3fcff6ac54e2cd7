"""The cheapest mix of fetching experts and computing them on the host, as a flow of least cost.

Each slot is one unit of flow through time. A unit is idle or holds a page; it enters a page at a request by a fetch,
stays through later requests for nothing, and leaves behind any of them. A request without a unit is computed on the
host. The network's flows are whole numbers, and units take the cheapest path that is left one after another: a group
with few slots needs few paths. Prices of the nodes prove the cost, whatever found them (``flow.proven_cost``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.caching.flow import cheapest_flow, proven_cost
from cosma.caching.optimum import members_by_group

if TYPE_CHECKING:
    from collections.abc import Callable

    from cosma.arrays import Bools, Ints
    from cosma.caching.requests import Requests


#: Work limit in nodes settled: 200 CPU seconds or less.
WORK = 1_000_000_000


@dataclass(frozen=True, slots=True, eq=False)
class HostedSchedule:
    """Where every request runs."""

    #: ``bool[requests]``: fetched for the request; computed on the host. Neither: it was kept.
    fetched: Bools
    hosted: Bools
    #: Seconds of links and hosts, summed over requests.
    cost: float
    #: Seconds that every schedule takes.
    lower_bound: float
    #: Whether no schedule takes less, but for rounding.
    proven: bool


def best_mix(
    requests: Requests,
    group: Ints,
    slots: Ints,
    fetch_s: float,
    host_s: float,
    *,
    together: bool,
    work: int = WORK,
    progress: Callable[[str, float], None] | None = None,
) -> HostedSchedule:
    """Find the schedule with the fewest seconds of transfer and host arithmetic, summed over all requests.

    Parameters
    ----------
    requests, group, slots, together
        See :func:`cosma.caching.optimum.best_schedule`. One by one, a page may also pass through the slot set aside.
    fetch_s, host_s
        Seconds of one fetch, and of one visit on the host; rounded down to a millionth of ``fetch_s``.
    work
        Limit on nodes settled, for all groups together. What is left of it when a group begins is shared evenly among
        the groups left. A group that needs more uses fewer of its slots, and the schedule may not be the best.
    progress
        Told what is being done, and the share of the groups that is done.
    """
    unit = fetch_s / 1_000_000 or 1e-9
    fetch_cost = round(fetch_s / unit)
    # No request is computed on the host for more than two fetches: its own, and that of the expert which gives way.
    dearest = 3 * fetch_cost + 1
    # Rounded down, so that the bound holds; the factor makes up for the rounding of the quotient.
    host_cost = np.minimum(requests.visits * (min(host_s / unit, dearest) * (1 + 1e-12)), dearest).astype(np.int64)
    fetched = np.zeros(len(requests.page), dtype=np.bool_)
    hosted = np.zeros(len(requests.page), dtype=np.bool_)
    step_of = requests.step_of_request()
    by_group, ends = members_by_group(requests, group, len(slots))
    total = bound = 0
    for number, last in enumerate(ends):
        members = by_group[(ends[number - 1] if number else 0) : last]
        if progress is not None:
            progress("fetch or host", number / len(slots))
        if len(members):
            network = _Network.build(
                requests, members, step_of, int(slots[number]), fetch_cost, host_cost, together=together
            )
            taken, least, settled = network.solve(work // (len(slots) - number), fetched, hosted)
            total, bound, work = total + taken, bound + least, work - settled
    cost = float(fetched.sum() * fetch_s + requests.visits[hosted].sum() * host_s)
    return HostedSchedule(fetched, hosted, cost, min(bound * unit, cost), total == bound)


@dataclass(frozen=True, slots=True, eq=False)
class _Network:
    """Slots of one group through time."""

    #: Requests of the group, by their numbers in the trace.
    members: Ints
    #: Steps of the group, and its units of flow.
    steps: int
    held: int
    #: Arcs: idle units, fetches, requests, releases, pages kept.
    tails: Ints
    heads: Ints
    room: Ints
    costs: Ints
    #: Cost of each request that no unit passes.
    without: Ints
    #: Whether such a request passes through the slot set aside; else it runs on the host.
    passes: Bools

    @classmethod
    def build(
        cls,
        requests: Requests,
        members: Ints,
        step_of: Ints,
        slots: int,
        fetch_cost: int,
        host_cost: Ints,
        *,
        together: bool,
    ) -> _Network:
        """Lay out one group."""
        step, local = np.unique(step_of[members], return_inverse=True)
        count = len(members)
        # Nodes: idle before each step and at the end; one where a page's unit enters a request, one where it leaves.
        idle = np.arange(len(step) + 1, dtype=np.int64)
        enter = len(step) + 1 + np.arange(count, dtype=np.int64)
        leave = enter + count
        page = requests.page[members]
        order = np.lexsort((local, page))
        same = np.flatnonzero(page[order[1:]] == page[order[:-1]])
        # A slot given up is free for the next step; where pages run one by one, for the next page of the same step.
        freed = idle[local + 1] if together else idle[local]
        tails = np.concatenate([idle[:-1], idle[local], enter, leave, leave[order[same]]])
        heads = np.concatenate([idle[1:], enter, leave, freed, enter[order[same + 1]]])
        host = host_cost[members]
        # Without a slot of its own a request costs the host's time, or the pass through the slot set aside.
        without = host if together else np.minimum(host, fetch_cost)
        costs = np.zeros(len(tails), dtype=np.int64)
        costs[len(step) : len(step) + count] = fetch_cost
        costs[len(step) + count : len(step) + 2 * count] = -without
        held = slots if together else slots - 1
        room = np.ones(len(tails), dtype=np.int64)
        room[: len(step)] = held
        return cls(
            members, len(step), held, tails, heads, room, costs, without,
            np.zeros(count, dtype=np.bool_) if together else host >= fetch_cost,
        )  # fmt: skip

    def solve(self, work: int, fetched: Bools, hosted: Bools) -> tuple[int, int, int]:
        """Mark the group's requests; return the cost, a bound on any, and the work."""
        count = len(self.members)
        entering, running = (slice(self.steps + i * count, self.steps + (i + 1) * count) for i in range(2))
        arcs = self.tails, self.heads, self.room, self.costs
        flows, price, settled = cheapest_flow(
            self.steps + 1 + 2 * count, *arcs, 0, self.steps, self.held, max(1, work), self._sequence()
        )
        entered = flows[entering] > 0
        resident = flows[running] > 0
        passing = ~resident & self.passes
        fetched[self.members] = entered | passing
        hosted[self.members] = ~resident & ~passing
        rest = int(self.without.sum())
        bound = proven_cost(*arcs, (0, self.steps), self.held, price)
        return rest + int(self.costs @ flows), rest + bound, int(settled)

    def _sequence(self) -> Ints:
        """Return the arcs in order of time: in a step what is kept runs and is released before others are fetched."""
        count = len(self.members)
        idle, fetch, run, release, kept = np.split(
            np.arange(len(self.tails)), self.steps + count * np.arange(4)
        )
        local = self.tails[fetch]
        last = local[self.tails[kept] - self.steps - 1 - count]
        rounds = [run, release, fetch, run, release, kept, idle]
        at = np.concatenate([local] * 5 + [last, self.tails[idle]])
        kind = np.repeat(np.arange(len(rounds)), [len(arcs) for arcs in rounds])
        found: Ints = np.concatenate(rounds)[np.lexsort((kind, at))]
        return found
