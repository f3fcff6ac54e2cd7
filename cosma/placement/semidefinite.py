"""A semidefinite lower bound along the chain of layers, valid whatever the accuracy of its solution.

Let ``z_d`` be the shares of all members of two consecutive layers on device d (``members``): experts, free places and
spare load. ``Y`` is the sum of ``z_d z_d'`` over devices, ``N`` the same over nodes: between experts with one home they
say who shares a device, and who a node. For a real placement on ``n`` nodes of ``q`` devices,

- ``Y - N / q`` and ``N - t t' / n``, with ``t`` the totals of members, are positive semidefinite,
- both vanish on every combination of a layer's members that is the same on all devices, and their traces have limits,
- entries lie within ``0 <= Y <= N`` and what the largest shares of two members allow,
- neighbouring layer pairs agree on the layer they share,
- triples of experts obey the inequalities of ``triangles``, of which those violated are added as they are found.

Alternating directions (ADMM) split the entrywise from the semidefinite part. Its multipliers give the bound: for
*any* symmetric multipliers the Lagrangian separates, the entrywise part is minimised entry by entry, after prices on
the sums of rows and of columns (any prices are valid), and the semidefinite part is a largest eigenvalue times a known
trace. So every multiplier gives a valid bound; better ones a larger bound. Eigenvalues are raised by a margin above
rounding before they are used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cosma.arrays import Floats
from cosma.placement.members import Boxes, Members
from cosma.placement.triangles import Triangles

# Iterations between adaptations: of the penalty, and of the triangle inequalities in force.
_ADAPT = 20
# Over-relaxation of the alternating directions; 1 is plain, values up to 2 converge.
_RELAX = 1.6
# Steps in which the price of a row's sum is bisected.
_PRICE_STEPS = 20


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


def saving_bound(
    counts: Floats, shape: Shape, iterations: int, every: int = 25, members: Members | None = None
) -> float:
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
    members
        What lies on devices; by default experts with one home each, as many on every device.
    """
    unit = float(counts.mean()) or 1.0
    solver = Admm(counts / unit, shape, members)
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

    def __init__(self, weights: Floats, shape: Shape, members: Members | None = None) -> None:
        pairs, devices = weights.shape[0], shape.nodes * shape.per_node
        members = members or Members.build(pairs + 1, shape.experts, devices, shape.on_device)
        if members is None:
            raise ValueError("more experts than places")
        self.shape, self.members, self.pairs = shape, members, pairs
        self.own = own = members.totals.shape[1]
        self.weights = np.zeros((pairs, own, own))
        self.weights[:, : shape.experts, : shape.experts] = weights
        inner = members.complements()
        rest = inner.shape[2]
        self.basis = np.zeros((pairs, 2 * own, 2 * rest))
        self.basis[:, :own, :rest] = inner[:-1]
        self.basis[:, own:, rest:] = inner[1:]
        totals = np.concatenate([members.totals[:-1], members.totals[1:]], axis=1)
        self.spread = totals[:, :, None] * totals[:, None, :]
        before, after = slice(None, -1), slice(1, None)
        self.across = Boxes.of(members, shape.nodes, shape.per_node, before, after)
        self.within = Boxes.of(members, shape.nodes, shape.per_node, slice(None), slice(None))
        layer_trace = (members.most * members.totals).sum(axis=1) * (1.0 - 1.0 / shape.per_node)
        self.fine_trace = layer_trace[:-1] + layer_trace[1:]
        on_node = np.minimum(shape.per_node * members.most, members.totals)
        layer_trace = (on_node * members.totals - members.totals**2 / shape.nodes).sum(axis=1)
        self.coarse_trace = layer_trace[:-1] + layer_trace[1:]
        matrices = (pairs, 2 * own, 2 * own)
        self.fine, self.coarse = np.zeros(matrices), np.zeros(matrices)
        self.fine_dual, self.coarse_dual = np.zeros(matrices), np.zeros(matrices)
        self.device, self.node = np.zeros(matrices), np.zeros(matrices)
        self.penalty = float(np.abs(weights).max()) * 0.1 + 0.1
        self.gap = (1.0, 1.0)
        # Only where experts have one home do full devices keep couples apart.
        places = int(members.values[0, 0]) if members.single else 0
        fillers = own - shape.experts
        self.device_cuts = Triangles(pairs, shape.experts, devices, places, fillers)
        self.node_cuts = Triangles(pairs, shape.experts, shape.nodes, places * shape.per_node, fillers)

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
        coarse = _RELAX * (node - self.spread / self.shape.nodes) + (1.0 - _RELAX) * self.coarse
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
        shape, own = self.shape, self.own
        fine, coarse = self.penalty * self.fine_dual, self.penalty * self.coarse_dual
        price_device = fine + self.device_cuts.prices()
        price_node = coarse - fine / shape.per_node + self.node_cuts.prices()
        least = -sum(cuts.allowance() for cuts in self.cuts)
        between = (slice(None), slice(None, own), slice(own, None))
        cross_device = 2.0 * price_device[between] - shape.save_device * self.weights
        cross_node = 2.0 * price_node[between] - shape.save_node * self.weights
        before, after = self._sums(slice(None, -1)), self._sums(slice(1, None))
        earned, cross_device, cross_node = _priced_rows(
            cross_device, cross_node, self.across, after, self.members.totals[:-1], shape.per_node
        )
        least += earned
        turned = self.across.transposed()
        earned, cross_device, cross_node = _priced_rows(
            cross_device.transpose(0, 2, 1), cross_node.transpose(0, 2, 1), turned, before, self.members.totals[1:],
            shape.per_node,
        )  # fmt: skip
        least += earned + _least(cross_device, cross_node, turned)
        own_device, own_node = 2.0 * self._mean_own(price_device), 2.0 * self._mean_own(price_node)
        for whole in (own_device, own_node):
            # Unlike the layers inside, the first and the last belong to one pair only.
            whole[[0, -1]] *= 0.5
        earned, own_device, own_node = _priced_rows(
            own_device, own_node, self.within, self._sums(slice(None)), self.members.totals, shape.per_node
        )
        least += earned + _least(own_device, own_node, self.within)
        least -= self._eigen_part(fine, self.fine_trace)
        if not self.flat:
            least -= self._eigen_part(coarse, self.coarse_trace)
            # The coarse part is node membership less its mean; give the mean back.
            least -= float((coarse * self.spread).sum()) / shape.nodes
        return -least

    def _sums(self, layers: slice) -> tuple[Floats, Floats]:
        return self.members.combinations[layers], self.members.values[layers]

    def _eigen_part(self, dual: Floats, trace: Floats) -> float:
        inner = self.basis.transpose(0, 2, 1) @ dual @ self.basis
        top = np.linalg.eigvalsh(inner)[:, -1]
        margin = 1e-9 * (np.abs(inner).sum(axis=(1, 2)) + 1.0)
        return float((np.maximum(0.0, top + margin) * trace).sum())

    def _project(self, matrices: Floats) -> Floats:
        inner = self.basis.transpose(0, 2, 1) @ matrices @ self.basis
        values, vectors = np.linalg.eigh((inner + inner.transpose(0, 2, 1)) / 2.0)
        outer = self.basis @ (vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :])
        projected: Floats = outer @ outer.transpose(0, 2, 1)
        return projected

    def entries(self) -> tuple[Floats, Floats]:
        """Minimise over the entries given the semidefinite parts; own blocks of shared layers are averaged."""
        own = self.own
        fine = self.fine - self.fine_dual
        coarse = self.coarse - self.coarse_dual + self.spread / self.shape.nodes
        pull = self.weights / (2.0 * self.penalty)
        cling = self.device_cuts.cling, self.node_cuts.cling
        pulls = (
            cling[0] * self.device - self.device_cuts.ahead / self.penalty,
            cling[1] * self.node - self.node_cuts.ahead / self.penalty,
        )
        between = (slice(None), slice(None, own), slice(own, None))
        cross = self._solve(
            self.across, fine[between], coarse[between],
            self.shape.save_device * pull + pulls[0][between], self.shape.save_node * pull + pulls[1][between],
            cling[0][between], cling[1][between],
        )  # fmt: skip
        own_blocks = self._solve(self.within, *(self._mean_own(whole) for whole in (fine, coarse, *pulls, *cling)))
        return self._assemble(own_blocks[0], cross[0]), self._assemble(own_blocks[1], cross[1])

    def _assemble(self, own_blocks: Floats, cross: Floats) -> Floats:
        own = self.own
        whole = np.empty((self.pairs, 2 * own, 2 * own))
        whole[:, :own, :own] = own_blocks[:-1]
        whole[:, own:, own:] = own_blocks[1:]
        whole[:, :own, own:] = cross
        whole[:, own:, :own] = cross.transpose(0, 2, 1)
        return whole

    def _mean_own(self, whole: Floats) -> Floats:
        own = self.own
        blocks = np.zeros((self.pairs + 1, own, own))
        blocks[:-1] += whole[:, :own, :own]
        blocks[1:] += whole[:, own:, own:]
        blocks[1:-1] *= 0.5
        return blocks

    def _solve(
        self, box: Boxes, fine: Floats, coarse: Floats, pull_device: Floats, pull_node: Floats, cling_device: Floats,
        cling_node: Floats,
    ) -> tuple[Floats, Floats]:  # fmt: skip
        """Per entry: minimise ``((d - n/q - fine)^2 + (n - coarse)^2 + clings) / 2 - pulls`` within the boxes.

        ``clings`` are ``cling_device d^2 + cling_node n^2``.
        """
        share = 1.0 / self.shape.per_node
        # The objective is (a d^2 + c n^2) / 2 - share d n - g d - h n.
        a, g = 1.0 + cling_device, fine + pull_device
        if self.flat:
            return np.clip((g + share * box.top) / a, box.low, box.high), box.top
        c, h = share**2 + 1.0 + cling_node, coarse + pull_node - share * fine
        # Free optimum, then the four edges, each an exact one-dimensional minimum.
        free = a * c - share**2
        device, node = (c * g + share * h) / free, (a * h + share * g) / free
        inside = (box.low <= device) & (device <= box.high) & (device <= node) & (node <= box.top)

        def value(d: Floats, n: Floats) -> Floats:
            return 0.5 * (a * d * d + c * n * n) - share * d * n - g * d - h * n

        both = np.clip((g + h) / (a + c - 2.0 * share), box.low, box.high)
        edges = [
            (box.low, np.clip((h + share * box.low) / c, box.low, box.top)),
            (both, both),
            (np.clip((g + share * box.top) / a, box.low, box.high), box.top),
            (box.high, np.clip((h + share * box.high) / c, box.high, box.top)),
        ]
        best_device, best_node = edges[0]
        best = value(best_device, best_node)
        for d, n in edges[1:]:
            other = value(d, n)
            better = other < best
            best = np.where(better, other, best)
            best_device, best_node = np.where(better, d, best_device), np.where(better, n, best_node)
        return np.where(inside, device, best_device), np.where(inside, node, best_node)


