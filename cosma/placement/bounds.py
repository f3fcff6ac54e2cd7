"""Lower bounds on the mean cost of any placement, and the certificate made of them.

Three bounds, each valid by itself; the largest counts:

- *degree*: in the next layer an expert shares its device with at most as many experts as a device holds, its node
  with as many as a node holds; each row and each column of a layer pair's counts keeps its largest entries.
- *semidefinite*: see ``semidefinite``; for equal devices.
- *exact*: the optimum itself, where dynamic programming over partitions or one assignment per layer pair proves it.

Balance limits and a budget of moves only restrict placements further, so these bounds stay valid under them.
Replication does not: there the *pair budget* bound counts how many pairs of experts can meet on the devices at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import cosma.door as door
from cosma.placement import semidefinite
from cosma.placement.affinity import Affinity
from cosma.placement.threads import one_thread
from cosma.placement.topology import Topology

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Work (matrix size cubed, summed over eigenvalue problems) a quick and a thorough semidefinite bound may take.
QUICK_WORK = 3_000_000_000
THOROUGH_WORK = 60_000_000_000


@dataclass(frozen=True, slots=True)
class Bound:
    """A lower bound on the mean cost of a transition, and what proves it."""

    mean_cost: float
    method: str

    def certificate(self, mean_cost: float) -> dict[str, Any]:
        """Return the certificate of a placement of this cost: status, bound, gap, method."""
        # Costs are sums of counts, so anything closer than rounding is equal.
        proven = mean_cost - self.mean_cost <= 1e-9 * max(1.0, mean_cost)
        bound = min(self.mean_cost, mean_cost) if proven else self.mean_cost
        return {
            "status": "optimal" if proven else "feasible",
            "lower_bound": bound,
            "gap": (mean_cost - bound) / mean_cost if mean_cost > 0 else 0.0,
            "method": self.method,
        }


def lower_bound(affinity: Affinity, topology: Topology, work: int = QUICK_WORK) -> Bound:
    """Return the best lower bound on the mean cost that ``work`` pays for (0: the degree bound alone)."""
    door.instance(affinity, Affinity, "affinity")
    door.instance(topology, Topology, "topology")
    work = door.integer(work, "work", least=0, most=door.UNLIMITED)
    bounds = [degree_bound(affinity, topology)]
    if work > 0 and topology.is_equal(affinity.experts) and affinity.experts > 1:
        with one_thread():
            found = semidefinite_bound(affinity, topology, work)
        if found is not None:
            bounds.append(found)
    return max(bounds, key=lambda bound: bound.mean_cost)


def degree_bound(affinity: Affinity, topology: Topology) -> Bound:
    """Return the bound from how many experts fit beside one; it needs sorting only and holds for any devices."""
    counts = affinity.transitions
    slots = topology.slots(affinity.experts)
    total = topology.crossing_costs[0] * affinity.steps
    costs = [*topology.crossing_costs, 0.0]
    for level in range(topology.levels):
        held = int(np.bincount(topology.groups(level), weights=slots).max())
        rows = _largest(counts, held).sum(axis=(1, 2))
        columns = _largest(counts.transpose(0, 2, 1), held).sum(axis=(1, 2))
        total -= (costs[level] - costs[level + 1]) * float(np.minimum(rows, columns).sum())
    return Bound(max(0.0, total / affinity.steps), "degree")


def pair_budget_bound(affinity: Affinity, topology: Topology, replicas_per_device: int) -> Bound:
    """Return a bound that also holds with replicas: a group with room for h experts lets at most h * h pairs meet."""
    counts = affinity.transitions.reshape(affinity.layers - 1, -1)
    slots = topology.slots(affinity.experts) + replicas_per_device
    total = topology.crossing_costs[0] * affinity.steps
    costs = [*topology.crossing_costs, 0.0]
    for level in range(topology.levels):
        rooms = np.minimum(np.bincount(topology.groups(level), weights=slots), affinity.experts)
        budget = min(int((rooms**2).sum()), counts.shape[1])
        total -= (costs[level] - costs[level + 1]) * float(_largest(counts, budget).sum())
    return Bound(max(0.0, total / affinity.steps), "pair budget")


def semidefinite_bound(affinity: Affinity, topology: Topology, work: int) -> Bound | None:
    """Return the semidefinite bound, or None where ``work`` is too little for it to be of use.

    Two levels that differ are bounded together; with more levels each is bounded by itself and the savings add up.
    """
    levels = _levels(topology)
    if not levels:
        return None
    cones = min(2, len(levels))
    per_iteration = (affinity.layers - 1) * (2 * affinity.experts) ** 3 * cones
    iterations = min(600, work // per_iteration)
    if iterations < 20:
        return None
    counts = affinity.transitions.astype(np.float64)
    experts = affinity.experts
    base = sum(saving for _, saving in levels) * affinity.steps
    shape = two_level_shape(topology, experts)
    if shape is not None:
        saving = semidefinite.saving_bound(counts, shape, int(iterations))
    else:
        saving = sum(
            semidefinite.saving_bound(counts, semidefinite.Shape(1, groups, experts, save, 0.0), int(iterations))
            for groups, save in levels
        )
    return Bound(max(0.0, (base - saving) / affinity.steps), "semidefinite")


def two_level_shape(topology: Topology, experts: int) -> semidefinite.Shape | None:
    """Return the relaxation's sizes where one relaxation covers the topology (equal devices, one or two levels)."""
    levels = _levels(topology)
    if not topology.is_equal(experts) or not 1 <= len(levels) <= 2:
        return None
    if len(levels) == 1:
        return semidefinite.Shape(1, levels[0][0], experts, levels[0][1], 0.0)
    (nodes, save_node), (devices, save_device) = levels
    return semidefinite.Shape(nodes, devices // nodes, experts, save_device, save_node)


def _levels(topology: Topology) -> list[tuple[int, float]]:
    """Return (groups, saving of staying within one) per level that matters, outermost first."""
    costs = [*topology.crossing_costs, 0.0]
    levels: list[tuple[int, float]] = []
    for level in range(topology.levels):
        groups = int(topology.groups(level).max()) + 1
        saving = costs[level] - costs[level + 1]
        if groups == 1 or saving == 0.0:
            continue
        if levels and levels[-1][0] == groups:
            levels[-1] = (groups, levels[-1][1] + saving)
        else:
            levels.append((groups, saving))
    return levels


def _largest(rows: NDArray[np.int64], keep: int) -> NDArray[np.int64]:
    if keep >= rows.shape[-1]:
        return rows
    kept: NDArray[np.int64] = np.partition(rows, rows.shape[-1] - keep, axis=-1)[..., rows.shape[-1] - keep :]
    return kept
