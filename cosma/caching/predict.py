"""Which experts the next layers will use, learnt from a trace: the affinity between experts of consecutive layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cosma.caching.requests import Requests


def visits_by_page(requests: Requests) -> NDArray[np.int64]:
    """Count the visits of each page, ``int64[pages]``."""
    return np.bincount(requests.page, weights=requests.visits, minlength=requests.pages).astype(np.int64)


def learn_affinity(requests: Requests, distances: Sequence[int]) -> NDArray[np.float64]:
    """Learn how often one expert is followed by another.

    Parameters
    ----------
    requests
        The trace to learn from.
    distances
        Steps between the two: 1 is the next layer, ``layers`` the same layer of the next batch.

    Returns
    -------
    float64[distances, layers, experts, experts]
        Entry ``[i, l, e, f]``: among the steps of layer l that visit expert e, the share of those that are followed,
        ``distances[i]`` steps later, by a visit to expert f of the layer then run. Experts never seen have rows of
        zeros.
    """
    layers, experts = requests.layers, requests.experts
    steps = requests.steps
    used = np.zeros((steps, experts), dtype=np.float32)
    used[requests.step_of_request(), requests.page % experts] = 1.0
    share = np.zeros((len(distances), layers, experts, experts), dtype=np.float64)
    for layer in range(layers):
        rows = np.arange(layer, steps, layers)
        for i, distance in enumerate(distances):
            now = rows[rows + distance < steps]
            if len(now):
                visits = used[now].sum(axis=0)
                share[i, layer] = (used[now].T @ used[now + distance]) / np.maximum(visits, 1.0)[:, None]
    return share