def _least(device: Floats, node: Floats, box: Boxes) -> float:
    """Return the least that entries within the boxes cost."""
    d, n = box.best(device, node)
    return float((device * d + node * n).sum())


def _priced_rows(
    device: Floats, node: Floats, box: Boxes, sums: tuple[Floats, Floats], totals: Floats, per_node: int
) -> tuple[float, Floats, Floats]:
    """Put prices on the known sums of every row: return what they earn, and what entries cost after them.

    The sum of a row, weighted by a combination, is the row's total times the combination's value. Every price is valid;
    each is bisected, since what a row costs at least is concave in it.
    """
    combinations, values = sums
    earned = 0.0
    for number in range(combinations.shape[1]):
        weights = combinations[:, None, number, :]
        known = totals * values[:, None, number]
        scale = np.maximum(np.abs(weights).mean(axis=2), 1e-300)
        for on_node in (False, True):
            right = known * (per_node if on_node else 1)
            widest = (np.abs(device).max(axis=2) + np.abs(node).max(axis=2)) / scale
            low, high = -widest, widest.copy()
            price = np.zeros_like(high)
            for step in range(_PRICE_STEPS + 1):
                shifted = price[:, :, None] * weights
                chosen = box.best(device if on_node else device - shifted, node - shifted if on_node else node)
                slope = right - (weights * chosen[on_node]).sum(axis=2)
                low, high = np.where(slope > 0, price, low), np.where(slope > 0, high, price)
                if step < _PRICE_STEPS:
                    price = 0.5 * (low + high)
            shifted = price[:, :, None] * weights
            before = _row_least(device, node, box)
            after = _row_least(device if on_node else device - shifted, node - shifted if on_node else node, box)
            gain = price * right + after - before
            price = np.where(gain > 0, price, 0.0)
            shifted = price[:, :, None] * weights
            earned += float((price * right).sum())
            if on_node:
                node = node - shifted
            else:
                device = device - shifted
    return earned, device, node


def _row_least(device: Floats, node: Floats, box: Boxes) -> Floats:
    d, n = box.best(device, node)
    found: Floats = (device * d + node * n).sum(axis=2)
    return found
