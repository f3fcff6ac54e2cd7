"""A placement problem as arrays: what the kernels of the search work on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.placement import kernels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.arrays import Floats, Ints
    from cosma.placement.affinity import Affinity
    from cosma.placement.topology import Topology



@dataclass(frozen=True, slots=True, eq=False)
class Links:
    """Transition counts in compressed rows.

    Row ``layer * places + expert`` goes to the layer after it, row ``(layers + layer) * places + expert`` to the one
    before it.
    """

    start: Ints
    to: Ints
    count: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """The tree of device groups, levels that change nothing left out, as ``matching.nested_gain`` reads it.

    Attributes
    ----------
    step
        Per level from the devices outwards, what one transition saves by staying inside one group of that level.
    base
        Cost of a transition that saves nothing.
    """

    group_start: Ints
    group_kind: Ints
    child_start: Ints
    step: Floats
    base: float


@dataclass(slots=True, eq=False)
class Instance:
    """Everything the kernels need; layers are padded with idle experts up to the number of places.

    Attributes
    ----------
    experts, places
        Real experts and places per layer; ids from ``experts`` on are idle.
    slots
        Places per device.
    linear
        ``[layers, places, devices]``: an extra cost of expert e on device d (zero unless something prices it).
    """

    layers: int
    experts: int
    places: int
    slots: Ints
    cost: Floats
    tree: Tree
    links: Links
    dense: Floats
    load: Floats
    linear: Floats
    steps: int

    @classmethod
    def build(cls, affinity: Affinity, topology: Topology) -> Instance:
        """Turn counts and devices into arrays."""
        slots = topology.slots(affinity.experts)
        places = int(slots.sum())
        layers, experts = affinity.layers, affinity.experts
        counts = affinity.transitions.astype(np.float64)
        load = np.zeros((layers, places))
        load[:, :experts] = affinity.load
        return cls(
            layers, experts, places, slots, topology.cost_matrix(), build_tree(topology, slots),
            compressed_links(counts, layers, places), counts, load,
            np.zeros((layers, places, topology.devices)), affinity.steps,
        )  # fmt: skip

    @property
    def devices(self) -> int:
        """Number of devices."""
        return int(self.cost.shape[0])

    def columns(self) -> Ints:
        """Return the device of every place."""
        return np.repeat(np.arange(self.devices), self.slots)

    def padded(self, homes: NDArray[np.integer]) -> Ints:
        """Add the idle experts to a placement ``[layers, experts]``, filling devices in order."""
        full = np.zeros((self.layers, self.places), dtype=np.int64)
        full[:, : self.experts] = homes
        for layer in range(self.layers):
            free = self.slots - np.bincount(full[layer, : self.experts], minlength=self.devices)
            full[layer, self.experts :] = np.repeat(np.arange(self.devices), free)
        return full

    def field(self, home: Ints) -> Floats:
        """Return what every expert would cost on every device, others staying put."""
        field = np.empty((self.layers, self.places, self.devices))
        self.renew(field, home, 0, self.layers)
        return field

    def renew(self, field: Floats, home: Ints, first: int, end: int) -> None:
        """Bring the field of the layers ``[first, end)``, cut to those that exist, up to date."""
        kernels.fill_field(
            home, self.cost, self.linear, self.links.start, self.links.to, self.links.count,
            max(0, first), min(self.layers, end), field,
        )  # fmt: skip

    def device_load(self, home: Ints) -> Floats:
        """Return the tokens each device serves, per layer."""
        return np.stack(
            [np.bincount(home[layer], self.load[layer], minlength=self.devices) for layer in range(self.layers)]
        )

    def crossing(self, home: Ints) -> float:
        """Return the summed cost of all transitions (not the mean), without ``linear``."""
        total = 0.0
        for layer in range(self.layers - 1):
            now, then = home[layer, : self.experts], home[layer + 1, : self.experts]
            total += float((self.dense[layer] * self.cost[np.ix_(now, then)]).sum())
        return total

    def extra(self, home: Ints) -> float:
        """Return the summed ``linear`` cost."""
        at = np.take_along_axis(self.linear, home[:, :, None], axis=2)
        return float(at.sum())


def compressed_links(counts: Floats, layers: int, places: int) -> Links:
    """Compress ``counts[p]``, by rows for layer ``p`` and by columns for layer ``p + 1``."""
    sides = (counts, counts.transpose(0, 2, 1))
    lengths = np.zeros((2, layers, places), dtype=np.int64)
    for side, matrices in enumerate(sides):
        lengths[side, side : side + layers - 1, : counts.shape[1]] = (matrices > 0).sum(axis=2)
    start = np.concatenate([[0], np.cumsum(lengths.ravel())]).astype(np.int64)
    to = np.concatenate([np.nonzero(matrices > 0)[2] for matrices in sides]).astype(np.int64)
    return Links(start, to, np.concatenate([matrices[matrices > 0] for matrices in sides]))


def build_tree(topology: Topology, slots: Ints) -> Tree:
    """Build the tree of groups, leaving out levels with one group only and levels whose groups have one child each."""
    costs = [*topology.crossing_costs, 0.0]
    kept: list[Ints] = []
    steps: list[float] = []
    base = 0.0
    for level in reversed(range(topology.levels)):
        groups = topology.groups(level)
        count = int(groups.max()) + 1
        saving = costs[level] - costs[level + 1]
        if count == 1 and level + 1 <= topology.levels - 1:
            continue
        base += saving
        if kept and count == int(kept[-1].max()) + 1:
            steps[-1] += saving
            continue
        kept.append(groups)
        steps.append(saving)
    if int(kept[-1].max()) > 0 or len(kept) == 1:
        kept.append(np.zeros(topology.devices, dtype=np.int64))
        steps.append(0.0)
    group_start = [0]
    child_start: list[int] = []
    kinds: list[int] = []
    signatures: dict[object, int] = {}
    for h, groups in enumerate(kept):
        count = int(groups.max()) + 1
        first_device = [int(np.argmax(groups == g)) for g in range(count)]
        for g in range(count):
            if h == 0:
                child_start.append(0)
                signature: object = ("device", int(slots[first_device[g]]))
            else:
                inner = kept[h - 1]
                children = sorted({int(inner[d]) for d in np.flatnonzero(groups == g)})
                child_start.append(children[0])
                signature = (h, tuple(sorted(kinds[group_start[h - 1] + c] for c in children)))
            kinds.append(signatures.setdefault(signature, len(signatures)))
        group_start.append(group_start[-1] + count)
    # child_start[g + 1] closes group g: within a level groups are contiguous, the last one needs its own end.
    ends = _child_ends(kept, group_start, child_start)
    return Tree(np.array(group_start, dtype=np.int64), np.array(kinds, dtype=np.int64), ends, np.array(steps), base)


def _child_ends(kept: list[Ints], group_start: list[int], first: list[int]) -> Ints:
    """Return ``child_start`` of shape ``[groups, 2]``: half-open range of children of every group."""
    ranges = np.zeros((group_start[-1], 2), dtype=np.int64)
    for h in range(1, len(kept)):
        begin, end = group_start[h], group_start[h + 1]
        inner = int(kept[h - 1].max()) + 1
        for g in range(begin, end):
            ranges[g] = first[g], first[g + 1] if g + 1 < end else inner
    return ranges
