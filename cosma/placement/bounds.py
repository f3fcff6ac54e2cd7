"""Lower bounds on the mean cost of any placement, and the certificate made of them.

Bounds that are each valid by themselves; the largest counts:

- *degree*: in the next layer an expert shares its device with at most as many experts as a device holds, its node
  with as many as a node holds; each row and each column of a layer pair's counts keeps its largest entries.
- *semidefinite*: see ``semidefinite``; for equal devices, copies that share evenly and limits on load included.
- *layer pairs*: see ``layer_pairs``; for any devices, routing and size, and weaker where both can be had.
- *exact*: the optimum itself, where dynamic programming over partitions or one assignment per layer pair proves it.

A budget of moves only restricts placements further, so these bounds stay valid under it. So does a limit on balance,
which the semidefinite bound makes use of. Copies do not: there the *pair budget* bound counts how many pairs of experts
can meet on the devices at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import cosma.door as door
from cosma.placement import layer_pairs, semidefinite
from cosma.placement.affinity import Affinity
from cosma.placement.members import Members
from cosma.placement.threads import one_thread
from cosma.placement.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

#: Work (matrix size cubed, summed over eigenvalue problems) a quick and a thorough semidefinite bound may take.
QUICK_WORK = 3_000_000_000
THOROUGH_WORK = 60_000_000_000
#: Rounds that a bound by layer pairs has at least where they take no more than that much work, and at most.
_LEAST_ROUNDS, _LEAST_ROUNDS_WORK, _MOST_ROUNDS = 10, 40_000_000_000, 200
#: Prices of load tried, in transitions per visit; each gives a bound, and no pair has more transitions than that.
_LOAD_PRICES = tuple(float(price) for price in np.geomspace(0.005, 1.0, 20))
#: Work that a round on a pair of layers takes however few experts there are: a third of a millisecond.
_ROUND_WORK = 300_000


@dataclass(frozen=True, slots=True)
class Bound:
    """A lower bound on the mean cost of a transition, and what proves it.

    Where it is one on a modelled cost, ``any_routing`` is what no routing of the tokens themselves is below.
    """

    mean_cost: float
    method: str
    any_routing: float | None = None

    @classmethod
    def of(cls, certificate: Mapping[str, Any]) -> Bound:
        """Read a bound from the certificate of another placement of the same problem."""
        anyhow = certificate.get("lower_bound_any_routing")
        return cls(float(certificate["lower_bound"]), str(certificate["method"]), anyhow)

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
            **({} if self.any_routing is None else {"lower_bound_any_routing": self.any_routing}),
        }


def lower_bound(
    affinity: Affinity, topology: Topology, work: int = QUICK_WORK, limit: float | None = None
) -> Bound:
    """Return the best lower bound on the mean cost that ``work`` pays for (0: the degree bound alone).

    ``limit`` is that on the max-over-mean load of each layer.
    """
    door.instance(affinity, Affinity, "affinity")
    door.instance(topology, Topology, "topology")
    work = door.integer(work, "work", least=0, most=door.UNLIMITED)
    return best_of(degree_bound(affinity, topology), relaxed_bound(affinity, topology, work, limit=limit))


def degree_bound(
    affinity: Affinity, topology: Topology, replicas_per_device: int = 0, limit: float | None = None
) -> Bound:  # fmt: skip
    """Return the bound from how many experts fit beside one, and how much load; it holds for any devices.

    Parameters
    ----------
    replicas_per_device
        Further places on every device and layer; copies share evenly.
    limit
        Limit on the max-over-mean load of each layer; None for none.
    """
    slots = topology.slots(affinity.experts) + replicas_per_device
    saved = []
    for level in range(topology.levels):
        groups = topology.groups(level)
        room = int(np.bincount(groups, weights=slots).max())
        members = int(np.bincount(groups).max())
        saved.append(0.0)
        for layer, pairs in enumerate(affinity.transitions):
            sides = []
            for rows, load in ((pairs, affinity.load[layer + 1]), (pairs.T, affinity.load[layer])):
                carried = None if limit is None else limit * float(load.sum()) * members / topology.devices
                sides.append(_beside(rows, load, room, carried))
            saved[-1] += min(sides)
    method = "degree" if limit is None else "loaded degree"
    return of_savings(affinity, topology, saved, method)


def _beside(rows: NDArray[np.int64], load: NDArray[np.int64], room: int, carried: float | None) -> float:
    """Return the most that all rows keep beside at most ``room`` experts that carry at most ``carried`` together."""
    least = _largest(rows, room).sum(axis=1).astype(np.float64)
    if carried is not None:
        unit = float(rows.sum()) / max(float(load.sum()), 1e-300)
        for share in _LOAD_PRICES:
            price = share * unit
            # A dual of the knapsack: whatever the price, no choice within the limits keeps more.
            left = _largest(np.maximum(rows - price * load[None, :], 0.0), room).sum(axis=1)
            least = np.minimum(least, price * carried + left)
    return float(least.sum())


def of_savings(affinity: Affinity, topology: Topology, saved: Sequence[float], method: str) -> Bound:
    """Return the bound that follows from what can be saved at each level, in transitions, outermost first."""
    costs = [*topology.crossing_costs, 0.0]
    total = costs[0] * affinity.steps
    for level, most in enumerate(saved):
        total -= (costs[level] - costs[level + 1]) * most
    return Bound(max(0.0, total / max(1, affinity.steps)), method)


def best_of(*bounds: Bound | None) -> Bound:
    """Return the highest of the bounds that could be had; the first of equal ones."""
    return max((bound for bound in bounds if bound is not None), key=lambda bound: bound.mean_cost)


def pair_budget_bound(affinity: Affinity, topology: Topology, replicas_per_device: int) -> Bound:
    """Return a bound that also holds with replicas: a group with room for h experts lets at most h * h pairs meet."""
    counts = affinity.transitions.reshape(affinity.layers - 1, -1)
    slots = topology.slots(affinity.experts) + replicas_per_device
    saved = []
    for level in range(topology.levels):
        rooms = np.minimum(np.bincount(topology.groups(level), weights=slots), affinity.experts)
        budget = min(int((rooms**2).sum()), counts.shape[1])
        saved.append(float(_largest(counts, budget).sum()))
    return of_savings(affinity, topology, saved, "pair budget")


def relaxed_bound(
    affinity: Affinity,
    topology: Topology,
    work: int,
    *,
    replicas_per_device: int = 0,
    limit: float | None = None,
    copies: bool = False,
) -> Bound | None:
    """Return the semidefinite bound, or that by layer pairs where it cannot be had; None where work pays for neither.

    After the fewest iterations that it is made with, the semidefinite bound is as high as that by layer pairs gets.
    Parameters are those of ``semidefinite_bound``.
    """
    found = semidefinite_bound(
        affinity, topology, work, replicas_per_device=replicas_per_device, limit=limit, copies=copies
    )
    if found is None:
        found = layer_pair_bound(affinity, topology, work, replicas_per_device=replicas_per_device, limit=limit)
    return found


def layer_pair_bound(
    affinity: Affinity,
    topology: Topology,
    work: int,
    *,
    replicas_per_device: int = 0,
    limit: float | None = None,
    whole: bool = False,
    modelled: NDArray[np.float64] | None = None,
) -> Bound | None:
    """Return the bound by layer pairs, or None where ``work`` is too little for it to be of use.

    Parameters
    ----------
    affinity, topology
        The problem.
    work
        Experts cubed, summed over layer pairs, levels and rounds, each with a little more.
    replicas_per_device
        Further places on every device and layer.
    limit
        Limit on the max-over-mean load of each layer, where copies share evenly; None for none.
    whole
        Whether copies are chosen among in whatever way; else they share evenly.
    modelled
        Transitions of a model in which a visit is served before the next one is known; those counted, if None.
    """
    experts, pairs = affinity.experts, affinity.layers - 1
    per_round = max(1, pairs * topology.levels * (experts**3 + _ROUND_WORK))
    rounds = min(_MOST_ROUNDS, max(work // per_round, min(_LEAST_ROUNDS, _LEAST_ROUNDS_WORK // per_round)))
    if rounds < 1 or pairs < 1 or work <= 0:
        return None
    slots = topology.slots(experts) + replicas_per_device
    counts, load = affinity.transitions.astype(np.float64), affinity.load.astype(np.float64)
    counts = counts if modelled is None else modelled
    saved = []
    for level in range(topology.levels):
        groups = topology.groups(level)
        rooms = np.minimum(np.bincount(groups, weights=slots).astype(np.int64), experts)
        level_ = layer_pairs.Level(
            groups=len(rooms), room=int(rooms.max()), members=int(np.bincount(groups).max()),
            devices=topology.devices, limit=None if whole else limit,
            further=max(0, int(rooms.sum()) - experts) if whole else 0,
        )  # fmt: skip
        with one_thread():
            saved.append(layer_pairs.most_saved(counts, load, level_, rounds, served_before=modelled is not None))
    return of_savings(affinity, topology, saved, "layer pairs")


def semidefinite_bound(
    affinity: Affinity,
    topology: Topology,
    work: int,
    *,
    replicas_per_device: int = 0,
    limit: float | None = None,
    copies: bool = False,
) -> Bound | None:
    """Return the semidefinite bound, or None for unequal devices, or where ``work`` is too little for it to be of use.

    Two levels that differ are bounded together; with more levels each is bounded by itself and the savings add up.

    Parameters
    ----------
    work
        Matrix sizes cubed, summed over eigenvalue problems.
    replicas_per_device
        Further places on every device and layer.
    limit
        Limit on the max-over-mean load of each layer; None for none.
    copies
        Whether copies that share evenly may fill places that are left; else experts have one home.
    """
    levels = _levels(topology)
    experts, layers = affinity.experts, affinity.layers
    if not levels or experts < 2 or not _is_alike(topology, experts):
        return None
    per_iteration = (layers - 1) * (2 * experts) ** 3 * min(2, len(levels))
    iterations = int(min(600, work // per_iteration))
    if iterations < 20:
        return None
    counts, load = affinity.transitions.astype(np.float64), affinity.load.astype(np.float64)
    places = (int(topology.slots(experts)[0]) + replicas_per_device) * topology.devices
    base = sum(saving for _, saving in levels) * affinity.steps
    shapes = [semidefinite.Shape(1, groups, experts, save, 0.0) for groups, save in levels]
    if len(levels) == 2:
        (nodes, save_node), (groups, save_group) = levels
        shapes = [semidefinite.Shape(nodes, groups // nodes, experts, save_group, save_node)]
    saved = 0.0
    for shape in shapes:
        groups = shape.nodes * shape.per_node
        # Shares of groups of devices need not be equal, so a limit says less of them; it is left out there.
        wanted = limit if groups == topology.devices else None
        members = Members.build(
            layers, experts, groups, min(experts, places // groups), load=load, limit=wanted, copies=copies
        )
        if members is None:
            return None
        with one_thread():
            saved += semidefinite.saving_bound(counts, shape, iterations, members=members)
    return Bound(max(0.0, (base - saved) / affinity.steps), "semidefinite")


def _is_alike(topology: Topology, experts: int) -> bool:
    """Say whether all devices have equally many places, some at least, and groups of a level are of one size."""
    slots = set(topology.slots(experts).tolist())
    groups = (topology.groups(level) for level in range(topology.levels))
    return len(slots) == 1 and 0 not in slots and all(len(set(np.bincount(of).tolist())) == 1 for of in groups)


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


def _largest(rows: NDArray[Any], keep: int) -> NDArray[Any]:
    if keep >= rows.shape[-1]:
        return rows
    return np.partition(rows, rows.shape[-1] - keep, axis=-1)[..., rows.shape[-1] - keep :]
