"""The semidefinite bound with copies and limits on load: what it takes for granted, and the optimum by enumeration."""

from __future__ import annotations

import numpy as np
import pytest

from cosma.placement import bounds
from cosma.placement.affinity import Affinity
from cosma.placement.copies import CopyProblem, crossing_cost, imbalances, shares_of
from cosma.placement.copy_bounds import exact_split
from cosma.placement.members import Boxes, Members
from cosma.placement.semidefinite import Admm, Shape
from cosma.placement.topology import Topology

NODES, PER_NODE, EXPERTS, LAYERS = 2, 2, 7, 3


def random_layer(random: np.random.Generator, places: int, copies: bool) -> np.ndarray:
    """Return ``[experts, devices]`` homes, and some copies where there is room."""
    devices = NODES * PER_NODE
    slots = random.permutation(np.repeat(np.arange(devices), places))[:EXPERTS]
    held = np.zeros((EXPERTS, devices), dtype=bool)
    held[np.arange(EXPERTS), slots] = True
    for _ in range(10 if copies else 0):
        expert, device = int(random.integers(EXPERTS)), int(random.integers(devices))
        if held[:, device].sum() < places:
            held[expert, device] = True
    return held


def within(random: np.random.Generator, load: np.ndarray, places: int, limit: float, copies: bool) -> np.ndarray:
    """Return a random layer that keeps the limit."""
    while True:
        held = random_layer(random, places, copies)
        served = load @ shares_of(held[None])[0]
        if served.max() <= limit * served.mean():
            return held


def shares_of_members(members: Members, held: np.ndarray, load: np.ndarray, places: int, limit: float) -> np.ndarray:
    """Return ``[layers, members, devices]`` shares: those of experts, free places and spare load."""
    rows = []
    for layer, shares in enumerate(shares_of(held)):
        mean = load[layer].sum() / shares.shape[1]
        copies = np.ceil(load[layer] / mean / limit - 1e-9).clip(1)
        free = places - copies @ shares
        spare = limit * (1 + 1e-9) - load[layer] @ shares / mean
        fillers = np.stack([free, spare]) / members.combinations[layer, [0, 1], [EXPERTS, EXPERTS + 1]][:, None]
        rows.append(np.concatenate([shares, fillers]))
    return np.stack(rows)


@pytest.mark.parametrize("copies", [False, True])
def test_every_placement_is_what_the_relaxation_takes_for_granted(copies: bool) -> None:
    random = np.random.default_rng(3 + copies)
    limit, places, devices = 1.5, 3, NODES * PER_NODE
    load = random.integers(5, 40, (LAYERS, EXPERTS)).astype(float)
    if copies:
        load[:, 0] = 90.0
    members = Members.build(LAYERS, EXPERTS, devices, places, load=load, limit=limit, copies=copies)
    assert members is not None
    assert members.single is not copies
    within_layer = Boxes.of(members, NODES, PER_NODE, slice(None), slice(None))
    across = Boxes.of(members, NODES, PER_NODE, slice(None, -1), slice(1, None))
    for _ in range(200):
        held = np.stack([within(random, row, places, limit, copies) for row in load])
        shares = shares_of_members(members, held, load, places, limit)
        assert (shares >= -1e-12).all()
        assert (shares <= members.most[:, :, None] + 1e-9).all()
        assert shares.sum(axis=2) == pytest.approx(members.totals)
        sums = np.einsum("lcm,lmd->lcd", members.combinations, shares)
        assert sums == pytest.approx(np.repeat(members.values[:, :, None], devices, axis=2))
        grouped = shares.reshape(*shares.shape[:2], NODES, PER_NODE).sum(axis=3)
        for box, (one, other) in (
            (within_layer, (slice(None), slice(None))), (across, (slice(None, -1), slice(1, None)))
        ):  # fmt: skip
            device = np.einsum("lid,ljd->lij", shares[one], shares[other])
            node = np.einsum("lid,ljd->lij", grouped[one], grouped[other])
            rising = ((box.low, device), (device, box.high), (device, node), (box.floor, node), (node, box.top))
            for low, high in rising:
                assert (low <= high + 1e-9).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("nodes", [1, 2])
