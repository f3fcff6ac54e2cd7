"""Traces and copies at random, and all small ones."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np

from cosma.placement.copies import (
    CopyProblem,
    as_replicas,
)
from cosma.placement.document import Placement
from cosma.placement.synthetic import SyntheticOptions, synthetic_trace


def tokens_of(seed: int, tokens: int = 200, layers: int = 3, experts: int = 5, top_k: int = 1) -> np.ndarray:
    options = SyntheticOptions(
        tokens=tokens, layers=layers, experts=experts, top_k=top_k, clusters=2, skew=2.0, seed=seed
    )
    found = np.asarray(synthetic_trace(options)).astype(np.int64)
    return found if found.ndim == 3 else found[:, :, None]


def random_copies(problem: CopyProblem, random: np.random.Generator) -> np.ndarray:
    """Return valid copies: every expert somewhere, no device over its room."""
    layers, experts, devices = problem.fresh.shape
    room = np.bincount(problem.device_of, minlength=devices)
    held = np.zeros((layers, experts, devices), dtype=bool)
    for layer in range(layers):
        slots = random.permutation(np.repeat(np.arange(devices), -(-experts // devices)))[:experts]
        held[layer, np.arange(experts), slots] = True
        for _ in range(2 * len(problem.device_of)):
            expert, device = int(random.integers(experts)), int(random.integers(devices))
            if held[layer, :, device].sum() < room[device]:
                held[layer, expert, device] = True
    return held


def as_placement(problem: CopyProblem, held: np.ndarray) -> Placement:
    replicas = as_replicas(held)
    homes = np.array([[copies[0] for copies in row] for row in replicas])
    return Placement(problem.topology, homes, replicas)


def all_ways(experts: int, devices: int, room: int) -> list[np.ndarray]:
    """Return every way to fill a layer, listed without the library."""
    sets = [s for size in range(1, devices + 1) for s in combinations(range(devices), size)]
    found = []
    for way in product(sets, repeat=experts):
        held = np.zeros((experts, devices), dtype=bool)
        for expert, devices_of in enumerate(way):
            held[expert, list(devices_of)] = True
        if (held.sum(axis=0) <= room).all():
            found.append(held)
    return found


def homes_near(current: np.ndarray, budget: int, devices: int, room: int) -> list[np.ndarray]:
    """Return every placement that moves at most ``budget`` experts."""
    layers, experts = current.shape
    found = []
    for way in product(range(devices), repeat=layers * experts):
        homes = np.array(way).reshape(layers, experts)
        counts = [np.bincount(row, minlength=devices).max() for row in homes]
        if max(counts) <= room and (homes != current).sum() <= budget:
            found.append(homes)
    return found
