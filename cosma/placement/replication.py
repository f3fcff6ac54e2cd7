"""Copies of experts under a memory budget, placed for affinity and load together.

**Routing rule.** A token goes to the copy nearest to the device that served it last; equally near copies take turns;
in the first layer all copies are equally near. (With k > 1 the token's place is that of its first choice.)

**Model.** Tokens on one device that use one expert are taken to go on alike (a Markov chain over (expert, device)).
Then the traffic into a layer follows from the layers before it and what a token costs afterwards from the layers
behind it, so the best change to one layer's copies is found exactly: each expert's cost depends only on the set of
devices that hold it. Layers are improved in turn by replacing a copy, or exchanging two, while that pays. The result
is judged on the raw tokens by the checker; the model only steers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.placement.copies import places_per_device

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.placement.affinity import Affinity
    from cosma.placement.document import Replicas
    from cosma.placement.topology import Topology

#: Largest number of cost terms worth spending on finding one exchange.
_EXCHANGE_LIMIT = 4_000_000


@dataclass(slots=True, eq=False)
class Flow:
    """Copies of all layers and what the Markov model says of them.

    Attributes
    ----------
    held
        ``[layers, experts, devices]``: whether a device holds a copy.
    inflow
        ``[layers, devices + 1, experts]``: visits to an expert by tokens last served on a device; the last row is
        for visits that none in the layer before leads to: all of the first layer, and of one after a dense one.
    value
        ``[layers, experts, devices]``: what a visit served there costs in all later layers.
    load
        ``[layers, devices]``: visits a device serves.
    price
        ``[layers, devices]``: what a visit served there costs beside crossings.
    """

    affinity: Affinity
    reach: NDArray[np.float64]
    held: NDArray[np.bool_]
    inflow: NDArray[np.float64]
    value: NDArray[np.float64]
    load: NDArray[np.float64]
    price: NDArray[np.float64]
    follow: NDArray[np.float64]

    @classmethod
    def build(cls, affinity: Affinity, topology: Topology, held: NDArray[np.bool_]) -> Flow:
        """Set up the model; the row below the device rows of ``reach`` costs nothing to anywhere."""
        layers, experts, devices = held.shape
        reach = np.concatenate([topology.cost_matrix(), np.zeros((1, devices))])
        follow, fresh = following(affinity)
        flow = cls(
            affinity, reach, held.copy(), np.zeros((layers, devices + 1, experts)),
            np.zeros((layers, experts, devices)), np.zeros((layers, devices)), np.zeros((layers, devices)), follow,
        )  # fmt: skip
        flow.inflow[:, devices] = fresh
        for layer in reversed(range(layers)):
            flow.pull(layer)
        for layer in range(layers):
            flow.push(layer)
        return flow

    def routing(self, layer: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return per (origin, expert) the distance to the nearest copy, and ``[origin, expert, device]`` shares."""
        return nearest(self.reach, self.held[layer])

    def push(self, layer: int) -> None:
        """Recompute the load of a layer and the traffic into the next one."""
        _, shares = self.routing(layer)
        served = np.einsum("oe,oed->ed", self.inflow[layer], shares)
        self.load[layer] = served.sum(axis=0)
        if layer + 1 < self.held.shape[0]:
            self.inflow[layer + 1, :-1] = served.T @ self.follow[layer]

    def pull(self, layer: int) -> None:
        """Recompute what a visit costs after ``layer``."""
        if layer + 1 == self.held.shape[0]:
            self.value[layer] = 0.0
            return
        distance, shares = self.routing(layer + 1)
        onward = distance + np.einsum("oed,ed->oe", shares, self.value[layer + 1])
        self.value[layer] = self.follow[layer] @ onward[:-1].T

    def cost(self) -> float:
        """Return the modelled mean cost of a transition."""
        total = 0.0
        for layer in range(1, self.held.shape[0]):
            distance, _ = self.routing(layer)
            total += float((self.inflow[layer, :-1] * distance[:-1]).sum())
        visits = float(self.inflow[1:, :-1].sum())
        return total / visits if visits > 0 else 0.0


def following(affinity: Affinity) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how many visits to an expert lead to each of the next layer, and ``[layers, experts]`` other visits there.

    Tokens may have no expert in a layer, or fewer: then visits lead to fewer than are counted behind, or to more.
    """
    counts, load = affinity.transitions.astype(np.float64), affinity.load.astype(np.float64)
    follow = counts / np.maximum(counts.sum(axis=2, keepdims=True), 1e-300)
    led = np.einsum("le,lef->lf", load[:-1], follow)
    follow *= np.where(led > load[1:] * (1 + 1e-9), load[1:] / np.maximum(led, 1e-300), 1.0)[:, None, :]
    fresh = load.copy()
    fresh[1:] = np.where(led < load[1:] * (1 - 1e-9), load[1:] - led, 0.0)
    return follow, fresh


def nearest(reach: NDArray[np.float64], held: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Apply the routing rule: distances ``[origin, expert]`` and shares ``[origin, expert, device]``."""
    # Copies are listed and counted without numba.
    from cosma.placement.nearest_kernels import share_among_nearest

    found: tuple[NDArray[np.float64], NDArray[np.float64]] = share_among_nearest(reach, np.ascontiguousarray(held))
    return found


