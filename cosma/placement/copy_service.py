"""The part of the door to placement that places copies which share load."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.errors import InfeasibleError, InputError
from cosma.patience import patiently
from cosma.placement import baselines, bounds
from cosma.placement.check import check_placement
from cosma.placement.document import Placement
from cosma.placement.options import BOUNDS, solver_record
from cosma.placement.single import search_homes, search_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from cosma.placement.affinity import Affinity
    from cosma.placement.copies import CopyProblem
    from cosma.placement.copy_search import CopyOptions
    from cosma.placement.document import Replicas
    from cosma.placement.options import PlaceOptions
    from cosma.placement.topology import Topology

#: Sweeps over all places that a search for copies may take, and experts x devices beyond which it gets fewer.
_COPY_SWEEPS, _COPY_TOUCHED, _MOST_COPY_WORK = 60_000, 800, 60_000_000
#: Sweeps of the start that is grown for a search for copies within a limit.
_GROWN_SWEEPS = 60


def shares_evenly(options: PlaceOptions) -> bool:
    """Say whether copies that share load are searched for: by routing, or for a budget that other limits go with."""
    if options.strategy not in {"auto", "search", "eplb"}:
        return False
    limited = (
        options.balance is not None
        or options.replicas_per_device
        or (options.current is not None and options.current.ndim == 3)
    )
    if options.max_moves is not None:
        return bool(limited)
    return options.routing != "nearest" and bool(limited)


def place_shared(affinity: Affinity, topology: Topology, options: PlaceOptions) -> Placement:
    """Place copies that share load evenly, or as evenly as routing by load can.

    Raises InputError if options do not fit each other. Raises InfeasibleError if a limit cannot be kept.
    """
    from cosma.placement.copies import CopyProblem
    from cosma.placement.copy_bounds import copies_bound, exact_split

    begin = time.monotonic()
    problem = CopyProblem.build(affinity, topology, options.replicas_per_device)
    limit = options.balance if options.balance_scope == "each" else None
    moves = _moves(problem, options)
    solved = None
    if options.routing == "split" and options.strategy != "eplb" and options.bound != "none":
        solved = exact_split(affinity, topology, options.replicas_per_device, limit, moves)
    if solved is not None and limit == options.balance:
        held, method = solved[1], "dynamic programming over ways to fill a layer"
    else:
        held, method = _copies(problem, affinity, topology, options, moves)
    searched_s = time.monotonic() - begin

    def bounded(work: int) -> bounds.Bound:
        return copies_bound(affinity, topology, options.replicas_per_device, options.routing, limit, work)

    if solved is not None:
        bound = bounds.Bound(solved[0], "dynamic programming over ways to fill a layer")
    else:
        bound = patiently(lambda: bounded(BOUNDS[options.bound]), lambda: bounded(0), options.interrupted)
    return _described(affinity, topology, options, held, bound, solver_record(options, method, searched_s))


def share_again(
    affinity: Affinity, topology: Topology, options: PlaceOptions, placement: Placement, limits: NDArray[np.float64]
) -> Placement:
    """Go on from copies that share load: those within a lower limit for some layers; the bound stays.

    Raises InfeasibleError if none was found.
    """
    from cosma.placement.copies import CopyProblem
    from cosma.placement.copy_search import go_on
    from cosma.placement.replication import as_held

    begin = time.monotonic()
    problem = CopyProblem.build(affinity, topology, options.replicas_per_device)
    start = as_held(placement.copies(), topology.devices)
    held = go_on(problem, start, limits, _copy_options(affinity, topology, options))
    solver = solver_record(options, str(placement.solver["method"]), time.monotonic() - begin)
    return _described(affinity, topology, options, held, bounds.Bound.of(placement.certificate), solver)


def _described(
    affinity: Affinity, topology: Topology, options: PlaceOptions, held: NDArray[np.bool_], bound: bounds.Bound,
    solver: dict[str, Any],
) -> Placement:  # fmt: skip
    """Return the placement, checked, with what it costs by the counts."""
    from cosma.placement.copies import as_replicas, split_summary
    from cosma.placement.copy_moves import copies_moved
    from cosma.placement.fluid import fluid_summary

    measured = split_summary(affinity, topology, held) | {"routing": options.routing}
    if options.current is not None:
        measured["moved"] = copies_moved(_current_copies(options.current, topology), held)
    if options.routing == "least-loaded":
        measured |= fluid_summary(affinity, topology, held)
    # Homes in force stay homes where they stay copies.
    now = options.current if options.current is not None and options.current.ndim == 2 else None
    placement = Placement.of_copies(
        topology, as_replicas(held, now), metrics=measured, solver=solver,
        certificate=bound.certificate(float(measured["mean_cost"])),
    )  # fmt: skip
    check_placement(placement, options.replicas_per_device)
    return placement


def _moves(problem: CopyProblem, options: PlaceOptions) -> tuple[NDArray[np.bool_], int] | None:
    """Return copies in force and how many may lie elsewhere, where that is limited."""
    from cosma.placement.copies import places_of

    if options.max_moves is None or options.current is None or options.strategy == "eplb":
        return None
    if options.balance is not None and options.balance_scope != "each":
        raise InputError("a budget of moves goes with a limit on each layer, not on their mean")
    current = _current_copies(options.current, problem.topology)
    _check_current(current, problem.affinity)
    places_of(problem, current)  # refuses what devices have no room for
    return current, options.max_moves


def _copies(
    problem: CopyProblem,
    affinity: Affinity,
    topology: Topology,
    options: PlaceOptions,
    moves: tuple[NDArray[np.bool_], int] | None,
) -> tuple[NDArray[np.bool_], str]:
    """Search for copies that share evenly."""
    from cosma.placement.copy_moves import place_near
    from cosma.placement.copy_search import place_copies
    from cosma.placement.eplb import eplb_placement
    from cosma.placement.replication import as_held

    if options.strategy == "eplb":
        placed = eplb_placement(affinity, topology, options.replicas_per_device)
        return as_held(placed.copies(), topology.devices), "EPLB"
    how = _copy_options(affinity, topology, options)
    if moves is not None:
        held = place_near(problem, *moves, options.balance, how)
        return held, "search for copies under a budget of moves"
    start = _start(affinity, topology, options)
    known = _with_less_room(affinity, topology, options, start, how)
    held = place_copies(problem, start, options.balance, options.balance_scope, how, known)
    return held, "search for copies that share load"


def nearest_copies(
    affinity: Affinity,
    topology: Topology,
    options: PlaceOptions,
    start: NDArray[np.bool_] | None = None,
    limits: NDArray[np.float64] | None = None,
) -> Replicas:
    """Search for copies within a limit on load where the nearest serves; see ``nearest_balance`` for the rest."""
    from cosma.placement.copies import CopyProblem
    from cosma.placement.nearest_balance import place_nearest

    assert options.balance is not None
    problem = CopyProblem.build(affinity, topology, options.replicas_per_device)
    start = _start(affinity, topology, options) if start is None else start
    how = _copy_options(affinity, topology, options)
    return place_nearest(problem, start, options.balance, options.balance_scope, how, limits=limits)


def _copy_options(affinity: Affinity, topology: Topology, options: PlaceOptions) -> CopyOptions:
    from cosma.placement.copy_search import CopyOptions

    return CopyOptions(
        seed=options.seed, proposals=_copy_work(affinity, topology, options), interrupted=_stopper(options),
        progress=options.progress,
    )  # fmt: skip


def _start(affinity: Affinity, topology: Topology, options: PlaceOptions) -> NDArray[np.bool_]:
    """Return homes ``[layers, experts, devices]`` that a search for copies starts from."""
    from cosma.placement.copy_search import is_wide
    from cosma.placement.instance import Instance
    from cosma.placement.meanfield import grown_starts

    if options.balance is None and options.replicas_per_device:
        # Without a limit no copies are needed: the best shares are homes that use all places.
        slots = topology.slots(affinity.experts) + options.replicas_per_device
        topology = replace(topology, capacities=tuple(int(room) for room in slots))
    instance = Instance.build(affinity, topology)

    def in_order() -> NDArray[np.int64]:
        return instance.padded(baselines.vanilla(affinity, topology))

    def start_homes() -> NDArray[np.int64]:
        if options.balance is None:
            return search_homes(affinity, topology, search_options(affinity, topology, options), instance)
        # The limit undoes much of what a long search for crossings alone finds.
        if topology.devices == 1:
            return in_order()
        # Assigning layer after layer takes longer there than the search, which does it as well.
        finish = not is_wide(affinity, topology)
        return grown_starts(instance, options.seed, True, _GROWN_SWEEPS, seeds=1, finish=finish)[0]

    homes = patiently(start_homes, in_order, options.interrupted)
    return _current_copies(homes[:, : affinity.experts], topology)


def _with_less_room(
    affinity: Affinity, topology: Topology, options: PlaceOptions, start: NDArray[np.bool_], how: CopyOptions
) -> list[NDArray[np.bool_]]:
    """Return a placement found with one replica less per device: more room makes searches wider, not better."""
    from cosma.placement.copies import CopyProblem
    from cosma.placement.copy_search import place_copies

    if options.replicas_per_device < 2 or options.balance is None:
        return []
    problem = CopyProblem.build(affinity, topology, options.replicas_per_device - 1)
    try:
        return [place_copies(problem, start, options.balance, options.balance_scope, how)]
    except InfeasibleError:
        return []


def _current_copies(current: NDArray[Any], topology: Topology) -> NDArray[np.bool_]:
    """Return copies ``[layers, experts, devices]`` of homes, or of copies."""
    if current.ndim == 3:
        return np.asarray(current, dtype=bool)
    return np.asarray(current[:, :, None] == np.arange(topology.devices)[None, None, :])


def _check_current(current: NDArray[np.bool_], affinity: Affinity) -> None:
    if current.shape[:2] != affinity.load.shape:
        raise InputError(
            f"re-placement: the current placement is {current.shape[0]} layers x {current.shape[1]} experts, "
            f"the trace has {affinity.layers} x {affinity.experts}"
        )


def _stopper(options: PlaceOptions) -> Callable[[], bool]:
    """Return what to poll: an interrupt, or the clock where there is a limit on it."""
    if options.seconds is None:
        return options.interrupted
    deadline = time.monotonic() + options.seconds
    return lambda: options.interrupted() or time.monotonic() > deadline


def _copy_work(affinity: Affinity, topology: Topology, options: PlaceOptions) -> int:
    """Return the work limit of a search for copies: the one given, or one by the size of the model."""
    if options.proposals is not None:
        return options.proposals
    places = affinity.layers * affinity.experts
    # A change touches every device of every expert of two layers; where that is much, sweeps have to be few.
    touched = affinity.experts * topology.devices
    return max(1, int(min(_MOST_COPY_WORK, _COPY_SWEEPS * places) * min(1.0, _COPY_TOUCHED / touched)))
