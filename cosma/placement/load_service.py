"""The part of the door to placement that places by load alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.errors import InfeasibleError, InputError
from cosma.placement import baselines
from cosma.placement.check import check_placement
from cosma.placement.document import Placement, Replicas, homes_of
from cosma.placement.options import solver_record

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.placement.affinity import Affinity
    from cosma.placement.options import PlaceOptions
    from cosma.placement.topology import Topology

#: Sweeps over all experts of placing by load alone.
_LOAD_SWEEPS = 4000


def place_by_load(affinity: Affinity, topology: Topology, options: PlaceOptions) -> Placement:
    """Place by load alone: what a table of counts allows.

    Raises InputError if options need to know which expert follows which. Raises InfeasibleError if a limit on balance
    was not reached.
    """
    from cosma.placement.copies import split_summary
    from cosma.placement.eplb import eplb_placement
    from cosma.placement.load_only import least_imbalance
    from cosma.placement.replication import as_held

    if options.strategy not in {"auto", "search", "vanilla", "eplb"} or options.max_moves is not None:
        raise InputError(
            "counts of load say nothing of which expert follows which: they can be placed by load alone "
            "(strategy auto, vanilla or eplb), without a budget of moves"
        )
    replicas: Replicas | None = None
    if options.strategy in {"vanilla", "eplb"} and not options.replicas_per_device:
        in_order = options.strategy == "vanilla"
        homes = baselines.vanilla(affinity, topology) if in_order else baselines.eplb(affinity, topology)
        method = "in order" if in_order else "load only"
    elif options.strategy == "eplb":
        placed = eplb_placement(affinity, topology, options.replicas_per_device)
        homes, replicas, method = placed.devices, placed.replicas, "EPLB"
    else:
        homes, replicas = _evened(affinity, topology, options)
        method = "packing by load, then exchanges and copies"
    measured = split_summary(
        affinity, topology, as_held(Placement(topology, homes, replicas).copies(), topology.devices)
    )
    least = float(least_imbalance(affinity, topology, options.replicas_per_device).mean())
    reached = float(measured["imbalance"])
    over = float(measured["worst_imbalance"]) if options.balance_scope == "each" else reached
    if options.balance is not None and over > options.balance:
        raise InfeasibleError(
            f"balance: placing by load alone came down to {over:.4f} ({options.balance_scope} layer), over the limit "
            f"of {options.balance}; raise it, the work, or the replicas per device"
        )
    proven = reached <= least * (1 + 1e-9)
    certificate = {
        "status": "optimal" if proven else "feasible", "of": "imbalance", "lower_bound": min(least, reached),
        "gap": 0.0 if proven else (reached - least) / reached, "method": "load of one copy",
    }  # fmt: skip
    placement = Placement(topology, homes, replicas, measured, certificate, solver_record(options, method))
    check_placement(placement, options.replicas_per_device)
    return placement


def _evened(affinity: Affinity, topology: Topology, options: PlaceOptions) -> tuple[NDArray[np.int64], Replicas | None]:
    """Return homes, and copies where there is room for them, of as little imbalance as annealing finds."""
    from cosma.placement.copies import CopyProblem, as_replicas, held_of, imbalances, places_of
    from cosma.placement.copy_search import CopyOptions, anneal
    from cosma.placement.load_only import even_homes
    from cosma.placement.replication import as_held

    problem = CopyProblem.build(affinity, topology, options.replicas_per_device)
    starts = [even_homes(affinity, topology)[:, :, None] == np.arange(topology.devices)[None, None, :]]
    # Where places are left over, copies that share load may take them.
    shared = options.replicas_per_device > 0 or options.routing != "nearest"
    if shared:
        copied = baselines.eplb_replicated(affinity, topology, options.replicas_per_device)
        starts.append(as_held(copied, topology.devices))
    how = CopyOptions(seed=options.seed, interrupted=options.interrupted, progress=options.progress)
    held = starts[0]
    for start in starts:
        found = anneal(
            problem, places_of(problem, start), how, limit=np.ones(affinity.layers), prices=(1.0, 1.0),
            proposals=options.proposals or _LOAD_SWEEPS * affinity.load.size, hot=0.3,
            state=np.array([options.seed], dtype=np.uint64), least=np.ones(affinity.load.shape, dtype=np.int64),
            what="load",
        )  # fmt: skip
        # Annealing looks at all loads above the mean, not at the largest alone; each layer keeps the best of all.
        for other in (start, held_of(problem, found)):
            better = imbalances(problem, other) < imbalances(problem, held)
            better &= shared | (other.sum(axis=2) == 1).all(axis=1)
            held = np.where(better[:, None, None], other, held)
    replicas = as_replicas(held)
    single = options.replicas_per_device == 0 and bool((held.sum(axis=2) == 1).all())
    return homes_of(replicas), None if single else replicas
