"""Brute force against the exact method, the search and the bounds; kernels against their plain twins."""

from __future__ import annotations

from itertools import permutations, product
from math import inf
from types import ModuleType

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from cosma import random_kernels
from cosma.errors import InputError
from cosma.placement import bounds, exact, kernels, matching
from cosma.placement.affinity import Affinity
from cosma.placement.check import check_placement, score
from cosma.placement.document import Placement, dump_placement
from cosma.placement.instance import Instance
from cosma.placement.layerwise import polish
from cosma.placement.metrics import mean_cost
from cosma.placement.options import PlaceOptions
from cosma.placement.pressure import Pressure, objective
from cosma.placement.recombine import pair_gains, recombine, rename
from cosma.placement.search import SearchOptions, anneal, search
from cosma.placement.service import place
from cosma.placement.synthetic import SyntheticOptions, synthetic_trace
from cosma.placement.topology import Topology

CASES = [
    (3, 4, Topology.grid(1, 2)),
    (3, 4, Topology.grid(2, 2)),
    (3, 4, Topology.grid(1, 4)),
    (2, 6, Topology.grid(1, 3)),
    (2, 6, Topology.grid(3, 1)),
    (3, 4, Topology.uneven([1, 2], capacities=[2, 1, 1])),
    (3, 3, Topology.grid(1, 2)),
    (2, 4, Topology.tree((2, 1, 2), (4, 2, 1))),
]


def make(layers: int, experts: int, seed: int = 0) -> tuple[np.ndarray, Affinity]:
    options = SyntheticOptions(tokens=120, layers=layers, experts=experts, clusters=2, seed=seed)
    tokens = synthetic_trace(options)
    return tokens, Affinity.from_tokens(tokens, experts)


