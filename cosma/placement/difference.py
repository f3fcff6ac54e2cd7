"""What changed between two placements: experts that moved, and what that did to the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.errors import InputError

if TYPE_CHECKING:
    from cosma.placement.affinity import Affinity
    from cosma.placement.document import Placement

#: Moves listed one by one; the rest is only counted.
LISTED = 50


def diff(before: Placement, after: Placement, affinity: Affinity | None = None) -> dict[str, Any]:
    """Compare two placements of one model.

    Parameters
    ----------
    before, after
        The placements.
    affinity
        Counts to cost both on; without it the metrics stored in the files are shown.

    Returns
    -------
    dict
        ``moved`` (experts whose home changed), ``across_nodes`` (of those, how many changed node),
        ``moved_per_layer``, ``copies_added``, ``copies_removed``, ``moves`` (the first of them), ``metrics``.

    Raises
    ------
    InputError
        If the placements are of models or clusters of different size.
    """
    if before.devices.shape != after.devices.shape:
        raise InputError(
            f"diff: {before.layers} layers x {before.experts} experts against {after.layers} x {after.experts}; "
            "both placements must be of one model"
        )
    if before.topology.paths != after.topology.paths:
        raise InputError(
            f"diff: {before.topology.devices} devices in {before.topology.nodes} nodes against "
            f"{after.topology.devices} in {after.topology.nodes}; both placements must be on the same devices"
        )
    changed = np.argwhere(before.devices != after.devices)
    levels = before.topology.crossing_levels()
    outer = [
        int(levels[before.devices[layer, expert], after.devices[layer, expert]]) < before.topology.levels - 1
        for layer, expert in changed
    ]
    held_before, held_after = _copies(before), _copies(after)
    return {
        "format": "cosma-placement",
        "moved": len(changed),
        "of": int(before.devices.size),
        "across_nodes": int(sum(outer)),
        "moved_per_layer": (before.devices != after.devices).sum(axis=1).tolist(),
        "copies_added": len(held_after - held_before),
        "copies_removed": len(held_before - held_after),
        "moves": [
            {
                "layer": int(layer),
                "expert": int(expert),
                "from": int(before.devices[layer, expert]),
                "to": int(after.devices[layer, expert]),
            }
            for layer, expert in changed[:LISTED]
        ],
        "metrics": {"before": _metrics(before, affinity), "after": _metrics(after, affinity)},
    }


def _copies(placement: Placement) -> set[tuple[int, int, int]]:
    return {
        (layer, expert, device)
        for layer, row in enumerate(placement.copies())
        for expert, copies in enumerate(row)
        for device in copies
    }


def _metrics(placement: Placement, affinity: Affinity | None) -> dict[str, Any]:
    if affinity is None or placement.replicas is not None:
        return dict(placement.metrics)
    from cosma.placement import metrics

    if affinity.load.shape != placement.devices.shape:
        raise InputError(
            f"diff: the trace has {affinity.load.shape} layers and experts, the placements {placement.devices.shape}"
        )
    return metrics.summary(affinity, placement.topology, placement.devices)