def replicate(
    affinity: Affinity,
    topology: Topology,
    homes: NDArray[np.integer],
    replicas_per_device: int,
    *,
    sweeps: int = 6,
) -> Replicas:
    """Add copies to a placement, ``replicas_per_device`` to every device and layer, and improve all copies together.

    Raises InputError if the number of copies is negative or leaves more places than experts on a device.

    Parameters
    ----------
    affinity, topology
        What to place for.
    homes
        ``[layers, experts]`` placement to start from.
    replicas_per_device
        Places for copies, beside a device's own experts, in each layer.
    sweeps
        Passes over the layers, forwards and backwards.
    """
    slots = places_per_device(affinity, topology, replicas_per_device)
    layers, experts = affinity.layers, affinity.experts
    held = np.zeros((layers, experts, topology.devices), dtype=bool)
    held[np.arange(layers)[:, None], np.arange(experts)[None, :], homes] = True
    flow = Flow.build(affinity, topology, held)
    for layer in range(layers):
        _fill(flow, layer, slots)
        flow.push(layer)
    improve(flow, slots, sweeps)
    return listed(flow)


def improve(flow: Flow, slots: NDArray[np.int64], sweeps: int, load_price: float = 0.0) -> None:
    """Improve the copies of one layer after the other, backwards and forwards, until nothing changes.

    Parameters
    ----------
    flow
        The copies.
    slots
        Places of each device in every layer; free ones get copies that save something.
    sweeps
        Most passes over the layers.
    load_price
        Price of a visit to a device above the mean, in cost per unit of relative overload; 0 looks at crossings alone.
    """
    layers = flow.held.shape[0]
    for sweep in range(sweeps):
        order = range(layers) if sweep % 2 else reversed(range(layers))
        changed = False
        for layer in order:
            changed |= _improve(flow, layer, slots, load_price)
            if sweep % 2:
                flow.push(layer)
            elif layer > 0:
                flow.pull(layer - 1)
        # One direction only keeps one side current; bring the other up to date before turning round.
        for layer in range(layers) if not sweep % 2 else reversed(range(layers)):
            if sweep % 2:
                flow.pull(layer)
            else:
                flow.push(layer)
        if not changed:
            break
    flow.price[:] = 0.0


def as_held(replicas: Replicas, devices: int) -> NDArray[np.bool_]:
    """Return ``[layers, experts, devices]``: whether a device holds a copy."""
    held = np.zeros((len(replicas), len(replicas[0]), devices), dtype=bool)
    for layer, row in enumerate(replicas):
        for expert, copies in enumerate(row):
            held[layer, expert, list(copies)] = True
    return held


