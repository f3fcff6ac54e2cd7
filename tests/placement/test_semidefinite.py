"""The semidefinite bound and its triangle inequalities, against enumeration and the exact method."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest

from cosma.placement import bounds, semidefinite, threads
from cosma.placement.affinity import Affinity
from cosma.placement.options import PlaceOptions
from cosma.placement.semidefinite import Admm, Shape
from cosma.placement.service import place
from cosma.placement.synthetic import SyntheticOptions, synthetic_trace
from cosma.placement.topology import Topology
from cosma.placement.triangles import Triangles


def make(layers: int, experts: int, seed: int) -> Affinity:
    options = SyntheticOptions(tokens=300, layers=layers, experts=experts, clusters=3, affinity=0.4, seed=seed)
    return Affinity.from_tokens(synthetic_trace(options), experts)


def together(generator: np.random.Generator, pairs: int, experts: int, groups: int) -> np.ndarray:
    """Who shares a group with whom, for random placements."""
    held = np.repeat(np.arange(groups), experts // groups)
    layers = [generator.permutation(held) for _ in range(pairs + 1)]
    homes = [np.concatenate(layers[pair : pair + 2]) for pair in range(pairs)]
    return np.array([row[:, None] == row[None, :] for row in homes]).astype(float)


def fractional(generator: np.random.Generator, pairs: int, size: int) -> np.ndarray:
    matrices = generator.random((pairs, size, size))
    return (matrices + matrices.transpose(0, 2, 1)) / 2.0


@pytest.mark.parametrize(("experts", "groups"), [(6, 2), (4, 2), (6, 3), (8, 4)])
def test_every_placement_obeys_the_inequalities(experts: int, groups: int) -> None:
    generator = np.random.default_rng(experts)
    cuts = Triangles(2, experts, groups, experts // groups)
    cuts.search(fractional(generator, 2, 2 * experts))
    assert cuts.limits.size > 40
    cuts.multipliers = generator.random(cuts.limits.size)
    prices = cuts.prices()
    for _ in range(50):
        homes = together(generator, 2, experts, groups)
        # One at a time, and charged together.
        assert (cuts.excess(homes) <= 1e-12).all()
        assert float((prices * homes).sum()) <= cuts.allowance() + 1e-9


@pytest.mark.parametrize(("groups", "held"), [(2, 2), (2, 3), (4, 2), (4, 1)])
def test_search_finds_what_enumeration_finds(groups: int, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosma.placement.triangles._KEPT", 10_000)
    monkeypatch.setattr("cosma.placement.triangles._BLOCK", 150)
    experts, least = 4, 0.04
    matrices = fractional(np.random.default_rng(groups + held), 2, 2 * experts)
    expected = []
    for matrix in matrices:
        for i, j, k in permutations(range(2 * experts), 3):
            if j < k:
                expected.append(matrix[i, j] + matrix[i, k] - matrix[j, k] - 1.0)
        for i, j, k in combinations(range(2 * experts), 3):
            couples = matrix[i, j] + matrix[i, k] + matrix[j, k]
            if groups == 2:
                expected.append(1.0 - couples)
            if held == 2 and i // experts == k // experts:
                expected.append(couples - 1.0)
    cuts = Triangles(2, experts, groups, held)
    cuts.search(matrices)
    assert sorted(cuts.excess(matrices)) == pytest.approx(sorted(x for x in expected if x > least))
    count = cuts.limits.size
    cuts.search(matrices)
    assert cuts.limits.size == count, "an inequality counts once"
    if (groups, held) != (2, 2):  # There, three of one layer make exactly one couple, so nothing is idle.
        cuts.search(np.full_like(matrices, 0.4 if groups == 2 else 0.25))
        assert cuts.limits.size == 0, "idle inequalities are dropped"


@pytest.mark.parametrize("seed", range(3))
def test_any_multipliers_are_safe(seed: int) -> None:
    """Random multipliers, of cones and inequalities alike, bound the saving of every placement."""
    generator = np.random.default_rng(seed)
    shape = Shape(2, 2, 4, 1.0, 1.0)
    weights = generator.random((2, 4, 4))
    solver = Admm(weights, shape)
    for dual in (solver.fine_dual, solver.coarse_dual):
        noise = generator.normal(size=dual.shape)
        dual += noise + noise.transpose(0, 2, 1)
    for cuts in solver.cuts:
        cuts.search(fractional(generator, 2, 8))
        cuts.multipliers = generator.random(cuts.limits.size)
    bound = solver.bound()
    best = 0.0
    for _ in range(300):
        layers = [generator.permutation(4) for _ in range(3)]
        saved = 0.0
        for pair in range(2):
            here, there = layers[pair][:, None], layers[pair + 1][None, :]
            saved += float((weights[pair] * ((here == there) * 1.0 + (here // 2 == there // 2) * 1.0)).sum())
        best = max(best, saved)
    assert bound >= best - 1e-9


@pytest.mark.parametrize("topology", [Topology.grid(1, 2), Topology.grid(1, 4), Topology.grid(2, 2)])
def test_bound_is_close_and_never_above(topology: Topology) -> None:
    for seed in range(2):
        affinity = make(4, 8, seed)
        optimum = float(place(affinity, topology, PlaceOptions(strategy="exact")).metrics["mean_cost"])
        found = bounds.semidefinite_bound(affinity, topology, 6_000_000)
        assert found is not None
        assert 0.97 * optimum < found.mean_cost <= optimum + 1e-9


def test_inequalities_pay_and_results_repeat() -> None:
    affinity = make(4, 8, 5)
    shape = bounds.two_level_shape(Topology.grid(2, 2), 8)
    assert shape is not None
    counts = affinity.transitions.astype(float)
    runs = [semidefinite.saving_bound(counts, shape, 200) for _ in range(2)]
    assert runs[0] == runs[1]
    plain = Admm(counts, shape)
    for iteration in range(1, 201):
        plain.step()
        if iteration % 20 == 0:
            plain.balance()
    assert runs[0] < plain.bound()


def test_threads_are_given_back() -> None:
    found = threads._functions()
    if found is None:
        pytest.skip("numpy does not use OpenBLAS here")
    ask, tell = found
    before = ask()
    tell(2)
    with threads.one_thread():
        assert ask() == 1
    assert ask() == 2
    with pytest.raises(ValueError, match="inside"), threads.one_thread():
        raise ValueError("inside")
    assert ask() == 2
    tell(before)
