"""One door to expert placement: counts and devices in, a checked and certified placement out."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

import cosma.door as door
from cosma.errors import InputError
from cosma.patience import patiently
from cosma.placement import bounds, copy_service, load_service, metrics
from cosma.placement.affinity import Affinity
from cosma.placement.check import check_placement
from cosma.placement.copies import as_replicas
from cosma.placement.copy_bounds import copies_bound, nearest_copies_bound
from cosma.placement.document import Placement, Replicas, homes_of
from cosma.placement.nearest_bounds import modelled_bounds, solve_nearest
from cosma.placement.options import BOUNDS, PlaceOptions, check_options, solver_record
from cosma.placement.replication import Flow, as_held, replicate
from cosma.placement.single import find_homes, unsearched
from cosma.placement.threads import one_thread
from cosma.placement.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


def place(affinity: Affinity, topology: Topology, options: PlaceOptions | None = None) -> Placement:
    """Place experts on devices.

    Deterministic for equal counts, devices and options, unless ``seconds`` is given. The placement returned has been
    validated; its metrics are recounted from the counts, not taken from the search.

    Raises
    ------
    InputError
        If options are unknown or contradict each other, or ``exact`` is asked for where it cannot be had.
    InfeasibleError
        If the experts do not fit the devices, or a balance limit cannot be met.
    """
    options = PlaceOptions() if options is None else door.instance(options, PlaceOptions, "place: options")
    door.instance(affinity, Affinity, "place: affinity")
    door.instance(topology, Topology, "place: topology")
    check_options(options)
    _check_current(affinity, topology, options)
    topology.slots(affinity.experts)
    with one_thread():
        return _place(affinity, topology, options)


def _check_current(affinity: Affinity, topology: Topology, options: PlaceOptions) -> None:
    """Refuse a placement in force that is neither homes nor copies of this model's experts."""
    current = options.current
    if current is None:
        return
    homes = (affinity.layers, affinity.experts)
    if current.ndim == 3 and current.shape == (*homes, topology.devices):
        if not current.any(axis=2).all():
            layer, expert = np.argwhere(~current.any(axis=2))[0]
            raise InputError(f"place: current has no copy of expert {expert} of layer {layer}")
        return
    if current.shape != homes or current.dtype.kind == "b":
        raise InputError(
            f"place: current has shape {current.shape} of {current.dtype}; expected device numbers {homes}, or copies "
            f"{(*homes, topology.devices)} of true and false: layers, experts and devices of the problem"
        )
    strange = (current < 0) | (current >= topology.devices)
    if strange.any():
        raise InputError(
            f"place: current names device {current[strange][0]}; there are {topology.devices}, numbered from 0"
        )


def _place(affinity: Affinity, topology: Topology, options: PlaceOptions) -> Placement:
    if not affinity.has_affinity:
        return load_service.place_by_load(affinity, topology, options)
    if copy_service.shares_evenly(options):
        return copy_service.place_shared(affinity, topology, options)
    begin = time.monotonic()
    homes, method, optimal, replicas = _found(affinity, topology, options)
    solved = None if replicas is None else _solved(affinity, topology, options, replicas)
    if solved is not None and solved[1] is not None and options.balance is None:
        replicas, method = as_replicas(solved[1], homes), solved[0].method
        homes = homes_of(replicas)
    solver = solver_record(options, method, time.monotonic() - begin)
    cost = float(_measured(affinity, topology, homes, replicas)["mean_cost"])
    bound = patiently(
        lambda: _bound(affinity, topology, options, cost, method if optimal else None),
        lambda: _bound(affinity, topology, replace(options, bound="none"), cost, method if optimal else None),
        options.interrupted,
    )
    if solved is not None:
        bound = replace(bounds.best_of(solved[0], bound), any_routing=bound.any_routing)
    return _described(affinity, topology, options, homes, replicas, bound, solver)


def place_again(
    affinity: Affinity, topology: Topology, options: PlaceOptions, placement: Placement, limits: NDArray[np.float64]
) -> Placement:
    """Go on from copies: those within a lower limit for some layers; the bound stays.

    Raises InfeasibleError if none was found.
    """
    begin = time.monotonic()
    with one_thread():
        if options.routing != "nearest":
            return copy_service.share_again(affinity, topology, options, placement, limits)
        copies = copy_service.nearest_copies(
            affinity, topology, options, as_held(placement.copies(), topology.devices), limits
        )
    solver = solver_record(options, str(placement.solver["method"]), time.monotonic() - begin)
    bound = bounds.Bound.of(placement.certificate)
    return _described(affinity, topology, options, homes_of(copies), copies, bound, solver)