def set_costs(
    flow: Flow, layer: int, sets: NDArray[np.bool_], who: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return what expert ``who[i]`` costs if exactly the devices ``sets[i]`` hold it."""
    return set_outcomes(flow, layer, sets, who)[0]


def set_outcomes(
    flow: Flow, layer: int, sets: NDArray[np.bool_], who: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what expert ``who[i]`` costs if exactly the devices ``sets[i]`` hold it, and its visits on each device."""
    distance, shares = nearest(flow.reach, sets)
    inflow = flow.inflow[layer][:, who]
    onward = np.einsum("oid,id->oi", shares, flow.value[layer][who] + flow.price[layer])
    cost: NDArray[np.float64] = (inflow * (distance + onward)).sum(axis=0)
    return cost, np.einsum("oi,oid->id", inflow, shares)


def add_costs(flow: Flow, layer: int, who: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return ``[who, devices]``: change of cost if the device got a copy too (infinite where it has one)."""
    held, value = flow.held[layer][who], flow.value[layer][who] + flow.price[layer]
    distance, shares = nearest(flow.reach, held)
    onward, tied = np.einsum("oid,id->oi", shares, value), 1.0 / shares.max(axis=2)
    now, away, reach = (distance + onward)[:, :, None], distance[:, :, None], flow.reach[:, None, :]
    # A further copy serves alone where it is nearer than all others, and takes turns where it is as near.
    turns = away + (((tied * onward)[:, :, None] + value) / (tied + 1.0)[:, :, None])
    then = np.where(reach < away, reach + value, np.where(reach == away, turns, now))
    change: NDArray[np.float64] = np.einsum("oi,oid->id", flow.inflow[layer][:, who], then - now)
    change[held] = np.inf
    return change


def drop_costs(flow: Flow, layer: int, who: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return ``[who, devices]``: change of cost if the copy went (infinite where there is none or only it)."""
    held = flow.held[layer][who]
    change = np.full(held.shape, np.inf)
    row, where = np.nonzero(held & (held.sum(axis=1) > 1)[:, None])
    if len(row):
        sets = held[row].copy()
        sets[np.arange(len(row)), where] = False
        change[row, where] = set_costs(flow, layer, sets, who[row]) - set_costs(flow, layer, held[row], who[row])
    return change


def _shift_costs(flow: Flow, layer: int, who: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return ``[who, from, to]``: change of cost if a copy moved (infinite where it cannot)."""
    held = flow.held[layer][who]
    change = np.full((*held.shape, held.shape[1]), np.inf)
    row, source, target = np.nonzero(held[:, :, None] & ~held[:, None, :])
    sets = held[row].copy()
    sets[np.arange(len(row)), source] = False
    sets[np.arange(len(row)), target] = True
    now = set_costs(flow, layer, held, who)
    change[row, source, target] = set_costs(flow, layer, sets, who[row]) - now[row]
    return change


def _fill(flow: Flow, layer: int, slots: NDArray[np.int64]) -> None:
    """Give every free place the copy that saves most."""
    free = slots - flow.held[layer].sum(axis=0)
    change = add_costs(flow, layer, np.arange(flow.held.shape[1]))
    while free.max() > 0:
        change[:, free <= 0] = np.inf
        expert, device = (int(i) for i in np.unravel_index(int(change.argmin()), change.shape))
        flow.held[layer, expert, device] = True
        free[device] -= 1
        # What an expert costs depends on its own copies alone.
        change[expert] = add_costs(flow, layer, np.array([expert]))[0]


def _improve(flow: Flow, layer: int, slots: NDArray[np.int64], load_price: float) -> bool:
    """Add, replace and exchange copies while that pays; each step takes the best change."""
    held = flow.held[layer]
    experts, devices = held.shape
    ways = [add_costs, drop_costs, *([_shift_costs] if experts * devices**4 <= _EXCHANGE_LIMIT else [])]
    everyone = np.arange(experts)
    costs: list[NDArray[np.float64]] = []
    for step in range(4 * devices):
        if load_price > 0.0:
            flow.push(layer)
            flow.price[layer] = load_price * (flow.load[layer] / max(float(flow.load[layer].mean()), 1e-300) - 1.0)
        if step == 0 or load_price > 0.0:
            costs = [way(flow, layer, everyone) for way in ways]
        add, drop = costs[:2]
        free = held.sum(axis=0) < slots
        replace = add.min(axis=0) + np.where(free, np.minimum(drop.min(axis=0), 0.0), drop.min(axis=0))
        best, exchange = float(replace.min()), np.empty((0, 0))
        if len(costs) > 2:
            least = costs[2].min(axis=0)
            exchange = least + least.T
        if exchange.size and float(exchange.min()) < best - 1e-9:
            best = float(exchange.min())
        else:
            exchange = exchange[:0]
        if not best < -1e-6 * max(1.0, float(flow.inflow[layer].sum()) * 1e-3):
            return step > 0
        if exchange.size:
            one, other = (int(i) for i in np.unravel_index(int(exchange.argmin()), exchange.shape))
            there, back = int(costs[2][:, one, other].argmin()), int(costs[2][:, other, one].argmin())
            held[there, one], held[there, other] = False, True
            held[back, other], held[back, one] = False, True
        else:
            device = int(replace.argmin())
            there, back = int(drop[:, device].argmin()), int(add[:, device].argmin())
            held[there, device] = held[there, device] and free[device] and drop[there, device] >= 0.0
            held[back, device] = True
        touched = np.array([there, back])
        for way, cost in zip(ways, costs, strict=True):
            cost[touched] = way(flow, layer, touched)
    return True


def listed(flow: Flow) -> Replicas:
    """List the copies; the home is the copy that serves most visits (ties: the smaller device)."""
    rows = []
    for layer in range(flow.held.shape[0]):
        _, shares = flow.routing(layer)
        served = np.einsum("oe,oed->ed", flow.inflow[layer], shares)
        row = []
        for expert in range(flow.held.shape[1]):
            copies = np.flatnonzero(flow.held[layer, expert])
            order = sorted(copies.tolist(), key=lambda device: (-served[expert, device], device))
            row.append(tuple(int(device) for device in order))
        rows.append(tuple(row))
    return tuple(rows)
