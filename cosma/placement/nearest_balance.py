"""Copies within a limit on load where the nearest copy serves.

What a device serves under ``nearest`` depends on where tokens come from, so loads cannot be told layer by layer. But
copies that balance when they share evenly come near to it: the search for those is run with a limit for each layer
that is corrected, from round to round, by what the Markov model (``replication``) makes of its outcome. What breaks the
limit is mended, and the best is improved under the model itself, at rising prices of load.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from cosma.errors import InfeasibleError
from cosma.placement.baselines import eplb_replicated
from cosma.placement.copies import held_of, places_of, with_least
from cosma.placement.copy_search import anneal, check_limit, is_wide, search_within
from cosma.placement.load_only import least_imbalance
from cosma.placement.metrics import keeps, peak_ratios
from cosma.placement.nearest_mend import mend
from cosma.placement.replication import Flow, as_held, improve, listed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.placement.copies import CopyProblem
    from cosma.placement.copy_search import CopyOptions
    from cosma.placement.document import Replicas

#: Rounds of correcting (half of them for many experts and devices), and the share of the work that the search before
#: them gets.
_ROUNDS, _SEARCH_SHARE = 16, 0.5
#: Heats of the first and the last round: little moves, so that corrections go on from what they correct.
_HEATS = (0.08, 0.02)
#: Slices of a round's annealing, which is short.
_SLICES = 4
#: Most and least that one round corrects a layer's limit by, and the loosest that one becomes.
_CORRECTION, _LOOSEST = (0.93, 1.03), 4.0
#: Share of room left to the limit, so that a round does not miss it by a hair.
_MARGIN = 0.004
#: Prices of load at which the Markov model improves the best of all rounds, one after the other: within 1.2 on 2x4,
#: crossings of gpt_12x64_top1_s5 fall by 15 %; prices from 6.4 on end dearer.
_LOAD_PRICES = (0.2, 0.4, 0.8, 1.6, 3.2)
#: Limits on every layer, in units of that on their mean, within which what breaks the mean is mended.
_LOOSER = (1.3, 1.15, 1.0)
#: Terms of one round of the Markov model up to which it goes on from the best.
_MOST_TERMS = 1_000_000


def place_nearest(
    problem: CopyProblem, start: NDArray[np.bool_], limit: float, scope: str, options: CopyOptions, *,
    limits: NDArray[np.float64] | None = None,
) -> Replicas:
    """Search for copies that cross least when the nearest serves, within a limit on the modelled load.

    Raises InputError if the limit is below 1 or the scope unknown. Raises InfeasibleError if no placement can keep the
    limit, or none was found.

    Parameters
    ----------
    problem, start
        What to place, and ``[layers, experts, devices]`` copies to start from.
    limit, scope
        Largest max-over-mean load, of ``each`` layer or of the ``mean`` over layers.
    options
        Work limit of all rounds together, seed, interrupt and progress.
    limits
        Limits of single layers, ``limit`` at most, which ``start`` nearly keeps: half of the rounds go on from there.
    """
    check_limit(problem, limit, scope)
    replicas = problem.replicas_per_device
    even = as_held(eplb_replicated(problem.affinity, problem.topology, replicas), start.shape[2])
    state = np.array([options.seed], dtype=np.uint64)
    least = np.maximum(1.0, least_imbalance(problem.affinity, problem.topology, replicas)) * (1 + 1e-6)
    limits, near = np.full(len(least), limit) if limits is None else np.minimum(limits, limit), limits is not None
    if scope == "each":
        limits = np.maximum(least, limits)
    asked = np.maximum(least, limits)
    within: NDArray[np.bool_] | None = start
    if not near:
        within = search_within(
            problem, [start, even], asked, options, _SEARCH_SHARE * options.proposals, state, fill=False
        )  # fmt: skip
    held = even if within is None else within
    rounds = _ROUNDS // (2 if near else 1) // (2 if is_wide(problem.affinity, problem.topology) else 1)
    places = np.bincount(problem.device_of, minlength=problem.topology.devices)
    found = _Found(places, np.minimum(limits, limit), scope)
    for number in range(rounds + 1):
        flow = Flow.build(problem.affinity, problem.topology, held)
        ratio = peak_ratios(flow.load)
        found.look(flow)
        if number == rounds or (options.interrupted() and found.best is not None):
            break
        over = ratio if scope == "each" else np.full_like(ratio, ratio.mean())
        if scope == "each" and found.best is None and number >= rounds // 2:
            # Where a token is served follows from the layers before: these may be what breaks the limit behind them.
            over = np.maximum.accumulate(over[::-1])[::-1]
        asked = np.clip(asked * np.clip(limits * (1 - _MARGIN) / over, *_CORRECTION), least, _LOOSEST)
        place = anneal(
            problem, places_of(problem, with_least(problem, held, asked)), options, limit=asked, prices=(8.0, 64.0),
            proposals=(1 - _SEARCH_SHARE) * options.proposals / _ROUNDS,
            hot=_HEATS[0] * (_HEATS[1] / _HEATS[0]) ** (number / rounds), state=state, slices=_SLICES,
            what=f"copies within {limit:.4g} of the nearest",
        )  # fmt: skip
        held = held_of(problem, place)
    # With several experts a token the model is too far from the tokens: what it makes of a limit breaks there.
    goes_on = problem.affinity.top_k == 1 and start.shape[1] * start.shape[2] ** 3 <= _MOST_TERMS
    # Where free places were filled at first, little would be left to mend with.
    for room, price in product((np.zeros_like(places), places), _LOAD_PRICES) if goes_on else ():
        if found.best is None or options.interrupted():
            break
        flow = Flow.build(problem.affinity, problem.topology, as_held(found.best[1], start.shape[2]))
        improve(flow, room, 2, price)
        found.look(flow)
    if found.best is None:
        if options.interrupted():
            raise KeyboardInterrupt
        raise InfeasibleError(
            f"balance: with {replicas} replicas per device the best imbalance found is {found.lowest:.3f} ({scope} "
            f"layer), over the limit of {limit}. The nearest copy serves, which leaves less to balance: let copies "
            "share load (routing split or least-loaded), or raise the limit or the replicas per device"
        )
    return found.best[1]


@dataclass(slots=True, eq=False)
class _Found:
    """The cheapest copies within the limit so far, and the lowest imbalance of all."""

    slots: NDArray[np.int64]
    limits: NDArray[np.float64]
    scope: str
    best: tuple[float, Replicas] | None = None
    lowest: float = float("inf")

    def look(self, flow: Flow) -> None:
        """Take what a model holds, mended where it breaks the limit; ``flow`` is changed."""
        for loosest in (None, *(_LOOSER if self.scope == "mean" else (1.0,))):
            if loosest is not None:
                mend(flow, self.slots, loosest * self.limits)
            ratio = peak_ratios(flow.load)
            self.lowest = min(self.lowest, float(ratio.max() if self.scope == "each" else ratio.mean()))
            if keeps(ratio, self.limits, self.scope):
                if self.best is None or flow.cost() < self.best[0]:
                    self.best = flow.cost(), listed(flow)
                break
