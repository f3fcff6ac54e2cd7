"""Bounds and optima of the model of nearest copies, against all placements of small problems."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from cosma.placement import PlaceOptions, Topology, place
from cosma.placement.affinity import Affinity
from cosma.placement.copy_bounds import layer_ways
from cosma.placement.nearest_bounds import modelled_bounds, modelled_transitions, solve_nearest
from cosma.placement.replication import Flow
from tests.placement.copies import tokens_of

WORK = 10**9


def all_costs(affinity: Affinity, topology: Topology, replicas: int) -> dict[tuple[int, ...], float]:
    ways = layer_ways(affinity.experts, topology, replicas)
    assert ways is not None
    return {
        chosen: Flow.build(affinity, topology, ways[list(chosen)]).cost()
        for chosen in product(range(len(ways)), repeat=affinity.layers)
    }


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
