"""EPLB from its description: the README's example, and what its parts promise."""

from __future__ import annotations

import numpy as np
import pytest

from cosma.errors import InputError
from cosma.placement.affinity import Affinity
from cosma.placement.check import check_placement
from cosma.placement.eplb import balance, eplb_placement, pack_evenly, replicated
from cosma.placement.topology import Topology

#: Load, and the places it gives with 16 places, 4 groups, 2 nodes and 8 devices: the example of EPLB's README.
LOAD = np.array(
    [
        [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
        [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
    ]
)
PLACES = [
    [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
    [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
]


def test_the_readme_example() -> None:
    assert balance(LOAD, 16, 4, 2, 8).tolist() == PLACES


def test_the_global_policy_where_groups_do_not_divide() -> None:
    table = balance(LOAD, 16, 3, 2, 8)
    assert (table == balance(LOAD, 16, 1, 1, 8)).all()
    for row in table:
        assert set(row.tolist()) == set(range(12))


def test_packs_are_even_and_balanced() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        weights = random.random(24)
        pack, rank = pack_evenly(weights, 6)
        assert np.bincount(pack).tolist() == [4] * 6
        assert sorted(zip(pack.tolist(), rank.tolist(), strict=True)) == [(p, r) for p in range(6) for r in range(4)]
        assert np.bincount(pack, weights).max() <= weights.sum() / 6 + weights.max()


def test_replication_is_the_best_there_is() -> None:
    """Greedy copies minimise the largest load per copy: compared with all ways to give them out."""
    random = np.random.default_rng(1)
    for _ in range(30):
        load = random.integers(1, 100, 4).astype(float)
        owner, count = replicated(load, 7)
        assert np.bincount(owner).tolist() == count.tolist()
        best = min(
            max(load / np.array(ways))
            for ways in np.ndindex(5, 5, 5, 5)
            if sum(ways) == 7 and min(ways) >= 1
        )  # fmt: skip
        assert max(load / count) == pytest.approx(best)


def test_placements_are_valid() -> None:
    random = np.random.default_rng(2)
    affinity = Affinity.from_tokens(np.sort(random.integers(0, 12, (500, 5)), axis=1) % 12, 12)
    for replicas in (0, 1, 2):
        placement = eplb_placement(affinity, Topology.grid(2, 3), replicas)
        check_placement(placement, replicas)
        assert (placement.replicas is None) == (replicas == 0)
    with pytest.raises(InputError, match="equal devices"):
        eplb_placement(affinity, Topology.uneven((1, 2)))
    with pytest.raises(InputError, match="must be equal"):
        balance(LOAD, 16, 5, 2, 8)
    with pytest.raises(InputError, match="a place for every expert"):
        balance(LOAD, 8, 4, 2, 8)
