"""Compiled loops of the placement search (numba; imported only by the optimisers).

Arrays: ``home[l, e]`` device of expert e in layer l (``-1`` never occurs; layers are padded with idle experts until
every place is taken), ``field[l, e, d]`` cost of expert e of layer l if it lived on device d and all other layers
stayed as they are. Transition counts come in compressed rows: ``next_*`` from a layer to the one after it,
``prev_*`` to the one before it. Row ``l * experts + e`` of ``*_start`` bounds the entries of expert e, half-open.
"""

from __future__ import annotations

import numpy as np
from numba import njit

#: Devices below which renewing whole rows is quicker than picking out what changes.
_FEW_DEVICES = 16


@njit(cache=True)
def next_random(state):  # type: ignore[no-untyped-def]
    """Advance a splitmix64 state (``uint64[1]``) and return 64 fresh bits."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True)
def random_below(state, bound):  # type: ignore[no-untyped-def]
    """Return a number in ``[0, bound)``; the bias of at most bound / 2**32 does not matter to a search."""
    return np.int64(((next_random(state) >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32))


@njit(cache=True)
def random_unit(state):  # type: ignore[no-untyped-def]
    """Return a number in ``[0, 1)`` with 53 random bits."""
    return np.float64(next_random(state) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@njit(cache=True)
def fill_field(home, cost, linear, next_start, next_to, next_count, prev_start, prev_to, prev_count, field):  # type: ignore[no-untyped-def]
    """Compute ``field`` from scratch: what each expert would cost on each device, ``linear`` included."""
    layers, experts = home.shape
    devices = cost.shape[0]
    for layer in range(layers):
        for expert in range(experts):
            row = layer * experts + expert
            for d in range(devices):
                field[layer, expert, d] = linear[layer, expert, d]
            if layer + 1 < layers:
                for k in range(next_start[row], next_start[row + 1]):
                    other = home[layer + 1, next_to[k]]
                    for d in range(devices):
                        field[layer, expert, d] += next_count[k] * cost[d, other]
            if layer > 0:
                for k in range(prev_start[row], prev_start[row + 1]):
                    other = home[layer - 1, prev_to[k]]
                    for d in range(devices):
                        field[layer, expert, d] += prev_count[k] * cost[other, d]


@njit(cache=True)
def move_expert(home, cost, next_start, next_to, next_count, prev_start, prev_to, prev_count, field, layer, expert, to):  # type: ignore[no-untyped-def]
    """Give one expert a new device and bring the fields of its neighbours up to date.

    Distances to most devices do not change when an expert moves within a node, and many do not when it moves between
    nodes: where those that do are few, only they are renewed (equal results, far less work on many devices).
    """
    layers, experts = home.shape
    devices = cost.shape[0]
    old = home[layer, expert]
    home[layer, expert] = to
    row = layer * experts + expert
    if devices < _FEW_DEVICES:
        if layer + 1 < layers:
            for k in range(next_start[row], next_start[row + 1]):
                weight = next_count[k]
                other = next_to[k]
                for d in range(devices):
                    field[layer + 1, other, d] += weight * (cost[to, d] - cost[old, d])
        if layer > 0:
            for k in range(prev_start[row], prev_start[row + 1]):
                weight = prev_count[k]
                other = prev_to[k]
                for d in range(devices):
                    field[layer - 1, other, d] += weight * (cost[d, to] - cost[d, old])
        return
    changed = np.empty(devices, dtype=np.int64)
    change = np.empty(devices)
    if layer + 1 < layers:
        count = 0
        for d in range(devices):
            if cost[to, d] != cost[old, d]:
                changed[count] = d
                change[count] = cost[to, d] - cost[old, d]
                count += 1
        for k in range(next_start[row], next_start[row + 1]):
            weight = next_count[k]
            other = next_to[k]
            for i in range(count):
                field[layer + 1, other, changed[i]] += weight * change[i]
    if layer > 0:
        count = 0
        for d in range(devices):
            if cost[d, to] != cost[d, old]:
                changed[count] = d
                change[count] = cost[d, to] - cost[d, old]
                count += 1
        for k in range(prev_start[row], prev_start[row + 1]):
            weight = prev_count[k]
            other = prev_to[k]
            for i in range(count):
                field[layer - 1, other, changed[i]] += weight * change[i]


@njit(cache=True)
def layer_peak(load_of_device, skip_a, value_a, skip_b, value_b):  # type: ignore[no-untyped-def]
    """Return the largest load of a layer's devices were two of them to have other loads."""
    peak = max(value_a, value_b)
    for d in range(load_of_device.shape[0]):
        if d != skip_a and d != skip_b and load_of_device[d] > peak:
            peak = load_of_device[d]
    return peak


