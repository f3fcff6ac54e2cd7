"""Starting placements from the semidefinite relaxation.

A few rounds of the relaxation already know which experts belong together through *all* layers, which swaps and
assignments of single layers find late or never. A layer near the middle is cut into groups by balanced clustering of
the leading eigenvectors of its co-location matrix, nodes first and then devices; the other layers follow by exact
assignment to their neighbours along the relaxed co-location between layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.placement.assignment import linear_sum_assignment
from cosma.placement.layerwise import greedy_chain, polish
from cosma.placement.semidefinite import Admm

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.placement.instance import Instance
    from cosma.placement.semidefinite import Shape

#: Iterations after which starts are taken.
SNAPSHOTS = (24, 36)


def relaxed_starts(
    instance: Instance, shape: Shape, seed: int, per_snapshot: int = 6, snapshots: tuple[int, ...] = SNAPSHOTS
) -> list[NDArray[np.int64]]:
    """Return placements ``[layers, places]`` rounded from the relaxation; equal seeds give equal placements."""
    generator = np.random.default_rng([seed, 2])
    solver = Admm(instance.dense / (float(instance.dense.mean()) or 1.0), shape)
    starts: list[NDArray[np.int64]] = []
    for iteration in range(1, max(snapshots) + 1):
        solver.step()
        if iteration % 20 == 0:
            solver.balance()
        if iteration in snapshots:
            device, node = solver.entries()
            for _ in range(per_snapshot):
                starts.append(_round(instance, shape, device, node, generator))
    return starts


def _round(
    instance: Instance,
    shape: Shape,
    device: NDArray[np.float64],
    node: NDArray[np.float64],
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    experts = shape.experts
    middle = int(generator.integers(instance.layers // 4, (3 * instance.layers + 3) // 4))
    pair = min(middle, instance.layers - 2)
    begin = 0 if pair == middle else experts
    own = slice(begin, begin + experts)
    first = np.zeros(experts, dtype=np.int64)
    node_of = _cluster(node[pair, own, own], shape.nodes, generator)
    for group in range(shape.nodes):
        inside = np.flatnonzero(node_of == group)
        together = device[pair, own, own][np.ix_(inside, inside)]
        first[inside] = group * shape.per_node + _cluster(together, shape.per_node, generator)
    relaxed = device[:, :experts, experts:] * shape.save_device + node[:, :experts, experts:] * shape.save_node
    return polish(instance, greedy_chain(instance, first, middle, relaxed))


def _cluster(together: NDArray[np.float64], groups: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Cut into equal groups: k-means on the leading eigenvectors with every step an exact assignment."""
    size = together.shape[0]
    if groups == 1:
        return np.zeros(size, dtype=np.int64)
    values, vectors = np.linalg.eigh(together - together.mean())
    points = vectors[:, -groups:] * np.sqrt(np.maximum(values[-groups:], 0.0))
    best, best_spread = np.zeros(size, dtype=np.int64), np.inf
    for _ in range(5):
        centres = points[generator.choice(size, groups, replace=False)]
        for _ in range(20):
            distance = ((points[:, None, :] - centres[None]) ** 2).sum(axis=2)
            _, column = linear_sum_assignment(np.repeat(distance, size // groups, axis=1))
            label = column // (size // groups)
            centres = np.stack([points[label == group].mean(axis=0) for group in range(groups)])
        spread = float(((points - centres[label]) ** 2).sum())
        if spread < best_spread:
            best, best_spread = label, spread
    return best
