"""Compiled loops of the placement search (numba; imported only by the optimisers).

Arrays: ``home[l, e]`` device of expert e in layer l (``-1`` never occurs; layers are padded with idle experts until
every place is taken), ``field[l, e, d]`` cost of expert e of layer l if it lived on device d and all other layers
stayed as they are. Transition counts come in compressed rows, ``link_*``: row ``l * experts + e`` of ``link_start``
bounds the entries of expert e of layer l to the layer after it, half-open; row ``(layers + l) * experts + e`` those to
the layer before it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cosma.compiled import helper, kernel
from cosma.random_kernels import random_below, random_unit

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@kernel
def fill_field(
    home: Ints, cost: Floats, linear: Floats, link_start: Ints, link_to: Ints, link_count: Floats, first: int,
    end: int, field: Floats,
) -> None:  # fmt: skip
    """Compute ``field`` from scratch: what each expert would cost on each device, ``linear`` included.

    Only for the layers ``[first, end)``.
    """
    layers, experts = home.shape
    devices = cost.shape[0]
    for layer in range(first, end):
        for expert in range(experts):
            for d in range(devices):
                field[layer, expert, d] = linear[layer, expert, d]
            for side in range(2):
                row = (side * layers + layer) * experts + expert
                for k in range(link_start[row], link_start[row + 1]):
                    other = home[layer + 1 - 2 * side, link_to[k]]
                    for d in range(devices):
                        field[layer, expert, d] += link_count[k] * (cost[d, other] if side == 0 else cost[other, d])


@helper
def move_expert(
    home: Ints, cost: Floats, link_start: Ints, link_to: Ints, link_count: Floats, field: Floats, layer: int,
    expert: int, to: int,
) -> None:  # fmt: skip
    """Give one expert a new device and bring the fields of its neighbours up to date.

    Distances to most devices do not change when an expert moves within a node, and many do not when it moves between
    nodes: only those that do are renewed.
    """
    layers, experts = home.shape
    devices = cost.shape[0]
    old = home[layer, expert]
    home[layer, expert] = to
    changed = np.empty(devices, dtype=np.int64)
    change = np.empty(devices)
    for side in range(2):
        row = (side * layers + layer) * experts + expert
        if link_start[row] == link_start[row + 1]:
            continue
        number = 0
        for d in range(devices):
            difference = cost[to, d] - cost[old, d] if side == 0 else cost[d, to] - cost[d, old]
            if difference != 0.0:
                changed[number] = d
                change[number] = difference
                number += 1
        neighbour = layer + 1 - 2 * side
        for k in range(link_start[row], link_start[row + 1]):
            weight = link_count[k]
            other = link_to[k]
            for i in range(number):
                field[neighbour, other, changed[i]] += weight * change[i]


@helper
def copy_placement(home: Ints, into: Ints) -> None:
    """Copy a placement (a loop: it compiles far more quickly than an assignment of slices)."""
    for layer in range(home.shape[0]):
        for expert in range(home.shape[1]):
            into[layer, expert] = home[layer, expert]


@helper
def layer_peak(device_load: Floats, layer: int, skip_a: int, value_a: float, skip_b: int, value_b: float) -> float:
    """Return the largest load of a layer's devices were two of them to have other loads."""
    peak = value_a
    if value_b > peak:
        peak = value_b
    for d in range(device_load.shape[1]):
        if d != skip_a and d != skip_b and device_load[layer, d] > peak:
            peak = device_load[layer, d]
    return peak


@helper
def swap_experts(
    home: Ints, cost: Floats, link_start: Ints, link_to: Ints, link_count: Floats, field: Floats, layer: int, a: int,
    b: int,
) -> float:  # fmt: skip
    """Let two experts of a layer change places; returns the change of cost."""
    da = home[layer, a]
    db = home[layer, b]
    delta = field[layer, a, db] - field[layer, a, da] + field[layer, b, da] - field[layer, b, db]
    move_expert(home, cost, link_start, link_to, link_count, field, layer, a, db)
    move_expert(home, cost, link_start, link_to, link_count, field, layer, b, da)
    return float(delta)


@helper
def best_swap(home: Ints, field: Floats, layer: int, da: int, db: int) -> tuple[float, int, int]:
    """Find the cheapest swap of an expert on ``da`` with one on ``db``; returns (change, expert, expert)."""
    best_a = -1
    best_b = -1
    least_a = np.inf
    least_b = np.inf
    for e in range(home.shape[1]):
        d = home[layer, e]
        if d == da:
            change = field[layer, e, db] - field[layer, e, da]
            if change < least_a:
                least_a = change
                best_a = e
        elif d == db:
            change = field[layer, e, da] - field[layer, e, db]
            if change < least_b:
                least_b = change
                best_b = e
    if best_a < 0 or best_b < 0:
        return np.inf, -1, -1
    return least_a + least_b, best_a, best_b


