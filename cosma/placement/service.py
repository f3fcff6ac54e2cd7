"""One door to expert placement: counts and devices in, a checked and certified placement out."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

import cosma.door as door
from cosma.errors import InputError
from cosma.placement import baselines, bounds, copy_service, load_service, metrics
from cosma.placement.affinity import Affinity
from cosma.placement.check import check_placement
from cosma.placement.copy_bounds import copies_bound
from cosma.placement.document import Placement, Replicas
from cosma.placement.patience import patiently
from cosma.placement.recount import ROUTINGS
from cosma.placement.threads import one_thread
from cosma.placement.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from cosma.placement.instance import Instance
    from cosma.placement.search import SearchOptions

STRATEGIES = ("auto", "search", "exact", "exflow", "vanilla", "eplb")
BOUNDS = {"none": 0, "quick": bounds.QUICK_WORK, "thorough": bounds.THOROUGH_WORK}
#: Experts over all layers up to which the search also makes starts of its own.
_SMALL_MODEL = 600
#: Layers x experts x devices beyond which annealing is kept short.
_LARGE_SHARES = 300_000
#: The same beyond which annealing is shortened further.
_HUGE_SHARES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceOptions:
    """What to place for and how hard to try.

    Attributes
    ----------
    strategy
        ``auto`` (exact where that is quick, else search), ``search``, ``exact``, ``exflow`` (its integer program by
        bipartition), ``vanilla`` or ``eplb``.
    seed
        Equal seeds give equal placements.
    proposals
        Work limit of the search in swap proposals; None for 20 million up to 600 experts in all, else 1000 per
        expert and at least 10 million; at most 100 per expert where there are very many experts and
        devices.
    balance
        Limit on max-over-mean load, or None; ``balance_scope`` says of ``each`` layer or of the ``mean``.
    replicas_per_device
        Places for copies on each device and layer, beside its own experts.
    current, max_moves
        Placement ``[layers, experts]`` in force, or its copies ``[layers, experts, devices]``, and how many experts
        (or copies) may lie where they do not now.
    bound
        ``none`` (degree bound only), ``quick`` or ``thorough``.
    routing
        How servers choose among copies: ``nearest``, ``split`` or ``least-loaded``; see ``recount``.
    interrupted
        Polled while searching; once true, the best so far is returned.
    progress
        Told what is being done, and the share of it that is done.
    seconds
        Clock limit; makes runs unrepeatable.
    """

    strategy: str = "auto"
    seed: int = 0
    proposals: int | None = None
    balance: float | None = None
    balance_scope: str = "each"
    replicas_per_device: int = 0
    current: NDArray[np.integer] | None = None
    max_moves: int | None = None
    bound: str = "quick"
    seconds: float | None = None
    routing: str = "nearest"
    interrupted: Callable[[], bool] = bool
    progress: Callable[[str, float], None] | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name, least in (("seed", 0), ("proposals", None), ("replicas_per_device", 0), ("max_moves", None)):
            if name in ("seed", "replicas_per_device") or getattr(self, name) is not None:
                put(self, name, door.integer(getattr(self, name), f"place: {name}", least=least))
        for name in ("strategy", "balance_scope", "bound", "routing"):
            door.text(getattr(self, name), f"place: {name}")
        if self.balance is not None:
            put(self, "balance", door.number(self.balance, "place: balance"))
        if self.seconds is not None:
            put(self, "seconds", door.number(self.seconds, "place: seconds"))
        if self.current is not None:
            put(self, "current", door.array(self.current, "place: current"))
        for name in ("interrupted", "progress"):
            hook = getattr(self, name)
            if not callable(hook) and (hook is not None or name == "interrupted"):
                raise InputError(f"place: {name} must be callable, not {door.shown(hook)}")


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
    _check_options(options)
    if options.current is not None and options.current.shape != (affinity.layers, affinity.experts):
        raise InputError(
            f"place: current has shape {options.current.shape}; the counts are of {affinity.layers} layers of "
            f"{affinity.experts} experts"
        )
    topology.slots(affinity.experts)
    with one_thread():
        return _place(affinity, topology, options)


def _place(affinity: Affinity, topology: Topology, options: PlaceOptions) -> Placement:
    if not affinity.has_affinity:
        return load_service.place_by_load(affinity, topology, options)
    if copy_service.shares_evenly(options):
        return copy_service.place_shared(affinity, topology, options)
    homes, method, optimal = patiently(
        lambda: _homes(affinity, topology, options),
        lambda: (_unsearched(affinity, topology, options), "none: interrupted before the search had anything", False),
        options.interrupted,
    )
    replicas: Replicas | None = None
    if options.replicas_per_device:
        replicas = patiently(
            lambda: _replicas(affinity, topology, homes, options),
            lambda: tuple(tuple((int(device),) for device in row) for row in homes),
            options.interrupted,
        )
        homes = np.array([[copies[0] for copies in row] for row in replicas], dtype=np.int64)
    measured = metrics.summary(affinity, topology, homes)
    if replicas is not None:
        measured = _replicated_metrics(affinity, topology, replicas)
    cost = float(measured["mean_cost"])
    bound = patiently(
        lambda: _bound(affinity, topology, options, cost, optimal),
        lambda: _bound(affinity, topology, replace(options, bound="none"), cost, optimal),
        options.interrupted,
    )
    solver: dict[str, Any] = {"strategy": options.strategy, "method": method, "seed": options.seed}
    solver |= limits_of(options)
    if options.interrupted():
        solver["stopped"] = "interrupt"
    if options.current is not None:
        measured["moved"] = int((options.current != homes).sum())
    placement = Placement(topology, homes, replicas, measured, bound.certificate(float(measured["mean_cost"])), solver)
    check_placement(placement, options.replicas_per_device)
    return placement


def limits_of(options: PlaceOptions) -> dict[str, Any]:
    """Return the options that a placement keeps, for its file."""
    found: dict[str, Any] = {
        name: getattr(options, name) for name in ("balance", "max_moves") if getattr(options, name) is not None
    }
    if options.balance is not None:
        found["balance_scope"] = options.balance_scope
    if options.replicas_per_device:
        found |= {"replicas_per_device": options.replicas_per_device, "routing": options.routing}
    return found


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


def _work(affinity: Affinity, topology: Topology, options: PlaceOptions) -> int:
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

    work = _work(affinity, topology, options)
    return SearchOptions(
        seed=options.seed, proposals=work, seconds=options.seconds, interrupted=options.interrupted,
        progress=options.progress,
    )  # fmt: skip


def _homes(affinity: Affinity, topology: Topology, options: PlaceOptions) -> tuple[NDArray[np.int64], str, bool]:
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
        from cosma.placement.moves import search_near

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


def _unsearched(affinity: Affinity, topology: Topology, options: PlaceOptions) -> NDArray[np.int64]:
    """Return the placement in force, or experts in order, where an interrupt came before anything better was found.

    Raises
    ------
    KeyboardInterrupt
        If neither keeps the limits asked for.
    """
    if options.max_moves is not None and options.current is not None:
        return np.asarray(options.current, dtype=np.int64)
    homes = baselines.vanilla(affinity, topology)
    ratio = metrics.imbalance(affinity, topology, homes)
    reached = float(ratio.max() if options.balance_scope == "each" else ratio.mean())
    if options.balance is not None and reached > options.balance:
        raise KeyboardInterrupt
    return homes


def _replicas(affinity: Affinity, topology: Topology, homes: NDArray[np.int64], options: PlaceOptions) -> Replicas:
    from cosma.placement.replication import replicate, replicate_balanced

    if options.balance is None:
        return replicate(affinity, topology, homes, options.replicas_per_device)
    return replicate_balanced(
        affinity, topology, homes, options.replicas_per_device, options.balance, options.balance_scope,
        seed=options.seed, proposals=_work(affinity, topology, options),
    )  # fmt: skip


def _replicated_metrics(affinity: Affinity, topology: Topology, replicas: Replicas) -> dict[str, Any]:
    from cosma.placement.replication import Flow, as_held

    flow = Flow.build(affinity, topology, as_held(replicas, topology.devices))
    return {
        "mean_cost": flow.cost(),
        "imbalance": flow.imbalance(),
        "copies": sum(len(copies) for row in replicas for copies in row),
        "transitions": affinity.steps,
        "estimated": "Markov model of nearest-copy routing; score the file on a trace for exact figures",
    }


def _bound(affinity: Affinity, topology: Topology, options: PlaceOptions, cost: float, optimal: bool) -> bounds.Bound:
    if options.replicas_per_device:
        return copies_bound(affinity, topology, options.replicas_per_device, options.routing)
    if optimal:
        return bounds.Bound(cost, "dynamic programming over partitions")
    from cosma.placement import exact

    if exact.supports(topology, affinity.experts, affinity.layers) is None and options.bound != "none":
        from cosma.placement.instance import Instance

        instance = Instance.build(affinity, topology)
        return bounds.Bound(
            exact.solve_exact(instance, topology)[1] / affinity.steps, "dynamic programming over partitions"
        )
    return bounds.lower_bound(affinity, topology, BOUNDS[options.bound])


def _check_options(options: PlaceOptions) -> None:
    if options.strategy not in STRATEGIES:
        raise InputError(f"strategy {options.strategy!r}: expected one of {', '.join(STRATEGIES)}")
    if options.bound not in BOUNDS:
        raise InputError(f"bound {options.bound!r}: expected one of {', '.join(BOUNDS)}")
    if options.proposals is not None and options.proposals < 1:
        raise InputError(f"work of {options.proposals}: give at least 1 swap proposal")
    if (options.max_moves is None) != (options.current is None):
        raise InputError("a placement in force and a budget of moves belong together: give both, or none")
    if options.max_moves is not None and options.replicas_per_device and options.routing == "nearest":
        raise InputError("a budget of moves with replicas needs copies that share load: routing split or least-loaded")
    if options.routing not in ROUTINGS:
        raise InputError(f"routing {options.routing!r}: expected one of {', '.join(ROUTINGS)}")
    if options.replicas_per_device < 0:
        raise InputError(f"replicas per device: {options.replicas_per_device}; give 0 or more")
    limited = options.balance is not None or options.max_moves is not None
    copies = bool(options.replicas_per_device) and options.strategy != "eplb"
    if (limited or copies) and options.strategy not in {"auto", "search"}:
        raise InputError(
            f"strategy {options.strategy} knows no balance, replicas or budget of moves; use auto or search"
        )


def with_scores(placement: Placement, scores: dict[str, Any]) -> Placement:
    """Return the placement with further metrics, such as held-out scores."""
    return replace(placement, metrics={**placement.metrics, **scores})
