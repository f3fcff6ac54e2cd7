"""Copies of experts that share load evenly: which experts to copy, and where, for crossings and load together.

**Model.** Every copy serves an equal share of its expert's visits, as load balancers assume. Then all that counts is
the share of every expert on every device, ``x[e, d]`` (1 over the number of copies, or 0): a layer's loads are linear
in it, and the expected cost of a transition between two layers is bilinear, so both are exact sums over counted pairs.
A further copy never saves a crossing by itself; copies buy balance, and free places let experts gather.

This room states the problem and measures placements; ``copy_search`` searches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.errors import InputError
from cosma.placement.instance import Links, compressed_links
from cosma.placement.metrics import peak_ratios

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.placement.affinity import Affinity
    from cosma.placement.document import Replicas
    from cosma.placement.topology import Topology

def places_per_device(affinity: Affinity, topology: Topology, replicas_per_device: int) -> NDArray[np.int64]:
    """Places of each device in a layer, for its own experts and for copies.

    Raises InputError if the number of copies is negative or leaves more places than experts on a device.
    """
    if replicas_per_device < 0:
        raise InputError(f"replicas per device: {replicas_per_device}; give 0 or more")
    own = topology.slots(affinity.experts)
    slots = own + replicas_per_device
    if int(slots.max()) > max(affinity.experts, int(own.max())):
        raise InputError(
            f"replicas per device: {replicas_per_device} give a device {int(slots.max())} places per layer for "
            f"{affinity.experts} experts; at most {affinity.experts - int(own.max())} fit"
        )
    return slots


@dataclass(frozen=True, slots=True, eq=False)
class CopyProblem:
    """What to place: counts, devices and places, as the kernel reads them.

    Attributes
    ----------
    device_of
        Device of every place.
    pairs
        ``[layers - 1, experts, experts]`` transitions.
    fresh
        ``[layers, experts, devices]``: price of a copy that lies there.
    current, budget
        ``[layers, experts, devices]`` copies in force, and how many may lie elsewhere; -1 for no limit.
    """

    affinity: Affinity
    topology: Topology
    device_of: NDArray[np.int64]
    cost: NDArray[np.float64]
    pairs: NDArray[np.float64]
    links: Links
    load: NDArray[np.float64]
    fresh: NDArray[np.float64]
    current: NDArray[np.uint8]
    budget: int = -1

    @classmethod
    def build(cls, affinity: Affinity, topology: Topology, replicas_per_device: int) -> CopyProblem:
        """Turn counts, devices and room for copies into arrays.

        Raises InputError if the number of copies is negative or leaves more places than experts on a device.
        """
        slots = places_per_device(affinity, topology, replicas_per_device)
        shape = (affinity.layers, affinity.experts, topology.devices)
        pairs = affinity.transitions.astype(np.float64)
        return cls(
            affinity, topology, np.repeat(np.arange(topology.devices), slots), topology.cost_matrix(), pairs,
            compressed_links(pairs, affinity.layers, affinity.experts),
            affinity.load.astype(np.float64), np.zeros(shape), np.ones(shape, dtype=np.uint8),
        )  # fmt: skip

    @property
    def replicas_per_device(self) -> int:
        """Places for copies on each device, beside its own experts."""
        own = int(self.topology.slots(self.affinity.experts).sum())
        return (len(self.device_of) - own) // self.topology.devices

    def near(self, current: NDArray[np.bool_], budget: int = -1, price: float = 0.0) -> CopyProblem:
        """Return the problem of re-placing: copies that are not in ``current`` have a price, and a limit."""
        return replace(
            self, current=current.astype(np.uint8), budget=budget, fresh=np.where(current, 0.0, float(price))
        )

    def scale(self) -> float:
        """Return the mean traffic of an expert times the mean cost: the unit of temperatures."""
        layers, experts = self.load.shape
        traffic = 2.0 * self.affinity.steps / (layers * experts)
        visits = float(self.load.sum()) / (layers * experts)
        return float(max(1e-9, float(self.cost.mean()) * traffic, 0.0 if self.affinity.has_affinity else visits))


def places_of(problem: CopyProblem, held: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return ``[layers, places]`` experts for copies ``[layers, experts, devices]``; -1 fills what is left.

    Raises InputError if a device holds more than it has places.
    """
    layers = held.shape[0]
    place = np.full((layers, len(problem.device_of)), -1, dtype=np.int64)
    first = np.searchsorted(problem.device_of, np.arange(problem.topology.devices + 1))
    for layer in range(layers):
        for device in range(problem.topology.devices):
            experts = np.flatnonzero(held[layer, :, device])
            room = int(first[device + 1] - first[device])
            if len(experts) > room:
                raise InputError(
                    f"layer {layer}, device {device}: {len(experts)} copies, room for {room}; "
                    "raise the replicas per device"
                )
            place[layer, first[device] : first[device] + len(experts)] = experts
    return place


