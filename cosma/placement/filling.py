"""Free places given to copies of experts that live elsewhere, the busiest first, as a load balancer would."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.placement.document import Placement


def filled(placement: Placement, load: NDArray[Any] | None = None) -> Placement:
    """Return the placement with as many experts on every device as on the fullest of any layer.

    Free places get copies of experts that the device does not hold yet, such that the fullest device carries least if
    copies share evenly. Where that is the same, or within the limit the placement was made for, the copy that moves
    least load is taken, so that crossings change little. No device is given an expert twice; one that holds all
    experts keeps its free places.
    """
    devices, experts = placement.topology.devices, placement.experts
    held = np.zeros((placement.layers, experts, devices), dtype=bool)
    for layer, row in enumerate(placement.copies()):
        for expert, copies in enumerate(row):
            held[layer, expert, list(copies)] = True
    room = int(held.sum(axis=1).max())
    if int(held.sum(axis=1).min()) == room:
        return placement
    limit = float((placement.solver or {}).get("balance") or 1.0)
    rows = []
    for layer, row in enumerate(placement.copies()):
        weight = np.ones(experts) if load is None else np.asarray(load[layer], dtype=np.float64) + 1e-9
        copies_of = [list(copies) for copies in row]
        for _ in range(int(devices * room - held[layer].sum())):
            found = _best_copy(held[layer], weight, room, limit)
            if found is None:
                break
            held[layer, found[0], found[1]] = True
            copies_of[found[0]].append(found[1])
        rows.append(tuple(tuple(copies) for copies in copies_of))
    return replace(placement, replicas=tuple(rows))


def _best_copy(
    held: NDArray[np.bool_], weight: NDArray[np.float64], room: int, limit: float
) -> tuple[int, int] | None:
    """Return an expert and a device with a free place for a copy of it, or None where there is none."""
    possible = ~held & (held.sum(axis=0) < room)
    if not possible.any():
        return None
    count = held.sum(axis=1)
    carried = (weight / count) @ held
    share = weight / (count + 1)
    # What devices carry once an expert's visits are shared by one copy more, before that copy has its own.
    less = carried - held * (weight / count - share)[:, None]
    peak = np.maximum(less.max(axis=1)[:, None], less + share[:, None])
    peak = np.maximum(peak, limit * carried.mean())
    # Rounding must not tell equal peaks apart.
    order = np.lexsort((np.repeat(share, held.shape[1]), np.round(peak / carried.mean(), 9).ravel()))
    first = int(order[possible.ravel()[order]][0])
    return first // held.shape[1], first % held.shape[1]
