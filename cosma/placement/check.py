"""The judge of placements: is it complete, does it fit, and what does it cost on the raw trace?

Nothing of the optimisers is imported here, and costs are recounted token by token from the trace itself, from the
paths of the devices, so that an error in the aggregation or the search cannot hide.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.errors import InputError, PlanInvalidError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from cosma.placement.document import Placement


@dataclass(frozen=True, slots=True)
class Score:
    """What a placement costs on a trace.

    Attributes
    ----------
    mean_cost
        Mean cost of a transition (a pair of experts a token uses in consecutive layers).
    crossing_shares
        Share of transitions whose outermost crossing is at each level, outermost first; the rest stay on a device.
    imbalance
        Mean over layers of the fullest device's tokens over the mean device's.
    worst_imbalance
        The same for the worst layer.
    tokens, transitions
        How much was counted.
    """

    mean_cost: float
    crossing_shares: tuple[float, ...]
    imbalance: float
    worst_imbalance: float
    tokens: int
    transitions: int

    @property
    def local_share(self) -> float:
        """Share of transitions that stay on a device."""
        return 1.0 - sum(self.crossing_shares)


def violations(placement: Placement, replicas_per_device: int = 0) -> list[str]:
    """List everything wrong with a placement: unknown devices, too many experts on one, copies that contradict.

    Parameters
    ----------
    placement
        The placement to judge.
    replicas_per_device
        Copies beyond its own experts that each device has room for in each layer.
    """
    found: list[str] = []
    devices = placement.topology.devices
    slots = _slots(placement)
    for layer, row in enumerate(placement.copies()):
        held: Counter[int] = Counter()
        for expert, copies in enumerate(row):
            if not copies:
                found.append(f"layer {layer}, expert {expert}: on no device")
            elif copies[0] != int(placement.devices[layer, expert]):
                found.append(
                    f"layer {layer}, expert {expert}: home is device {int(placement.devices[layer, expert])}, "
                    f"but its first copy is on {copies[0]}"
                )
            if len(set(copies)) != len(copies):
                found.append(f"layer {layer}, expert {expert}: two copies on one device {list(copies)}")
            for device in copies:
                if not 0 <= device < devices:
                    found.append(f"layer {layer}, expert {expert}: device {device}, but there are {devices} (from 0)")
                else:
                    held[device] += 1
        for device in range(devices):
            room = slots[device] + replicas_per_device
            if held[device] > room:
                found.append(f"layer {layer}, device {device}: holds {held[device]} experts, room for {room}")
    return found


def check_placement(placement: Placement, replicas_per_device: int = 0) -> None:
    """Refuse an invalid placement.

    Raises
    ------
    PlanInvalidError
        With the first violations and how many there are.
    """
    found = violations(placement, replicas_per_device)
    if found:
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        raise PlanInvalidError("placement: " + "; ".join(found[:3]) + more)


def copies_beyond_room(placement: Placement) -> int:
    """Return how many copies beyond its own places the fullest device of any layer holds (0 without replicas)."""
    if placement.replicas is None:
        return 0
    slots = _slots(placement)
    most = 0
    for row in placement.copies():
        held = Counter(device for copies in row for device in copies)
        most = max([most, *(held[device] - room for device, room in enumerate(slots))])
    return most


def score(placement: Placement, chunks: Iterable[NDArray[np.integer]]) -> Score:
    """Recount a placement's cost from raw tokens.

    A token is served where its expert lives. With replicas the nearest-replica rule applies (top-1): the token goes
    to the copy nearest to the device that served it last, and among equally near copies they take turns by the
    token's position in the trace; in the first layer all copies are equally near. With k > 1 every pair of
    consecutive-layer choices counts, and each choice is served by the copy nearest to the token's first choice of
    the layer before.

    Raises
    ------
    InputError
        If the trace does not fit the placement.
    """
    tables = _Tables(placement)
    first = 0
    for chunk in chunks:
        array = np.asarray(chunk)
        if array.ndim == 2:
            array = array[:, :, None]
        if array.shape[1] != placement.layers or (array.size and int(array.max()) >= placement.experts):
            raise InputError(
                f"trace: {array.shape[1]} layers and experts up to {int(array.max())} against a placement of "
                f"{placement.layers} layers and {placement.experts} experts; give the trace of the same model"
            )
        tables.count(array.astype(np.int64), first)
        first += array.shape[0]
    if first == 0:
        raise InputError("trace: no tokens to score a placement on")
    return tables.score(first)


def _slots(placement: Placement) -> list[int]:
    held = placement.topology.capacities
    if held is not None:
        return [int(capacity) for capacity in held]
    return [-(-placement.experts // placement.topology.devices)] * placement.topology.devices


class _Tables:
    """Device tables and running counts of one scoring."""

    def __init__(self, placement: Placement) -> None:
        paths = placement.topology.paths
        levels = len(placement.topology.crossing_costs)
        self.crossing = np.full((len(paths), len(paths)), levels, dtype=np.int64)
        for i, one in enumerate(paths):
            for j, other in enumerate(paths):
                differing = [level for level in range(levels) if one[level] != other[level]]
                self.crossing[i, j] = min(differing, default=levels)
        self.costs = np.array([*placement.topology.crossing_costs, 0.0])
        self.placement = placement
        self.replicated = placement.replicas is not None
        self.by_level = np.zeros(levels + 1, dtype=np.int64)
        self.load = np.zeros((placement.layers, len(paths)), dtype=np.int64)
        self.nearest = [self._nearest(row) for row in placement.copies()] if self.replicated else []

    def _nearest(self, row: tuple[tuple[int, ...], ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Per (device, expert): the nearest copies, and how many there are; the last row is for no device."""
        devices = self.crossing.shape[0]
        most = max(len(copies) for copies in row)
        options = np.zeros((devices + 1, len(row), most), dtype=np.int64)
        counts = np.zeros((devices + 1, len(row)), dtype=np.int64)
        for expert, copies in enumerate(row):
            ordered = sorted(copies)
            for device in range(devices + 1):
                near = ordered
                if device < devices:
                    cost = [self.costs[self.crossing[device, copy]] for copy in ordered]
                    near = [copy for copy, value in zip(ordered, cost, strict=True) if value == min(cost)]
                options[device, expert, : len(near)] = near
                counts[device, expert] = len(near)
        return options, counts

    def count(self, array: NDArray[np.int64], first: int) -> None:
        turn = first + np.arange(array.shape[0])
        before: NDArray[np.int64] | None = None
        for layer in range(array.shape[1]):
            if self.replicated:
                options, counts = self.nearest[layer]
                origin = np.full(array.shape[0], self.crossing.shape[0]) if before is None else before[:, 0]
                near = counts[origin[:, None], array[:, layer]]
                at = options[origin[:, None], array[:, layer], turn[:, None] % near]
            else:
                at = self.placement.devices[layer][array[:, layer]]
            self.load[layer] += np.bincount(at.ravel(), minlength=self.load.shape[1])
            if before is not None:
                crossed = self.crossing[before[:, :, None], at[:, None, :]]
                self.by_level += np.bincount(crossed.ravel(), minlength=len(self.by_level))
            before = at

    def score(self, tokens: int) -> Score:
        total = int(self.by_level.sum())
        ratio = self.load.max(axis=1) / self.load.mean(axis=1)
        return Score(
            float((self.by_level * self.costs).sum() / total),
            tuple(float(count) / total for count in self.by_level[:-1]),
            float(ratio.mean()),
            float(ratio.max()),
            tokens,
            total,
        )
