"""A semidefinite lower bound along the chain of layers, valid whatever the accuracy of its solution.

Let ``Y`` say which experts of two consecutive layers share a device and ``N`` which share a node. For a real placement
on ``n`` nodes of ``q`` devices with equal shares, over the ``2 E`` experts of the two layers,

- ``Y - N / q`` and ``N - 1 / n`` are positive semidefinite (sums of squares of centred membership vectors),
- both vanish on the membership vector of either layer, and their traces are ``2 E (1 - 1/q)`` and ``2 E (1 - 1/n)``,
- ``0 <= Y <= N <= 1`` entrywise, ones on the diagonal, rows of a block of ``Y`` sum to the experts per device, of
  ``N`` to the experts per node,
- neighbouring layer pairs agree on the layer they share,
- triples of experts obey the inequalities of ``triangles``, of which those violated are added as they are found.

Alternating directions (ADMM) split the entrywise from the semidefinite part. Its multipliers give the bound: for
*any* symmetric multipliers the Lagrangian separates, the entrywise part is minimised row by row and the semidefinite
part is a largest eigenvalue times a known trace. So every multiplier gives a valid bound; better ones a larger bound.
Eigenvalues are raised by a margin above rounding before they are used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosma.placement.triangles import Triangles

Array = NDArray[np.float64]

# Iterations between adaptations: of the penalty, and of the triangle inequalities in force.
_ADAPT = 20
# Over-relaxation of the alternating directions; 1 is plain, values up to 2 converge.
_RELAX = 1.6


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the relaxation: nodes, devices per node, experts per layer, and what staying saves per transition."""

    nodes: int
    per_node: int
    experts: int
    save_device: float
    save_node: float

    @property
    def on_device(self) -> int:
        """Experts of a layer on one device."""
        return self.experts // (self.nodes * self.per_node)

    @property
    def on_node(self) -> int:
        """Experts of a layer on one node."""
        return self.experts // self.nodes


def saving_bound(counts: Array, shape: Shape, iterations: int, every: int = 25) -> float:
    """Return an upper bound on the total saving ``save_device * <counts, Y> + save_node * <counts, N>``.

    Parameters
    ----------
    counts
        ``[layers - 1, experts, experts]`` transition counts.
    shape
        The relaxation's sizes.
    iterations
        ADMM iterations: the work limit. The bound is valid after any number of them.
    every
        Iterations between evaluations of the bound; the best one is returned.
    """
    unit = float(counts.mean()) or 1.0
    solver = Admm(counts / unit, shape)
    best = np.inf
    for iteration in range(1, iterations + 1):
        solver.step()
        if iteration % every == 0 or iteration == iterations:
            best = min(best, solver.bound())
        if iteration % _ADAPT == 0:
            solver.balance()
            solver.find_cuts()
    return best * unit


