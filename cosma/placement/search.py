"""Scalable placement search: assignment layer by layer, annealing, and recombination along the layers.

Three moves work together.

*Layer assignment* (``layerwise``). One layer at a time is placed exactly, until no single layer can be placed better.

*Annealing.* Swapping two experts of a layer changes the cost by four entries of the field, so a proposal costs a few
nanoseconds and only an accepted one touches the neighbours.

*Recombination.* Names of alike devices are interchangeable. For a pool of placements, the best way to take each
layer from any of them, relabelling devices from layer to layer, is a shortest path whose edge lengths are nested
assignment problems; it joins the best stretches of different placements.

Everything is deterministic: work is counted in swap proposals, never in seconds, unless the caller gives a deadline.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from cosma.placement import kernels
from cosma.placement.instance import Instance
from cosma.placement.layerwise import greedy_chain, polish
from cosma.placement.recombine import recombine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


# Starting temperatures tried in turn, as shares of the scale; the best of the first round is used from then on.
_HEATS = (1.0, 0.4, 0.15)
# Placements handed in are annealed from there, more gently where balance or moves count as well.
_WARM, _WARM_HEAT, _GENTLE_HEAT = -1, 0.35, 0.15
# Longer cooling than this many sweeps has stopped paying.
_MOST_SWEEPS = 1500
# Shorter cooling than this many sweeps is not worth a start of its own.
_FEWEST_SWEEPS = 300
# Devices beyond which temperatures fall with their number.
_MANY_DEVICES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """How long and how widely to search.

    Attributes
    ----------
    seed
        Start of the random numbers; equal seeds give equal placements.
    proposals
        Swap proposals over the whole search: the work limit.
    pool
        Placements annealed from separate starts before they are recombined.
    rounds
        Rounds of recombining and annealing again from a lower temperature.
    seconds
        Optional wall-clock limit; only then can two runs differ.
    interrupted
        Polled between runs; once true, the best so far is returned.
    progress
        Told what is being done, and the share of it that is done.
    """

    seed: int = 0
    proposals: int = 40_000_000
    pool: int = 3
    rounds: int = 3
    seconds: float | None = None
    interrupted: Callable[[], bool] = bool
    progress: Callable[[str, float], None] | None = None


@dataclass(slots=True, eq=False)
class Pressure:
    """What the search weighs beside crossings.

    Attributes
    ----------
    price
        Per layer, the price of a token above ``floor`` on the fullest device; zeros leave balance out.
    floor
        Per layer, the load up to which a device costs nothing, in tokens.
    current
        ``[layers, places]`` device each expert lives on now (-1 for idle places), for re-placement.
    budget
        How many experts may end elsewhere than in ``current``; -1 for no limit.
    """

    price: NDArray[np.float64]
    floor: NDArray[np.float64]
    current: NDArray[np.int64]
    budget: int = -1

    @classmethod
    def none(cls, instance: Instance) -> Pressure:
        """Return no pressure: crossings alone."""
        shape = (instance.layers, instance.places)
        return cls(np.zeros(instance.layers), np.zeros(instance.layers), np.full(shape, -1, dtype=np.int64))

    @property
    def plain(self) -> bool:
        """Whether crossings alone count, so that layers may be assigned and devices renamed freely."""
        return self.budget < 0 and not self.price.any()


def objective(instance: Instance, home: NDArray[np.int64], pressure: Pressure) -> float:
    """Return what the search minimises: crossings, linear extras and the price of overload, in summed cost."""
    total = instance.crossing(home) + instance.extra(home)
    if pressure.price.any():
        peak = instance.device_load(home).max(axis=1)
        total += float((pressure.price * np.maximum(peak, pressure.floor)).sum())
    return total


def anneal(
    instance: Instance,
    home: NDArray[np.int64],
    pressure: Pressure,
    *,
    proposals: int,
    hot: float,
    cold: float,
    state: NDArray[np.uint64],
    deadline: float | None = None,
    chains: int = 0,
) -> NDArray[np.int64]:
    """Anneal from ``home`` with about ``proposals`` swap proposals; returns the best placement seen."""
    home = home.copy()
    sweeps = max(1, proposals // (instance.layers * instance.places))
    slices = 1 if deadline is None else min(sweeps, 40)
    edges = np.linspace(0, sweeps, slices + 1).astype(int)
    ratio = (cold / hot) ** (1.0 / max(1, sweeps - 1))
    best, best_value = home, objective(instance, home, pressure)
    for begin, end in pairwise(edges.tolist()):
        if deadline is not None and time.monotonic() > deadline:
            break
        run = home.copy()
        _anneal_slice(
            instance, run, pressure, int(end - begin), hot * ratio**begin, hot * ratio ** (end - 1), state, chains
        )
        home = run
        value = objective(instance, run, pressure)
        if value < best_value:
            best, best_value = run, value
    return best


def reopen(
    instance: Instance,
    home: NDArray[np.int64],
    pressure: Pressure,
    *,
    proposals: int,
    sweeps: int,
    hot: float,
    cold: float,
    state: NDArray[np.uint64],
    generator: np.random.Generator,
    deadline: float | None = None,
    together: int = 2,
) -> NDArray[np.int64]:
    """Take a few devices at a time and place all their experts anew by annealing (a large neighbourhood).

    Never returns anything worse than ``home``. ``together`` devices are reopened at once.
    """
    home = home.copy()
    field, device_load = instance.field(home), instance.device_load(home)
    spent = 0
    while spent < proposals and not (deadline is not None and time.monotonic() > deadline):
        chosen = generator.choice(instance.devices, size=min(together, instance.devices), replace=False)
        inside = np.isin(home, chosen)
        members = np.ascontiguousarray(np.nonzero(inside)[1].reshape(instance.layers, -1))
        _run_anneal(instance, home, members, field, device_load, pressure, sweeps, 0, hot, cold, state)
        spent += sweeps * members.size
    return home


def search(
    instance: Instance,
    options: SearchOptions,
    pressure: Pressure | None = None,
    starts: Sequence[NDArray[np.int64]] = (),
) -> NDArray[np.int64]:
    """Search for a placement ``[layers, places]`` of least cost.

    Parameters
    ----------
    instance
        The problem.
    options
        Work limit, seed and shape of the search.
    pressure
        Balance and re-placement terms; None for crossings alone.
    starts
        Placements ``[layers, places]`` to start from, before those the search makes itself. With a move budget
        the first must respect it.
    """
    pressure = pressure or Pressure.none(instance)
    deadline = None if options.seconds is None else time.monotonic() + options.seconds
    state = np.array([options.seed], dtype=np.uint64)
    generator = np.random.default_rng([options.seed, 1])
    scale = _scale(instance)
    free = pressure.plain and not instance.linear.any()
    warmth = _WARM_HEAT if free else _GENTLE_HEAT
    heats, size, rounds = _HEATS, options.pool, options.rounds
    if options.proposals < _FEWEST_SWEEPS * instance.layers * instance.places * (size + 3 * rounds):
        # Too large for many starts: fewer, cooler and longer runs.
        heats, size, rounds = _HEATS[::-1], min(size, 2), min(rounds, 2)
    share = options.proposals // max(1, size + len(starts) // 6 + min(3, len(starts)) + 3 * rounds)
    share = min(share, _MOST_SWEEPS * instance.layers * instance.places)
    pool: list[tuple[float, int, NDArray[np.int64]]] = []

    def keep(home: NDArray[np.int64], heat: int) -> None:
        home = polish(instance, home) if pressure.plain else home
        pool.append((objective(instance, home, pressure), heat, home))

    def late() -> bool:
        return bool(pool) and (options.interrupted() or (deadline is not None and time.monotonic() > deadline))

    runs = len(starts) + min(3, len(starts)) + (size if pressure.budget < 0 else 0) + rounds

    def run(start: NDArray[np.int64], heat: int, work: int) -> None:
        if options.progress is not None:
            options.progress("homes", min(1.0, len(pool) / max(1, runs)))
        hot = warmth if heat == _WARM else heats[heat]
        start = polish(instance, start) if pressure.plain else start
        keep(
            anneal(
                instance, start, pressure, proposals=work, hot=scale * hot, cold=scale * 0.02, state=state,
                deadline=deadline, chains=_chains(instance, pressure),
            ),
            heat,
        )  # fmt: skip

    try:
        for start in starts:
            if not late():
                run(start, _WARM, share // 6)
        for _, _, home in sorted(pool, key=lambda item: item[0])[:3]:
            if not late():
                run(home, _WARM, share)
        # Starts of our own making do not know a budget of moves.
        for member in range(size if pressure.budget < 0 else 0):
            heat = member if member < len(heats) else 0
            if member >= len(heats):
                heat = next(found for _, found, _ in sorted(pool, key=lambda item: item[0]) if found >= 0)
            if not late():
                run(_start(instance, member, options.seed), heat, share)
        for round_number in range(rounds):
            if late():
                break
            pool.sort(key=lambda item: item[0])
            best, heat = pool[0][2], pool[0][1]
            if free:
                best = polish(instance, recombine(instance, [item[2] for item in pool]))
            if not pressure.price.any() and pressure.budget < 0:
                best = reopen(
                    instance, best, pressure, proposals=share, sweeps=200, hot=scale * (0.5, 0.2)[round_number % 2],
                    cold=scale * 0.02, state=state, generator=generator, deadline=deadline,
                    together=2 + round_number % 2,
                )  # fmt: skip
                keep(best, heat)
            warm = (warmth if heat == _WARM else heats[heat] * 0.5) * (0.5, 0.25)[round_number % 2]
            home = anneal(
                instance, best, pressure, proposals=2 * share, hot=scale * max(warm, 0.03), cold=scale * 0.01,
                state=state, deadline=deadline, chains=_chains(instance, pressure),
            )  # fmt: skip
            keep(home, heat)
        if free:
            keep(recombine(instance, [item[2] for item in pool]), 0)
    except KeyboardInterrupt:
        if not options.interrupted() or not pool:
            raise
    return min(pool, key=lambda item: item[0])[2]


def _chains(instance: Instance, pressure: Pressure) -> int:
    """Return how many chains of swaps follow each sweep: few enough to cost about as much as the sweep."""
    return 10 + min(instance.places, 70) if pressure.plain else 0


def _start(instance: Instance, member: int, seed: int) -> NDArray[np.int64]:
    """Make the start of a pool member: a random layer in the middle, the rest assigned to it in turn."""
    generator = np.random.default_rng([seed, member])
    columns = instance.columns()
    first = columns if member == 0 else generator.permutation(columns)
    return greedy_chain(instance, first, instance.layers // 2)


def _scale(instance: Instance) -> float:
    """Return a temperature at which about every swap is accepted: the mean traffic of an expert, times mean cost.

    On many devices an expert shares little of its traffic with any one of them, so swaps change less.
    """
    traffic = 2.0 * instance.steps / (instance.layers * max(1, instance.experts))
    spread = min(1.0, _MANY_DEVICES / instance.devices)
    return max(
        1e-9, float(instance.cost.mean()) * traffic * 0.5 * spread + 1e-3 * float(instance.linear.max(initial=0.0))
    )


def _anneal_slice(
    instance: Instance,
    home: NDArray[np.int64],
    pressure: Pressure,
    sweeps: int,
    hot: float,
    cold: float,
    state: NDArray[np.uint64],
    chains: int,
) -> float:
    everyone = np.tile(np.arange(instance.places), (instance.layers, 1))
    return _run_anneal(
        instance, home, everyone, instance.field(home), instance.device_load(home), pressure, sweeps, chains, hot,
        cold, state,
    )  # fmt: skip


def _run_anneal(
    instance: Instance,
    home: NDArray[np.int64],
    members: NDArray[np.int64],
    field: NDArray[np.float64],
    device_load: NDArray[np.float64],
    pressure: Pressure,
    sweeps: int,
    chains: int,
    hot: float,
    cold: float,
    state: NDArray[np.uint64],
) -> float:
    change: float = kernels.anneal(
        home, members, 0, instance.layers, instance.cost, field, instance.load, device_load,
        instance.links.start, instance.links.to, instance.links.count,
        pressure.price, pressure.floor, pressure.current, pressure.budget, sweeps, chains, hot, cold, state,
    )  # fmt: skip
    return change
