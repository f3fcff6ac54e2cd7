"""Crossings against imbalance, for several numbers of copies: what a limit on balance costs, and what memory buys.

Every point is a placement under ``split`` routing, found by ``service.place`` within one limit on every layer. A
placement that keeps a tight limit keeps all looser ones, so a looser limit never costs more.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.errors import InfeasibleError, InputError
from cosma.patience import patiently
from cosma.placement.copies import split_summary
from cosma.placement.eplb import eplb_placement
from cosma.placement.options import PlaceOptions
from cosma.placement.replication import as_held
from cosma.placement.service import place
from cosma.text import csv_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cosma.placement.affinity import Affinity
    from cosma.placement.document import Placement
    from cosma.placement.topology import Topology

#: Limits on the max-over-mean load that a front is drawn for where none are named.
LIMITS = (1.01, 1.02, 1.05, 1.1, 1.2, 1.5, 2.0)


@dataclass(frozen=True, slots=True, eq=False)
class FrontPoint:
    """One placement of a front."""

    #: ``ours`` or ``eplb``.
    strategy: str
    #: Room for copies.
    replicas_per_device: int
    #: Limit asked for; None for none.
    limit: float | None
    #: What the placement has on the counts, as expectations.
    mean_cost: float
    imbalance: float
    worst_imbalance: float
    #: On the mean cost of any placement with that room within that limit.
    lower_bound: float
    #: Copies in all layers, homes included.
    copies: int
    #: The placement itself.
    placement: Placement

    def row(self) -> dict[str, Any]:
        """Return the figures, for a table."""
        return {
            "strategy": self.strategy,
            "replicas_per_device": self.replicas_per_device,
            "limit": "" if self.limit is None else self.limit,
            "mean_cost": round(self.mean_cost, 6),
            "imbalance": round(self.imbalance, 6),
            "worst_imbalance": round(self.worst_imbalance, 6),
            "lower_bound": None if np.isnan(self.lower_bound) else round(self.lower_bound, 6),
            "copies": self.copies,
        }


def front(
    affinity: Affinity,
    topology: Topology,
    replicas: Sequence[int] = (0, 1, 2),
    limits: Sequence[float] = LIMITS,
    options: PlaceOptions | None = None,
    missed: list[str] | None = None,
) -> list[FrontPoint]:
    """Return placements for every number of replicas and every limit that can be kept, tight limits first.

    An interrupt ends it with the points found so far. Raises InputError if a number of replicas or a limit is
    impossible, or nothing is known of affinity, and KeyboardInterrupt if an interrupt came before the first point.

    Parameters
    ----------
    replicas
        Replicas per device, each at least 0.
    limits
        Limits on every layer's max-over-mean load; none at all comes last by itself.
    options
        Seed, work of each placement, bound, interrupt and progress; routing is ``split``.
    missed
        Gets a line for every limit that no placement was found for, or can keep.
    """
    if not affinity.has_affinity:
        raise InputError("counts of load say nothing of crossings; a front needs a trace or transitions")
    if any(not limit >= 1.0 for limit in limits) or any(number < 0 for number in replicas):
        raise InputError(f"front: limits {tuple(limits)} from 1 and replicas {tuple(replicas)} from 0 are possible")
    base = replace(options or PlaceOptions(bound="none"), routing="split", balance_scope="each", balance=None)
    found: list[FrontPoint] = []
    for number in replicas:
        best: FrontPoint | None = None
        for limit in [*sorted(set(limits)), None]:
            wanted = replace(base, replicas_per_device=number, balance=limit)
            try:
                point = patiently(partial(_point, affinity, topology, wanted), lambda: None, base.interrupted)
            except InfeasibleError as error:
                if missed is not None and not base.interrupted():
                    missed.append(f"{number} replicas per device, limit {limit}: {error}")
                continue
            if point is None:
                break
            if best is not None and best.mean_cost < point.mean_cost:
                point = replace(best, limit=limit, lower_bound=point.lower_bound)
            best = point
            found.append(point)
        _carry_bounds(found, number)
        if base.interrupted():
            break
        with suppress(InputError):
            found.append(_eplb(affinity, topology, number))
    if base.interrupted() and not found:
        raise KeyboardInterrupt
    return with_less_room(found)


def with_less_room(points: Sequence[FrontPoint]) -> list[FrontPoint]:
    """Let a cheaper placement with fewer replicas serve where there is room for more: places may stay empty."""
    found: list[FrontPoint] = []
    for point in points:
        others = [
            one for one in points
            if one.strategy == point.strategy == "ours" and one.limit == point.limit
            and one.replicas_per_device < point.replicas_per_device and one.mean_cost < point.mean_cost
        ]  # fmt: skip
        if others:
            best = min(others, key=lambda one: one.mean_cost)
            point = replace(best, replicas_per_device=point.replicas_per_device, lower_bound=point.lower_bound)
        found.append(point)
    return found


def _carry_bounds(points: list[FrontPoint], replicas: int) -> None:
    """Let the bound of a looser limit hold for tighter ones as well."""
    bound = 0.0
    for index in reversed(range(len(points))):
        if points[index].replicas_per_device == replicas:
            bound = max(bound, points[index].lower_bound)
            points[index] = replace(points[index], lower_bound=bound)


def _point(affinity: Affinity, topology: Topology, options: PlaceOptions) -> FrontPoint:
    placement = place(affinity, topology, options)
    bound = placement.certificate["lower_bound"]
    return _measured(affinity, topology, placement, "ours", options.replicas_per_device, options.balance, bound)


def _eplb(affinity: Affinity, topology: Topology, replicas: int) -> FrontPoint:
    return _measured(affinity, topology, eplb_placement(affinity, topology, replicas), "eplb", replicas, None, np.nan)


def _measured(
    affinity: Affinity, topology: Topology, placement: Placement, strategy: str, replicas: int, limit: float | None,
    bound: float,
) -> FrontPoint:  # fmt: skip
    held = as_held(placement.copies(), topology.devices)
    measured = split_summary(affinity, topology, held)
    return FrontPoint(
        strategy, replicas, limit, float(measured["mean_cost"]), float(measured["imbalance"]),
        float(measured["worst_imbalance"]), float(bound), int(held.sum()), placement,
    )  # fmt: skip


def front_csv(points: Sequence[FrontPoint]) -> str:
    """Return a front as CSV."""
    return csv_lines([points[0].row(), *(point.row().values() for point in points)])
