"""Bounds and optima of the model of nearest copies, against all placements of small problems."""

from __future__ import annotations

import random
from itertools import product

import numpy as np
import pytest

from cosma.placement import PlaceOptions, Topology, place
from cosma.placement.affinity import Affinity
from cosma.placement.copy_bounds import layer_ways
from cosma.placement.nearest_bounds import modelled_bounds, modelled_transitions, solve_nearest
from cosma.placement.replication import Flow, following
from tests.placement.copies import tokens_of

WORK = 10**9


def all_costs(affinity: Affinity, topology: Topology, replicas: int) -> dict[tuple[int, ...], float]:
    """Return the modelled mean cost of every way to fill all layers, layer by layer for all of them at once."""
    ways = layer_ways(affinity.experts, topology, replicas)
    assert ways is not None
    away = np.where(ways[:, None], topology.cost_matrix()[None, :, None, :], np.inf)
    distance = away.min(axis=3)
    shares = away == distance[..., None]
    shares = shares / shares.sum(axis=3, keepdims=True)
    follow, fresh = following(affinity)
    # Of every way to fill the layers so far, what it costs and the visits that it leads to from every device.
    costs = np.zeros(1)
    inflow = np.zeros((1, topology.devices, affinity.experts))
    visits = 0.0
    for layer in range(affinity.layers):
        visits += float(inflow[0].sum())
        costs = (costs[:, None] + np.einsum("poe,woe->pw", inflow, distance)).ravel()
        served = np.einsum("poe,woed->pwed", inflow, shares)
        # Visits from nowhere: all copies are equally near.
        served += (fresh[layer][:, None] * ways / ways.sum(axis=2, keepdims=True))[None]
        if layer + 1 < affinity.layers:
            inflow = np.einsum("pwed,ef->pwdf", served, follow[layer]).reshape(len(costs), *inflow.shape[1:])
    chosen = product(range(len(ways)), repeat=affinity.layers)
    found = dict(zip(chosen, (costs / visits).tolist(), strict=True))
    for some in random.Random(0).sample(list(found), 20):
        assert Flow.build(affinity, topology, ways[list(some)]).cost() == pytest.approx(found[some])
    return found


@pytest.mark.parametrize(
    ("experts", "grid", "replicas", "layers"), [(3, (1, 2), 0, 3), (4, (1, 2), 1, 2), (2, (2, 2), 0, 2)]
)
def test_optimum_and_bounds_against_all_placements(
    experts: int, grid: tuple[int, int], replicas: int, layers: int
) -> None:
    topology = Topology.grid(*grid)
    for seed in range(3):
        tokens = np.random.default_rng(seed).integers(-1 if seed else 0, experts, (30, layers, 1))
        affinity = Affinity.from_tokens(tokens, experts)
        assert modelled_transitions(affinity).sum() == pytest.approx(affinity.steps)
        least = min(all_costs(affinity, topology, replicas).values())
        assert least > 0
        for bound in modelled_bounds(affinity, topology, replicas, WORK):
            assert bound.mean_cost <= least * (1 + 1e-12)
        solved = solve_nearest(affinity, topology, replicas)
        assert solved is not None
        bound, held = solved
        assert bound.mean_cost == pytest.approx(least)
        assert held is not None
        assert Flow.build(affinity, topology, held).cost() == pytest.approx(least)
        again = solve_nearest(affinity, topology, replicas, least)
        assert again is not None
        assert again[1] is None
        assert again[0].mean_cost == pytest.approx(least)


def test_small_placements_are_proven_and_never_above_the_optimum() -> None:
    affinity = Affinity.from_tokens(tokens_of(5, tokens=80, layers=3, experts=4), 4)
    placed = place(affinity, Topology.grid(1, 2), PlaceOptions(replicas_per_device=1))
    assert placed.certificate["status"] == "optimal"
    assert placed.metrics["mean_cost"] == pytest.approx(min(all_costs(affinity, Topology.grid(1, 2), 1).values()))
    assert placed.certificate["lower_bound_any_routing"] <= placed.certificate["lower_bound"]
