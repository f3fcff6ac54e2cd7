"""Placements whose limit on load holds on the tokens themselves, where counts only allow an estimate of it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cosma.errors import InfeasibleError
from cosma.placement.bounds import Bound
from cosma.placement.metrics import keeps, peak_ratios
from cosma.placement.recount import Score, score
from cosma.placement.replication import Flow, as_held
from cosma.placement.service import place, place_again

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from cosma.placement.affinity import Affinity
    from cosma.placement.document import Placement
    from cosma.placement.options import PlaceOptions
    from cosma.placement.topology import Topology

#: Searches at the most, the first included.
_SEARCHES = 7
#: Of these, those after the first that go on from what was found; the others start anew, within one limit for all.
_NEAR = 3
#: Share by which limits of layers fall further with each search: what tokens are above counts is another number for
#: every placement, by one or two percent on synth_58x256_top8_a50.
_FURTHER = 0.015
#: Parts of what limits are to fall by that are tried, one after the other.
_PARTS = (1.0, 0.5, 0.25)


def place_on_tokens(
    affinity: Affinity,
    topology: Topology,
    options: PlaceOptions,
    tokens: Callable[[], Iterable[NDArray[np.integer]]],
    batch_tokens: int,
) -> Placement:
    """Place experts; where copies are chosen by distance or load, keep the limit on the tokens as well.

    Counts tell exactly what copies serve that share evenly. What the nearest or the least loaded copy serves, they only
    estimate. Where the tokens say that a limit is not kept, the search is repeated within a limit lower by as much.
    Where the nearest serves, every layer gets a limit of its own, lower by what its tokens are above its counts, and
    the search goes on from what was found.

    Parameters
    ----------
    affinity, topology, options
        See :func:`cosma.placement.service.place`.
    tokens
        Returns the tokens that were counted, chunk by chunk.
    batch_tokens
        Tokens of a batch, for ``least-loaded``.

    Raises
    ------
    InputError
        As ``place``.
    InfeasibleError
        If experts do not fit, or no placement that keeps the limit on the tokens was found.
    """
    limit = options.balance
    placement = place(affinity, topology, options)
    if limit is None or options.routing == "split" or placement.replicas is None:
        return placement
    first, asked, lowest = placement.certificate, limit, float("inf")
    limits = np.full(affinity.layers, limit)
    near = options.routing == "nearest" and affinity.has_affinity
    for number in range(_SEARCHES):
        counted = score(placement, tokens(), options.routing, batch_tokens)
        each = options.balance_scope == "each"
        reached = counted.worst_imbalance if each else counted.imbalance
        if keeps(np.array(counted.layer_imbalance), limit, options.balance_scope) or options.interrupted():
            placement = replace(placement, solver={**placement.solver, "balance": limit})
            if not affinity.has_affinity:
                return placement
            return replace(placement, certificate=Bound.of(first).certificate(float(placement.metrics["mean_cost"])))
        lowest = min(lowest, reached)
        if number == _SEARCHES - 1:
            break
        below = max(1.0, asked * limit / reached)
        if near and number < _NEAR:
            share = 1.0 - _FURTHER * (number + 1)
            lower = limit / _above(placement, affinity, counted) * share if each else np.full_like(limits, below)
            try:
                placement, limits = _lower(affinity, topology, options, placement, limits, np.minimum(limits, lower))
            except InfeasibleError:
                near = False  # from now on anew, within one limit
            else:
                asked = asked if each else below
                continue
        asked = below
        try:
            placement = place(affinity, topology, replace(options, balance=asked, bound="none"))
        except InfeasibleError:
            break
    raise InfeasibleError(
        f"balance: the copies found keep {limit} by the counts, but {lowest:.3f} ({options.balance_scope} layer) on "
        f"the tokens, where routing is {options.routing}; let copies share load evenly (routing split), or raise the "
        "limit or the replicas per device"
    )


def _lower(
    affinity: Affinity,
    topology: Topology,
    options: PlaceOptions,
    placement: Placement,
    limits: NDArray[np.float64],
    wanted: NDArray[np.float64],
) -> tuple[Placement, NDArray[np.float64]]:
    """Return copies within limits as low as wanted, or less low where none are found, and the limits."""
    for part in _PARTS[:-1]:
        asked = limits + part * (wanted - limits)
        with suppress(InfeasibleError):
            return place_again(affinity, topology, options, placement, asked), asked
    asked = limits + _PARTS[-1] * (wanted - limits)
    return place_again(affinity, topology, options, placement, asked), asked


def _above(placement: Placement, affinity: Affinity, counted: Score) -> NDArray[np.float64]:
    """Return by how much the imbalance of every layer on the tokens is above that by the counts, 1 at least."""
    flow = Flow.build(affinity, placement.topology, as_held(placement.copies(), placement.topology.devices))
    ratio: NDArray[np.float64] = np.maximum(1.0, np.array(counted.layer_imbalance) / peak_ratios(flow.load))
    return ratio
