"""Placements whose limit on load holds on the tokens themselves, where counts only allow an estimate of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cosma.errors import InfeasibleError
from cosma.placement.recount import score
from cosma.placement.service import place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np
    from numpy.typing import NDArray

    from cosma.placement.affinity import Affinity
    from cosma.placement.document import Placement
    from cosma.placement.options import PlaceOptions
    from cosma.placement.topology import Topology

#: Searches, each within a lower limit than the one before.
_SEARCHES = 6


def place_on_tokens(
    affinity: Affinity,
    topology: Topology,
    options: PlaceOptions,
    tokens: Callable[[], Iterable[NDArray[np.integer]]],
    batch_tokens: int,
) -> Placement:
    """Place experts; where copies are chosen by distance or load, keep the limit on the tokens as well.

    Counts tell exactly what copies serve that share evenly. What the nearest or the least loaded copy serves, they only
    estimate. Where the tokens say that a limit is not kept, the search is repeated within a limit lower by as much.

    Parameters
    ----------
    affinity, topology, options
        See :func:`cosma.placement.service.place`.
    tokens
        Returns the tokens that were counted, chunk by chunk.
    batch_tokens
        Tokens of a batch, for ``least-loaded``.

    Raises
    ------
    InputError
        As ``place``.
    InfeasibleError
        If experts do not fit, or no placement that keeps the limit on the tokens was found.
    """
    limit = options.balance
    placement = place(affinity, topology, options)
    if limit is None or options.routing == "split" or placement.replicas is None:
        return placement
    asked, lowest = limit, float("inf")
    for number in range(_SEARCHES):
        counted = score(placement, tokens(), options.routing, batch_tokens)
        reached = counted.worst_imbalance if options.balance_scope == "each" else counted.imbalance
        if reached <= limit or options.interrupted():
            return replace(placement, solver={**placement.solver, "balance": limit})
        lowest = min(lowest, reached)
        if number == _SEARCHES - 1:
            break
        asked = max(1.0, asked * limit / reached)
        try:
            placement = place(affinity, topology, replace(options, balance=asked))
        except InfeasibleError:
            break
    raise InfeasibleError(
        f"balance: the copies found keep {limit} by the counts, but {lowest:.3f} ({options.balance_scope} layer) on "
        f"the tokens, where routing is {options.routing}; let copies share load evenly (routing split), or raise the "
        "limit or the replicas per device"
    )
