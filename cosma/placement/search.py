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
from cosma.placement.pressure import Pressure, objective
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
    """How long and how widely to search."""

    #: Start of the random numbers; equal seeds give equal placements.
    seed: int = 0
    #: Swap proposals over the whole search: the work limit.
    proposals: int = 40_000_000
    #: Placements annealed from separate starts before they are recombined.
    pool: int = 3
    #: Rounds of recombining and annealing again from a lower temperature.
    rounds: int = 3
    #: Optional wall-clock limit; only then can two runs differ.
    seconds: float | None = None
    #: Polled between runs; once true, the best so far is returned.
    interrupted: Callable[[], bool] = bool
    #: Told what is being done, and the share of it that is done.
    progress: Callable[[str, float], None] | None = None


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
    options
        Work limit, seed and shape of the search.
    pressure
        Balance and re-placement terms; None for crossings alone.
    starts
        Placements ``[layers, places]`` to start from, before those the search makes itself. With a move budget
        the first must respect it.
    """
    run = _Run.begin(instance, options, pressure or Pressure.none(instance), len(starts))
    try:
        run.anneal_given(starts)
        run.anneal_own()
        for number in range(run.rounds):
            if run.late():
                break
            run.go_on(number)
        if run.free:
            run.keep(recombine(instance, run.placements()), 0)
    except KeyboardInterrupt:
        if not options.interrupted() or not run.pool:
            raise
    return min(run.pool, key=_value)[2]


def _value(item: tuple[float, int, NDArray[np.int64]]) -> float:
    return item[0]


@dataclass(slots=True, eq=False)
class _Run:
    """One search under way.

    Attributes
    ----------
    scale
        Temperature at which about every swap is accepted.
    free
        Whether crossings alone count, and no expert is priced by device.
    warmth
        Heat, as a share of the scale, of annealing placements handed in.
    heats, size, rounds
        Heats of starts of our own, how many of those, and rounds of recombining.
    share
        Proposals of one annealing.
    runs
        Annealings in all, for progress.
    pool
        Value, heat and placement of all that was found.
    """

    instance: Instance
    options: SearchOptions
    pressure: Pressure
    deadline: float | None
    state: NDArray[np.uint64]
    generator: np.random.Generator
    scale: float
    free: bool
    warmth: float
    heats: tuple[float, ...]
    size: int
    rounds: int
    share: int
    runs: int
    pool: list[tuple[float, int, NDArray[np.int64]]]

    @classmethod
    def begin(cls, instance: Instance, options: SearchOptions, pressure: Pressure, given: int) -> _Run:
        """Divide the work among starts and rounds."""
        free = pressure.plain and not instance.linear.any()
        heats, size, rounds = _HEATS, options.pool, options.rounds
        if options.proposals < _FEWEST_SWEEPS * instance.layers * instance.places * (size + 3 * rounds):
            # Too large for many starts: fewer, cooler and longer runs.
            heats, size, rounds = _HEATS[::-1], min(size, 2), min(rounds, 2)
        share = options.proposals // max(1, size + given // 6 + min(3, given) + 3 * rounds)
        # Starts of our own making do not know a budget of moves.
        own = size if pressure.budget < 0 else 0
        return cls(
            instance, options, pressure,
            None if options.seconds is None else time.monotonic() + options.seconds,
            np.array([options.seed], dtype=np.uint64), np.random.default_rng([options.seed, 1]), _scale(instance),
            free, _WARM_HEAT if free else _GENTLE_HEAT, heats, own, rounds,
            min(share, _MOST_SWEEPS * instance.layers * instance.places),
            given + min(3, given) + own + rounds, [],
        )  # fmt: skip

    def late(self) -> bool:
        """Say whether to stop: there is something to return, and an interrupt or the clock asks for it."""
        over = self.deadline is not None and time.monotonic() > self.deadline
        return bool(self.pool) and (self.options.interrupted() or over)

    def placements(self) -> list[NDArray[np.int64]]:
        """Return all placements found."""
        return [home for _, _, home in self.pool]

    def keep(self, home: NDArray[np.int64], heat: int) -> None:
        """Add a placement to the pool."""
        home = self._polished(home)
        self.pool.append((objective(self.instance, home, self.pressure), heat, home))

    def anneal_given(self, starts: Sequence[NDArray[np.int64]]) -> None:
        """Anneal the placements handed in for a short time, and the best of them for longer."""
        for start in starts:
            if not self.late():
                self._anneal(start, _WARM, self.share // 6)
        for home in [item[2] for item in sorted(self.pool, key=_value)[:3]]:
            if not self.late():
                self._anneal(home, _WARM, self.share)

    def anneal_own(self) -> None:
        """Anneal starts of our own: from each heat in turn, then from the best heat."""
        for member in range(self.size):
            heat = member if member < len(self.heats) else 0
            if member >= len(self.heats):
                heat = next(found for _, found, _ in sorted(self.pool, key=_value) if found >= 0)
            if not self.late():
                self._anneal(_start(self.instance, member, self.options.seed), heat, self.share)

    def go_on(self, number: int) -> None:
        """Recombine the pool, place a few devices of the best anew, and anneal it from a lower temperature."""
        self.pool.sort(key=_value)
        _, heat, best = self.pool[0]
        if self.free:
            best = polish(self.instance, recombine(self.instance, self.placements()))
        if not self.pressure.price.any() and self.pressure.budget < 0:
            best = reopen(
                self.instance, best, self.pressure, proposals=self.share, sweeps=200,
                hot=self.scale * (0.5, 0.2)[number % 2], cold=self.scale * 0.02, state=self.state,
                generator=self.generator, deadline=self.deadline, together=2 + number % 2,
            )  # fmt: skip
            self.keep(best, heat)
        warm = (self.warmth if heat == _WARM else self.heats[heat] * 0.5) * (0.5, 0.25)[number % 2]
        self.keep(self._annealed(best, 2 * self.share, max(warm, 0.03), 0.01), heat)

    def _anneal(self, start: NDArray[np.int64], heat: int, work: int) -> None:
        if self.options.progress is not None:
            self.options.progress("homes", min(1.0, len(self.pool) / max(1, self.runs)))
        hot = self.warmth if heat == _WARM else self.heats[heat]
        self.keep(self._annealed(self._polished(start), work, hot, 0.02), heat)

    def _annealed(self, home: NDArray[np.int64], work: int, hot: float, cold: float) -> NDArray[np.int64]:
        return anneal(
            self.instance, home, self.pressure, proposals=work, hot=self.scale * hot, cold=self.scale * cold,
            state=self.state, deadline=self.deadline, chains=_chains(self.instance, self.pressure),
        )  # fmt: skip

    def _polished(self, home: NDArray[np.int64]) -> NDArray[np.int64]:
        return polish(self.instance, home) if self.pressure.plain else home


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
