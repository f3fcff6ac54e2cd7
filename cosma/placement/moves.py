"""Re-placement: a better placement for a new trace that moves few experts from where they are now."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cosma.errors import InputError
from cosma.placement.pressure import Pressure
from cosma.placement.search import SearchOptions, search

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.placement.instance import Instance

#: Prices of a move tried, as shares of the mean traffic of an expert.
_PRICES = (2.0, 1.0, 0.5, 0.25, 0.1, 0.03)


def moved(current: NDArray[np.integer], devices: NDArray[np.integer]) -> int:
    """Return how many experts live on another device than before."""
    if current.shape != devices.shape:
        raise InputError(f"current placement is {current.shape} (layers x experts), the new one {devices.shape}")
    return int((current != devices).sum())


def search_near(
    instance: Instance, options: SearchOptions, current: NDArray[np.integer], max_moves: int
) -> NDArray[np.int64]:
    """Search for the cheapest placement that moves at most ``max_moves`` experts; returns ``[layers, places]``.

    A falling price on moves finds which experts are worth moving; a last search under the hard budget uses it up.
    The result is never worse than ``current`` and never over the budget. Raises InputError if the current placement
    does not fit the problem.
    """
    if current.shape != (instance.layers, instance.experts):
        raise InputError(
            f"re-placement: the current placement is {current.shape[0]} layers x {current.shape[1]} experts, "
            f"the trace has {instance.layers} x {instance.experts}"
        )
    held = np.stack([np.bincount(row, minlength=instance.devices) for row in current])
    if (held > instance.slots).any():
        layer, device = (int(i) for i in np.argwhere(held > instance.slots)[0])
        raise InputError(
            f"re-placement: the current placement holds {held[layer, device]} experts of layer {layer} on device "
            f"{device}, room for {instance.slots[device]}"
        )
    start = instance.padded(current)
    budgeted = Pressure.none(instance)
    budgeted.current[:, : instance.experts] = current
    budgeted.budget = max_moves
    share = replace(options, proposals=max(1, options.proposals // (len(_PRICES) + 2)), pool=1, rounds=1)
    best = start
    traffic = 2.0 * instance.steps / (instance.layers * instance.experts)
    plain = instance.linear
    for price in _PRICES if max_moves else ():
        instance.linear = plain.copy()
        away = np.arange(instance.devices)[None, None, :] != current[:, :, None]
        instance.linear[:, : instance.experts] += price * traffic * float(instance.cost.max()) * away
        home = search(instance, share, None, [start])
        instance.linear = plain
        if moved(current, home[:, : instance.experts]) <= max_moves and instance.crossing(home) < instance.crossing(
            best
        ):
            best = home
    final = search(instance, replace(share, proposals=2 * share.proposals), budgeted, [best])
    return final if instance.crossing(final) <= instance.crossing(best) else best
