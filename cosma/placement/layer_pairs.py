"""How much one pair of layers can save at one level of the devices: a relaxation by singular values, for any size.

The semidefinite bound works on all experts of two layers at once and on the chain of layers. Beyond a hundred experts
it costs too much; it needs devices that are alike, and copies that share evenly. This one looks at each pair of layers
and each level by itself, at the matrix of who meets whom alone, and holds for any devices and any routing.

**Statement.** Let ``a[i, g]`` be the share of expert ``i`` on group ``g``, and ``b[j, g]`` that of the next layer's.
What is saved is ``sum counts[i, j] Z[i, j]`` with ``Z = a b'``. Let weights ``d`` be such that the experts of a group
weigh at most 1 together: shares of its places, of its load, or a mean of both. Then

- entries are between 0 and the largest share on one group;
- weighted rows, ``sum_j w[j] Z[i, j]``, are at most the shares of ``i`` in all, which are 1, for every weight ``w`` of
  which a group holds at most 1; and so are columns;
- ``A = sqrt(d) a`` has ``A A' sqrt(d) <= sqrt(d)`` row by row, since a group weighs at most 1. A matrix without
  negative entries that stretches no entry of a positive vector has no eigenvalue above 1 (Perron), so no singular
  value of ``A`` is. Their squares add up to at most ``sum d``. So the singular values of ``S = A B'`` are at most 1 and
  add up to at most ``size = sqrt(sum d sum e)``, where ``e`` are the weights of the next layer.

For any matrix ``Y`` and any prices >= 0 of rows and columns, the saving is at most what ``Y`` can earn with such
singular values (``size`` of its own largest ones, by von Neumann's trace inequality), plus what the prices collect,
plus what each entry alone earns beyond both. ``Y`` and the prices come from a few primal-dual steps. The value is a
bound whatever they are, and is computed anew from them with a margin for rounding.

**Copies that are chosen among** (``nearest``, ``least-loaded``) count whole: ``a`` is 1 on every group with a copy, a
pair is saved at most once, ``Z <= min(1, a b')``, and an expert's shares add up to its number of copies. Then ``a b'``
may exceed ``Z``, so ``Y`` and prices together must not be negative; the largest singular value alone counts; and copies
beyond the first go, at worst, to the experts whose prices and weights are highest.

**Where a visit does not know the next one** (the model of ``nearest``), the earlier layer has shares, the later one
copies that count whole, and ``Z = a b'`` again: rows collect once, columns for every copy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cosma.placement.copy_pairs import ROUNDING

if TYPE_CHECKING:

    from cosma.arrays import Floats

#: Parts of the weights that places have where load is limited too; each is tried on a few pairs of layers.
_PLACE_PARTS = (0.02, 0.2, 1.0)
#: Pairs of layers that they are tried on.
_TRIED = 3
#: Step of the multipliers in units of the mean entry, and part of it that prices of rows have. On 256 experts a third
#: and twice the step end lower after 10 to 30 rounds.
_STEP, _PRICE_STEP = 30.0, 0.25
#: Part of the counts that multipliers start from: 10 rounds reach what 20 do from nothing.
_FIRST = 0.5
#: Rounds after which the bound is looked at; the best counts.
_LOOKS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """The groups of devices of one level.

    Attributes
    ----------
    groups, room, members
        How many there are, and the most places and devices that one has.
    devices, limit
        Devices in all, and the limit on the fullest one's load over the mean one's; None for none.
    further
        Copies beyond the first that may lie in all groups together and count whole; 0 where copies share evenly.
    """

    groups: int
    room: int
    members: int
    devices: int
    limit: float | None = None
    further: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """What is known of one layer's experts.

    Attributes
    ----------
    kinds
        ``[2, experts]``: weights by places and by load, of which a group holds at most 1.
    most
        ``[experts]``: the largest share on one group.
    """

    level: Level
    kinds: Floats
    most: Floats

    @classmethod
    def build(cls, load: Floats, level: Level) -> Side:
        """Describe a layer of which ``load`` are every expert's visits."""
        full, most = float(np.sort(load)[-level.room :].sum()), np.ones(len(load))
        if level.limit is not None:
            device = float(load.sum()) / level.devices * level.limit * (1.0 + ROUNDING)
            full = min(full, device * level.members)
            copies = np.maximum(1.0, np.ceil(load / max(device, 1e-300) - 1e-9))
            most = np.minimum(1.0, level.members / copies)
        return cls(level, np.stack([np.full(len(load), 1.0 / level.room), load / max(full, 1e-300)]), most)

    def weights(self, places: float) -> Floats:
        """Return weights of which a group holds at most 1, ``places`` of them by places and the rest by load."""
        return np.asarray(places * self.kinds[0] + (1.0 - places) * self.kinds[1])

    def collected(self, prices: Floats) -> float:
        """Return the most that prices of experts, >= 0, collect from all shares of the layer."""
        total = float(prices.sum())
        further, others = self.level.further, self.level.groups - 1
        if further and others:
            total += float(np.repeat(-np.sort(-prices)[:further], others)[:further].sum())
        return total


