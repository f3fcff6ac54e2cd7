"""Compiled loops of the search for copies whose experts' visits are split evenly (numba).

Arrays: ``place[l, p]`` expert in place p of layer l, -1 where it is empty; ``device_of[p]`` device of a place;
``held[l, e, d]`` 1 where device d holds expert e; ``count[l, e]`` copies; ``field[l, e, d]`` what all visits of expert
e would cost on device d, other layers staying as they are. An expert costs the mean of its field over its copies. Links
are compressed rows as in ``kernels``, with ``experts`` rows per layer and side.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cosma.compiled import helper, kernel
from cosma.random_kernels import random_below, random_unit

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

#: Of 8 proposals, how many exchange the contents of two places; the others put another expert into one place.
EXCHANGES = 5
#: Of 8 replacements, how many empty the place.
EMPTYINGS = 1
#: Changed devices up to which they are renewed one by one; of more, all are, which processors do several at a time. Not
#: measured.
SPARSE = 4


@helper
def share_changed(
    change: Floats, layer: int, expert: int, cost: Floats, link_start: Ints, link_to: Ints, link_count: Floats,
    field: Floats,
) -> None:  # fmt: skip
    """Bring the fields of the neighbours up to date after an expert's share of every device changed."""
    layers, experts, devices = field.shape
    where = np.empty(devices, dtype=np.int64)
    much = np.empty(devices)
    total = np.zeros(devices)
    number = 0
    for d in range(devices):
        for other in range(devices):
            if change[other] != 0.0:
                total[d] += change[other] * cost[other, d]
        if total[d] != 0.0:
            where[number] = d
            much[number] = total[d]
            number += 1
    for side in range(2):
        row = (side * layers + layer) * experts + expert
        neighbour = layer + 1 - 2 * side
        for k in range(link_start[row], link_start[row + 1]):
            weight = link_count[k]
            renewed = field[neighbour, link_to[k]]
            if number <= SPARSE:
                for i in range(number):
                    renewed[where[i]] += weight * much[i]
            else:
                for d in range(devices):
                    renewed[d] += weight * total[d]


@helper
def excess(load: float, floor: float) -> float:
    """Return the visits above a floor."""
    return load - floor if load > floor else 0.0


@helper
def held_sum(field: Floats, held: Bytes, layer: int, expert: int) -> float:
    """Return the sum of an expert's field over its copies."""
    total = 0.0
    for d in range(field.shape[2]):
        if held[layer, expert, d]:
            total += field[layer, expert, d]
    return total


@helper
def exchange_change(
    a: int, b: int, da: int, db: int, layer: int, held: Bytes, count: Ints, field: Floats, load: Floats,
    device_load: Floats, floor: Floats, price: float, fresh: Floats,
) -> tuple[float, float]:  # fmt: skip
    """Return the change of the objective if two places exchanged contents, and the load that goes from a's device."""
    delta = 0.0
    shift = 0.0
    if a >= 0:
        share = 1.0 / count[layer, a]
        delta += share * (field[layer, a, db] - field[layer, a, da]) + fresh[layer, a, db] - fresh[layer, a, da]
        shift += share * load[layer, a]
    if b >= 0:
        share = 1.0 / count[layer, b]
        delta += share * (field[layer, b, da] - field[layer, b, db]) + fresh[layer, b, da] - fresh[layer, b, db]
        shift -= share * load[layer, b]
    if price > 0.0:
        one = device_load[layer, da]
        other = device_load[layer, db]
        limit = floor[layer]
        delta += price * (
            excess(one - shift, limit) + excess(other + shift, limit) - excess(one, limit) - excess(other, limit)
        )
    return delta, shift


@helper
def replace_change(
    a: int, b: int, device: int, layer: int, held: Bytes, count: Ints, field: Floats, load: Floats,
    device_load: Floats, floor: Floats, price: float, fresh: Floats, then: Floats,
) -> float:  # fmt: skip
    """Return the change of the objective if expert b took the place of a on a device; ``then`` gets the loads."""
    devices = field.shape[2]
    delta = 0.0
    for d in range(devices):
        then[d] = device_load[layer, d]
    if a >= 0:
        copies = count[layer, a]
        total = held_sum(field, held, layer, a)
        delta += (total - field[layer, a, device]) / (copies - 1) - total / copies - fresh[layer, a, device]
        for d in range(devices):
            if held[layer, a, d]:
                then[d] -= load[layer, a] / copies
                if d != device:
                    then[d] += load[layer, a] / (copies - 1)
    if b >= 0:
        copies = count[layer, b]
        total = held_sum(field, held, layer, b)
        delta += (total + field[layer, b, device]) / (copies + 1) - total / copies + fresh[layer, b, device]
        for d in range(devices):
            if held[layer, b, d]:
                then[d] -= load[layer, b] / copies
            if held[layer, b, d] or d == device:
                then[d] += load[layer, b] / (copies + 1)
    if price > 0.0:
        limit = floor[layer]
        for d in range(devices):
            delta += price * (excess(then[d], limit) - excess(device_load[layer, d], limit))
    return delta


@helper
def put(
    expert: int, device: int, there: int, layer: int, held: Bytes, count: Ints, cost: Floats, link_start: Ints,
    link_to: Ints, link_count: Floats, field: Floats, change: Floats,
) -> None:  # fmt: skip
    """Give an expert a copy on a device (``there`` 1) or take it away (0), and renew its neighbours' fields."""
    before = count[layer, expert]
    after = before + 1 if there else before - 1
    for d in range(field.shape[2]):
        change[d] = 0.0
        if held[layer, expert, d]:
            change[d] -= 1.0 / before
            if not (d == device and not there):
                change[d] += 1.0 / after
        elif d == device and there:
            change[d] += 1.0 / after
    held[layer, expert, device] = there
    count[layer, expert] = after
    share_changed(change, layer, expert, cost, link_start, link_to, link_count, field)


