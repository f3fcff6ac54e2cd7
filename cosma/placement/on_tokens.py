"""Placements whose limit on load holds on the tokens themselves, where counts only allow an estimate of it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from cosma.errors import InfeasibleError
from cosma.patience import patiently, until_interrupted
from cosma.placement.baselines import eplb_replicated
from cosma.placement.bounds import Bound
from cosma.placement.copies import split_ratios
from cosma.placement.document import Placement
from cosma.placement.metrics import keeps, peak_ratios
from cosma.placement.recount import Score, score
from cosma.placement.replication import Flow, as_held
from cosma.placement.service import as_nearest, place, place_again

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from cosma.placement.affinity import Affinity
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
    estimate. Where the tokens say that a limit is not kept, every layer gets a limit of its own, lower by what its
    tokens are above its counts, and the search goes on from what was found; then it is repeated within a limit lower
    by as much for all. Where the nearest serves, copies that were placed to share evenly are tried on the tokens too,
    and, where nothing else keeps the limit, copies for fewer places on each device and those of EPLB.

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
        If experts do not fit, or no placement that keeps the limit on the tokens was found. An interrupt returns the
        copies at hand even so; what their solver record says of ``balance`` then is what the tokens reach.
    """
    tries_shared = options.routing == "nearest" and options.balance is not None and options.replicas_per_device > 0
    try:
        found, counted = _search(affinity, topology, options, tokens, batch_tokens)
    except InfeasibleError:
        other = _other(affinity, topology, options, tokens, batch_tokens) if tries_shared else None
        if other is None:
            raise
        return as_nearest(affinity, topology, options, other, None)
    shared = _shared(affinity, topology, options, tokens) if tries_shared else None
    if shared is not None:
        counted = counted or score(found, tokens(), options.routing)
        if shared[1].mean_cost < counted.mean_cost:
            return as_nearest(affinity, topology, options, shared[0], found.certificate)
    return found


def _shared(
    affinity: Affinity,
    topology: Topology,
    options: PlaceOptions,
    tokens: Callable[[], Iterable[NDArray[np.integer]]],
) -> tuple[Placement, Score] | None:
    """Return copies placed to share evenly, and what they cost on the tokens, if they keep the limit there.

    With several experts a token the model of the nearest copy is far from the tokens, and may lead to dearer copies.
    """
    if not affinity.has_affinity or options.interrupted():
        return None
    try:
        wanted = replace(options, routing="split", bound="none")
        shared = patiently(partial(place, affinity, topology, wanted), lambda: None, options.interrupted)
    except InfeasibleError:
        return None
    if shared is None:
        return None
    counted = score(shared, tokens(), options.routing)
    if not keeps(np.array(counted.layer_imbalance), options.balance or np.inf, options.balance_scope):
        return None
    return shared, counted


def _other(
    affinity: Affinity,
    topology: Topology,
    options: PlaceOptions,
    tokens: Callable[[], Iterable[NDArray[np.integer]]],
    batch_tokens: int,
) -> Placement | None:
    """Return copies that keep the limit on the tokens where the search for the nearest found none, or None.

    More room makes that search wider, not better: one place less on each device is tried. The last are EPLB's copies.
    """
    shared = _shared(affinity, topology, options, tokens)
    if shared is not None:
        return shared[0]
    if options.interrupted():
        return None
    fewer = replace(options, replicas_per_device=options.replicas_per_device - 1, bound="none")
    with suppress(InfeasibleError):
        return place_on_tokens(affinity, topology, fewer, tokens, batch_tokens)
    copies = eplb_replicated(affinity, topology, options.replicas_per_device)
    by_load = Placement.of_copies(topology, copies, solver={"method": "load only"})
    counted = score(by_load, tokens(), options.routing)
    kept = keeps(np.array(counted.layer_imbalance), options.balance or np.inf, options.balance_scope)
    return by_load if kept else None


def _search(
    affinity: Affinity,
    topology: Topology,
    options: PlaceOptions,
    tokens: Callable[[], Iterable[NDArray[np.integer]]],
    batch_tokens: int,
) -> tuple[Placement, Score | None]:
    """Return copies, and what they cost on the tokens where those were counted."""
    limit = options.balance
    placement = place(affinity, topology, options)
    if limit is None or options.routing == "split" or placement.replicas is None:
        return placement, None
    first, asked, lowest = placement.certificate, limit, float("inf")
    limits = np.full(affinity.layers, limit)
    each = options.balance_scope == "each"
    near = affinity.has_affinity and (each or options.routing == "nearest")
    for number in range(_SEARCHES):
        counted = score(placement, tokens(), options.routing, batch_tokens)
        reached = counted.worst_imbalance if each else counted.imbalance
        kept = keeps(np.array(counted.layer_imbalance), limit, options.balance_scope)
        if kept or options.interrupted():
            placement = replace(placement, solver={**placement.solver, "balance": limit if kept else reached})
            if affinity.has_affinity:
                bound = Bound.of(first).certificate(float(placement.metrics["mean_cost"]))
                placement = replace(placement, certificate=bound)
            return placement, counted
        lowest = min(lowest, reached)
        if number == _SEARCHES - 1:
            break
        below = max(1.0, asked * limit / reached)
        if near and number < _NEAR:
            share = 1.0 - _FURTHER * (number + 1)
            above = _above(placement, affinity, counted, options.routing)
            lower = limit / above * share if each else np.full_like(limits, below)
            try:
                with until_interrupted(options.interrupted):
                    wanted = np.minimum(limits, lower)
                    placement, limits = _lower(affinity, topology, options, placement, limits, wanted)
            except InfeasibleError:
                near = False  # from now on anew, within one limit
            else:
                asked = asked if each else below
                continue
        asked = below
        try:
            with until_interrupted(options.interrupted):
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


def _above(placement: Placement, affinity: Affinity, counted: Score, routing: str) -> NDArray[np.float64]:
    """Return by how much the imbalance of every layer on the tokens is above what searches limit, 1 at least."""
    held = as_held(placement.copies(), placement.topology.devices)
    if routing == "nearest":
        limited = peak_ratios(Flow.build(affinity, placement.topology, held).load)
    else:
        limited = split_ratios(affinity.load.astype(np.float64), held)
    ratio: NDArray[np.float64] = np.maximum(1.0, np.array(counted.layer_imbalance) / limited)
    return ratio
