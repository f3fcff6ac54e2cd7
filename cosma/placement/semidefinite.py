"""A semidefinite lower bound along the chain of layers, valid whatever the accuracy of its solution.

Let ``Y`` say which experts of two consecutive layers share a device and ``N`` which share a node. For a real placement
on ``n`` nodes of ``q`` devices with equal shares, over the ``2 E`` experts of the two layers,

- ``Y - N / q`` and ``N - 1 / n`` are positive semidefinite (sums of squares of centred membership vectors),
- both vanish on the membership vector of either layer, and their traces are ``2 E (1 - 1/q)`` and ``2 E (1 - 1/n)``,
- ``0 <= Y <= N <= 1`` entrywise, ones on the diagonal, rows of a block of ``Y`` sum to the experts per device, of
  ``N`` to the experts per node,
- neighbouring layer pairs agree on the layer they share.

Alternating directions (ADMM) split the entrywise from the semidefinite part. Its multipliers give the bound: for
*any* symmetric multipliers the Lagrangian separates, the entrywise part is minimised row by row and the semidefinite
part is a largest eigenvalue times a known trace. So every multiplier gives a valid bound; better ones a larger bound.
Eigenvalues are raised by a margin above rounding before they are used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

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
        if iteration % 20 == 0:
            solver.balance()
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

    @property
    def flat(self) -> bool:
        """Whether there is one node only, so that every pair of experts shares it."""
        return self.shape.nodes == 1

    def step(self) -> None:
        """Do one round: entries, then the two semidefinite parts, then the multipliers."""
        device, node = self.entries()
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
        price_device = fine.copy()
        price_node = coarse - fine / shape.per_node
        least = 0.0
        for pair in range(self.pairs):
            cross_device = 2.0 * price_device[pair, :experts, experts:] - shape.save_device * self.weights[pair]
            cross_node = 2.0 * price_node[pair, :experts, experts:] - shape.save_node * self.weights[pair]
            rows = _row_minimum(cross_device, cross_node, shape.on_device, shape.on_node)
            columns = _row_minimum(cross_device.T, cross_node.T, shape.on_device, shape.on_node)
            least += max(rows, columns)
        for layer in range(self.pairs + 1):
            own_device, own_node = self._own(price_device, layer), self._own(price_node, layer)
            least += float(np.trace(own_device) + np.trace(own_node))
            least += _row_minimum(
                _without_diagonal(own_device), _without_diagonal(own_node), shape.on_device - 1, shape.on_node - 1
            )
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

    def _own(self, matrix: Array, layer: int) -> Array:
        experts = self.shape.experts
        total = np.zeros((experts, experts))
        if layer < self.pairs:
            total += matrix[layer, :experts, :experts]
        if layer > 0:
            total += matrix[layer - 1, experts:, experts:]
        return total

    def _project(self, matrices: Array) -> Array:
        inner = self.basis.T @ matrices @ self.basis
        values, vectors = np.linalg.eigh((inner + inner.transpose(0, 2, 1)) / 2.0)
        outer = self.basis @ (vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :])
        projected: Array = outer @ outer.transpose(0, 2, 1)
        return projected

    def entries(self) -> tuple[Array, Array]:
        """Minimise over the entries given the semidefinite parts; own blocks of shared layers are averaged."""
        experts, pairs = self.shape.experts, self.pairs
        fine = self.fine - self.fine_dual
        coarse = self.coarse - self.coarse_dual
        pull = self.weights / (2.0 * self.penalty)
        cross = self._solve(
            fine[:, :experts, experts:], coarse[:, :experts, experts:],
            self.shape.save_device * pull, self.shape.save_node * pull,
        )  # fmt: skip
        share = np.full((pairs + 1, 1, 1), 0.5)
        share[0] = share[-1] = 1.0
        own_fine = np.zeros((pairs + 1, experts, experts))
        own_coarse = np.zeros((pairs + 1, experts, experts))
        for own, whole in ((own_fine, fine), (own_coarse, coarse)):
            own[:-1] += whole[:, :experts, :experts]
            own[1:] += whole[:, experts:, experts:]
            own *= share
        own_device, own_node = self._solve(own_fine, own_coarse, np.zeros(1), np.zeros(1))
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

    def _solve(self, fine: Array, coarse: Array, pull_device: Array, pull_node: Array) -> tuple[Array, Array]:
        """Per entry: minimise ``((d - n/q - fine)^2 + (n - 1/nodes - coarse)^2) / 2 - pulls`` over 0 <= d <= n <= 1."""
        q, base = self.shape.per_node, 1.0 / self.shape.nodes
        goal_fine = fine + 0.0
        if self.flat:
            node = np.ones(np.broadcast_shapes(fine.shape, pull_device.shape))
            return np.clip(goal_fine + 1.0 / q + pull_device, 0.0, 1.0), node
        goal_node = coarse + base
        # Free optimum, then the edges d = 0, d = n and n = 1, each an exact one-dimensional minimum.
        node = goal_node + pull_node + pull_device / q
        device = goal_fine + node / q + pull_device
        inside = (device >= 0.0) & (device <= node) & (node <= 1.0)

        def value(d: Array, n: Array) -> Array:
            first, second = d - n / q - goal_fine, n - goal_node
            return 0.5 * (first * first + second * second) - pull_device * d - pull_node * n

        bottom = np.clip((goal_node + pull_node - goal_fine / q) / (1.0 + 1.0 / q**2), 0.0, 1.0)
        slope = 1.0 - 1.0 / q
        both = np.clip((slope * goal_fine + goal_node + pull_device + pull_node) / (1.0 + slope**2), 0.0, 1.0)
        top = np.clip(goal_fine + 1.0 / q + pull_device, 0.0, 1.0)
        one = np.ones_like(top)
        best_device, best_node = np.zeros_like(bottom), bottom
        best = value(best_device, best_node)
        for d, n in ((both, both), (top, one)):
            other = value(d, n)
            better = other < best
            best = np.where(better, other, best)
            best_device, best_node = np.where(better, d, best_device), np.where(better, n, best_node)
        return np.where(inside, device, best_device), np.where(inside, node, best_node)


def _without_diagonal(matrix: Array) -> Array:
    size = matrix.shape[0]
    kept: Array = matrix[~np.eye(size, dtype=bool)].reshape(size, size - 1)
    return kept


def _row_minimum(device: Array, node: Array, on_device: int, on_node: int) -> float:
    """Lower bound of ``sum device * d + node * n`` over rows with ``on_device`` d's, ``on_node`` n's, ``d <= n <= 1``.

    A price on the number of d's makes each row a choice of the ``on_node`` cheapest columns; any price is valid, the
    best of each row is found by golden section (the bound is concave in the price).
    """
    if on_node <= 0:
        return 0.0
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
    return float(np.maximum(value(low), value(high)).sum())
