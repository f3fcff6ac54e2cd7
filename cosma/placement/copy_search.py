"""Search for copies that share load evenly.

Annealing over the places of all layers: two places exchange their experts, or a place gets another expert. Visits above
the limit on a device cost a price that rises as the temperature falls. Experts that alone would break the limit have as
many copies as that takes from the start, and never fewer: single changes would have to pass through worse placements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cosma.errors import InfeasibleError, InputError
from cosma.placement.baselines import eplb_replicated
from cosma.placement.copies import (
    CopyProblem,
    crossing_cost,
    field_of,
    held_of,
    imbalances,
    least_copies,
    places_of,
    shares_of,
    with_least,
)
from cosma.placement.copy_fill import FILL_WORK, even_layers, fill_layer
from cosma.placement.copy_kernels import anneal_copies
from cosma.placement.copy_recombine import recombine_copies
from cosma.placement.load_only import least_imbalance
from cosma.placement.metrics import SCOPES, keeps
from cosma.placement.replication import as_held

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.placement.affinity import Affinity
    from cosma.placement.topology import Topology

#: Temperatures in mean traffic of an expert times mean cost (``CopyProblem.scale``). Of 0.2 to 2.0, 1.0 gave the best
#: placements of gpt_12x64_top1_s5 from both starts, and 0.1 where no limit counts and the start is good.
HOT, WARM, COLD = 1.0, 0.1, 0.002
#: Heats and prices (first, last) of the runs within a limit, each from both starts, in order of trial.
_RUNS = ((1.0, (0.5, 32.0)), (0.5, (0.2, 64.0)))
#: Experts x devices beyond which runs are cold, and their temperatures then. Within 1.2 on synth_58x256_top8_a50, 4x8,
#: one replica a device, placements cost 1.659 where tenths of the other heats ended at 1.669 with three times the time:
#: much has to be renewed for every change that is accepted. On generated models of 160 and 256 experts on 32 devices
#: heats of 0.003 and 0.03, and eight slices, end at the same costs or up to 0.6 % above; of 128 on 16, and of 256 on 8,
#: the usual heats end 0.4 to 4.6 % above these.
WIDE = 2000
_WIDE_HOT, _WIDE_COLD, _WIDE_SLICES = 0.01, 0.0002, 4
#: Share of the work of each of those runs, of mending what is left, and of going on from the best.
_RUN_SHARE, _MEND_SHARE, _ON_SHARE = 0.11, 0.02, 0.1
#: Heats of going on from the best. Four in falling order end 1 to 2 % lower than 0.2 and 0.08 alone on
#: gpt_12x64_top1_s5 and synth_24x16_top1_a50.
_ON_HEATS = (0.4, 0.2, 0.1, 0.05)
#: Slack between the limit asked for and the one searched for, so that rounding cannot break it.
SLACK = 1e-7
#: Slices of an annealing, between which the price rises and the run can be stopped.
_SLICES = 16
#: Prices of a visit above the mean between which a limit on the mean over layers is bisected, and how often.
_MEAN_PRICES, _MEAN_STEPS = (0.02, 16.0), 8


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions:
    """How hard to search."""

    #: Equal seeds give equal placements.
    seed: int = 0
    #: Work limit in proposals, over all prices.
    proposals: int = 8_000_000
    #: Polled between slices of work; once true, the best so far is returned.
    interrupted: Callable[[], bool] = bool
    #: Told what is being done, and the share of the work done.
    progress: Callable[[str, float], None] | None = None


def is_wide(affinity: Affinity, topology: Topology) -> bool:
    """Say whether a change of copies renews so much that searches have to be colder and shorter."""
    return affinity.experts * topology.devices > WIDE


def anneal(
    problem: CopyProblem,
    place: NDArray[np.int64],
    options: CopyOptions,
    *,
    limit: NDArray[np.float64],
    prices: tuple[float, float],
    proposals: float,
    hot: float,
    state: NDArray[np.uint64],
    what: str = "",
    least: NDArray[np.int64] | None = None,
    slices: int = _SLICES,
) -> NDArray[np.int64]:
    """Anneal from a placement; visits of a layer above ``limit`` times the mean have a price.

    ``prices`` are those of the first and the last slice, in costliest crossings of a visit; the price rises as the
    temperature falls, so that early on whole groups can pass through a fuller device. ``least`` copies of experts are
    kept; by default those that the limit takes. Between ``slices`` the price rises, and the run can be stopped. Wide
    problems have fewer slices and are never hotter than pays.
    """
    cold = COLD
    if is_wide(problem.affinity, problem.topology) and problem.affinity.has_affinity:
        hot, cold, slices = min(hot, _WIDE_HOT), _WIDE_COLD, min(slices, _WIDE_SLICES)
    held = held_of(problem, place)
    visits = problem.load.sum(axis=1)
    floor = np.where(visits > 0, limit, 1.0) * visits / problem.topology.devices
    least = np.minimum(least_copies(problem, limit) if least is None else least, held.sum(axis=2))
    unit = float(problem.cost.max()) * max(1, problem.affinity.top_k) if problem.affinity.has_affinity else 1.0
    sweeps = max(slices, int(proposals) // place.size)
    scale = problem.scale()
    edges = np.linspace(0, sweeps, slices + 1).astype(int)
    ratio = (cold / hot) ** (1.0 / max(1, sweeps - 1))
    place, kept, least_value = place.copy(), place.copy(), np.inf
    last_price = unit * prices[1]
    for number in range(slices):
        if options.interrupted():
            break
        if options.progress is not None:
            options.progress(what, number / slices)
        begin, end = int(edges[number]), int(edges[number + 1])
        price = unit * prices[0] * (prices[1] / prices[0]) ** (number / (slices - 1)) if prices[0] > 0 else 0.0
        held = held_of(problem, place)
        shares = shares_of(held)
        best = place.copy()
        try:
            anneal_copies(
                place, best, problem.device_of, held.astype(np.uint8), held.sum(axis=2), problem.cost,
                field_of(problem, shares), problem.load, np.einsum("le,led->ld", problem.load, shares),
                problem.links.start, problem.links.to, problem.links.count, price, floor, problem.fresh, least,
                problem.current, problem.budget, end - begin, scale * hot * ratio**begin,
                scale * hot * ratio ** max(begin, end - 1), state,
            )  # fmt: skip
        except KeyboardInterrupt:
            # The kernel has come to its end before; only a caller who polls wants what it found.
            if not options.interrupted():
                raise
        value = _value(problem, best, last_price, floor)
        if value < least_value:
            kept, least_value = best, value
    return kept


def _value(problem: CopyProblem, place: NDArray[np.int64], price: float, floor: NDArray[np.float64]) -> float:
    """Return the objective: crossings, prices of copies, and visits above the floor at their price."""
    held = held_of(problem, place)
    total = crossing_cost(problem, held) * problem.affinity.steps + float((problem.fresh * held).sum())
    if price > 0.0:
        load = np.einsum("le,led->ld", problem.load, shares_of(held))
        total += price * float(np.maximum(load - floor[:, None], 0.0).sum())
    return total


def place_copies(
    problem: CopyProblem,
    start: NDArray[np.bool_],
    limit: float | None,
    scope: str,
    options: CopyOptions,
    known: Sequence[NDArray[np.bool_]] = (),
) -> NDArray[np.bool_]:
    """Search for the copies of least expected cost within a limit on imbalance.

    Raises InfeasibleError if no placement can keep the limit (proven), or none was found.

    Parameters
    ----------
    start
        ``[layers, experts, devices]`` copies to start from.
    limit, scope
        Largest max-over-mean load, of ``each`` layer or of the ``mean`` over layers; None for no limit.
    known
        Placements to go on from where they are the best: the result costs no more than those that keep the limit.
    """
    state = np.array([options.seed], dtype=np.uint64)
    layers = problem.load.shape[0]
    if limit is None:
        free = np.full(layers, np.inf)
        found = anneal(
            problem, places_of(problem, start), options, limit=free, prices=(0.0, 0.0), proposals=options.proposals,
            hot=WARM, state=state, what="copies",
        )  # fmt: skip
        held = held_of(problem, found)
        return held if crossing_cost(problem, held) <= crossing_cost(problem, start) else start
    check_limit(problem, limit, scope)
    even = as_held(eplb_replicated(problem.affinity, problem.topology, problem.replicas_per_device), start.shape[2])
    work = options.proposals / (2 if scope == "mean" else 1)
    limits = np.full(layers, limit)
    best = search_within(problem, [start, even], limits, options, work, state, known, fill=scope == "each")
    if scope == "mean":
        best = _mean_within(problem, [start, even], best, limit, options, work, state)
    if best is None:
        if options.interrupted():
            raise KeyboardInterrupt
        reached = imbalances(problem, even)
        raise InfeasibleError(
            f"balance: no placement within {limit} ({scope} layer) was found; raise the limit, the work, or the "
            f"replicas per device (balancing by load alone reaches "
            f"{float(reached.max() if scope == 'each' else reached.mean()):.4f})"
        )
    return best


def search_within(
    problem: CopyProblem,
    starts: list[NDArray[np.bool_]],
    limit: NDArray[np.float64],
    options: CopyOptions,
    work: float,
    state: NDArray[np.uint64],
    known: Sequence[NDArray[np.bool_]] = (),
    *,
    fill: bool = True,
    runs: Sequence[tuple[float, tuple[float, float]]] = _RUNS,
) -> NDArray[np.bool_] | None:
    """Return the cheapest placement found in which every layer keeps its own limit, or None.

    Whatever is found joins a pool, from which the best layers are put together: a layer that keeps its limit is of use
    even where others of its placement do not. Without ``runs`` the search goes on from the starts alone.
    """
    asked = np.maximum(1.0, limit * (1.0 - SLACK))
    what = f"copies within {float(limit.mean()):.4g}"
    pool = [*starts, *known]
    best: NDArray[np.bool_] | None = None

    def join(place: NDArray[np.int64], heat: float, prices: tuple[float, float], share: float) -> None:
        """Anneal, mend what is over the limit, and put the best of all together."""
        nonlocal best
        found = anneal(
            problem, place, options, limit=asked, prices=prices, proposals=share * work, hot=heat, state=state,
            what=what,
        )  # fmt: skip
        mended = _mended(problem, found, asked, options, _MEND_SHARE * work, state, what)
        pool.extend(held_of(problem, place) for place in (found, mended))
        joined = recombine_copies(problem, pool, limit)
        if joined is not None and (best is None or crossing_cost(problem, joined) < crossing_cost(problem, best)):
            best = joined
            pool.append(joined)

    for hot, prices in runs:
        for start in starts:
            join(places_of(problem, with_least(problem, start, asked)), hot, prices, _RUN_SHARE)
    if best is None:
        # Balance first: a steep price from an even start.
        join(places_of(problem, with_least(problem, starts[-1], asked)), HOT / 2, (16.0, 256.0), 2 * _RUN_SHARE)
    if best is None and fill and not options.interrupted():
        pool.extend(_filled(problem, pool, limit))
        best = recombine_copies(problem, pool, limit)
    for heat in _ON_HEATS:
        if best is not None and not options.interrupted():
            join(places_of(problem, best), heat, (4.0, 64.0), _ON_SHARE)
    return best


def go_on(
    problem: CopyProblem, held: NDArray[np.bool_], limits: NDArray[np.float64], options: CopyOptions
) -> NDArray[np.bool_]:
    """Go on from copies to those within limits of single layers; raises InfeasibleError if none were found."""
    state = np.array([options.seed], dtype=np.uint64)
    found = search_within(problem, [held], limits, options, options.proposals, state, runs=())
    if found is None:
        if options.interrupted():
            raise KeyboardInterrupt
        raise InfeasibleError("balance: no placement within the limits of single layers was found; raise the limit")
    return found


def _filled(
    problem: CopyProblem, pool: Sequence[NDArray[np.bool_]], limit: NDArray[np.float64]
) -> list[NDArray[np.bool_]]:
    """Return placements that give every layer a way to keep its limit, where an integer program finds one.

    Raises InfeasibleError if the program proves that a layer has none.
    """
    fits = np.any([imbalances(problem, held) <= limit for held in pool], axis=0)
    filled = pool[0].copy()
    open_layers = np.flatnonzero(~fits).tolist()
    for layer, work in [(layer, work) for work in FILL_WORK for layer in open_layers]:
        if fits[layer]:
            continue
        copies, impossible = fill_layer(problem, layer, float(limit[layer]), work)
        if impossible:
            raise InfeasibleError(
                f"balance: no placement can keep {float(limit[layer]):g} (each layer): layer {layer} has none with "
                f"{problem.replicas_per_device} replicas per device, as an integer program over all ways to fill it "
                "proves; raise the limit or the replicas per device"
            )
        if copies is not None:
            filled[layer], fits[layer] = copies, True
    return [filled] if fits.all() else []


def _mean_within(
    problem: CopyProblem,
    starts: list[NDArray[np.bool_]],
    best: NDArray[np.bool_] | None,
    limit: float,
    options: CopyOptions,
    work: float,
    state: NDArray[np.uint64],
) -> NDArray[np.bool_] | None:
    """Bisect one price of visits above the mean for all layers: layers in which balance is dear may have less of it.

    The price is on all visits above, the limit on the fullest device. So the most even way to fill a layer is often one
    of a placement that breaks the limit elsewhere: at last layers of all placements on the way are put together, and
    where that is not enough, filled by programs.
    """
    layers = problem.load.shape[0]
    least = np.inf if best is None else crossing_cost(problem, best)
    low, high = _MEAN_PRICES
    one = np.ones(problem.load.shape, dtype=np.int64)
    start = places_of(problem, starts[0] if best is None else best)
    pool = starts if best is None else [*starts, best]
    for step in range(_MEAN_STEPS):
        price = float(np.sqrt(low * high))
        start = anneal(
            problem, start, options, limit=np.ones(layers), prices=(price, price), proposals=work / _MEAN_STEPS,
            hot=HOT / 4 if step < _MEAN_STEPS // 2 else WARM, state=state, least=one,
            what=f"copies within {limit:.4g} on average",
        )  # fmt: skip
        held = held_of(problem, start)
        pool = [*pool, held]
        if keeps(imbalances(problem, held), limit, "mean"):
            high = price
            if crossing_cost(problem, held) < least:
                best, least = held, crossing_cost(problem, held)
        else:
            low = price
    ratios = np.stack([imbalances(problem, held) for held in pool])
    even = ratios.min(axis=0)
    if best is None and even.mean() > limit and not options.interrupted():
        mixed = np.stack([pool[member][layer] for layer, member in enumerate(ratios.argmin(axis=0))])
        pool = [*pool, even_layers(problem, mixed, limit)]
        even = np.minimum(even, imbalances(problem, pool[-1]))
    joined = recombine_copies(problem, pool, even + max(0.0, limit - float(even.mean())))
    if joined is not None and keeps(imbalances(problem, joined), limit, "mean"):
        best = joined if crossing_cost(problem, joined) < least else best
    return best


def _mended(
    problem: CopyProblem,
    place: NDArray[np.int64],
    asked: NDArray[np.float64],
    options: CopyOptions,
    proposals: float,
    state: NDArray[np.uint64],
    what: str,
) -> NDArray[np.int64]:
    """Anneal at a steep price from a low temperature: what is little over the limit comes below it."""
    return anneal(
        problem, place, options, limit=asked, prices=(64.0, 64.0), proposals=proposals, hot=0.05, state=state, what=what
    )


def check_limit(problem: CopyProblem, limit: float, scope: str) -> None:
    """Refuse a limit that is none, or that no placement can keep.

    Raises InputError if the limit is below 1 or the scope unknown. Raises InfeasibleError if the load of single experts
    proves that the limit cannot be kept.
    """
    if scope not in SCOPES or not limit >= 1.0:
        raise InputError(
            f"balance: limit {limit} of scope {scope!r}; give a limit of at least 1 and {' or '.join(SCOPES)}"
        )
    least = least_imbalance(problem.affinity, problem.topology, problem.replicas_per_device)
    worst = float(least.max() if scope == "each" else least.mean())
    if worst > limit * (1 + 1e-9):
        raise InfeasibleError(
            f"balance: no placement can keep {limit} ({scope} layer): the busiest expert's load per copy alone makes "
            f"{worst:.4f}, however copies are given out; raise the limit or the replicas per device"
        )