def most_saved(counts: Floats, load: Floats, level: Level, rounds: int, *, served_before: bool = False) -> float:
    """Return an upper bound on what all pairs of layers save at one level, in transitions.

    Parameters
    ----------
    counts, load
        ``[layers - 1, experts, experts]`` transitions and ``[layers, experts]`` visits.
    level
        The groups of devices.
    rounds
        Primal-dual steps for each pair of layers; the bound holds after any number of them.
    served_before
        Whether a visit is served before the next one is known, so that the earlier layer of each pair has shares.
    """
    sides = [Side.build(visits, level) for visits in load]
    before = [Side.build(visits, replace(level, further=0)) for visits in load] if served_before else sides
    parts = _PLACE_PARTS[-1:] if level.further else _PLACE_PARTS
    if len(parts) > 1:
        some = np.unique(np.linspace(0, len(counts) - 1, _TRIED).astype(int))
        tried = [sum(PairBound(counts[i], before[i], sides[i + 1], part).best(rounds) for i in some) for part in parts]
        parts = (parts[int(np.argmin(tried))],)
    return float(sum(PairBound(counts[i], before[i], sides[i + 1], parts[0]).best(rounds) for i in range(len(counts))))


class PairBound:
    """Multipliers of one pair of layers, in entries scaled by the roots of both experts' weights."""

    def __init__(self, counts: Floats, before: Side, after: Side, places: float) -> None:
        self.sides = before, after
        weights = [side.weights(places) for side in self.sides]
        self.scale = np.sqrt(weights[0])[:, None] * np.sqrt(weights[1])[None, :]
        self.size = float(np.sqrt(np.prod([
            side.collected(weight * side.most) for side, weight in zip(self.sides, weights, strict=True)
        ])))  # fmt: skip
        self.whole = before.level.further > 0 and after.level.further > 0
        self.largest = self.size if after.level.further else 1.0
        self.gains = counts / self.scale
        self.most = np.minimum(before.most[:, None], after.most[None, :]) * self.scale
        # Of rows and of columns, for each kind of weights: the matrix of a price's weights in the scaled entries.
        self.rows = [kind[None, :] / self.scale for kind in after.kinds]
        self.columns = [kind[:, None] / self.scale for kind in before.kinds]
        self.row_prices = np.zeros((len(self.rows), counts.shape[0]))
        self.column_prices = np.zeros((len(self.columns), counts.shape[1]))
        self.charges = np.zeros_like(counts)
        self.multipliers = _FIRST * self.gains
        self.entries = np.zeros_like(counts)

    def best(self, rounds: int) -> float:
        """Return the least of the bounds that multipliers prove on the way, and what all transitions would save."""
        found = float((self.gains * self.scale).sum())
        step = _STEP * float(self.gains.mean())
        if step <= 0.0:
            return 0.0
        for round_ in range(1, rounds + 1):
            self._step(step)
            if round_ % _LOOKS == 0 or round_ == rounds:
                found = min(found, self.bound())
        return found

    def _step(self, step: float) -> None:
        """Move entries towards what they earn, then multipliers and prices against what the entries break."""
        share = 1.0 / (step * (1.0 + _PRICE_STEP * (len(self.rows) + len(self.columns))))
        moved = np.clip(self.entries + share * (self.gains - self.multipliers - self.charges), 0.0, self.most)
        ahead = 2.0 * moved - self.entries
        self.entries = moved
        for prices, weights, axis in ((self.row_prices, self.rows, 1), (self.column_prices, self.columns, 0)):
            for kind, weight in enumerate(weights):
                over = (ahead * weight).sum(axis=axis) - 1.0
                length = np.maximum((weight**2).sum(axis=axis), 1e-300)
                prices[kind] = np.maximum(0.0, prices[kind] + _PRICE_STEP * step * over / length)
        self.charges = self.charged()
        target = self.multipliers / step + ahead
        self.multipliers = step * (target - nearest_within(target, self.largest, self.size))

    def charged(self) -> Floats:
        """What the multipliers and prices charge each entry."""
        total: Floats = np.zeros_like(self.gains)
        for prices, weight in zip(self.row_prices, self.rows, strict=True):
            total += prices[:, None] * weight
        for prices, weight in zip(self.column_prices, self.columns, strict=True):
            total += prices[None, :] * weight
        return total

    def bound(self) -> float:
        """Return the bound that the present multipliers and prices prove."""
        multipliers = np.maximum(self.multipliers, -self.charges) if self.whole else self.multipliers
        left = self.gains - multipliers - self.charges
        total = float((np.maximum(0.0, left) * self.most).sum())
        for side, prices in zip(self.sides, (self.row_prices, self.column_prices), strict=True):
            total += sum(side.collected(of_kind) for of_kind in prices)
        values = np.linalg.svd(multipliers, compute_uv=False)
        many = self.size / self.largest
        first = int(many)
        total += self.largest * float(values[:first].sum())
        if first < len(values):
            total += self.largest * (many - first) * float(values[first])
        return total * (1.0 + ROUNDING) + ROUNDING * float(np.abs(multipliers).max())


def nearest_within(matrix: Floats, largest: float, size: float) -> Floats:
    """Return the nearest matrix whose singular values are at most ``largest`` and add up to at most ``size``."""
    squares, vectors = np.linalg.eigh(matrix @ matrix.T)
    values = np.sqrt(np.maximum(squares, 0.0))
    less = 0.0
    if np.minimum(values, largest).sum() > size:
        # What is left after taking ``less`` from all is linear between these points, and falls.
        points = np.unique(np.concatenate([[0.0], values, np.maximum(0.0, values - largest)]))
        left = np.clip(values[None, :] - points[:, None], 0.0, largest).sum(axis=1)
        less = float(np.interp(size, left[::-1], points[::-1]))
    kept = np.clip(values - less, 0.0, largest)
    used = kept > 1e-12 * float(values[-1])
    vectors = vectors[:, used]
    nearest: Floats = (vectors * (kept[used] / values[used])) @ (vectors.T @ matrix)
    return nearest
