"""Load balance beside affinity, as a limit.

Imbalance of a layer is the fullest device's visits over the mean device's. A price on the visits above a floor on the
fullest device of each layer turns it into one objective; the price is raised until the limit holds. Two scopes:
``each`` limits every layer, ``mean`` the mean over layers (the figure load balancers report).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cosma.errors import InfeasibleError, InputError
from cosma.placement.meanfield import grown_starts
from cosma.placement.metrics import SCOPES, keeps, peak_ratios
from cosma.placement.pressure import Pressure
from cosma.placement.search import SearchOptions, search

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.placement.instance import Instance

#: Prices tried for a limit on every layer, in cost per visit above it.
_LIMIT_PRICES = (1.0, 4.0, 16.0, 64.0)


def imbalances(instance: Instance, home: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return max over mean visits per device, per layer."""
    return peak_ratios(instance.device_load(home))


def balanced_search(
    instance: Instance, options: SearchOptions, limit: float, scope: str, start: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Search for the cheapest placement within a limit on imbalance.

    Raises InputError if the limit is below 1 or the scope unknown. Raises InfeasibleError if one expert alone exceeds
    the limit, or no placement within it was found.

    Parameters
    ----------
    instance, options
        Problem and work limit (shared by all prices tried).
    limit
        Largest max-over-mean allowed, at least 1.
    scope
        ``each`` layer, or the ``mean`` over layers.
    """
    if scope not in SCOPES:
        raise InputError(f"balance: scope {scope!r}; expected one of {', '.join(SCOPES)}")
    if not limit >= 1.0:
        raise InputError(f"balance: limit {limit}; the fullest device holds at least the mean, so give 1 or more")
    _refuse_impossible(instance, limit, scope)
    if _fits(instance, start, limit, scope):
        return start
    if scope == "each":
        return _each_layer(instance, options, limit, start)
    return _mean_of_layers(instance, options, limit, start)


def _each_layer(
    instance: Instance, options: SearchOptions, limit: float, start: NDArray[np.int64]
) -> NDArray[np.int64]:
    share = replace(options, proposals=max(1, options.proposals // 3), pool=1, rounds=2)
    home = start
    for price in _LIMIT_PRICES:
        home = search(instance, share, _priced(instance, price, limit), [home])
        if _fits(instance, home, limit, "each"):
            return home
    ratio = imbalances(instance, home)
    layer = int(ratio.argmax())
    raise InfeasibleError(
        f"balance: no placement with every layer within {limit} of the mean load was found; layer {layer} came down to "
        f"{ratio[layer]:.4f}. Raise the limit, limit the mean over layers instead, or replicate"
    )


def _mean_of_layers(
    instance: Instance, options: SearchOptions, limit: float, start: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Bisect twice, without and with a start whose busy experts are spread, and return the cheaper outcome."""
    alone = _bisected(instance, options, limit, start, [])
    if instance.devices == 1:
        return alone
    helped = _bisected(instance, options, limit, start, grown_starts(instance, options.seed, flat=True, finish=False))
    return min(alone, helped, key=instance.crossing)


def _bisected(
    instance: Instance,
    options: SearchOptions,
    limit: float,
    start: NDArray[np.int64],
    even: list[NDArray[np.int64]],
) -> NDArray[np.int64]:
    """Bisect the price on a logarithmic scale; a higher price balances more and crosses more."""
    share = replace(options, proposals=max(1, options.proposals // 5), pool=0, rounds=1)
    low, high = 0.02, 32.0
    best: NDArray[np.int64] | None = None
    home = start
    for step in range(10):
        price = float(np.sqrt(low * high))
        # Late steps refine the best placement found; early ones may still move far.
        home = home if step < 6 or best is None else best
        home = search(instance, share, _priced(instance, price, 1.0), [home, *(even if step < 3 else [])])
        if _fits(instance, home, limit, "mean"):
            high = price
            if best is None or instance.crossing(home) < instance.crossing(best):
                best = home
        else:
            low = price
        if step >= 6:
            # Widen again around the price that works: the outcome of a search is not quite monotone in it.
            low, high = low * 0.97, high * 1.03
    if best is None:
        home = search(instance, share, _priced(instance, 64.0, 1.0), [home])
        if not _fits(instance, home, limit, "mean"):
            raise InfeasibleError(
                f"balance: no placement with mean imbalance {limit} was found; the best has "
                f"{imbalances(instance, home).mean():.4f}. Raise the limit or replicate"
            )
        best = home
    return best


def _fits(instance: Instance, home: NDArray[np.int64], limit: float, scope: str) -> bool:
    return keeps(imbalances(instance, home), limit, scope)


def _priced(instance: Instance, price: float, limit: float) -> Pressure:
    pressure = Pressure.none(instance)
    pressure.price = np.full(instance.layers, price)
    pressure.floor = limit * instance.load.sum(axis=1) / instance.devices
    return pressure


def _refuse_impossible(instance: Instance, limit: float, scope: str) -> None:
    least = np.maximum(
        1.0, instance.load.max(axis=1) * instance.devices / np.maximum(instance.load.sum(axis=1), 1.0)
    )
    layer = int(least.argmax())
    if scope == "each" and least[layer] > limit:
        expert = int(instance.load[layer].argmax())
        raise InfeasibleError(
            f"balance: in layer {layer} expert {expert} alone carries {least[layer]:.3f} times the mean device load, "
            f"so a limit of {limit} on every layer cannot hold; raise it to at least that, limit the mean over "
            "layers, or replicate the expert and let copies share load (routing split)"
        )
    if scope == "mean" and float(least.mean()) > limit + 1e-9:
        raise InfeasibleError(
            f"balance: the heaviest experts alone make a mean imbalance of {least.mean():.3f}; "
            f"a limit of {limit} cannot hold; raise it, or replicate and let copies share load (routing split)"
        )
