"""Which experts the next layers will use, learnt from a trace: the affinity between experts of consecutive layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.compiled import helper, kernel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cosma.arrays import Float32s, Floats, Ints, Uint16s
    from cosma.caching.requests import Requests

#: Evidence by bit, and of what was never absent: as much as a miss in 2 ** 53, the least that a double below 1 leaves.
_STEPS_A_BIT, CERTAIN = 1024, 53 * 1024


def visits_by_page(requests: Requests) -> Ints:
    """Count the visits of each page, ``int64[pages]``."""
    return np.bincount(requests.page, weights=requests.visits, minlength=requests.pages).astype(np.int64)


def learn_affinity(requests: Requests, distances: Sequence[int]) -> Float32s:
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
    # Single precision: a replay of a million steps is held up by reading rows of these.
    found = np.empty((len(distances), requests.layers, requests.experts, requests.experts), dtype=np.float32)
    for i, distance in enumerate(distances):
        found[i] = _followed(requests, distance)
    return found


def _followed(requests: Requests, distance: int) -> Floats:
    """Return the shares of one distance, unrounded."""
    share = np.zeros((requests.layers, requests.experts, requests.experts))
    count_followers(requests.start, requests.page, requests.layers, requests.experts, distance, share)
    return share


def learn_evidence(requests: Requests, depth: int) -> Uint16s:
    """Learn what a visit says for each of the next steps: ``[depth, layers, experts, experts]``, as ``evidence``."""
    found = np.empty((depth, requests.layers, requests.experts, requests.experts), dtype=np.uint16)
    for ahead in range(depth):
        found[ahead] = evidence(_followed(requests, ahead + 1))
    return found


def evidence(share: Floats) -> Uint16s:
    """Turn shares into evidence, which adds up: chances to be absent multiply, so these are their logarithms.

    Shares are doubles: of those near 1, single precision leaves few digits of the chance to be absent.
    """
    with np.errstate(divide="ignore"):
        found: Uint16s = np.rint(
            np.minimum(-_STEPS_A_BIT * np.log2(1.0 - share), CERTAIN)
        ).astype(np.uint16)
    return found


@kernel
def count_followers(
    start: Ints, page: Ints, layers: int, experts: int, distance: int, share: Floats
) -> None:  # fmt: skip
    """Fill ``share[layer]`` for one distance; see :func:`learn_affinity`."""
    for layer in range(layers):
        # Layer by layer, not step by step: one table fits in the processor's cache.
        visits = np.zeros(experts, dtype=np.int64)
        for step in range(layer, len(start) - 1 - distance, layers):
            for r in range(start[step], start[step + 1]):
                expert = page[r] % experts
                visits[expert] += 1
                row = share[layer, expert]
                for follower in range(start[step + distance], start[step + distance + 1]):
                    row[page[follower] % experts] += 1.0
        for expert in range(experts):
            share[layer, expert] /= max(1, visits[expert])


@helper
def sum_evidence(
    start: Ints, page: Ints, first: int, last: int, layers: int, experts: int, guess: Uint16s, sums: NDArray[np.int32]
) -> None:  # fmt: skip
    """Fill ``sums[ahead, step - first]`` for steps ``[first, last)``: what their visits say for each expert."""
    for ahead in range(len(sums)):
        for layer in range(layers):
            # Layer by layer, as above.
            for step in range(first + layer, last, layers):
                into = sums[ahead, step - first]
                into[:] = 0
                for r in range(start[step], start[step + 1]):
                    row = guess[ahead, layer, page[r] - layer * experts]
                    for e in range(experts):
                        into[e] += np.int32(row[e])
