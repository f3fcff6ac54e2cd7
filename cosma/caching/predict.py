"""Which experts the next layers will use, learnt from a trace: the affinity between experts of consecutive layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cosma.compiled import kernel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.caching.requests import Requests

Int64s = NDArray[np.int64]


def visits_by_page(requests: Requests) -> NDArray[np.int64]:
    """Count the visits of each page, ``int64[pages]``."""
    return np.bincount(requests.page, weights=requests.visits, minlength=requests.pages).astype(np.int64)


def learn_affinity(requests: Requests, distances: Sequence[int]) -> NDArray[np.float32]:
    """Learn how often one expert is followed by another.

    Parameters
    ----------
    distances
        Steps between the two: 1 is the next layer, ``layers`` the same layer of the next batch.

    Returns
    -------
    float32[distances, layers, experts, experts]
        Entry ``[i, l, e, f]``: among the steps of layer l that visit expert e, the share of those that are followed,
        ``distances[i]`` steps later, by a visit to expert f of the layer then run. Experts never seen have rows of
        zeros.
    """
    shape = (requests.layers, requests.experts, requests.experts)
    # Single precision: a replay of a million steps is held up by reading rows of these.
    found = np.empty((len(distances), *shape), dtype=np.float32)
    for i, distance in enumerate(distances):
        share = np.zeros(shape)
        count_followers(requests.start, requests.page, requests.layers, requests.experts, distance, share)
        found[i] = share
    return found


@kernel
def count_followers(
    start: Int64s, page: Int64s, layers: int, experts: int, distance: int, share: NDArray[np.float64]
) -> None:  # fmt: skip
    """Fill ``share[layer]`` for one distance; see :func:`learn_affinity`."""
    visits = np.zeros(layers * experts, dtype=np.int64)
    for step in range(len(start) - 1 - distance):
        for r in range(start[step], start[step + 1]):
            visits[page[r]] += 1
            row = share[step % layers, page[r] % experts]
            for follower in range(start[step + distance], start[step + distance + 1]):
                row[page[follower] % experts] += 1.0
    for layer in range(layers):
        for expert in range(experts):
            share[layer, expert] /= max(1, visits[layer * experts + expert])