@njit(cache=True)
def swap_experts(home, cost, next_start, next_to, next_count, prev_start, prev_to, prev_count, field, layer, a, b):  # type: ignore[no-untyped-def]
    """Let two experts of a layer change places; returns the change of cost."""
    da = home[layer, a]
    db = home[layer, b]
    delta = field[layer, a, db] - field[layer, a, da] + field[layer, b, da] - field[layer, b, db]
    move_expert(home, cost, next_start, next_to, next_count, prev_start, prev_to, prev_count, field, layer, a, db)
    move_expert(home, cost, next_start, next_to, next_count, prev_start, prev_to, prev_count, field, layer, b, da)
    return delta


@njit(cache=True)
def best_swap(home, field, layer, da, db):  # type: ignore[no-untyped-def]
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


@njit(cache=True)
def chain_swaps(  # type: ignore[no-untyped-def]
    home, cost, field, next_start, next_to, next_count, prev_start, prev_to, prev_count,
    tries, temperature, state, trail,
):  # fmt: skip
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
        delta = swap_experts(
            home, cost, next_start, next_to, next_count, prev_start, prev_to, prev_count, field, start, a, b
        )
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
                delta += swap_experts(
                    home, cost, next_start, next_to, next_count, prev_start, prev_to, prev_count, field, layer, x, y
                )
                trail[length, 0] = layer
                trail[length, 1] = x
                trail[length, 2] = y
                length += 1
                layer += direction
        if delta <= 0.0 or (delta < 20.0 * temperature and random_unit(state) < np.exp(-delta / temperature)):
            total += delta
            continue
        for k in range(length - 1, -1, -1):
            swap_experts(
                home, cost, next_start, next_to, next_count, prev_start, prev_to, prev_count, field,
                trail[k, 0], trail[k, 1], trail[k, 2],
            )  # fmt: skip
    return total


@njit(cache=True)
def anneal(  # type: ignore[no-untyped-def]
    home, members, first_layer, end_layer, cost, field, load, device_load,
    next_start, next_to, next_count, prev_start, prev_to, prev_count,
    balance_price, balance_floor, current, budget, sweeps, chains, hot, cold, state,
):  # fmt: skip
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
    best = home.copy()
    total = 0.0
    best_total = 0.0
    moved = np.int64(0)
    if budget >= 0:
        for layer in range(layers):
            for expert in range(experts):
                if current[layer, expert] >= 0 and current[layer, expert] != home[layer, expert]:
                    moved += 1
    unsaved = False
    priced = balance_price.max() > 0.0
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
                        device_load[layer], da, device_load[layer, da] - shift, db, device_load[layer, db] + shift
                    )
                    floor = balance_floor[layer]
                    delta += balance_price[layer] * (max(then, floor) - max(now, floor))
            if delta > limit:
                continue
            if delta > 0.0 and random_unit(state) >= np.exp(-delta / temperature):
                continue
            if budget >= 0:
                change = np.int64(0)
                if current[layer, a] >= 0:
                    change += np.int64(db != current[layer, a]) - np.int64(da != current[layer, a])
                if current[layer, b] >= 0:
                    change += np.int64(da != current[layer, b]) - np.int64(db != current[layer, b])
                if moved + change > budget:
                    continue
                moved += change
            if unsaved and total + delta >= best_total:
                # About to leave the best placement seen: keep a copy, and only now.
                best[:, :] = home
                unsaved = False
            move_expert(
                home, cost, next_start, next_to, next_count, prev_start, prev_to, prev_count, field, layer, a, db
            )
            move_expert(
                home, cost, next_start, next_to, next_count, prev_start, prev_to, prev_count, field, layer, b, da
            )
            device_load[layer, da] -= shift
            device_load[layer, db] += shift
            total += delta
            if total < best_total - 1e-9:
                best_total = total
                unsaved = True
        if chains > 0:
            if unsaved:
                best[:, :] = home
                unsaved = False
            total += chain_swaps(
                home, cost, field, next_start, next_to, next_count, prev_start, prev_to, prev_count,
                chains, temperature, state, trail,
            )  # fmt: skip
            if total < best_total - 1e-9:
                best_total = total
                unsaved = True
        temperature *= ratio
    if not unsaved:
        for layer in range(layers):
            for expert in range(experts):
                if home[layer, expert] != best[layer, expert]:
                    move_expert(
                        home, cost, next_start, next_to, next_count, prev_start, prev_to, prev_count, field,
                        layer, expert, best[layer, expert],
                    )  # fmt: skip
    device_load[:, :] = 0.0
    for layer in range(layers):
        for expert in range(experts):
            device_load[layer, home[layer, expert]] += load[layer, expert]
    return best_total
