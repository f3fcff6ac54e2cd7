"""Joining layers of several placements with copies, and filling layers by a program, against brute force."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from cosma.errors import InfeasibleError
from cosma.placement.affinity import Affinity
from cosma.placement.copies import CopyProblem, crossing_cost, imbalances
from cosma.placement.copy_fill import fill_by_places, fill_by_sets, fill_layer
from cosma.placement.copy_pairs import fill_pairs
from cosma.placement.copy_recombine import recombine_copies
from cosma.placement.metrics import peak_ratios
from cosma.placement.options import PlaceOptions
from cosma.placement.service import place
from cosma.placement.topology import Topology
from tests.placement.copies import all_ways, random_copies, tokens_of

#: Renamings of 2 x 2 devices that keep nodes together.
RENAMINGS = [
    [0, 1, 2, 3], [1, 0, 2, 3], [0, 1, 3, 2], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 0, 1], [2, 3, 1, 0], [3, 2, 1, 0],
]  # fmt: skip


def test_the_best_of_all_layers_and_renamings_is_found() -> None:
    random = np.random.default_rng(2)
    for seed in range(4):
        affinity = Affinity.from_tokens(tokens_of(seed, tokens=120, layers=3), 5)
        problem = CopyProblem.build(affinity, Topology.grid(2, 2), 1)
        pool = [random_copies(problem, random) for _ in range(3)]
        ratios = np.stack([imbalances(problem, held) for held in pool])
        for limit in (np.full(3, np.inf), np.sort(ratios, axis=0)[1]):
            least = np.inf
            for chosen in product(range(3), repeat=3):
                if any(ratios[number, layer] > limit[layer] for layer, number in enumerate(chosen)):
                    continue
                for names in product(RENAMINGS, repeat=2):
                    rows = [pool[chosen[0]][0], *(pool[chosen[i + 1]][i + 1][:, names[i]] for i in range(2))]
                    least = min(least, crossing_cost(problem, np.stack(rows)))
            ours = recombine_copies(problem, pool, limit)
            assert ours is not None
            assert (imbalances(problem, ours) <= limit + 1e-12).all()
            assert crossing_cost(problem, ours) == pytest.approx(least)
        assert recombine_copies(problem, pool, ratios.min(axis=0) - 0.01) is None
        assert recombine_copies(problem, [], limit) is None


@pytest.mark.parametrize(
    ("experts", "devices", "replicas", "way"),
    [(4, 3, 1, "places"), (4, 3, 1, "sets"), (4, 4, 1, "pairs"), (4, 3, 0, "pairs"), (4, 3, 0, "sets")],
)
def test_layers_are_filled_where_and_only_where_they_can_be(
    experts: int, devices: int, replicas: int, way: str
) -> None:
    outcomes = []
    for seed in range(5):
        affinity = Affinity.from_tokens(tokens_of(seed, tokens=90, layers=2, experts=experts), experts)
        problem = CopyProblem.build(affinity, Topology.grid(1, devices), replicas)
        room = np.bincount(problem.device_of)
        if seed == 0:
            ways = np.stack(all_ways(experts, devices, int(room.max())))
            ways = ways[(ways.sum(axis=1) <= room).all(axis=1)]
        loads = np.einsum("e,wed->wd", problem.load[0], ways / ways.sum(axis=2, keepdims=True))
        best = ways[peak_ratios(loads).argmin()]
        least = float(imbalances(problem, np.stack([best, best]))[0])
        for limit in (least * 1.0001, max(1.0, least * 0.999)):
            load = problem.load[0].astype(np.int64)
            if way == "pairs":
                found = fill_pairs(problem.load[0], room, limit)
            else:
                found = (fill_by_places if way == "places" else fill_by_sets)(load, room, limit, 20.0)
            assert found is not None
            copies, impossible = found
            possible = least <= limit
            assert impossible is not possible
            assert (copies is not None) is possible
            if copies is not None:
                assert (copies.sum(axis=0) <= room).all()
                assert copies.any(axis=1).all()
                assert imbalances(problem, np.stack([copies, copies]))[0] <= limit * (1 + 1e-8)
            outcomes.append(possible)
    assert True in outcomes
    assert False in outcomes


def test_a_limit_in_reach_of_hundreds_of_thousands_of_ways_is_kept() -> None:
    # Sixteen experts of falling load on sixteen devices with two places each; annealing ends above this limit.
    load = np.array([2200, 1960, 1680, 1410, 1220, 1180, 1110, 1050, 700, 610, 600, 500, 390, 360, 190, 70]) * 1.0
    room = np.full(16, 2)
    found = fill_pairs(load, room, 1.05)
    assert found is not None
    assert found[0] is not None
    served = (load / found[0].sum(axis=1)) @ found[0]
    assert served.max() <= 1.05 * load.sum() / 16
    assert (found[0].sum(axis=0) <= 2).all()
    assert fill_pairs(load, room, 1.0001) == (None, True)
    assert fill_pairs(load, np.full(16, 3), 1.05) is None


@pytest.mark.parametrize(("experts", "devices"), [(4, 3), (5, 2)])
def test_a_limit_on_the_mean_is_kept_where_and_only_where_it_can_be(experts: int, devices: int) -> None:
    topology = Topology.grid(1, devices)
    for seed in range(3):
        affinity = Affinity.from_tokens(tokens_of(seed, tokens=90, layers=4, experts=experts), experts)
        problem = CopyProblem.build(affinity, topology, 1)
        room = np.bincount(problem.device_of)
        ways = [held for held in all_ways(experts, devices, int(room.max())) if (held.sum(axis=0) <= room).all()]
        least = float(np.min([imbalances(problem, np.stack([held] * 4)) for held in ways], axis=0).mean())
        options = PlaceOptions(
            routing="split", replicas_per_device=1, balance=least, balance_scope="mean", bound="none", proposals=2000
        )
        assert least > 1.0
        placed = place(affinity, topology, options)
        assert placed.metrics["imbalance"] == pytest.approx(least)
        with pytest.raises(InfeasibleError):
            place(affinity, topology, replace(options, balance=1.0 + 0.999 * (least - 1.0)))


@pytest.mark.parametrize(("devices", "visits"), [(50, 1), (16, 1 << 42)])
def test_loads_beyond_64_bits_are_left_alone(devices: int, visits: int) -> None:
    load, room = np.array([3, 1]) * visits, np.full(devices, 1)
    assert fill_by_places(load, room, 2.0, 1.0) == (None, False)


def test_more_copies_than_a_byte_counts_are_tried() -> None:
    # One expert has three times the devices of the other, or both are everywhere.
    load = np.array([3.0, 1.0])
    for places in (1, 2):
        found = fill_pairs(load, np.full(100, places), 1.0)
        assert found is not None
        assert found[0] is not None
        copies = found[0].sum(axis=1)
        assert (copies >= 1).all()
        assert (load / copies @ found[0]).max() <= 0.04 * (1 + 1e-9)


def test_layers_too_large_for_a_program_are_left_alone() -> None:
    affinity = Affinity.from_tokens(tokens_of(1, experts=40), 40)
    problem = CopyProblem.build(affinity, Topology.grid(2, 8), 2)
    assert fill_layer(problem, 0, 1.01, 0.1) == (None, False)


def test_a_clock_that_ends_the_search_is_recorded() -> None:
    affinity = Affinity.from_tokens(tokens_of(1, experts=8, layers=4), 8)
    for options in (
        PlaceOptions(strategy="search", seconds=1e-9, bound="none"),
        PlaceOptions(routing="split", replicas_per_device=1, balance=1.9, seconds=1e-9, bound="none"),
        PlaceOptions(replicas_per_device=1, balance=1.9, seconds=1e-9, bound="none"),
    ):
        assert place(affinity, Topology.grid(2, 2), options).solver["stopped_by"] == "time"
    unhurried = PlaceOptions(routing="split", replicas_per_device=1, balance=1.9, seconds=1e9, proposals=1000)
    assert "stopped_by" not in place(affinity, Topology.grid(2, 2), unhurried).solver
