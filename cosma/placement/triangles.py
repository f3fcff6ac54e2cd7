"""Triangle inequalities on who shares a device or a node, found where the relaxation violates them.

For any three experts of two consecutive layers and ``m[i, j]`` = 1 where ``i`` and ``j`` are together, else 0:

- *triangle*: together with both others makes these two meet, ``m[i, j] + m[i, k] - m[j, k] <= 1``;
- *pigeonhole*: of three experts in two groups, two are together, ``m[i, j] + m[i, k] + m[j, k] >= 1``;
- *matching*: where a group holds two experts of a layer, three of one layer make at most one couple,
  ``m[i, j] + m[i, k] + m[j, k] <= 1``.

The first two also hold where copies share evenly: ``m`` of two experts is how often draws among the copies of each fall
on one device, and draws of three different experts are independent, so each of them obeys the inequality.

Every set of multipliers >= 0 gives a valid bound, so it is no matter which inequalities are found, or how well their
multipliers are chosen. They are updated as in alternating directions with a copy of three entries per inequality,
whose copies need not be kept: the entries cling to their last values (``cling``) and feel the prices of multipliers
one step ahead (``ahead``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cosma.arrays import Floats, Ints

#: Penalty of the inequalities' copies, in units of the penalty of the relaxation's own parts.
CLING = 0.1
#: Least violation that counts; inequalities without a multiplier and with that much slack are dropped.
_LEAST, _SLACK = 0.04, 0.05
#: Most new inequalities of a kind per layer pair and search, in units of the matrix's size.
_KEPT = 32
#: Triples looked at in one go, so that memory stays small.
_BLOCK = 1 << 20


class Triangles:
    """Inequalities on the matrices of all layer pairs, with multipliers.

    Parameters
    ----------
    pairs, experts
        Layer pairs, experts per layer; matrices are ``[pairs, 2 * experts, 2 * experts]`` and symmetric.
    groups, held
        How many groups there are (devices or nodes), and how many experts of a layer each holds; 0 where experts may
        have several homes.
    fillers
        Rows and columns behind the experts of each layer that are no experts; see ``members``.
    """

    def __init__(self, pairs: int, experts: int, groups: int, held: int, fillers: int = 0) -> None:
        self.pairs, self.size = pairs, 2 * (experts + fillers)
        self._experts = np.concatenate([np.arange(experts), experts + fillers + np.arange(experts)])
        # Name, the signs of a triple's entries (first second, first third, second third), and the limit.
        self._kinds = [("triangle", (1.0, 1.0, -1.0), 1.0)]
        if groups == 2:
            self._kinds.append(("pigeonhole", (-1.0, -1.0, -1.0), -1.0))
        if held == 2:
            self._kinds.append(("matching", (1.0, 1.0, 1.0), 1.0))
        self._keys = np.zeros(0, dtype=np.int64)
        self._entries = np.zeros((3, 0), dtype=np.int64)
        self._signs = np.zeros((3, 0))
        self.limits = np.zeros(0)
        self.multipliers = np.zeros(0)
        self.cling = np.zeros((pairs, self.size, self.size))
        self.ahead = np.zeros((pairs, self.size, self.size))

    def search(self, matrices: Floats) -> None:
        """Add the inequalities these matrices violate most; drop those that have become idle."""
        busy = (self.multipliers > 0.0) | (self.excess(matrices) > -_SLACK)
        keys, entries, signs, limits = (
            np.concatenate(parts, axis=-1) for parts in zip(*self._violated(matrices), strict=True)
        )
        new = np.isin(keys, self._keys[busy], invert=True, kind="sort")
        self._keys = np.concatenate([self._keys[busy], keys[new]])
        self._entries = np.concatenate([self._entries[:, busy], entries[:, new]], axis=1)
        self._signs = np.concatenate([self._signs[:, busy], signs[:, new]], axis=1)
        self.limits = np.concatenate([self.limits[busy], limits[new]])
        self.multipliers = np.concatenate([self.multipliers[busy], np.zeros(int(new.sum()))])
        self.cling = CLING * self._scatter(np.ones_like(self._signs))
        self.ahead = self.prices()

    def update(self, matrices: Floats, penalty: float) -> None:
        """Raise the multipliers of what these matrices violate, lower the others, by at most down to 0."""
        if not self.limits.size:
            return
        before = self.multipliers
        self.multipliers = np.maximum(0.0, before + penalty * CLING / 3.0 * self.excess(matrices))
        self.ahead = self._scatter(self._signs * (2.0 * self.multipliers - before))

    def prices(self) -> Floats:
        """Return what the multipliers charge per entry, half on either side of the diagonal."""
        return self._scatter(self._signs * self.multipliers)

    def allowance(self) -> float:
        """Return the multipliers' weighted limits: what every placement may be charged at least."""
        return float(self.multipliers @ self.limits)

    def excess(self, matrices: Floats) -> Floats:
        """Return by how much these matrices break each inequality; at most 0 where they keep it."""
        excess: Floats = (self._signs * matrices.reshape(-1)[self._entries]).sum(axis=0) - self.limits
        return excess

    def _scatter(self, amounts: Floats) -> Floats:
        flat = np.bincount(self._entries.reshape(-1), 0.5 * amounts.reshape(-1), self.pairs * self.size**2)
        upper = flat.astype(np.float64).reshape(self.pairs, self.size, self.size)
        whole: Floats = upper + upper.transpose(0, 2, 1)
        return whole

    def _violated(self, matrices: Floats) -> Iterator[tuple[Ints, Ints, Floats, Floats]]:
        """Yield keys, entries, signs and limits of the most violated inequalities per layer pair and kind."""
        size = self.size
        for kind, (name, signs, limit) in enumerate(self._kinds):
            for pair, matrix in enumerate(matrices):
                found = self._worst(matrix[np.ix_(self._experts, self._experts)], name, np.array(signs), limit)
                first, second, third = found
                one, other = np.stack([first, first, second]), np.stack([second, third, third])
                yield (
                    (kind * self.pairs + pair) * size**3 + (first * size + second) * size + third,
                    (pair * size + np.minimum(one, other)) * size + np.maximum(one, other),
                    np.repeat(np.array(signs)[:, None], first.size, axis=1),
                    np.full(first.size, limit),
                )

    def _worst(self, matrix: Floats, name: str, signs: Floats, limit: float) -> Ints:
        """Return the triples of experts ``[3, triples]`` that their matrix violates most, worst first."""
        size = len(self._experts)
        rank = np.arange(size)
        block = max(1, _BLOCK // size**2)
        triples: list[Ints] = []
        amounts: list[Floats] = []
        for begin in range(0, size, block):
            row = matrix[begin : begin + block]
            excess = signs[0] * row[:, :, None] + signs[1] * row[:, None, :] + signs[2] * matrix
            first = rank[begin : begin + block, None, None]
            # Only a triangle inequality tells its first expert from the others.
            wanted = first != rank[:, None] if name == "triangle" else first < rank[:, None]
            wanted = wanted & (rank[:, None] < rank) & (first != rank)
            if name == "matching":
                wanted &= first // (size // 2) == rank // (size // 2)
            found = np.flatnonzero(wanted & (excess > limit + _LEAST))
            triples.append(found + begin * size**2)
            amounts.append(excess.reshape(-1)[found])
        order = np.argsort(-np.concatenate(amounts), kind="stable")[: _KEPT * size]
        worst = np.concatenate(triples)[order]
        return self._experts[np.stack([worst // size**2, worst // size % size, worst % size])]
