"""Recombination: the best placement that takes every layer from some candidate, devices renamed freely.

A shortest path over (layer, candidate) whose edges are the best savings over all renamings of alike devices: exact
over the candidates, and exact altogether where they are all partitions of a layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.placement import matching

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cosma.placement.instance import Instance


def recombine(instance: Instance, pool: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return the best placement that takes every layer from some member of the pool, devices renamed freely.

    Exact over the pool: a shortest path over (layer, distinct layer placement) whose edges are the best saving
    between two layer placements over all renamings of alike devices.
    """
    candidates = [distinct_layers(instance, [home[layer] for home in pool]) for layer in range(instance.layers)]
    return chain_path(instance, candidates)[0]


def distinct_layers(instance: Instance, rows: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Drop repeated layer placements, in order of first appearance."""
    unique = dict.fromkeys(tuple(int(d) for d in row[: instance.experts]) for row in rows)
    return np.array(list(unique), dtype=np.int64)


def chain_path(instance: Instance, candidates: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], float]:
    """Find the best chain through ``candidates[layer][k, expert]``; returns the placement and its summed cost."""
    tree, devices = instance.tree, instance.devices
    best = np.zeros(len(candidates[0]))
    choices: list[NDArray[np.int64]] = []
    for layer in range(instance.layers - 1):
        gains = np.zeros((len(candidates[layer]), len(candidates[layer + 1])))
        matching.pair_gains(
            candidates[layer], candidates[layer + 1], instance.dense[layer], devices, tree.group_start,
            tree.group_kind, tree.child_start, tree.step, gains,
        )  # fmt: skip
        reach = best[:, None] + gains
        choices.append(reach.argmax(axis=0))
        best = reach.max(axis=0)
    picked = [int(best.argmax())]
    for choice in reversed(choices):
        picked.append(int(choice[picked[-1]]))
    picked.reverse()
    rows = [candidates[layer][k] for layer, k in enumerate(picked)]
    home = np.zeros((instance.layers, instance.experts), dtype=np.int64)
    home[0] = rows[0]
    for layer in range(instance.layers - 1):
        home[layer + 1] = renamed(instance, layer, home[layer], rows[layer + 1])
    full = instance.padded(home)
    return full, tree.base * instance.steps - float(best.max())


def renamed(instance: Instance, layer: int, earlier: NDArray[np.int64], later: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rename the devices of a layer's placement so that it follows the earlier layer's as cheaply as it can."""
    tree, devices = instance.tree, instance.devices
    flow = np.zeros((devices, devices))
    np.add.at(flow, (earlier[:, None], later[None, :]), instance.dense[layer])
    relabel = np.zeros(devices, dtype=np.int64)
    matching.nested_gain(
        flow, tree.group_start, tree.group_kind, tree.child_start, tree.step, relabel,
        np.zeros((2, devices, devices)), np.zeros((4, devices + 2)),
    )  # fmt: skip
    names: NDArray[np.int64] = relabel[later]
    return names