def test_any_multipliers_are_safe_with_copies_and_limits(seed: int, nodes: int) -> None:
    random = np.random.default_rng(seed)
    limit, places, devices, copies = 1.6, 3, NODES * PER_NODE, seed % 2 == 0
    load = random.integers(5, 40, (LAYERS, EXPERTS)).astype(float)
    members = Members.build(LAYERS, EXPERTS, devices, places, load=load, limit=limit, copies=copies)
    assert members is not None
    weights = random.random((LAYERS - 1, EXPERTS, EXPERTS))
    solver = Admm(weights, Shape(nodes, devices // nodes, EXPERTS, 1.0, 0.7 if nodes > 1 else 0.0), members)
    for dual in (solver.fine_dual, solver.coarse_dual)[:nodes]:
        noise = random.normal(size=dual.shape)
        dual += noise + noise.transpose(0, 2, 1)
    for cuts in solver.cuts:
        noise = random.random(solver.fine.shape)
        cuts.search(noise + noise.transpose(0, 2, 1))
        cuts.multipliers = random.random(cuts.limits.size)
    bound, best = solver.bound(), 0.0
    for _ in range(300):
        held = np.stack([within(random, row, places, limit, copies) for row in load])
        shares = shares_of(held)
        grouped = shares.reshape(LAYERS, EXPERTS, nodes, -1).sum(axis=3)
        saved = 0.0
        for layer in range(LAYERS - 1):
            saved += float((weights[layer] * (shares[layer] @ shares[layer + 1].T)).sum())
            if nodes > 1:
                saved += 0.7 * float((weights[layer] * (grouped[layer] @ grouped[layer + 1].T)).sum())
        best = max(best, saved)
    assert bound >= best - 1e-9


@pytest.mark.parametrize(("grid", "replicas"), [((1, 2), 1), ((1, 2), 2), ((1, 3), 1), ((2, 2), 0)])
def test_bound_with_copies_is_close_and_never_above(grid: tuple[int, int], replicas: int) -> None:
    topology = Topology.grid(*grid)
    experts, shares = 4, []
    for seed in range(2):
        random = np.random.default_rng(seed)
        tokens = random.integers(0, experts, (300, 4, 1))
        tokens[:, 1:] = np.where(random.random((300, 3, 1)) < 0.6, tokens[:, :-1], tokens[:, 1:])
        tokens[:, 2] = np.where(random.random((300, 1)) < 0.2, 0, tokens[:, 2])
        affinity = Affinity.from_tokens(tokens, experts)
        for limit in (None, 1.5, 1.2, 1.05):
            solved = exact_split(affinity, topology, replicas, limit)
            if solved is None:
                continue
            found = bounds.semidefinite_bound(
                affinity, topology, 1_000_000, replicas_per_device=replicas, limit=limit, copies=True
            )
            assert found is not None
            assert found.mean_cost <= solved[0] + 1e-9
            shares.append(found.mean_cost / solved[0] if solved[0] > 0 else 1.0)
    assert np.median(shares) > 0.75
    assert min(shares) > 0.5


def test_a_limit_makes_the_bound_larger_and_impossible_ones_none() -> None:
    random = np.random.default_rng(1)
    # Groups of experts follow each other, and one of them is visited more than the others.
    group = np.minimum(random.integers(0, 5, 600), 3)
    tokens = (2 * group[:, None] + random.integers(0, 2, (600, 5)))[:, :, None]
    affinity = Affinity.from_tokens(tokens, 8)
    topology = Topology.grid(2, 2)
    free = bounds.lower_bound(affinity, topology)
    tight = bounds.lower_bound(affinity, topology, limit=1.3)
    assert free.mean_cost < 0.02
    assert tight.mean_cost > 0.1
    load = affinity.load.astype(float)
    assert Members.build(5, 8, 4, 2, load=load, limit=0.5) is None
    assert bounds.semidefinite_bound(affinity, topology, 10**8, limit=0.5) is None


def test_places_left_over_and_many_levels_are_bounded_too() -> None:
    random = np.random.default_rng(5)
    tokens = random.integers(0, 7, (400, 4, 1))
    tokens[:, 1:] = np.where(random.random((400, 3, 1)) < 0.7, tokens[:, :-1], tokens[:, 1:])
    affinity = Affinity.from_tokens(tokens, 7)
    for topology in (Topology.grid(2, 2), Topology.tree((2, 2, 2), (3.0, 2.0, 1.0)), Topology.grid(2, 2, (2.0, 0.0))):
        problem = CopyProblem.build(affinity, topology, 1)
        devices = topology.devices
        places = len(problem.device_of) // devices
        found = {
            limit: bounds.semidefinite_bound(
                affinity, topology, 3 * 10**6, replicas_per_device=1, limit=limit, copies=True
            ) for limit in (None, 1.8)
        }  # fmt: skip
        for _ in range(200):
            slots = [random.permutation(np.repeat(np.arange(devices), places))[:7] for _ in range(4)]
            held = np.stack([row[:, None] == np.arange(devices) for row in slots])
            cost, worst = crossing_cost(problem, held), float(imbalances(problem, held).max())
            for limit, bound in found.items():
                assert bound is not None
                if limit is None or worst <= limit:
                    assert bound.mean_cost <= cost + 1e-9
