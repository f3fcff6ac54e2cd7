"""What shares a device with what, as the semidefinite relaxation sees it: experts, free places and spare load.

A *member* of a layer has a share on every device: an expert the share of its visits served there, 1 in all; *free
places*, how many are empty there; *spare load*, how much a device is below the limit. For every layer some
*combinations* of members come to the same value on every device: places that experts take and free places are all the
places, loads and spare load are the limit. Shares are never negative, and none is above what is known to be its most.
That is all the relaxation needs to know, so copies and limits on load are rows and columns of its matrices like others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.placement.copy_pairs import ROUNDING

if TYPE_CHECKING:

    from cosma.arrays import Floats



@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """Members of every layer, experts first."""

    #: How many of them are experts.
    experts: int
    #: ``[layers, members]``: sum of a member's shares over all devices.
    totals: Floats
    #: ``[layers, members]``: the largest share on one device.
    most: Floats
    #: ``[layers, combinations, members]`` weights of sums that are ``[layers, combinations]`` on every device.
    combinations: Floats
    values: Floats
    #: ``[layers, experts, experts]``: how often draws among the copies of two experts can fall on one device.
    couples: Floats
    #: Whether every expert has one home, and shares are 0 or 1.
    single: bool

    @classmethod
    def build(
        cls,
        layers: int,
        experts: int,
        devices: int,
        places: int,
        *,
        load: Floats | None = None,
        limit: float | None = None,
        copies: bool = False,
    ) -> Members | None:
        """Describe placements with ``places`` on every device; None where there are none.

        Parameters
        ----------
        layers, experts, devices, places
            Sizes; every device has equally many places in each layer.
        load, limit
            ``[layers, experts]`` visits, and the limit on the max-over-mean load of each layer.
        copies
            Whether experts may have several homes that share evenly, where there are places to spare. Without a limit
            those are no better than one home each, so experts have one.
        """
        single = limit is None or not copies or devices * places == experts
        needed = np.ones((layers, experts))
        if limit is not None and load is not None:
            room = limit * (1.0 + ROUNDING)
            mean = np.maximum(load.sum(axis=1, keepdims=True) / devices, 1e-300)
            ratio = load / mean
            needed = np.maximum(1.0, np.ceil(ratio / room - 1e-9))
        free = devices * places - needed.sum(axis=1)
        if (free < 0).any() or (needed > devices).any():
            return None
        if single and (needed > 1).any():
            return None
        couples = 1.0 / np.maximum(needed[:, :, None], needed[:, None, :])
        if limit is not None and load is not None:
            couples = np.minimum(couples, _couples(ratio / room, needed, free, single))
        totals, most = [np.ones((layers, experts))], [1.0 / needed]
        sums, values = [needed], [np.full(layers, float(places))]
        spare: list[Floats] = [free] if devices * places > experts else []
        largest = [np.minimum(free, places)] if spare else []
        if limit is not None and load is not None:
            sums.append(ratio)
            values.append(np.full(layers, room))
            spare.append(devices * room - ratio.sum(axis=1))
            largest.append(np.minimum(spare[-1], room))
        fillers = len(spare)
        weights = np.zeros((layers, len(sums), experts + fillers))
        for number, row in enumerate(sums):
            weights[:, number, :experts] = row
        first = len(sums) - fillers
        for number, (amount, top) in enumerate(zip(spare, largest, strict=True)):
            # Measured so that an even spread over the devices has the length of an expert with one home.
            unit = np.where(amount > 0, amount / np.sqrt(devices), 1.0)
            totals.append((amount / unit)[:, None])
            most.append((top / unit)[:, None])
            weights[:, first + number, experts + number] = unit
        return cls(
            experts, np.concatenate(totals, axis=1), np.concatenate(most, axis=1), weights,
            np.stack(values, axis=1), couples, single,
        )  # fmt: skip

    def complements(self) -> Floats:
        """Return, per layer, an orthonormal basis ``[layers, members, rest]`` of what all combinations vanish on."""
        found: Floats = np.stack(
            [np.linalg.qr(weights.T, mode="complete")[0][:, weights.shape[0] :] for weights in self.combinations]
        )
        return found


def _couples(ratio: Floats, needed: Floats, free: Floats, single: bool) -> Floats:
    """Return the most that two experts of a layer can meet: where one device cannot carry both whole, less.

    If one of them has ``c`` copies and the other no more, they meet at most ``1 / c`` of the time, and a device that
    holds both carries at least ``1 / c`` of the load of both.
    """
    copies = np.maximum(1.0, np.ceil(ratio[:, :, None] + ratio[:, None, :] - 1e-9))
    further = copies - np.maximum(needed[:, :, None], needed[:, None, :])
    possible = copies == 1.0 if single else further <= free[:, None, None]
    found: Floats = np.where(possible, 1.0 / copies, 0.0)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """Limits on the entries of matrices of who meets whom: ``low <= device <= high``, ``device <= node <= top``.

    ``floor`` is a further lower limit of the entries of nodes: ``top`` itself where there is one node.
    """

    low: Floats
    high: Floats
    floor: Floats
    top: Floats

    @classmethod
    def of(cls, members: Members, nodes: int, per_node: int, here: slice, there: slice) -> Boxes:
        """Return the limits for the members of layers ``here`` (rows) and ``there`` (columns)."""
        rows, columns = members.totals[here][:, :, None], members.totals[there][:, None, :]
        most = members.most[here][:, :, None], members.most[there][:, None, :]
        grouped = [np.minimum(per_node * top, total) for top, total in zip(most, (rows, columns), strict=True)]
        high = np.minimum(most[0] * columns, most[1] * rows)
        top = np.maximum(high, np.minimum(grouped[0] * columns, grouped[1] * rows))
        low = np.zeros_like(high)
        if here == there:
            diagonal, experts = np.arange(members.experts), slice(None, members.experts)
            alone = high[:, diagonal, diagonal]
            high[:, experts, experts] = np.minimum(high[:, experts, experts], members.couples[here])
            high[:, diagonal, diagonal] = alone
            if members.single:
                low[:, diagonal, diagonal] = 1.0
        return cls(low, high, top if nodes == 1 else np.zeros_like(top), top)

    def transposed(self) -> Boxes:
        """Return the limits of the transposed matrices."""
        return Boxes(*(side.transpose(0, 2, 1) for side in (self.low, self.high, self.floor, self.top)))

    def best(self, device: Floats, node: Floats) -> tuple[Floats, Floats]:
        """Return the entries, of devices and of nodes, that cost least at these prices."""
        under_low = np.where(node > 0.0, np.maximum(self.low, self.floor), self.top)
        under_high = np.where(node > 0.0, np.maximum(self.high, self.floor), self.top)
        lower = device * self.low + node * under_low <= device * self.high + node * under_high
        return np.where(lower, self.low, self.high), np.where(lower, under_low, under_high)
