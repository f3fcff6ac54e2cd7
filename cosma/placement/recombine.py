"""Recombination: the best placement that takes every layer from some candidate, devices renamed freely.

A shortest path over (layer, candidate) whose edges are the best savings over all renamings of alike devices: exact
over the candidates, and exact altogether where they are all partitions of a layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.placement.assignment import linear_sum_assignment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cosma.placement.instance import Instance, Tree

#: Gain of what must not be chosen.
_FORBIDDEN = -1e30
#: Pairs of candidates (times levels squared) up to which plain Python is quicker than compiling, which takes seconds.
_PLAIN_PAIRS = 2_000


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
    tree = instance.tree
    best = np.zeros(len(candidates[0]))
    choices: list[NDArray[np.int64]] = []
    for layer in range(instance.layers - 1):
        gains = pair_gains(instance, layer, candidates[layer], candidates[layer + 1])
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
        names = rename(tree, _flow(instance, layer, home[layer], rows[layer + 1]))[1]
        home[layer + 1] = names[rows[layer + 1]]
    full = instance.padded(home)
    return full, tree.base * instance.steps - float(best.max())


def pair_gains(
    instance: Instance, layer: int, earlier: NDArray[np.int64], later: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the best saving between every candidate of a layer and every candidate of the next, ``[a, b]``."""
    tree = instance.tree
    gains = np.zeros((len(earlier), len(later)))
    if gains.size * tree.step.size**2 <= _PLAIN_PAIRS:
        for a, row in enumerate(earlier):
            for b, other in enumerate(later):
                gains[a, b] = rename(tree, _flow(instance, layer, row, other))[0]
        return gains
    from cosma.placement import matching

    matching.pair_gains(
        earlier, later, instance.dense[layer], instance.devices, tree.group_start, tree.group_kind, tree.child_start,
        tree.step, gains,
    )  # fmt: skip
    return gains


def rename(tree: Tree, flow: NDArray[np.float64]) -> tuple[float, NDArray[np.int64]]:
    """Find the best renaming of alike devices by nested assignment, from the devices outwards.

    ``flow[d, c]`` is what goes from device d of the earlier layer to device c of the later one. Returns the saving
    and, for every device of the later layer, the earlier layer's name for it.
    """
    start, kind = tree.group_start, tree.group_kind
    alike = kind[: start[1], None] == kind[None, : start[1]]
    value = np.where(alike, tree.step[0] * flow, _FORBIDDEN)
    matches: list[dict[tuple[int, int], NDArray[np.int64]]] = []
    for level in range(1, start.size - 1):
        groups = range(start[level + 1] - start[level])
        kinds, inside = kind[start[level] : start[level + 1]], tree.child_start[start[level] : start[level + 1]]
        flow = np.add.reduceat(np.add.reduceat(flow, inside[:, 0], axis=0), inside[:, 0], axis=1)
        upper = np.full(flow.shape, _FORBIDDEN)
        matches.append({})
        for a in groups:
            for b in groups:
                if kinds[a] == kinds[b]:
                    block = value[slice(*inside[a]), slice(*inside[b])]
                    rows, columns = linear_sum_assignment(block, maximize=True)
                    matches[-1][a, b] = inside[a, 0] + rows[np.argsort(columns)]
                    upper[a, b] = block[rows, columns].sum() + tree.step[level] * flow[a, b]
        value = upper
    # Down from the root: names[g] is the group of the earlier layer that group g of the later one stands for.
    names = np.zeros(1, dtype=np.int64)
    for match in reversed(matches):
        names = np.concatenate([match[int(name), group] for group, name in enumerate(names)])
    return float(value[0, 0]), names


def _flow(
    instance: Instance, layer: int, earlier: NDArray[np.int64], later: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return what goes from each device of a layer to each of the next."""
    devices, experts = instance.devices, instance.experts
    arriving = np.zeros((devices, experts))
    np.add.at(arriving, later[:experts], instance.dense[layer].T)
    flow = np.zeros((devices, devices))
    np.add.at(flow, earlier[:experts], arriving.T)
    return flow
