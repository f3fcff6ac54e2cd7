"""Where experts can live: devices in a tree of groups, and what crossing each level costs.

A device is named by its path from the outermost level (a pod, a node) to the innermost (the device itself).
Going from one device to another costs what the *outermost* level at which the two paths differ costs, so the
distance is an ultrametric; staying on a device is free. ExFlow's default (arXiv 2401.08383) is two levels:
2 across nodes, 1 across devices of a node, 0 on the same device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

import cosma.door as door
from cosma.errors import FormatError, InfeasibleError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

#: What a hop between nodes and one between devices of a node cost, as ExFlow counts them.
DEFAULT_COSTS = (2.0, 1.0)
#: Most devices of a topology; tables of distances have a row and a column for each.
MOST_DEVICES = 4096
#: Dearest crossing: sums of costs over all transitions stay far from the largest float.
_MOST_COST = 1e12


@dataclass(frozen=True, slots=True, repr=False)
class Topology:
    """Devices, the groups they form, the cost of crossing each level and what each device can hold.

    Attributes
    ----------
    paths
        Per device, the number of its group at every level, outermost first; the last entry is the device
        within its group. Devices are numbered in the order of this tuple.
    crossing_costs
        Per level, outermost first, the cost of a step between devices whose paths first differ there;
        never increasing inwards and never negative.
    capacities
        Experts a device can hold in each layer, or None for equal shares (``ceil(experts / devices)``).

    Raises
    ------
    InputError
        If paths repeat, differ in length or are out of order, costs are not a decreasing sequence, or a
        capacity is negative.
    """

    paths: tuple[tuple[int, ...], ...]
    crossing_costs: tuple[float, ...] = DEFAULT_COSTS
    capacities: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        paths = tuple(
            door.integers(path, f"topology: paths[{i}]")
            for i, path in enumerate(door.items(self.paths, "topology: paths"))
        )
        put(self, "paths", paths)
        costs = door.numbers(self.crossing_costs, "topology: crossing costs")
        put(self, "crossing_costs", tuple(float(cost) for cost in costs))
        if max(costs, default=0.0) > _MOST_COST:
            raise InputError(f"topology: a crossing costs {max(costs):g}; at most {_MOST_COST:g} is supported")
        if self.capacities is not None:
            put(self, "capacities", door.integers(self.capacities, "topology: capacities", least=0))
        levels = len(self.crossing_costs)
        if not self.paths or levels == 0:
            raise InputError("topology: no devices; give at least one node with one device")
        _check_number(len(self.paths))
        for device, path in enumerate(self.paths):
            if len(path) != levels:
                raise InputError(
                    f"topology: device {device} has a path of {len(path)} levels, but {levels} crossing costs are given"
                )
        if len(set(self.paths)) != len(self.paths):
            raise InputError("topology: two devices have the same path; each device needs a path of its own")
        if list(self.paths) != sorted(self.paths):
            raise InputError("topology: device paths must be in increasing order, so that groups are contiguous")
        if any(inner > outer for outer, inner in pairwise(self.crossing_costs)):
            raise InputError(
                f"topology: crossing costs {self.crossing_costs} grow inwards; "
                "an outer crossing must cost at least as much"
            )
        if self.capacities is not None and len(self.capacities) != len(self.paths):
            raise InputError(f"topology: {len(self.capacities)} capacities for {len(self.paths)} devices")

    def __repr__(self) -> str:
        room = "" if self.capacities is None else f", room for {sum(self.capacities)} experts a layer"
        return f"Topology({self.devices} devices in {self.nodes} nodes, crossing costs {self.crossing_costs}{room})"

    @classmethod
    def grid(
        cls,
        nodes: int,
        devices_per_node: int,
        crossing_costs: Sequence[float] = DEFAULT_COSTS,
        capacities: Sequence[int] | None = None,
    ) -> Topology:
        """Build the usual cluster: ``nodes`` equal nodes of ``devices_per_node`` devices, numbered node by node."""
        return cls.tree((nodes, devices_per_node), crossing_costs, capacities)

    @classmethod
    def tree(
        cls,
        branching: Sequence[int],
        crossing_costs: Sequence[float],
        capacities: Sequence[int] | None = None,
    ) -> Topology:
        """Build an equal tree, such as ``(2, 4, 8)``: two pods of four nodes of eight devices."""
        branching = door.integers(branching, "topology: counts of members")
        if any(count < 1 for count in branching):
            raise InputError(f"topology: {branching} has a level without members; every count must be at least 1")
        _check_number(math.prod(int(count) for count in branching))
        paths = tuple(tuple(int(i) for i in index) for index in np.ndindex(*branching))
        return cls(paths, crossing_costs, capacities)  # type: ignore[arg-type]  # any sequence is taken

    @classmethod
    def uneven(
        cls,
        devices_in_node: Sequence[int],
        crossing_costs: Sequence[float] = DEFAULT_COSTS,
        capacities: Sequence[int] | None = None,
    ) -> Topology:
        """Build nodes of unequal size: ``devices_in_node[n]`` devices in node ``n``."""
        devices_in_node = door.integers(devices_in_node, "topology: devices of nodes")
        if any(count < 1 for count in devices_in_node):
            raise InputError(f"topology: nodes of {devices_in_node} devices; every node needs at least one")
        _check_number(sum(int(count) for count in devices_in_node))
        paths = tuple((node, device) for node, count in enumerate(devices_in_node) for device in range(count))
        return cls(paths, crossing_costs, capacities)  # type: ignore[arg-type]  # any sequence is taken

    @property
    def devices(self) -> int:
        """Number of devices."""
        return len(self.paths)

    @property
    def levels(self) -> int:
        """Number of levels, the device level included."""
        return len(self.crossing_costs)

    @property
    def nodes(self) -> int:
        """Number of groups at the level just above the devices (1 where there is no such level)."""
        return len(set(self.groups(self.levels - 2).tolist())) if self.levels > 1 else 1

    @property
    def devices_per_node(self) -> int:
        """Devices in the largest node."""
        if self.levels == 1:
            return self.devices
        return int(np.bincount(self.groups(self.levels - 2)).max())

    def with_bandwidths(self, bandwidths_bytes_per_s: Sequence[float]) -> Topology:
        """Cost each level by the time a byte takes to cross it, the innermost crossing costing 1."""
        if len(bandwidths_bytes_per_s) != self.levels or any(b <= 0 for b in bandwidths_bytes_per_s):
            raise InputError(
                f"topology: bandwidths {tuple(bandwidths_bytes_per_s)} must be {self.levels} positive numbers, "
                "outermost first"
            )
        inner = bandwidths_bytes_per_s[-1]
        return replace(self, crossing_costs=tuple(inner / b for b in bandwidths_bytes_per_s))

    def with_memory(self, memory_bytes: Sequence[int], expert_bytes: int, layers: int) -> Topology:
        """Set capacities from memory: a device holds ``memory // (expert_bytes * layers)`` experts of each layer."""
        if expert_bytes <= 0 or layers <= 0:
            raise InputError(f"topology: an expert of {expert_bytes} bytes in {layers} layers; both must be positive")
        return replace(self, capacities=tuple(int(m) // (expert_bytes * layers) for m in memory_bytes))

    def groups(self, level: int) -> NDArray[np.int64]:
        """Return, per device, the number of its group at ``level``: groups with one path prefix share a number."""
        numbers: dict[tuple[int, ...], int] = {}
        return np.array([numbers.setdefault(path[: level + 1], len(numbers)) for path in self.paths], dtype=np.int64)

    def crossing_levels(self) -> NDArray[np.int64]:
        """Return, per pair of devices, the outermost level at which they differ; ``levels`` on the diagonal."""
        table = np.zeros((self.devices, self.devices), dtype=np.int64)
        for level in range(self.levels):
            group = self.groups(level)
            table += group[:, None] == group[None, :]
        return table

    def cost_matrix(self) -> NDArray[np.float64]:
        """Return the cost of a step from each device (row) to each device (column)."""
        by_level = np.array([*self.crossing_costs, 0.0])
        costs: NDArray[np.float64] = by_level[self.crossing_levels()]
        return costs

    def slots(self, experts: int) -> NDArray[np.int64]:
        """Return how many experts of a layer each device can hold: no more than there are.

        Raises
        ------
        InfeasibleError
            If all devices together hold fewer than ``experts``.
        """
        if self.capacities is None:
            return np.full(self.devices, -(-experts // self.devices), dtype=np.int64)
        slots = np.array(self.capacities, dtype=np.int64)
        if int(slots.sum()) < experts:
            raise InfeasibleError(
                f"placement: {experts} experts per layer need as many places, the {self.devices} devices hold "
                f"{int(slots.sum())} (capacities {self.capacities}); raise the capacity or add devices"
            )
        return np.minimum(slots, experts)

    def is_equal(self, experts: int) -> bool:
        """Say whether every device holds the same number of experts, none is empty, and all groups are alike."""
        slots = self.slots(experts)
        if int(slots.sum()) != experts or len(set(slots.tolist())) != 1:
            return False
        return all(len(set(np.bincount(self.groups(level)).tolist())) == 1 for level in range(self.levels))

    def to_json(self) -> dict[str, Any]:
        """Return the file form; the first two keys are all that an equal two-level topology needs."""
        record: dict[str, Any] = {"nodes": self.nodes, "devices_per_node": self.devices_per_node}
        record["crossing_costs"] = list(self.crossing_costs)
        if self.levels != 2 or self != Topology.grid(
            self.nodes, self.devices_per_node, self.crossing_costs, self.capacities
        ):
            record["paths"] = [list(path) for path in self.paths]
        if self.capacities is not None:
            record["capacities"] = list(self.capacities)
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Topology:
        """Read the file form.

        Raises
        ------
        FormatError
            If a key is missing or has the wrong type.
        """
        try:
            costs = tuple(float(cost) for cost in record.get("crossing_costs", DEFAULT_COSTS))
            capacities = record.get("capacities")
            held = None if capacities is None else tuple(int(capacity) for capacity in capacities)
            if record.get("paths") is not None:
                return cls(tuple(tuple(int(i) for i in path) for path in record["paths"]), costs, held)
            return cls.grid(int(record["nodes"]), int(record["devices_per_node"]), costs, held)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise FormatError(f"topology: expected nodes and devices_per_node as whole numbers ({error!r})") from error


def _check_number(devices: int) -> None:
    if devices > MOST_DEVICES:
        raise InputError(f"topology: {devices} devices; at most {MOST_DEVICES} are supported")