class Admm:
    """State of the alternating directions; the matrices of all layer pairs are updated at once.

    ``step`` repeatedly, ``balance`` now and then, read ``bound`` or the relaxed ``entries`` at any time.
    """

    def __init__(self, weights: Array, shape: Shape) -> None:
        self.weights, self.shape = weights, shape
        pairs, experts = weights.shape[0], shape.experts
        size = 2 * experts
        self.pairs = pairs
        # Orthonormal basis of the vectors that sum to zero within each layer.
        centred = np.linalg.qr(np.concatenate([np.ones((experts, 1)), np.eye(experts)[:, 1:]], axis=1))[0][:, 1:]
        self.basis = np.zeros((size, 2 * (experts - 1)))
        self.basis[:experts, : experts - 1] = centred
        self.basis[experts:, experts - 1 :] = centred
        self.fine = np.zeros((pairs, size, size))
        self.coarse = np.zeros((pairs, size, size))
        self.fine_dual = np.zeros((pairs, size, size))
        self.coarse_dual = np.zeros((pairs, size, size))
        self.penalty = float(np.abs(weights).max()) * 0.1 + 0.1
        self.gap = (1.0, 1.0)
        self.device = np.zeros((pairs, size, size))
        self.node = np.zeros((pairs, size, size))
        self.device_cuts = Triangles(pairs, experts, shape.nodes * shape.per_node, shape.on_device)
        self.node_cuts = Triangles(pairs, experts, shape.nodes, shape.on_node)

    @property
    def cuts(self) -> list[Triangles]:
        """The inequalities in force, on devices and on nodes."""
        return [self.device_cuts] if self.flat else [self.device_cuts, self.node_cuts]

    def find_cuts(self) -> None:
        """Add the triangle inequalities that the present entries violate."""
        for cuts, entries in zip(self.cuts, (self.device, self.node), strict=False):
            cuts.search(entries)

    @property
    def flat(self) -> bool:
        """Whether there is one node only, so that every pair of experts shares it."""
        return self.shape.nodes == 1

    def step(self) -> None:
        """Do one round: entries, then the two semidefinite parts, then the multipliers."""
        device, node = self.device, self.node = self.entries()
        fine = _RELAX * (device - node / self.shape.per_node) + (1.0 - _RELAX) * self.fine
        coarse = _RELAX * (node - 1.0 / self.shape.nodes) + (1.0 - _RELAX) * self.coarse
        new_fine = self._project(fine + self.fine_dual)
        moved = float(np.linalg.norm(new_fine - self.fine))
        self.fine = new_fine
        self.fine_dual += fine - new_fine
        apart = float(np.linalg.norm(fine - new_fine))
        if not self.flat:
            new_coarse = self._project(coarse + self.coarse_dual)
            moved += float(np.linalg.norm(new_coarse - self.coarse))
            self.coarse = new_coarse
            self.coarse_dual += coarse - new_coarse
            apart += float(np.linalg.norm(coarse - new_coarse))
        self.gap = (apart, moved)
        for cuts, entries in zip(self.cuts, (device, node), strict=False):
            cuts.update(entries, self.penalty)

    def balance(self) -> None:
        """Adapt the penalty so that primal and dual residuals shrink alike."""
        apart, moved = self.gap
        factor = 1.0
        if apart > 3.0 * moved:
            factor = 1.6
        elif moved > 3.0 * apart:
            factor = 1 / 1.6
        self.penalty *= factor
        self.fine_dual /= factor
        self.coarse_dual /= factor

    def bound(self) -> float:
        """Return the upper bound on the saving that the present multipliers prove."""
        shape, experts = self.shape, self.shape.experts
        fine, coarse = self.penalty * self.fine_dual, self.penalty * self.coarse_dual
        price_device = fine + self.device_cuts.prices()
        price_node = coarse - fine / shape.per_node + self.node_cuts.prices()
        least = -sum(cuts.allowance() for cuts in self.cuts)
        between = (slice(None), slice(None, experts), slice(experts, None))
        cross_device = 2.0 * price_device[between] - shape.save_device * self.weights
        cross_node = 2.0 * price_node[between] - shape.save_node * self.weights
        rows, columns = (
            _row_minimum(device.reshape(-1, experts), node.reshape(-1, experts), shape.on_device, shape.on_node)
            for device, node in (
                (cross_device, cross_node),
                (cross_device.transpose(0, 2, 1), cross_node.transpose(0, 2, 1)),
            )
        )
        sums = (side.reshape(self.pairs, experts).sum(axis=1) for side in (rows, columns))
        least += float(np.maximum(*sums).sum())
        own_device, own_node = 2.0 * self._mean_own(price_device), 2.0 * self._mean_own(price_node)
        for own in (own_device, own_node):
            # Unlike the layers inside, the first and the last belong to one pair only.
            own[[0, -1]] *= 0.5
            least += float(np.trace(own, axis1=1, axis2=2).sum())
        apart = ~np.eye(experts, dtype=bool)
        least += float(
            _row_minimum(
                own_device[:, apart].reshape(-1, experts - 1), own_node[:, apart].reshape(-1, experts - 1),
                shape.on_device - 1, shape.on_node - 1,
            ).sum()
        )  # fmt: skip
        size = 2 * experts
        least -= self._eigen_part(fine, size * (1.0 - 1.0 / shape.per_node))
        if not self.flat:
            least -= self._eigen_part(coarse, size * (1.0 - 1.0 / shape.nodes))
            # The coarse part is node membership less its mean, 1 / nodes; give the mean back.
            least -= float(coarse.sum()) / shape.nodes
        return -least

    def _eigen_part(self, dual: Array, trace: float) -> float:
        inner = self.basis.T @ dual @ self.basis
        top = np.linalg.eigvalsh(inner)[:, -1]
        margin = 1e-9 * (np.abs(inner).sum(axis=(1, 2)) + 1.0)
        return float(((top + margin) * trace).sum())

    def _project(self, matrices: Array) -> Array:
        inner = self.basis.T @ matrices @ self.basis
        values, vectors = np.linalg.eigh((inner + inner.transpose(0, 2, 1)) / 2.0)
        outer = self.basis @ (vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :])
        projected: Array = outer @ outer.transpose(0, 2, 1)
        return projected

    def entries(self) -> tuple[Array, Array]:
        """Minimise over the entries given the semidefinite parts; own blocks of shared layers are averaged."""
        experts = self.shape.experts
        fine = self.fine - self.fine_dual
        coarse = self.coarse - self.coarse_dual
        pull = self.weights / (2.0 * self.penalty)
        cling = self.device_cuts.cling, self.node_cuts.cling
        pulls = (
            cling[0] * self.device - self.device_cuts.ahead / self.penalty,
            cling[1] * self.node - self.node_cuts.ahead / self.penalty,
        )
        between = (slice(None), slice(None, experts), slice(experts, None))
        cross = self._solve(
            fine[between], coarse[between],
            self.shape.save_device * pull + pulls[0][between], self.shape.save_node * pull + pulls[1][between],
            cling[0][between], cling[1][between],
        )  # fmt: skip
        own_device, own_node = self._solve(*(self._mean_own(whole) for whole in (fine, coarse, *pulls, *cling)))
        diagonal = np.arange(experts)
        own_device[:, diagonal, diagonal] = 1.0
        own_node[:, diagonal, diagonal] = 1.0
        return self._assemble(own_device, cross[0]), self._assemble(own_node, cross[1])

    def _assemble(self, own: Array, cross: Array) -> Array:
        experts = self.shape.experts
        whole = np.empty((self.pairs, 2 * experts, 2 * experts))
        whole[:, :experts, :experts] = own[:-1]
        whole[:, experts:, experts:] = own[1:]
        whole[:, :experts, experts:] = cross
        whole[:, experts:, :experts] = cross.transpose(0, 2, 1)
        return whole

    def _mean_own(self, whole: Array) -> Array:
        experts = self.shape.experts
        own = np.zeros((self.pairs + 1, experts, experts))
        own[:-1] += whole[:, :experts, :experts]
        own[1:] += whole[:, experts:, experts:]
        own[1:-1] *= 0.5
        return own

    def _solve(
        self, fine: Array, coarse: Array, pull_device: Array, pull_node: Array, cling_device: Array, cling_node: Array
    ) -> tuple[Array, Array]:
        """Per entry: minimise ``((d - n/q - fine)^2 + (n - 1/nodes - coarse)^2 + clings) / 2 - pulls``.

        Over ``0 <= d <= n <= 1``; ``clings`` are ``cling_device d^2 + cling_node n^2``.
        """
        share = 1.0 / self.shape.per_node
        # The objective is (a d^2 + c n^2) / 2 - share d n - g d - h n.
        a, g = 1.0 + cling_device, fine + pull_device
        if self.flat:
            return np.clip((g + share) / a, 0.0, 1.0), np.ones_like(g)
        c, h = share**2 + 1.0 + cling_node, coarse + 1.0 / self.shape.nodes + pull_node - share * fine
        # Free optimum, then the edges d = 0, d = n and n = 1, each an exact one-dimensional minimum.
        free = a * c - share**2
        device, node = (c * g + share * h) / free, (a * h + share * g) / free
        inside = (device >= 0.0) & (device <= node) & (node <= 1.0)

        def value(d: Array, n: Array) -> Array:
            return 0.5 * (a * d * d + c * n * n) - share * d * n - g * d - h * n

        best_node = np.clip(h / c, 0.0, 1.0)
        best_device = np.zeros_like(best_node)
        best = value(best_device, best_node)
        both = np.clip((g + h) / (a + c - 2.0 * share), 0.0, 1.0)
        top = np.clip((g + share) / a, 0.0, 1.0)
        for d, n in ((both, both), (top, np.ones_like(top))):
            other = value(d, n)
            better = other < best
            best = np.where(better, other, best)
            best_device, best_node = np.where(better, d, best_device), np.where(better, n, best_node)
        return np.where(inside, device, best_device), np.where(inside, node, best_node)


def _row_minimum(device: Array, node: Array, on_device: int, on_node: int) -> Array:
    """Lower bound, per row, of ``sum device * d + node * n`` over ``on_device`` d's, ``on_node`` n's, ``d <= n <= 1``.

    A price on the number of d's makes each row a choice of the ``on_node`` cheapest columns; any price is valid, the
    best of each row is found by golden section (the bound is concave in the price).
    """
    if on_node <= 0:
        return np.zeros(device.shape[0])
    low, high = device.min(axis=1) - 1.0, device.max(axis=1) + 1.0

    def value(price: Array) -> Array:
        chosen = node + np.minimum(0.0, device - price[:, None])
        if on_node < chosen.shape[1]:
            chosen = np.partition(chosen, on_node - 1, axis=1)[:, :on_node]
        total: Array = price * on_device + chosen.sum(axis=1)
        return total

    ratio = (np.sqrt(5.0) - 1.0) / 2.0
    for _ in range(40):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        keep_left = value(left) > value(right)
        high, low = np.where(keep_left, right, high), np.where(keep_left, low, left)
    best: Array = np.maximum(value(low), value(high))
    return best