@helper
def carry(
    expert: int, source: int, target: int, layer: int, held: Bytes, count: Ints, cost: Floats, link_start: Ints,
    link_to: Ints, link_count: Floats, field: Floats, change: Floats,
) -> None:  # fmt: skip
    """Move a copy from one device to another, and renew its neighbours' fields."""
    share = 1.0 / count[layer, expert]
    for d in range(field.shape[2]):
        change[d] = 0.0
    change[source] = -share
    change[target] = share
    held[layer, expert, source] = 0
    held[layer, expert, target] = 1
    share_changed(change, layer, expert, cost, link_start, link_to, link_count, field)


@kernel
def anneal_copies(
    place: Ints, best: Ints, device_of: Ints, held: Bytes, count: Ints, cost: Floats, field: Floats, load: Floats,
    device_load: Floats, link_start: Ints, link_to: Ints, link_count: Floats, price: float, floor: Floats,
    fresh: Floats, least: Ints, current: Bytes, budget: int, sweeps: int, hot: float, cold: float,
    state: NDArray[np.uint64],
) -> float:  # fmt: skip
    """Anneal the copies of all layers; ``best`` gets the best placement seen, all other arrays belong to the last one.

    A visit above ``floor[l]`` on a device of layer l costs ``price``. A copy costs ``fresh`` where it lies. No expert
    comes to have fewer than ``least`` copies. ``current``
    and ``budget`` limit how many copies may lie where there is none now (budget < 0: no limit). One sweep proposes as
    many changes as there are places; temperatures fall geometrically from ``hot`` to ``cold``. Deterministic for a
    given ``state``. Returns the change of the objective against the start.
    """
    layers, places = place.shape
    experts = load.shape[1]
    devices = cost.shape[0]
    for at in range(layers):
        for slot in range(places):
            best[at, slot] = place[at, slot]
    change = np.empty(devices)
    then = np.empty(devices)
    total = 0.0
    best_total = 0.0
    unsaved = False
    moved = 0
    if budget >= 0:
        for layer in range(layers):
            for e in range(experts):
                for d in range(devices):
                    if held[layer, e, d] and not current[layer, e, d]:
                        moved += 1
    ratio = 1.0
    if sweeps > 1 and hot > 0.0:
        ratio = (cold / hot) ** (1.0 / (sweeps - 1))
    temperature = hot
    for _sweep in range(sweeps):
        for _ in range(layers * places):
            layer = random_below(state, layers)
            p = random_below(state, places)
            da = device_of[p]
            a = place[layer, p]
            swap = random_below(state, 8) < EXCHANGES
            q = p
            db = da
            shift = 0.0
            steps = 0
            if swap:
                q = random_below(state, places)
                db = device_of[q]
                b = place[layer, q]
                if da == db or a == b or (a >= 0 and held[layer, a, db]) or (b >= 0 and held[layer, b, da]):
                    continue
                delta, shift = exchange_change(
                    a, b, da, db, layer, held, count, field, load, device_load, floor, price, fresh
                )
            else:
                b = -1
                if random_below(state, 8) >= EMPTYINGS:
                    b = random_below(state, experts)
                if a == b or (a >= 0 and count[layer, a] <= least[layer, a]) or (b >= 0 and held[layer, b, da]):
                    continue
                delta = replace_change(
                    a, b, da, layer, held, count, field, load, device_load, floor, price, fresh, then
                )
            if delta > 20.0 * temperature:
                continue
            # Less than rounding is no change, and draws no random number.
            if delta > 1e-9 and random_unit(state) >= np.exp(-delta / temperature):
                continue
            if budget >= 0:
                if a >= 0:
                    steps -= 0 if current[layer, a, da] else 1
                    if swap:
                        steps += 0 if current[layer, a, db] else 1
                if b >= 0:
                    steps += 0 if current[layer, b, da] else 1
                    if swap:
                        steps -= 0 if current[layer, b, db] else 1
                if steps > 0 and moved + steps > budget:
                    continue
                moved += steps
            if unsaved and total + delta >= best_total:
                # About to leave the best seen: keep a copy, and only now.
                for at in range(layers):
                    for slot in range(places):
                        best[at, slot] = place[at, slot]
                unsaved = False
            if swap:
                if a >= 0:
                    carry(a, da, db, layer, held, count, cost, link_start, link_to, link_count, field, change)
                if b >= 0:
                    carry(b, db, da, layer, held, count, cost, link_start, link_to, link_count, field, change)
                place[layer, p] = b
                place[layer, q] = a
                device_load[layer, da] -= shift
                device_load[layer, db] += shift
            else:
                if a >= 0:
                    put(a, da, 0, layer, held, count, cost, link_start, link_to, link_count, field, change)
                if b >= 0:
                    put(b, da, 1, layer, held, count, cost, link_start, link_to, link_count, field, change)
                place[layer, p] = b
                for d in range(devices):
                    device_load[layer, d] = then[d]
            total += delta
            if total < best_total - 1e-9:
                best_total = total
                unsaved = True
        temperature *= ratio
    if unsaved:
        for at in range(layers):
            for slot in range(places):
                best[at, slot] = place[at, slot]
    return best_total
