"""Lower bounds on the mean cost with copies, for each way of routing, and the optimum of small problems.

**Any routing** (``nearest``, ``least-loaded``, ``split``). A transition is saved at a level only if one group of that
level holds both experts. Groups have room for ``h`` experts, so

- an expert that lies in ``c`` groups meets at most ``c h`` experts of the next layer there, its largest ones at best,
  and all experts together lie in groups as often as there is room: *copy degree*, by rows and by columns;
- all groups together let at most the sum of ``h * h`` pairs meet: *pair budget* (``bounds.pair_budget_bound``);
- on large models singular values say more: *layer pairs* (``layer_pairs``);
- on small ones all ways to fill the layers are tried, each transition between the nearest copies: *nearest copies*.

**split** alone. Every copy serves an equal share, so an expert's saving is a mean over its copies, each of which meets
at most ``h`` experts: the degree bound with room for copies. With a limit on the load of every device, the experts that
it meets there cannot carry more than the limit together: a fractional knapsack per row, bounded by its dual, any price
of load giving a valid bound (*loaded degree*). Stronger, for devices that are alike, is the semidefinite bound, in
whose matrices free places and spare load are rows like experts (``members``). Without a limit it looks at single
homes: the cost is linear in the shares of each layer, and shares are a mean of placements with one home per expert and
room for ``h`` on a device, so copies cost no less than the best of those.

**Small problems**: dynamic programming over all ways to fill a layer gives the optimum of ``split`` itself.
"""

from __future__ import annotations

from itertools import combinations, product
from typing import TYPE_CHECKING

import numpy as np

from cosma.placement.bounds import (
    Bound,
    best_of,
    degree_bound,
    layer_pair_bound,
    of_savings,
    pair_budget_bound,
    relaxed_bound,
)
from cosma.placement.copies import split_ratios

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from cosma.placement.affinity import Affinity
    from cosma.placement.topology import Topology

#: Ways to fill a layer, and pairs of ways of consecutive layers, up to which small problems are solved.
_MOST_WAYS, _MOST_PAIRS = 4000, 40_000_000
#: Unions of devices an expert may have, over all experts of a layer, up to which its ways are listed.
_MOST_LISTED = 2_000_000


def copies_bound(
    affinity: Affinity,
    topology: Topology,
    replicas_per_device: int,
    routing: str,
    limit: float | None = None,
    work: int = 0,
) -> Bound:
    """Return the best lower bound on the mean cost of any placement with copies.

    Parameters
    ----------
    replicas_per_device
        Places for copies on every device and layer.
    routing
        How servers choose among copies; see ``recount.ROUTINGS``.
    limit
        Limit on the max-over-mean load of each layer, which tightens the bound of ``split``; None for none.
    work
        What a semidefinite bound may cost, where copies share evenly; see ``bounds``.
    """
    if routing != "split":
        anyhow = [
            pair_budget_bound(affinity, topology, replicas_per_device),
            copy_degree_bound(affinity, topology, replicas_per_device),
        ]
        if replicas_per_device == 0:
            return best_of(*anyhow, degree_bound(affinity, topology), relaxed_bound(affinity, topology, work))
        if work > 0:
            anyhow += nearest_copies_bound(affinity, topology, replicas_per_device)
        return best_of(
            *anyhow,
            layer_pair_bound(affinity, topology, work, replicas_per_device=replicas_per_device, whole=True),
        )
    return best_of(
        degree_bound(affinity, topology, replicas_per_device, limit),
        relaxed_bound(
            affinity, topology, work, replicas_per_device=replicas_per_device, limit=limit, copies=True
        ),
    )


def copy_degree_bound(affinity: Affinity, topology: Topology, replicas_per_device: int) -> Bound:
    """Return the copy degree bound, valid for any routing."""
    experts = affinity.experts
    slots = topology.slots(experts) + replicas_per_device
    saved = []
    for level in range(topology.levels):
        rooms = np.minimum(np.bincount(topology.groups(level), weights=slots).astype(np.int64), experts)
        largest, occurrences = int(rooms.max()), int(rooms.sum())
        saved.append(sum(
            min(_blocks(side, largest, len(rooms), occurrences) for side in (pairs, pairs.T))
            for pairs in affinity.transitions
        ))  # fmt: skip
    return of_savings(affinity, topology, saved, "copy degree")


def _blocks(rows: NDArray[np.int64], room: int, groups: int, occurrences: int) -> float:
    """Return the most that rows can keep if each keeps ``room`` entries for each of its 1 to ``groups`` occurrences."""
    experts = rows.shape[1]
    ordered = -np.sort(-rows, axis=1)
    edges = list(range(0, experts, room))[:groups]
    blocks = np.add.reduceat(ordered, edges, axis=1).astype(np.float64)
    if groups * room < experts:
        blocks[:, -1] = ordered[:, edges[-1] : edges[-1] + room].sum(axis=1)
    further = np.sort(blocks[:, 1:].ravel())[::-1][: max(0, occurrences - rows.shape[0])]
    return float(blocks[:, 0].sum() + further.sum())