def plain_python(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a module's compiled functions run as plain Python, helpers included."""
    for name, function in list(vars(module).items()):
        if hasattr(function, "py_func"):
            monkeypatch.setattr(module, name, function.py_func)


def layer_placements(topology: Topology, experts: int) -> list[tuple[int, ...]]:
    slots = topology.slots(experts)
    return [
        row
        for row in product(range(topology.devices), repeat=experts)
        if (np.bincount(row, minlength=topology.devices) <= slots).all()
    ]


def brute_force(affinity: Affinity, topology: Topology) -> float:
    rows = layer_placements(topology, affinity.experts)
    cost = topology.cost_matrix()
    value = np.zeros(len(rows))
    grid = np.array(rows)
    for layer in range(affinity.layers - 1):
        onward = np.array([
            min(
                value[a] + (affinity.transitions[layer] * cost[np.ix_(grid[a], grid[b])]).sum()
                for a in range(len(rows))
            )
            for b in range(len(rows))
        ])  # fmt: skip
        value = onward
    return float(value.min()) / affinity.steps


@pytest.mark.parametrize(("layers", "experts", "topology"), CASES)
def test_brute_force_agrees(layers: int, experts: int, topology: Topology) -> None:
    tokens, affinity = make(layers, experts, seed=layers + experts)
    best = brute_force(affinity, topology)
    ours = place(affinity, topology, PlaceOptions(strategy="search", proposals=60_000))
    found = score(ours, [tokens]).mean_cost
    assert found == pytest.approx(best)
    assert found == pytest.approx(ours.metrics["mean_cost"])
    assert ours.certificate["lower_bound"] <= best + 1e-9
    for bound in (
        bounds.degree_bound(affinity, topology), bounds.pair_budget_bound(affinity, topology, 0),
        bounds.lower_bound(affinity, topology),
    ):  # fmt: skip
        assert bound.mean_cost <= best + 1e-9
    if exact.supports(topology, experts, layers) is None:
        proven = place(affinity, topology, PlaceOptions(strategy="exact"))
        assert proven.metrics["mean_cost"] == pytest.approx(best)
        assert proven.certificate["status"] == "optimal"


@pytest.mark.parametrize("seed", range(2))
def test_semidefinite_bound_never_exceeds_the_optimum(seed: int) -> None:
    for topology in (
        Topology.grid(1, 2),
        Topology.grid(2, 2),
        Topology.grid(1, 8),
        Topology.tree((2, 2, 2), (3, 2, 1)),
    ):
        _, affinity = make(4, 8, seed)
        optimum = place(affinity, topology, PlaceOptions(strategy="exact")).metrics["mean_cost"]
        for work in (1_000_000, 4_000_000):
            found = bounds.semidefinite_bound(affinity, topology, work)
            if found is not None:
                assert found.mean_cost <= optimum + 1e-9
        assert found is not None
        assert found.mean_cost > 0.7 * optimum


def test_number_of_partitions() -> None:
    for topology, experts, count in (
        (Topology.grid(1, 4), 8, 105), (Topology.grid(2, 2), 8, 315), (Topology.grid(2, 4), 8, 35),
        (Topology.grid(1, 8), 8, 1), (Topology.grid(1, 2), 8, 35), (Topology.tree((2, 2, 2), (3, 2, 1)), 8, 315),
    ):  # fmt: skip
        rows = list(exact.partitions(topology, experts))
        assert len(rows) == len(set(rows)) == exact.class_count(topology, experts) == count
        for row in rows[:20]:
            assert (np.bincount(row, minlength=topology.devices) == experts // topology.devices).all()


def test_exact_says_why_not(small: Affinity) -> None:
    with pytest.raises(InputError, match="different numbers"):
        place(small, Topology.grid(1, 4), PlaceOptions(strategy="exact"))
    _, large = make(3, 32)
    with pytest.raises(InputError, match="exceed"):
        place(large, Topology.grid(1, 4), PlaceOptions(strategy="exact"))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
def test_assignment_kernel_against_scipy(size: int) -> None:
    random = np.random.default_rng(size)
    for _ in range(20):
        gain = random.integers(0, 50, (size, size)).astype(float)
        match = np.zeros(size, dtype=np.int64)
        scratch = np.zeros((3, size + 2)), np.zeros((3, size + 2), dtype=np.int64)
        total = matching.assign.py_func(gain, size, match, *scratch)
        rows, columns = linear_sum_assignment(-gain)
        assert total == gain[rows, columns].sum() == sum(gain[match[c], c] for c in range(size))


@pytest.mark.parametrize(
    "topology",
    [Topology.grid(2, 2), Topology.grid(1, 4), Topology.grid(4, 1), Topology.tree((2, 2, 1), (4, 2, 1)),
     Topology.uneven([2, 2], capacities=[2, 1, 1, 2]), Topology.uneven([1, 3], capacities=[2, 1, 1, 2])],
)  # fmt: skip
def test_nested_assignment_finds_the_best_renaming(topology: Topology) -> None:
    random = np.random.default_rng(1)
    tokens = random.integers(0, 6, (60, 2))
    affinity = Affinity.from_tokens(tokens, 6)
    instance = Instance.build(affinity, topology)
    tree, cost, slots = instance.tree, instance.cost, instance.slots
    legal = [
        names
        for names in permutations(range(4))
        if (cost[np.ix_(names, names)] == cost).all() and all(slots[names[d]] == slots[d] for d in range(4))
    ]
    for _ in range(10):
        flow = random.integers(0, 30, (4, 4)).astype(float)
        saving, relabel = rename(tree, flow)
        costs = [sum(flow[d, c] * cost[d, names[c]] for d in range(4) for c in range(4)) for names in legal]
        assert tree.base * flow.sum() - saving == pytest.approx(min(costs))
        assert tuple(relabel) in legal
        assert sum(flow[d, c] * cost[d, relabel[c]] for d in range(4) for c in range(4)) == pytest.approx(min(costs))


@pytest.mark.parametrize(
    "topology",
    [Topology.grid(2, 4), Topology.grid(1, 4), Topology.tree((2, 2, 2), (4, 2, 1)),
     Topology.uneven([1, 3], capacities=[2, 1, 1, 2])],
)  # fmt: skip
def test_compiled_gains_are_those_of_plain_python(topology: Topology, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(2)
    instance = Instance.build(Affinity.from_tokens(random.integers(0, 6, (60, 2)), 6), topology)
    earlier, later = (np.stack([random.permutation(instance.columns())[:6] for _ in range(4)]) for _ in range(2))
    plain = pair_gains(instance, 0, earlier, later)
    monkeypatch.setattr("cosma.placement.recombine._PLAIN_PAIRS", 0)
    assert pair_gains(instance, 0, earlier, later).tolist() == plain.tolist()
    for a, b in product(range(4), repeat=2):
        cost = sum(
            instance.dense[0][e, f] * instance.cost[earlier[a, e], later[b, f]] for e in range(6) for f in range(6)
        )
        assert instance.tree.base * instance.steps - plain[a, b] <= cost


@pytest.mark.parametrize(("price", "chains"), [(2.0, 0), (0.0, 5)])
def test_annealing_keeps_its_books(price: float, chains: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _, affinity = make(4, 8, 5)
    instance = Instance.build(affinity, Topology.grid(2, 2))
    arrays = instance.links.start, instance.links.to, instance.links.count
    pressure = Pressure.none(instance)
    pressure.price[:], pressure.floor[:] = price, 10.0
    everyone = np.tile(np.arange(8), (4, 1))
    outcomes = []
    for compiled in (True, False):
        if not compiled:
            for module in (kernels, random_kernels):
                plain_python(module, monkeypatch)
        home = instance.padded(np.tile(np.repeat(np.arange(4), 2), (4, 1)))
        before = objective(instance, home, pressure)
        field, load = instance.field(home), instance.device_load(home)
        state = np.array([9], dtype=np.uint64)
        with np.errstate(over="ignore"):
            change = kernels.anneal(
                home, everyone, 0, 4, instance.cost, field, instance.load, load, *arrays, pressure.price,
                pressure.floor, pressure.current, -1, 20, chains, 30.0, 1.0, state,
            )  # fmt: skip
        outcomes.append((home.tolist(), change))
        assert np.allclose(field, instance.field(home))
        assert np.allclose(load, instance.device_load(home))
        assert objective(instance, home, pressure) == pytest.approx(before + change)
        assert change < 0
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    "topology", [Topology.grid(2, 2), Topology.grid(4, 4), Topology.grid(1, 18), Topology.tree((2, 3, 3), (5, 2, 1))]
)
def test_moves_keep_the_field(topology: Topology) -> None:
    _, affinity = make(4, 36, 5)
    instance = Instance.build(affinity, topology)
    arrays = instance.links.start, instance.links.to, instance.links.count
    random = np.random.default_rng(0)
    home = np.stack([random.permutation(instance.columns()) for _ in range(4)])
    field = instance.field(home)
    for _ in range(200):
        layer, expert, to = (int(random.integers(0, n)) for n in (4, instance.places, topology.devices))
        kernels.move_expert.py_func(home, instance.cost, *arrays, field, layer, expert, to)
    assert np.allclose(field, instance.field(home))


def test_search_repeats_itself_and_improves() -> None:
    _, affinity = make(5, 8, 2)
    topology = Topology.grid(2, 2)
    options = PlaceOptions(strategy="search", proposals=40_000, bound="none")
    first, second = (place(affinity, topology, options) for _ in range(2))
    assert dump_placement(first) == dump_placement(second)
    instance = Instance.build(affinity, topology)
    random = np.random.default_rng(0)
    pool = [
        instance.padded(np.stack([random.permutation(np.repeat(np.arange(4), 2)) for _ in range(5)])) for _ in range(4)
    ]
    joined = recombine(instance, pool)
    assert instance.crossing(joined) <= min(instance.crossing(home) for home in pool)
    assert instance.crossing(polish(instance, joined)) <= instance.crossing(joined)
    state = np.array([1], dtype=np.uint64)
    cold = anneal(instance, joined, Pressure.none(instance), proposals=5_000, hot=20.0, cold=1.0, state=state)
    assert instance.crossing(cold) <= instance.crossing(joined)


def test_idle_places_are_used() -> None:
    tokens, affinity = make(3, 5, 1)
    topology = Topology.grid(1, 2, capacities=[5, 2])
    ours = place(affinity, topology, PlaceOptions(proposals=20_000))
    check_placement(ours)
    assert score(ours, [tokens]).mean_cost == 0.0
    assert search(Instance.build(affinity, topology), SearchOptions(proposals=2000)).shape == (3, 7)


@pytest.mark.parametrize("name", ["gpt_12x8_top1_s1"])
def test_known_optima(shared_traces, name: str) -> None:
    from cosma.placement.traces import open_trace, read_affinity

    trace = open_trace(shared_traces / f"{name}.npz")
    affinity = read_affinity(trace)
    for cluster, optimum in (((1, 4), 0.4730), ((2, 4), 0.9147), ((2, 2), 0.7524), ((1, 8), 0.6329)):
        ours = place(affinity, Topology.grid(*cluster))
        assert ours.certificate["status"] == "optimal"
        assert score(ours, trace.chunks()).mean_cost == pytest.approx(optimum, abs=5e-5)


def test_single_device_costs_nothing(small: Affinity) -> None:
    ours = place(small, Topology.grid(1, 1))
    assert ours.metrics["mean_cost"] == 0.0
    assert ours.certificate["status"] == "optimal"
    assert ours.certificate["gap"] == 0.0 < inf
    assert mean_cost(small, Topology.grid(1, 1), np.zeros((4, 6), dtype=int)) == 0.0


def test_placement_is_a_document(small: Affinity) -> None:
    ours = place(small, Topology.grid(1, 3), PlaceOptions(proposals=10_000))
    again = Placement.from_json(ours.to_json())
    assert dump_placement(again) == dump_placement(ours)