@helper
def chain_swaps(
    home: Ints, cost: Floats, field: Floats, link_start: Ints, link_to: Ints, link_count: Floats, tries: int,
    temperature: float, state: NDArray[np.uint64], trail: Ints,
) -> float:  # fmt: skip
    """Try ``tries`` chains of swaps: one at random, then the best swap between the same two devices layer after layer.

    Experts that follow each other through many layers only profit when they move together; a single swap is
    uphill. From a random swap the chain grows forwards, then backwards, as long as the next layer's best swap
    between the two devices pays; the whole chain is accepted by the rule of annealing or undone.
    ``trail`` is ``int64[2 * layers + 2, 3]`` scratch. Returns the change of cost.
    """
    layers, experts = home.shape
    total = 0.0
    for _ in range(tries):
        start = random_below(state, layers)
        a = random_below(state, experts)
        b = random_below(state, experts)
        da = home[start, a]
        db = home[start, b]
        if da == db:
            continue
        delta = swap_experts(home, cost, link_start, link_to, link_count, field, start, a, b)
        trail[0, 0] = start
        trail[0, 1] = a
        trail[0, 2] = b
        length = 1
        for direction in (1, -1):
            layer = start + direction
            while 0 <= layer < layers:
                change, x, y = best_swap(home, field, layer, da, db)
                if change >= 0.0:
                    break
                delta += swap_experts(home, cost, link_start, link_to, link_count, field, layer, x, y)
                trail[length, 0] = layer
                trail[length, 1] = x
                trail[length, 2] = y
                length += 1
                layer += direction
        if delta <= 0.0 or (delta < 20.0 * temperature and random_unit(state) < np.exp(-delta / temperature)):
            total += delta
            continue
        for k in range(length - 1, -1, -1):
            swap_experts(home, cost, link_start, link_to, link_count, field, trail[k, 0], trail[k, 1], trail[k, 2])
    return total


@kernel
def anneal(
    home: Ints, members: Ints, first_layer: int, end_layer: int, cost: Floats, field: Floats, load: Floats,
    device_load: Floats, link_start: Ints, link_to: Ints, link_count: Floats, balance_price: Floats,
    balance_floor: Floats, current: Ints, budget: int, sweeps: int, chains: int, hot: float, cold: float,
    state: NDArray[np.uint64],
) -> float:  # fmt: skip
    """Anneal by swapping two experts of one layer; the best placement seen is left in ``home``.

    Only the experts ``members[l]`` of layers in ``[first_layer, end_layer)`` are swapped. ``field`` and ``device_load``
    belong to ``home`` on entry and on return.

    ``balance_price[l]`` is what one token above ``balance_floor[l]`` on the fullest device of layer l costs.
    ``current`` and ``budget`` limit how many real experts may live elsewhere than in ``current`` (budget < 0: no
    limit). One sweep proposes as many swaps as there are places; temperatures fall geometrically from ``hot`` to
    ``cold``. After each sweep ``chains`` chains of swaps are tried (only where neither balance nor a budget counts).
    Deterministic for a given ``state``. Returns the change of the objective against the start.
    """
    layers, experts = home.shape
    devices = cost.shape[0]
    best = np.empty((layers, experts), dtype=np.int64)
    copy_placement(home, best)
    total = 0.0
    best_total = 0.0
    moved = 0
    if budget >= 0:
        for layer in range(layers):
            for expert in range(experts):
                if current[layer, expert] >= 0 and current[layer, expert] != home[layer, expert]:
                    moved += 1
    unsaved = False
    priced = False
    for layer in range(layers):
        if balance_price[layer] > 0.0:
            priced = True
    free = members.shape[1]
    per_sweep = (end_layer - first_layer) * free
    trail = np.zeros((2 * layers + 2, 3), dtype=np.int64)
    ratio = 1.0
    if sweeps > 1 and hot > 0.0:
        ratio = (cold / hot) ** (1.0 / (sweeps - 1))
    temperature = hot
    for _sweep in range(sweeps):
        for _ in range(per_sweep):
            layer = first_layer + random_below(state, end_layer - first_layer)
            a = members[layer, random_below(state, free)]
            b = members[layer, random_below(state, free)]
            da = home[layer, a]
            db = home[layer, b]
            if da == db:
                continue
            delta = field[layer, a, db] - field[layer, a, da] + field[layer, b, da] - field[layer, b, db]
            limit = 20.0 * temperature
            shift = 0.0
            if priced:
                shift = load[layer, a] - load[layer, b]
                if shift != 0.0:
                    now = 0.0
                    for d in range(devices):
                        if device_load[layer, d] > now:
                            now = device_load[layer, d]
                    then = layer_peak(
                        device_load, layer, da, device_load[layer, da] - shift, db, device_load[layer, db] + shift
                    )
                    floor = balance_floor[layer]
                    if now < floor:
                        now = floor
                    if then < floor:
                        then = floor
                    delta += balance_price[layer] * (then - now)
            if delta > limit:
                continue
            if delta > 0.0 and random_unit(state) >= np.exp(-delta / temperature):
                continue
            if budget >= 0:
                change = 0
                if current[layer, a] >= 0 and da == current[layer, a]:
                    change += 1
                if current[layer, a] >= 0 and db == current[layer, a]:
                    change -= 1
                if current[layer, b] >= 0 and db == current[layer, b]:
                    change += 1
                if current[layer, b] >= 0 and da == current[layer, b]:
                    change -= 1
                if moved + change > budget:
                    continue
                moved += change
            if unsaved and total + delta >= best_total:
                # About to leave the best placement seen: keep a copy, and only now.
                copy_placement(home, best)
                unsaved = False
            swap_experts(home, cost, link_start, link_to, link_count, field, layer, a, b)
            device_load[layer, da] -= shift
            device_load[layer, db] += shift
            total += delta
            if total < best_total - 1e-9:
                best_total = total
                unsaved = True
        if chains > 0:
            if unsaved:
                copy_placement(home, best)
                unsaved = False
            total += chain_swaps(home, cost, field, link_start, link_to, link_count, chains, temperature, state, trail)
            if total < best_total - 1e-9:
                best_total = total
                unsaved = True
        temperature *= ratio
    if not unsaved:
        for layer in range(layers):
            for expert in range(experts):
                if home[layer, expert] != best[layer, expert]:
                    move_expert(home, cost, link_start, link_to, link_count, field, layer, expert, best[layer, expert])
    for layer in range(layers):
        for d in range(devices):
            device_load[layer, d] = 0.0
        for expert in range(experts):
            device_load[layer, home[layer, expert]] += load[layer, expert]
    return best_total
