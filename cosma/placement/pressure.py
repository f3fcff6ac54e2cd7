"""What a search weighs beside crossings: load on the fullest devices, and moves away from a placement in force."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.placement.instance import Instance

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(slots=True, eq=False)
class Pressure:
    """What the search weighs beside crossings."""

    #: Per layer, the price of a token above ``floor`` on the fullest device; zeros leave balance out.
    price: NDArray[np.float64]
    #: Per layer, the load up to which a device costs nothing, in tokens.
    floor: NDArray[np.float64]
    #: ``[layers, places]`` device each expert lives on now (-1 for idle places), for re-placement.
    current: NDArray[np.int64]
    #: How many experts may end elsewhere than in ``current``; -1 for no limit.
    budget: int = -1

    @classmethod
    def none(cls, instance: Instance) -> Pressure:
        """Return no pressure: crossings alone."""
        shape = (instance.layers, instance.places)
        return cls(np.zeros(instance.layers), np.zeros(instance.layers), np.full(shape, -1, dtype=np.int64))

    @property
    def plain(self) -> bool:
        """Whether crossings alone count, so that layers may be assigned and devices renamed freely."""
        return self.budget < 0 and not self.price.any()


def objective(instance: Instance, home: NDArray[np.int64], pressure: Pressure) -> float:
    """Return what the search minimises: crossings, linear extras and the price of overload, in summed cost."""
    total = instance.crossing(home) + instance.extra(home)
    if pressure.price.any():
        peak = instance.device_load(home).max(axis=1)
        total += float((pressure.price * np.maximum(peak, pressure.floor)).sum())
    return total
