"""Exact assignment of one layer at a time.

With all other layers fixed, a layer's placement is a transportation problem (each expert to a place, cost = its field),
solved exactly. Sweeping over the layers until nothing improves is a local optimum in which no single layer can be
placed better.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.placement.assignment import linear_sum_assignment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.placement.instance import Instance


def assign_layer(instance: Instance, field: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the cheapest placement of one layer given its field ``[places, devices]``."""
    columns = instance.columns()
    _, place = linear_sum_assignment(field[:, columns])
    chosen: NDArray[np.int64] = columns[place]
    return chosen


def polish(instance: Instance, home: NDArray[np.int64], passes: int = 50) -> NDArray[np.int64]:
    """Assign layer after layer, up and down, until a pass improves nothing (or ``passes`` passes are done)."""
    home = home.copy()
    field = instance.field(home)
    order = [*range(instance.layers), *reversed(range(instance.layers - 1))]
    everyone = np.arange(instance.places)
    # A layer whose neighbours have not moved since it was assigned cannot do better.
    stale = np.ones(instance.layers, dtype=bool)
    for _ in range(passes):
        better = False
        for layer in order:
            if not stale[layer]:
                continue
            stale[layer] = False
            chosen = assign_layer(instance, field[layer])
            gain = field[layer, everyone, home[layer]].sum() - field[layer, everyone, chosen].sum()
            if gain > 1e-7 * max(1.0, abs(float(field[layer].max()))):
                better = True
                stale[max(0, layer - 1) : layer] = True
                stale[layer + 1 : layer + 2] = True
                home[layer] = chosen
                instance.renew(field, home, layer - 1, layer)
                instance.renew(field, home, layer + 1, layer + 2)
        if not better:
            break
    return home


def greedy_chain(
    instance: Instance, first: NDArray[np.int64], start: int = 0, counts: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """Place layer ``start`` as given and every other layer by exact assignment to its placed neighbour.

    ``counts`` stands in for the transition counts where something smoother is known.
    """
    counts = instance.dense if counts is None else counts
    home = np.zeros((instance.layers, instance.places), dtype=np.int64)
    home[start] = first
    for layer in range(start + 1, instance.layers):
        home[layer] = assign_layer(instance, _one_sided(instance, counts, home, layer, layer - 1))
    for layer in reversed(range(start)):
        home[layer] = assign_layer(instance, _one_sided(instance, counts, home, layer, layer + 1))
    return home


def _one_sided(
    instance: Instance, counts: NDArray[np.float64], home: NDArray[np.int64], layer: int, neighbour: int
) -> NDArray[np.float64]:
    field: NDArray[np.float64] = instance.linear[layer].copy()
    at = home[neighbour, : instance.experts]
    if neighbour < layer:
        field[: instance.experts] += counts[neighbour].T @ instance.cost[at]
    else:
        field[: instance.experts] += counts[layer] @ instance.cost[:, at].T
    return field
