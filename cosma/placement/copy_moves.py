"""Re-placement of copies: moving few of them, or weighing every move against the crossings it saves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.errors import InfeasibleError, InputError
from cosma.placement.copies import crossing_cost, held_of, imbalances, places_of, with_least
from cosma.placement.copy_search import HOT, SLACK, WARM, CopyOptions, anneal, check_limit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosma.placement.copies import CopyProblem

#: Prices of a copy that is not in force, in mean traffic of an expert times mean cost, for a budget of moves.
_MOVE_PRICES = (1.0, 0.3, 0.1, 0.03, 0.01)


def place_near(
    problem: CopyProblem,
    current: NDArray[np.bool_],
    budget: int,
    limit: float | None,
    options: CopyOptions,
) -> NDArray[np.bool_]:
    """Search for copies of least expected cost of which at most ``budget`` lie where there is none now.

    A falling price on such copies finds which moves are worth making; a last search under the hard budget uses it up.
    With a limit on the imbalance of each layer, the placement in force is left where it breaks it. Raises
    InfeasibleError if no placement that keeps both limits was found.
    """
    layers = problem.load.shape[0]
    if limit is not None:
        check_limit(problem, limit, "each")
    wanted = np.full(layers, np.inf if limit is None else limit)
    asked = wanted * (1.0 - SLACK) if limit is not None else wanted
    prices = (0.0, 0.0) if limit is None else (4.0, 64.0)
    state = np.array([options.seed], dtype=np.uint64)
    share = options.proposals / (len(_MOVE_PRICES) + 5)
    one = np.ones(problem.load.shape, dtype=np.int64)
    best: NDArray[np.bool_] | None = None
    least = np.inf

    def keep(held: NDArray[np.bool_]) -> None:
        nonlocal best, least
        fits = bool((imbalances(problem, held) <= wanted).all()) and copies_moved(current, held) <= budget
        cost = crossing_cost(problem, held)
        if fits and cost < least:
            best, least = held, cost

    keep(current)
    start = current if limit is None else with_least(problem, current, asked)
    for price in _MOVE_PRICES if budget else ():
        priced = problem.near(current, price=price * problem.scale())
        place = anneal(
            priced, places_of(problem, start), options, limit=asked, prices=prices, proposals=share, hot=WARM,
            state=state, what="moves",
        )  # fmt: skip
        keep(held_of(problem, place))
    if budget:
        limited = problem.near(current, budget=budget)
        for heat, visits in ((HOT, prices), (WARM, prices), (WARM / 4, prices), (HOT / 2, (64.0, 4096.0))):
            if visits is not prices and (best is not None or limit is None):
                break
            for origin in [current] if heat == HOT else [best if best is not None else start, current]:
                place = anneal(
                    limited, places_of(problem, origin), options, limit=asked, prices=visits, proposals=share,
                    hot=heat, state=state, what="moves", least=one,
                )  # fmt: skip
                keep(held_of(problem, place))
    if best is None:
        raise InfeasibleError(
            f"re-placement: no placement within {limit} (each layer) that moves at most {budget} copies was found; "
            "raise the budget or the limit"
        )
    return best


def place_priced(
    problem: CopyProblem,
    current: NDArray[np.bool_],
    price: float,
    limit: float | None,
    options: CopyOptions,
) -> NDArray[np.bool_]:
    """Search for copies of least cost, all transitions and all moves together.

    Raises InputError if the price is negative. Raises InfeasibleError if no placement within the limit was found.

    Parameters
    ----------
    current
        ``[layers, experts, devices]`` copies in force.
    price
        Cost of a copy where there is none now, in crossings of cost 1.
    limit
        Limit on the imbalance of each layer, or None.
    """
    if not price >= 0:
        raise InputError(f"re-placement: a price of {price} per move; give 0 or more")
    layers = problem.load.shape[0]
    if limit is not None:
        check_limit(problem, limit, "each")
    wanted = np.full(layers, np.inf if limit is None else limit)
    asked = wanted if limit is None else wanted * (1.0 - SLACK)
    prices = (0.0, 0.0) if limit is None else (4.0, 64.0)
    priced = problem.near(current, price=price)
    state = np.array([options.seed], dtype=np.uint64)
    best: NDArray[np.bool_] | None = None
    least = np.inf

    def keep(held: NDArray[np.bool_]) -> None:
        nonlocal best, least
        total = crossing_cost(problem, held) * problem.affinity.steps + price * copies_moved(current, held)
        if bool((imbalances(problem, held) <= wanted).all()) and total < least:
            best, least = held, total

    keep(current)
    start = current if limit is None else with_least(problem, current, asked)
    # Gentle heats from what is in force stay near it; great ones may end in as good a placement far away.
    stages = [(HOT, True, prices), (HOT / 3, True, prices), (WARM, True, prices), (WARM / 4, True, prices),
              (WARM, False, prices), (WARM / 4, False, prices)]  # fmt: skip
    if limit is not None:
        # Moves may be dearer than what little is over the limit; where nothing keeps it, visits become dearer still.
        stages += [(HOT / 2, True, (64.0, 4096.0)), (WARM, True, (4096.0, 4096.0))]
    for heat, from_current, visits in stages:
        if visits is not prices and best is not None:
            break
        origin = start if from_current or best is None else best
        place = anneal(
            priced, places_of(problem, origin), options, limit=asked, prices=visits,
            proposals=options.proposals / len(stages), hot=heat, state=state, what="priced moves",
        )  # fmt: skip
        keep(held_of(problem, place))
    if best is None:
        raise InfeasibleError(f"re-placement: no placement within {limit} (each layer) was found; raise the limit")
    return best


def copies_moved(current: NDArray[np.bool_], held: NDArray[np.bool_]) -> int:
    """Return how many copies lie on a device that does not hold the expert now: weights that have to be sent."""
    return int((held & ~current).sum())
