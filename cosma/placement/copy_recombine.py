"""Recombination of copies: every layer from some placement of a pool, devices renamed freely.

A limit on load holds layer by layer, and so does the room of devices. So layers of different placements may be joined
whatever else they contain, and a pool in which every layer keeps its limit somewhere has a placement that keeps all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.placement.copies import imbalances, shares_of
from cosma.placement.instance import build_tree
from cosma.placement.recombine import rename

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cosma.placement.copies import CopyProblem


def recombine_copies(
    problem: CopyProblem, pool: Sequence[NDArray[np.bool_]], limit: NDArray[np.float64]
) -> NDArray[np.bool_] | None:
    """Return the cheapest placement that takes every layer, within its limit, from some member of the pool.

    Exact over the pool: a shortest path over (layer, distinct way to fill it), whose edges are the best savings over
    all renamings of alike devices. None where some layer keeps its limit nowhere. Prices and budgets of moves, which
    name devices, are not looked at.
    """
    from cosma.placement import matching

    if not pool:
        return None
    fits = np.stack([imbalances(problem, held) <= limit for held in pool])
    if not fits.any(axis=0).all():
        return None
    ways = [
        np.stack(list({held[layer].tobytes(): held[layer] for held, ok in zip(pool, fits[:, layer], strict=True) if ok}
        .values())) for layer in range(len(limit))
    ]  # fmt: skip
    shares = [shares_of(found) for found in ways]
    tree = build_tree(problem.topology, np.bincount(problem.device_of, minlength=problem.topology.devices))
    reach = np.zeros(len(ways[0]))
    choices: list[NDArray[np.int64]] = []
    for layer, pairs in enumerate(problem.pairs):
        arriving = np.einsum("ef,bfd->bed", pairs, shares[layer + 1], optimize=True)
        flows = np.einsum("aec,bed->abcd", shares[layer], arriving, optimize=True)
        gains = np.empty(flows.shape[0] * flows.shape[1])
        matching.flow_gains(
            np.ascontiguousarray(flows.reshape(-1, *flows.shape[2:])), tree.group_start, tree.group_kind,
            tree.child_start, tree.step, gains,
        )  # fmt: skip
        total = reach[:, None] + gains.reshape(flows.shape[:2])
        choices.append(total.argmax(axis=0))
        reach = total.max(axis=0)
    picked = [int(reach.argmax())]
    for choice in reversed(choices):
        picked.append(int(choice[picked[-1]]))
    held = np.stack([ways[layer][number] for layer, number in enumerate(reversed(picked))])
    for layer, pairs in enumerate(problem.pairs):
        here, there = shares_of(held[layer : layer + 2])
        names = rename(tree, here.T @ pairs @ there)[1]
        renamed = np.zeros_like(held[layer + 1])
        renamed[:, names] = held[layer + 1]
        held[layer + 1] = renamed
    return held