def held_of(problem: CopyProblem, place: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return ``[layers, experts, devices]``: whether a device holds a copy."""
    layers = place.shape[0]
    held = np.zeros((layers, problem.affinity.experts, problem.topology.devices), dtype=bool)
    layer, slot = np.nonzero(place >= 0)
    held[layer, place[layer, slot], problem.device_of[slot]] = True
    return held


def shares_of(held: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return ``[layers, experts, devices]`` shares of visits, equal among copies."""
    shares: NDArray[np.float64] = held / np.maximum(held.sum(axis=2, keepdims=True), 1)
    return shares


def field_of(problem: CopyProblem, shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what every expert's visits would cost on every device, others staying put."""
    field = np.zeros_like(shares)
    for layer, pairs in enumerate(problem.pairs):
        field[layer] += pairs @ (shares[layer + 1] @ problem.cost.T)
        field[layer + 1] += pairs.T @ (shares[layer] @ problem.cost)
    return field


def crossing_cost(problem: CopyProblem, held: NDArray[np.bool_]) -> float:
    """Return the expected mean cost of a transition."""
    shares = shares_of(held)
    total = sum(
        float(((pairs @ shares[layer + 1]) * (shares[layer] @ problem.cost)).sum())
        for layer, pairs in enumerate(problem.pairs)
    )
    return total / max(1, problem.affinity.steps)


def imbalances(problem: CopyProblem, held: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return, per layer, the fullest device's expected visits over the mean device's."""
    return split_ratios(problem.load, held)


def split_ratios(load: NDArray[np.float64], held: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the same for ``[layers, experts]`` visits and copies, exactly but for one rounding where numbers allow."""
    copies = np.maximum(held.sum(axis=2, keepdims=True), 1)
    unit = math.lcm(*np.unique(copies).tolist())
    # In whole numbers, as the unit of some hundred numbers of copies is beyond every float.
    if unit * max(1, math.ceil(load.sum(axis=1).max())) * held.shape[2] >= 2**53:
        unit = 1
    return peak_ratios(np.einsum("le,led->ld", load, held * (unit / copies)))


def least_copies(problem: CopyProblem, limit: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return ``[layers, experts]`` copies without which an expert alone breaks its layer's limit."""
    mean = problem.load.sum(axis=1) / problem.topology.devices
    room = np.where(mean > 0, limit, 1.0) * np.where(mean > 0, mean, 1.0)
    # Limits are searched for with some slack; what just meets one needs no further copy.
    needed: NDArray[np.float64] = np.ceil(problem.load / room[:, None] - 1e-6)
    return np.clip(needed, 1, problem.topology.devices).astype(np.int64)


def with_least(problem: CopyProblem, held: NDArray[np.bool_], limit: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Give every expert the copies that it needs at least, in places that are free or hold a copy too many."""
    held = held.copy()
    least = least_copies(problem, limit)
    room = np.bincount(problem.device_of, minlength=problem.topology.devices)
    for layer in range(held.shape[0]):
        now = held[layer]
        for expert in np.argsort(-problem.load[layer] / least[layer], kind="stable"):
            while now[expert].sum() < least[layer, expert]:
                load = problem.load[layer] @ shares_of(now[None])[0]
                free = (now.sum(axis=0) < room) & ~now[expert]
                if free.any():
                    now[expert, int(np.where(free, load, np.inf).argmin())] = True
                    continue
                beside = now & ~now[expert][None, :]
                spare = np.argwhere(beside & (now.sum(axis=1) > least[layer])[:, None])
                target = int((room - now.sum(axis=0)).argmax())
                if not len(spare) and now[:, target].sum() < room[target]:
                    # Where no expert has a copy too many, the lightest goes to a place that is free elsewhere.
                    spare = np.argwhere(beside & ~now[:, target][:, None])
                    spare = spare[np.argsort(problem.load[layer][spare[:, 0]], kind="stable")]
                    now[spare[:1, 0], target] = True
                if not len(spare):
                    break
                other, device = (int(i) for i in spare[0])
                now[other, device], now[expert, device] = False, True
    return held


def as_replicas(held: NDArray[np.bool_], first: NDArray[np.integer] | None = None) -> Replicas:
    """List the copies of every expert; ``first`` names the home where it is one of them, else the smallest device."""
    rows = []
    for layer, experts in enumerate(held):
        row = []
        for expert, devices in enumerate(experts):
            copies = [int(device) for device in np.flatnonzero(devices)]
            home = -1 if first is None else int(first[layer, expert])
            if home in copies:
                copies = [home, *(device for device in copies if device != home)]
            row.append(tuple(copies))
        rows.append(tuple(row))
    return tuple(rows)


def crossing_parts(affinity: Affinity, topology: Topology, shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of transitions that cross each level, outermost first, where devices serve shares of visits."""
    levels = topology.crossing_levels()
    by_level = np.zeros(topology.levels + 1)
    for layer, counts in enumerate(affinity.transitions):
        meeting = shares[layer].T @ counts.astype(np.float64) @ shares[layer + 1]
        by_level += np.bincount(levels.ravel(), meeting.ravel(), minlength=topology.levels + 1)
    return by_level[:-1] / max(1, affinity.steps)


def split_summary(affinity: Affinity, topology: Topology, held: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the metrics of copies that share evenly: expectations, exact on the counts."""
    part = crossing_parts(affinity, topology, shares_of(held))
    ratio = split_ratios(affinity.load.astype(np.float64), held)
    known = affinity.has_affinity
    return {
        "mean_cost": float(np.dot(part, topology.crossing_costs)) if known else None,
        "crossing_shares": part.tolist() if known else None,
        "imbalance": float(ratio.mean()),
        "worst_imbalance": float(ratio.max()),
        "transitions": affinity.steps,
        "copies": int(held.sum()),
        "routing": "split",
    }