def exact_split(
    affinity: Affinity,
    topology: Topology,
    replicas_per_device: int,
    limit: float | None = None,
    moves: tuple[NDArray[np.bool_], int] | None = None,
    *,
    single: bool = False,
) -> tuple[float, NDArray[np.bool_]] | None:
    """Return the least expected mean cost where copies share evenly, and copies that have it.

    Every way to fill a layer is a node, consecutive layers cost a bilinear form, and the optimum is a shortest path.

    Parameters
    ----------
    limit
        Limit on the max-over-mean load of each layer; None for none.
    moves
        ``[layers, experts, devices]`` copies in force, and how many may lie elsewhere; None for any.
    single
        Whether every expert has one copy alone.

    Returns
    -------
    tuple or None
        None where there are too many ways, or none keeps limit and budget.
    """
    ways = layer_ways(affinity.experts, topology, replicas_per_device)
    if ways is not None and single:
        ways = ways[(ways.sum(axis=2) == 1).all(axis=1)]
    budget = 0 if moves is None else min(moves[1], int((~moves[0]).sum()))
    if ways is None or len(ways) ** 2 * (affinity.layers - 1) * (budget + 1) > _MOST_PAIRS:
        return None
    shares = ways / ways.sum(axis=2, keepdims=True)
    allowed = np.ones((affinity.layers, len(ways)), dtype=bool)
    if limit is not None:
        load = affinity.load.astype(np.float64)
        allowed = np.stack([split_ratios(np.broadcast_to(row, ways.shape[:2]), ways) <= limit for row in load])
    moved = np.zeros((affinity.layers, len(ways)), dtype=np.int64)
    if moves is not None:
        moved = np.stack([(ways & ~now).sum(axis=(1, 2)) for now in moves[0]])
    found = _shortest(affinity, shares, topology.cost_matrix(), allowed, moved, budget)
    return None if found is None else (found[0], ways[found[1]].astype(bool))


def nearest_copies_bound(affinity: Affinity, topology: Topology, replicas_per_device: int) -> list[Bound]:
    """Return what transitions cost between the nearest copies of both experts; nothing where there are too many ways.

    The cheapest way through all layers is found, so of what each layer holds nothing is relaxed: only that one copy may
    serve a token on its way in and another one on its way out.
    """
    ways = layer_ways(affinity.experts, topology, replicas_per_device)
    if ways is None or len(ways) ** 2 * (affinity.layers - 1) > _MOST_PAIRS:
        return []
    sets, number = np.unique(ways.reshape(-1, topology.devices), axis=0, return_inverse=True)
    apart = np.where(sets[:, None, :, None] & sets[None, :, None, :], topology.cost_matrix(), np.inf).min(axis=(2, 3))
    is_held = np.eye(len(sets))[number.reshape(ways.shape[:2])]
    anything = np.ones((affinity.layers, len(ways)), dtype=bool)
    found = _shortest(affinity, is_held, apart, anything, np.zeros(anything.shape, dtype=np.int64), 0)
    return [] if found is None else [Bound(found[0] * (1.0 - 1e-12), "nearest copies")]


def _shortest(
    affinity: Affinity,
    ways: NDArray[np.float64],
    cost: NDArray[np.float64],
    allowed: NDArray[np.bool_],
    moved: NDArray[np.int64],
    budget: int,
) -> tuple[float, list[int]] | None:
    """Return the least mean cost, bilinear in ways ``[experts, places]`` of consecutive layers, and the ways.

    ``moved[layer, way]`` copies are moved, ``budget`` at most; None if no path is allowed.
    """
    count = len(ways)
    flat = ways.reshape(count, -1)
    # Least cost up to a layer, by moves so far and way; moves come in layer by layer.
    reach = np.full((budget + 1, count), np.inf)
    reach[0] = 0.0
    chosen: list[NDArray[np.int64]] = []
    for layer in range(affinity.layers):
        if layer:
            pairs = affinity.transitions[layer - 1].astype(np.float64)
            # Cost of way v after way w: x_w' N x_v C, all at once.
            form = np.einsum("wed,ef,dg->wfg", ways, pairs, cost, optimize=True).reshape(count, -1) @ flat.T
            totals = [row[:, None] + form for row in reach]
            chosen.append(np.stack([total.argmin(axis=0) for total in totals]))
            reach = np.stack([total.min(axis=0) for total in totals])
        before, reach = reach, np.full_like(reach, np.inf)
        for number in np.flatnonzero(allowed[layer] & (moved[layer] <= budget)).tolist():
            more = int(moved[layer, number])
            reach[more:, number] = before[: budget + 1 - more, number]
    moves, way = divmod(int(reach.argmin()), count)
    if not np.isfinite(reach[moves, way]):
        return None
    path = [way]
    for layer in reversed(range(1, affinity.layers)):
        moves -= int(moved[layer, path[-1]])
        path.append(int(chosen[layer - 1][moves, path[-1]]))
    return float(reach.min()) / max(1, affinity.steps), path[::-1]


def layer_ways(experts: int, topology: Topology, replicas_per_device: int) -> NDArray[np.bool_] | None:
    """Return every way to give the experts of a layer devices, ``[ways, experts, devices]``; None if too many."""
    devices = topology.devices
    room = topology.slots(experts) + replicas_per_device
    # Counted, not listed: there are 2 ** 32 sets of 32 devices.
    if (2**devices - 1) ** experts > _MOST_LISTED:
        return None
    sets = [
        np.isin(np.arange(devices), chosen) for size in range(1, devices + 1)
        for chosen in combinations(range(devices), size)
    ]  # fmt: skip
    found = [np.stack(way) for way in _ways(sets, experts, room)]
    return np.stack(found) if 0 < len(found) <= _MOST_WAYS else None


def _ways(sets: list[NDArray[np.bool_]], experts: int, room: NDArray[np.int64]) -> Iterator[list[NDArray[np.bool_]]]:
    for way in product(sets, repeat=experts):
        if (np.sum(way, axis=0) <= room).all():
            yield list(way)
