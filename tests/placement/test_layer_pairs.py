"""Bounds by layer pairs, and by the nearest copies, against enumeration of all placements."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from cosma.placement import Affinity, PlaceOptions, Topology, place, score
from cosma.placement.bounds import degree_bound, layer_pair_bound, lower_bound
from cosma.placement.copies import CopyProblem
from cosma.placement.copy_bounds import copies_bound, exact_split, nearest_copies_bound
from cosma.placement.layer_pairs import Level, PairBound, Side, most_saved, nearest_within
from cosma.placement.synthetic import SyntheticOptions, synthetic_trace
from tests.placement.copies import all_ways, as_placement, tokens_of

WORK = 10_000_000
#: Experts, cluster, replicas per device.
SMALL = [
    (3, Topology.grid(1, 2), 1), (4, Topology.grid(1, 2), 0), (4, Topology.grid(2, 1), 1), (3, Topology.grid(1, 3), 1),
    (4, Topology.grid(1, 2, capacities=(3, 1)), 0), (3, Topology.uneven([1, 2], capacities=[2, 1, 1]), 0),
    (3, Topology.uneven([1, 2], capacities=[1, 1, 1]), 1),
]  # fmt: skip


def small(seed: int, experts: int) -> Affinity:
    """Return counts of a small trace: clustered, or at random with many experts that nobody visits."""
    if seed % 2:
        tokens = tokens_of(seed, tokens=20, layers=2 + seed % 3, experts=experts, top_k=1 + seed % 2)
    else:
        random = np.random.default_rng(seed)
        tokens = random.integers(0, experts, (12, 2 + seed % 3, 1)) * random.integers(0, 2, (12, 1, 1))
    return Affinity.from_tokens(tokens, experts)


@pytest.mark.parametrize(("experts", "topology", "replicas"), SMALL)
def test_no_bound_exceeds_the_optimum(experts: int, topology: Topology, replicas: int) -> None:
    """Over 200 problems: shares with and without limits against the optimum, whole copies against the nearest ones."""
    compared = 0
    for seed in range(10):
        affinity = small(seed, experts)
        for limit in (None, 1.0, 1.2, 1.6):
            best = exact_split(affinity, topology, replicas, limit)
            found = layer_pair_bound(affinity, topology, WORK, replicas_per_device=replicas, limit=limit)
            assert found is not None
            if best is not None:
                assert found.mean_cost <= best[0] + 1e-12, (seed, limit)
                compared += 1
        whole = layer_pair_bound(affinity, topology, WORK, replicas_per_device=replicas, whole=True)
        (nearest,) = nearest_copies_bound(affinity, topology, replicas)
        assert whole is not None
        assert whole.mean_cost <= nearest.mean_cost + 1e-12, seed
        assert nearest.mean_cost <= best_without_limit(affinity, topology, replicas) + 1e-12
        compared += 1
    assert compared > 25


def best_without_limit(affinity: Affinity, topology: Topology, replicas: int) -> float:
    best = exact_split(affinity, topology, replicas)
    assert best is not None
    return best[0]


@pytest.mark.parametrize("top_k", [1, 2])
def test_nearest_copies_against_all_placements(top_k: int) -> None:
    """The bound is the least over placements of what the nearest pairs of copies cost; no routing is below it."""
    topology = Topology.grid(1, 2)
    distance = topology.cost_matrix()
    ways = all_ways(3, 2, 3)
    for seed in range(8):
        tokens = tokens_of(seed, tokens=15, layers=2, experts=3, top_k=top_k)
        affinity = Affinity.from_tokens(tokens, 3)
        problem = CopyProblem.build(affinity, topology, 1)
        least = np.inf
        (bound,) = nearest_copies_bound(affinity, topology, 1)
        for pair in product(ways, repeat=2):
            total = sum(
                count * distance[np.ix_(pair[0][i], pair[1][j])].min()
                for (i, j), count in np.ndenumerate(affinity.transitions[0])
            )
            least = min(least, total / affinity.steps)
        assert bound.mean_cost == pytest.approx(least, abs=1e-9)
        for index in np.random.default_rng(seed).integers(0, len(ways), (40, 2)):
            placed = as_placement(problem, np.stack([ways[i] for i in index]))
            for routing in ("nearest", "least-loaded", "split"):
                assert score(placed, [tokens], routing, 4).mean_cost >= bound.mean_cost - 1e-12


def test_any_multipliers_prove_a_bound() -> None:
    """A bound holds whatever the multipliers are: also those of another problem, and any prices."""
    topology = Topology.grid(1, 2)
    random = np.random.default_rng(0)
    for seed in range(40):
        affinity = small(2 * seed + 1, 4)
        counts, load = affinity.transitions.astype(float), affinity.load.astype(float)
        for limit, further in ((None, 0), (1.3, 0), (None, 2)):
            level = Level(groups=2, room=3, members=1, devices=2, limit=limit, further=further)
            if further:
                (nearest,) = nearest_copies_bound(affinity, topology, 1)
                optimum = nearest.mean_cost
            else:
                best = exact_split(affinity, topology, 1, limit)
                if best is None:
                    continue
                optimum = best[0]
            sides = [Side.build(row, level) for row in load]
            saved = 0.0
            for layer in range(len(counts)):
                pair = PairBound(counts[layer], sides[layer], sides[layer + 1], random.random())
                pair.multipliers = random.normal(0, pair.gains.max(), counts[layer].shape)
                pair.row_prices = random.exponential(pair.gains.mean(), pair.row_prices.shape)
                pair.column_prices = random.exponential(pair.gains.mean(), pair.column_prices.shape)
                pair.charges = pair.charged()
                saved += pair.bound()
            assert 1.0 - saved / affinity.steps <= optimum + 1e-9


def test_nearest_matrix_with_small_singular_values() -> None:
    random = np.random.default_rng(1)
    for largest, size in ((1.0, 3.0), (5.0, 2.0), (1.0, 100.0)):
        matrix = random.normal(size=(7, 7))
        near = nearest_within(matrix, largest, size)
        values = np.linalg.svd(near, compute_uv=False)
        assert values.max() <= largest + 1e-6
        assert values.sum() <= size + 1e-6
        for _ in range(50):
            other = nearest_within(random.normal(size=(7, 7)), largest, size)
            # Of all points of a convex set, the nearest one sees the others at no acute angle.
            assert ((matrix - near) * (other - near)).sum() <= 1e-5


def test_a_hundred_experts_are_bounded_well_above_degrees() -> None:
    """Sparse counts of many experts: an expert alone could meet nearly all that follow it, all together cannot."""
    options = SyntheticOptions(tokens=3000, layers=3, experts=96, clusters=8, affinity=0.5, seed=3)
    affinity = Affinity.from_tokens(synthetic_trace(options), 96)
    topology = Topology.grid(2, 4, capacities=(16, *[12] * 6, 8))
    degree, found = degree_bound(affinity, topology), lower_bound(affinity, topology, 20 * WORK)
    assert found.method == "layer pairs"
    assert found.mean_cost > 1.5 * degree.mean_cost
    placed = place(affinity, topology, PlaceOptions(proposals=100_000, bound="none"))
    assert found.mean_cost <= placed.metrics["mean_cost"]
    limited = copies_bound(affinity, topology, 1, "split", 1.05, 20 * WORK)
    free = copies_bound(affinity, topology, 1, "split", None, 20 * WORK)
    assert limited.method == free.method == "layer pairs"
    assert limited.mean_cost > free.mean_cost


def test_more_rounds_prove_no_less_and_layers_without_tokens_save_nothing() -> None:
    affinity = small(7, 4)
    counts, load = affinity.transitions.astype(float), affinity.load.astype(float)
    level = Level(groups=2, room=2, members=1, devices=2)
    assert most_saved(counts, load, level, 100) <= most_saved(counts, load, level, 10) + 1e-9
    assert most_saved(np.zeros_like(counts), np.zeros_like(load), level, 5) == 0.0
    assert layer_pair_bound(affinity, Topology.grid(1, 2), 0) is None
