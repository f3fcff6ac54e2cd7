"""The cheapest mix of fetching experts and computing them on the host, as a flow of least cost.

Each slot is one unit of flow through time. A unit is idle or holds a page; it enters a page at a request by a fetch,
stays through later requests for nothing, and leaves behind any of them. A request without a unit is computed on the
host. The least cost is exact: the network's flows are whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.errors import CosmaError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.caching.requests import Requests

    Int64s = NDArray[np.int64]
    Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class HostedSchedule:
    """Where every request runs.

    Attributes
    ----------
    fetched, hosted
        ``bool[requests]``: fetched for the request; computed on the host. Neither: it was kept.
    cost
        Seconds of links and hosts, summed over requests: the least of any schedule.
    """

    fetched: Bools
    hosted: Bools
    cost: float


def best_mix(
    requests: Requests, group: Int64s, slots: Int64s, fetch_s: float, host_s: float, *, together: bool
) -> HostedSchedule:
    """Find the schedule with the fewest seconds of transfer and host arithmetic, summed over all requests.

    Parameters
    ----------
    requests, group, slots, together
        See :func:`cosma.caching.optimum.best_schedule`. One by one, a page may also pass through the slot set aside.
    fetch_s, host_s
        Seconds of one fetch, and of one visit on the host; rounded to a millionth of ``fetch_s``.
    """
    unit = fetch_s / 1_000_000 if fetch_s > 0 else 1e-9
    fetch_cost = round(fetch_s / unit)
    host_cost = np.rint(requests.visits * (host_s / unit)).astype(np.int64)
    fetched = np.zeros(len(requests.page), dtype=np.bool_)
    hosted = np.zeros(len(requests.page), dtype=np.bool_)
    of_request = group[requests.page]
    step_of = requests.step_of_request()
    total = 0
    for number in range(len(slots)):
        members = np.flatnonzero(of_request == number)
        if len(members):
            total += _solve_group(
                requests, members, step_of, int(slots[number]), fetch_cost, host_cost, together, fetched, hosted
            )
    return HostedSchedule(fetched, hosted, total * unit)


def _solve_group(
    requests: Requests, members: Int64s, step_of: Int64s, slots: int, fetch_cost: int, host_cost: Int64s,
    together: bool, fetched: Bools, hosted: Bools,
) -> int:  # fmt: skip
    """Solve one group, mark its requests, and return the cost in units."""
    from ortools.graph.python import min_cost_flow

    held = slots if together else slots - 1
    step, local = np.unique(step_of[members], return_inverse=True)
    count = len(members)
    # Nodes: idle before each step and at the end; one where a page's unit enters a request, one where it leaves.
    idle = np.arange(len(step) + 1, dtype=np.int64)
    enter = len(step) + 1 + np.arange(count, dtype=np.int64)
    leave = enter + count
    # Without a slot of its own a request costs the host's time, or the pass through the slot set aside.
    without = host_cost[members] if together else np.minimum(host_cost[members], fetch_cost)
    order = np.lexsort((local, requests.page[members]))
    same = np.flatnonzero(requests.page[members][order[1:]] == requests.page[members][order[:-1]])
    # A slot given up is free for the next step; where pages run one by one, for the next page of the same step.
    freed = idle[local + 1] if together else idle[local]
    tails = np.concatenate([idle[:-1], idle[local], enter, leave, leave[order[same]]])
    heads = np.concatenate([idle[1:], enter, leave, freed, enter[order[same + 1]]])
    ones = np.ones(count, dtype=np.int64)
    room = np.concatenate([np.full(len(step), held), ones, ones, ones, ones[same]])
    costs = np.concatenate([
        np.zeros(len(step), dtype=np.int64), np.full(count, fetch_cost), -without,
        np.zeros(count + len(same), dtype=np.int64),
    ])  # fmt: skip
    flow = min_cost_flow.SimpleMinCostFlow()
    arcs = flow.add_arcs_with_capacity_and_unit_cost(tails, heads, room, costs)
    flow.set_nodes_supplies(np.array([idle[0], idle[-1]]), np.array([held, -held]))
    if flow.solve() != flow.OPTIMAL:
        raise CosmaError("the flow of slots through time was not solved")
    flows = flow.flows(arcs)
    entered = flows[len(step) : len(step) + count] > 0
    resident = flows[len(step) + count : len(step) + 2 * count] > 0
    passing = ~resident & (np.zeros(count, dtype=np.bool_) if together else host_cost[members] >= fetch_cost)
    fetched[members] = entered | passing
    hosted[members] = ~resident & ~passing
    return int(without.sum()) + int(flow.optimal_cost())
