"""Searching for one home per expert: which method a problem gets, and with how much work."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cosma.errors import InputError
from cosma.placement import baselines, metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.placement.affinity import Affinity
    from cosma.placement.instance import Instance
    from cosma.placement.options import PlaceOptions
    from cosma.placement.search import SearchOptions
    from cosma.placement.topology import Topology

#: Experts over all layers up to which the search also makes starts of its own.
_SMALL_MODEL = 600
#: Layers x experts x devices beyond which annealing is kept short.
_LARGE_SHARES = 300_000
#: The same beyond which annealing is shortened further.
_HUGE_SHARES = 1_000_000


def find_homes(affinity: Affinity, topology: Topology, options: PlaceOptions) -> tuple[NDArray[np.int64], str, bool]:
    """Return homes, the method that found them, and whether they are proven cheapest."""
    from cosma.placement import exact
    from cosma.placement.instance import Instance

    if options.strategy == "vanilla":
        return baselines.vanilla(affinity, topology), "in order", False
    if options.strategy == "eplb":
        return baselines.eplb(affinity, topology), "load only", False
    if options.strategy == "exflow":
        from cosma.placement.exflow import bipartition

        return bipartition(affinity, topology, seed=options.seed).devices, "integer program by bipartition", False
    search = search_options(affinity, topology, options)
    instance = Instance.build(affinity, topology)
    if options.max_moves is not None and options.current is not None:
        from cosma.placement.copy_bounds import exact_split
        from cosma.placement.moves import search_near

        now = options.current[:, :, None] == np.arange(topology.devices)
        solved = None
        if options.bound != "none":
            solved = exact_split(affinity, topology, 0, None, (now, options.max_moves), single=True)
        if solved is not None:
            return solved[1].argmax(axis=2), "dynamic programming over ways to fill a layer", True
        home = search_near(instance, search, options.current, options.max_moves)
        return home[:, : affinity.experts], "search under a budget of moves", False
    reason = exact.supports(topology, affinity.experts, affinity.layers)
    if options.strategy == "exact" and reason is not None:
        raise InputError(f"strategy exact: {reason}; use search, which also reports a bound")
    if reason is None and options.strategy in {"auto", "exact"}:
        home, _ = exact.solve_exact(instance, topology)
        method, proven = "dynamic programming over partitions", True
    else:
        home = search_homes(affinity, topology, search, instance)
        method, proven = "search", False
    if options.balance is not None and not options.replicas_per_device:
        from cosma.placement.balance import balanced_search

        within = balanced_search(instance, search, options.balance, options.balance_scope, home)
        proven = proven and within is home
        home = within
    return home[:, : affinity.experts], method, proven


def search_homes(
    affinity: Affinity, topology: Topology, options: SearchOptions, instance: Instance | None = None
) -> NDArray[np.int64]:
    """Search for crossings alone: starts from the relaxation where it is quick, then annealing and recombination."""
    from cosma.placement.instance import Instance
    from cosma.placement.search import search
    from cosma.placement.starts import starts

    instance = instance or Instance.build(affinity, topology)
    deadline = None if options.seconds is None else time.monotonic() + options.seconds
    found = starts(instance, topology, options.seed, deadline)
    if found and affinity.layers * affinity.experts > _SMALL_MODEL:
        # Starts of the search's own making no longer come near these.
        options = replace(options, pool=0)
    if deadline is not None:
        options = replace(options, seconds=max(0.0, deadline - time.monotonic()))
    return search(instance, options, starts=found)


def work_of(affinity: Affinity, topology: Topology, options: PlaceOptions) -> int:
    """Return the work limit: the one given, or one that leaves large models enough sweeps."""
    if options.proposals is not None:
        return options.proposals
    size = affinity.layers * affinity.experts
    if size <= _SMALL_MODEL:
        return 20_000_000
    # A swap touches every device of every neighbour; where that is much, the grown starts do most of the work.
    shares = size * topology.devices
    if shares <= _LARGE_SHARES:
        return max(10_000_000, 1000 * size)
    return int(100 * size * min(1.0, _HUGE_SHARES / shares))


def search_options(affinity: Affinity, topology: Topology, options: PlaceOptions) -> SearchOptions:
    """Return what the search for homes gets of the options."""
    from cosma.placement.search import SearchOptions

    work = work_of(affinity, topology, options)
    return SearchOptions(
        seed=options.seed, proposals=work, seconds=options.seconds, interrupted=options.interrupted,
        progress=options.progress,
    )  # fmt: skip


def unsearched(affinity: Affinity, topology: Topology, options: PlaceOptions) -> NDArray[np.int64]:
    """Return the placement in force, or experts in order, where an interrupt came before anything better was found.

    Raises KeyboardInterrupt if neither keeps the limits asked for.
    """
    if options.max_moves is not None and options.current is not None:
        return np.asarray(options.current, dtype=np.int64)
    homes = baselines.vanilla(affinity, topology)
    ratio = metrics.imbalance(affinity, topology, homes)
    reached = float(ratio.max() if options.balance_scope == "each" else ratio.mean())
    if options.balance is not None and reached > options.balance:
        raise KeyboardInterrupt
    return homes