def as_nearest(
    affinity: Affinity,
    topology: Topology,
    options: PlaceOptions,
    shared: Placement,
    certificate: Mapping[str, Any] | None,
) -> Placement:
    """Return copies that were placed to share load as what they are where the nearest serves.

    ``certificate`` is that of other copies with the same room, whose bound holds for these too.
    """
    copies = shared.copies()
    solver = solver_record(options, str(shared.solver["method"]))
    if certificate is not None:
        bound = bounds.Bound.of(certificate)
    else:
        with one_thread():
            bound = _bound(affinity, topology, options, np.inf, None)
    return _described(affinity, topology, options, homes_of(copies), copies, bound, solver)


def _described(
    affinity: Affinity,
    topology: Topology,
    options: PlaceOptions,
    homes: NDArray[np.int64],
    replicas: Replicas | None,
    bound: bounds.Bound,
    solver: dict[str, Any],
) -> Placement:
    """Return the placement, checked, with what it costs by the counts."""
    measured = _measured(affinity, topology, homes, replicas)
    if options.current is not None:
        measured["moved"] = int((options.current != homes).sum())
    placement = Placement(topology, homes, replicas, measured, bound.certificate(float(measured["mean_cost"])), solver)
    check_placement(placement, options.replicas_per_device)
    return placement


def _found(
    affinity: Affinity, topology: Topology, options: PlaceOptions
) -> tuple[NDArray[np.int64], str, bool, Replicas | None]:
    """Return homes, the method that found them, whether they are proven cheapest, and copies if there may be any."""
    if options.replicas_per_device and options.balance is not None:
        copies = copy_service.nearest_copies(affinity, topology, options)
        return homes_of(copies), "search for copies whose nearest serves", False, copies
    homes, method, optimal = patiently(
        lambda: find_homes(affinity, topology, options),
        lambda: (unsearched(affinity, topology, options), "none: interrupted before the search had anything", False),
        options.interrupted,
    )
    if not options.replicas_per_device:
        return homes, method, optimal, None
    replicas = patiently(
        lambda: replicate(affinity, topology, homes, options.replicas_per_device),
        lambda: tuple(tuple((int(device),) for device in row) for row in homes),
        options.interrupted,
    )
    return homes_of(replicas), method, optimal, replicas


def _solved(
    affinity: Affinity, topology: Topology, options: PlaceOptions, replicas: Replicas
) -> tuple[bounds.Bound, NDArray[np.bool_] | None] | None:
    """Search all ways to fill the layers of a small problem for less than copies at hand cost."""
    if options.bound == "none":
        return None
    cost = float(_measured(affinity, topology, homes_of(replicas), replicas)["mean_cost"])
    return patiently(
        # Within a limit on load, copies at hand may cost more than others; what those cost is a bound all the same.
        lambda: solve_nearest(
            affinity, topology, options.replicas_per_device, cost if options.balance is None else np.inf
        ),
        lambda: None,
        options.interrupted,
    )


def _measured(
    affinity: Affinity, topology: Topology, homes: NDArray[np.int64], replicas: Replicas | None
) -> dict[str, Any]:
    if replicas is None:
        return metrics.summary(affinity, topology, homes)
    flow = Flow.build(affinity, topology, as_held(replicas, topology.devices))
    return {
        "mean_cost": flow.cost(),
        "imbalance": float(metrics.peak_ratios(flow.load).mean()),
        "copies": sum(len(copies) for row in replicas for copies in row),
        "transitions": affinity.steps,
        "estimated": "Markov model of nearest-copy routing; score the file on a trace for exact figures",
    }


def _bound(
    affinity: Affinity, topology: Topology, options: PlaceOptions, cost: float, proof: str | None
) -> bounds.Bound:
    if options.replicas_per_device:
        # Layer pairs add a hundredth to what degrees prove here, for 8 CPU seconds on synth_58x256_top8_a50.
        work = BOUNDS[options.bound] if options.bound == "thorough" else 0
        room = options.replicas_per_device
        anyhow = copies_bound(affinity, topology, room, options.routing, work=work)
        if options.bound == "quick":
            anyhow = bounds.best_of(anyhow, *nearest_copies_bound(affinity, topology, room))
        highest = bounds.best_of(anyhow, *modelled_bounds(affinity, topology, room, work))
        return replace(highest, any_routing=anyhow.mean_cost)
    if proof is not None:
        return bounds.Bound(cost, proof)
    from cosma.placement import exact

    limit = options.balance if options.balance_scope == "each" else None
    found: list[bounds.Bound] = []
    if exact.supports(topology, affinity.experts, affinity.layers) is None and options.bound != "none":
        from cosma.placement.instance import Instance

        best = exact.solve_exact(Instance.build(affinity, topology), topology)[1]
        found.append(bounds.Bound(best / affinity.steps, "dynamic programming over partitions"))
    if not found or limit is not None:
        found.append(bounds.lower_bound(affinity, topology, BOUNDS[options.bound], limit))
    return max(found, key=lambda bound: bound.mean_cost)
