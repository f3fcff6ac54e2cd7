"""The annealing of copies once more, plainly: the twin that tests hold the compiled loops to.

It makes the same proposals from the same random numbers and recounts everything after each, from nothing but where
copies lie.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

MASK = (1 << 64) - 1


class Random:
    """Splitmix64."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def bits(self) -> int:
        """Return 64 random bits."""
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def below(self, bound: int) -> int:
        """Return a number in ``[0, bound)``."""
        return int(self.unit() * bound)

    def unit(self) -> float:
        """Return a number in ``[0, 1)``."""
        return (self.bits() >> 11) / 9007199254740992.0


def held_of(place: Array, device_of: Array, experts: int) -> Array:
    """Return ``[layers, experts, devices]`` copies; a device may not hold an expert twice."""
    held = np.zeros((len(place), experts, int(device_of.max()) + 1), dtype=bool)
    for layer, row in enumerate(place):
        for at, expert in enumerate(row):
            if expert >= 0:
                assert not held[layer, expert, device_of[at]]
                held[layer, expert, device_of[at]] = True
    return held


def objective(
    held: Array, transitions: Array, load: Array, cost: Array, price: float, floor: Array,
    fresh: Array,
) -> float:  # fmt: skip
    """Return crossings, visits above the floor, and prices of copies, from nothing but where copies lie."""
    shares = held / held.sum(axis=2, keepdims=True)
    total = float((fresh * held).sum())
    for layer, pairs in enumerate(transitions):
        for one in range(pairs.shape[0]):
            for other in range(pairs.shape[1]):
                total += pairs[one, other] * float(shares[layer, one] @ cost @ shares[layer + 1, other])
    for layer in range(len(load)):
        for visits in load[layer] @ shares[layer]:
            total += price * max(0.0, float(visits) - floor[layer])
    return total


def anneal(
    place: Array, device_of: Array, transitions: Array, load: Array, cost: Array, price: float,
    floor: Array, fresh: Array, least: Array, current: Array, budget: int, sweeps: int, hot: float,
    cold: float, seed: int,
) -> Array:  # fmt: skip
    """Return the best placement seen; arguments are those of ``copy_kernels.anneal_copies``."""
    random = Random(seed)
    place = place.copy()
    layers, places = place.shape
    experts = load.shape[1]

    def value() -> float:
        return objective(held_of(place, device_of, experts), transitions, load, cost, price, floor, fresh)

    now = first = value()
    best, best_value = place.copy(), now
    ratio = (cold / hot) ** (1.0 / (sweeps - 1)) if sweeps > 1 else 1.0
    temperature = hot
    for _ in range(sweeps):
        for _ in range(layers * places):
            layer, p = random.below(layers), random.below(places)
            a, da = int(place[layer, p]), int(device_of[p])
            held = held_of(place, device_of, experts)[layer]
            before = place[layer].copy()
            if random.below(8) < 5:
                q = random.below(places)
                b, db = int(place[layer, q]), int(device_of[q])
                if da == db or a == b or (a >= 0 and held[a, db]) or (b >= 0 and held[b, da]):
                    continue
                place[layer, p], place[layer, q] = b, a
            else:
                b = random.below(experts) if random.below(8) >= 1 else -1
                if a == b or (a >= 0 and held[a].sum() <= least[layer, a]) or (b >= 0 and held[b, da]):
                    continue
                place[layer, p] = b
            then = value()
            delta = then - now
            taken = delta <= 20.0 * temperature
            if taken and delta > 1e-9:
                taken = random.unit() < math.exp(-delta / temperature)
            if taken and budget >= 0:
                after = held_of(place, device_of, experts)
                was = after.copy()
                was[layer] = held
                more = int((after & ~current).sum()) - int((was & ~current).sum())
                taken = more <= 0 or int((after & ~current).sum()) <= budget
            if not taken:
                place[layer] = before
                continue
            now = then
            if now - first < best_value - first - 1e-9:
                best, best_value = place.copy(), now
        temperature *= ratio
    return best
