"""Mean-field annealing: one sweep against plain loops, growth of a planted grouping, repeatability."""

from __future__ import annotations

import numpy as np
import pytest

from cosma.placement import meanfield
from cosma.placement.affinity import Affinity
from cosma.placement.check import check_placement
from cosma.placement.document import Placement
from cosma.placement.instance import Instance
from cosma.placement.meanfield import MeanField, excess, grown_starts
from cosma.placement.starts import starts
from cosma.placement.topology import Topology


def planted(layers: int, groups: int, size: int, tokens: int = 3000) -> tuple[Affinity, np.ndarray]:
    """Return counts of tokens that mostly stay in a hidden group of experts, and the groups ``[layers, experts]``."""
    random = np.random.default_rng(4)
    experts = groups * size
    owner = np.stack([random.permutation(np.repeat(np.arange(groups), size)) for _ in range(layers)])
    member = np.argsort(owner, axis=1, kind="stable").reshape(layers, groups, size)
    group = random.integers(0, groups, tokens)
    trace = np.empty((tokens, layers), dtype=np.int64)
    for layer in range(layers):
        group = np.where(random.random(tokens) < 0.35, random.integers(0, groups, tokens), group)
        trace[:, layer] = member[layer, group, random.integers(0, size, tokens)]
    return Affinity.from_tokens(trace, experts), owner


@pytest.mark.parametrize(
    "topology", [Topology.grid(2, 2), Topology.uneven([1, 2], capacities=[3, 2, 3]), Topology.grid(1, 3)]
)
def test_sweep_against_plain_loops(monkeypatch: pytest.MonkeyPatch, topology: Topology) -> None:
    monkeypatch.setattr(meanfield, "_NOISE", 0.0)
    random = np.random.default_rng(0)
    affinity = Affinity.from_tokens(random.integers(0, 6, (300, 5)), 6)
    instance = Instance.build(affinity, topology)
    field = MeanField(instance, instance.dense, instance.cost, 0)
    home = np.stack([random.permutation(instance.columns()) for _ in range(5)])
    field.lean(home)
    assert np.allclose(field.shares.sum(axis=2), 1.0)
    assert (field.shares.argmax(axis=2) == home).all()
    shares = field.shares.astype(float)
    unit = instance.steps / (4 * 6)
    field.sweep(0.7)
    for layer in (0, 2, 4, 1, 3):
        expected = np.zeros((instance.places, instance.devices))
        for expert in range(6):
            for device in range(instance.devices):
                for other in range(6):
                    for there in range(instance.devices):
                        if layer < 4:
                            weight = instance.dense[layer, expert, other] * instance.cost[device, there]
                            expected[expert, device] += weight * shares[layer + 1, other, there]
                        if layer > 0:
                            weight = instance.dense[layer - 1, other, expert] * instance.cost[there, device]
                            expected[expert, device] += weight * shares[layer - 1, other, there]
        weights = np.exp(-(expected - expected.min(axis=1, keepdims=True)) / unit / 0.7)
        scale = np.ones(instance.devices)
        for _ in range(2):
            scale = instance.slots / ((weights * scale) / (weights * scale).sum(axis=1, keepdims=True)).sum(0) * scale
        shares[layer] = weights * scale / (weights * scale).sum(axis=1, keepdims=True)
    assert np.allclose(field.shares, shares, atol=1e-4)


def test_excess_has_no_popularity() -> None:
    counts = np.outer([6, 3, 1], [5, 3, 2])[None].repeat(3, axis=0)
    instance = Instance.build(Affinity.from_counts(counts), Topology.grid(1, 3))
    assert np.allclose(excess(instance), 0.0)


def test_growth_finds_planted_groups() -> None:
    affinity, owner = planted(10, 4, 4)
    topology = Topology.grid(2, 2)
    instance = Instance.build(affinity, topology)
    hidden = instance.crossing(owner)
    for flat in (True, False):
        grown = grown_starts(instance, 0, flat)
        assert instance.crossing(grown[0]) <= hidden
        check_placement(Placement(topology, grown[0]))
    again = grown_starts(instance, 0, True, seeds=2)
    assert (again[0] == grown_starts(instance, 0, True)[0]).all()
    raw = grown_starts(instance, 0, True, finish=False)[0]
    assert (np.stack([np.bincount(row, minlength=4) for row in raw]) == 4).all()


def test_starts_fit_unequal_devices() -> None:
    affinity, _ = planted(4, 3, 3, 400)
    topology = Topology.uneven([1, 2], capacities=[5, 3, 2])
    instance = Instance.build(affinity, topology)
    found = starts(instance, topology, 0)
    assert found
    costs = [instance.crossing(home) for home in found]
    assert costs == sorted(costs)
    for home in found:
        check_placement(Placement(topology, home[:, :9]))
    assert starts(Instance.build(affinity, Topology.grid(1, 1)), Topology.grid(1, 1), 0) == []
