"""Copies that share load: kernel and plain twin, routing models and simulations, bounds and brute force."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.optimize import linprog

from cosma.errors import InfeasibleError, InputError
from cosma.placement.affinity import Affinity
from cosma.placement.check import score
from cosma.placement.copies import (
    CopyProblem,
    crossing_cost,
    field_of,
    held_of,
    imbalances,
    places_of,
    shares_of,
    split_ratios,
    split_summary,
)
from cosma.placement.copy_bounds import copies_bound, copy_degree_bound, exact_split, layer_ways
from cosma.placement.copy_kernels import anneal_copies
from cosma.placement.copy_moves import copies_moved
from cosma.placement.copy_search import CopyOptions, place_copies
from cosma.placement.document import Placement
from cosma.placement.fluid import fluid_shares
from cosma.placement.metrics import peak_ratios
from cosma.placement.options import PlaceOptions
from cosma.placement.replication import nearest
from cosma.placement.service import place
from cosma.placement.topology import Topology
from tests.placement import plain_copies
from tests.placement.copies import all_ways, as_placement, random_copies, tokens_of


@pytest.mark.parametrize("budget", [-1, 2])
@pytest.mark.parametrize("price", [0.0, 3.0])
def test_kernel_equals_its_plain_twin(budget: int, price: float) -> None:
    # Six devices: more change than are renewed one by one.
    for seed, grid in enumerate(((2, 2), (2, 2), (2, 3))):
        affinity = Affinity.from_tokens(tokens_of(seed, tokens=60), 5)
        problem = CopyProblem.build(affinity, Topology.grid(*grid), 1)
        random = np.random.default_rng(seed)
        held = random_copies(problem, random)
        place_now = places_of(problem, held)
        fresh = random.integers(0, 5, problem.fresh.shape).astype(float)
        current = held.copy() if budget >= 0 else np.ones_like(held)
        floor = 1.1 * problem.load.sum(axis=1) / problem.topology.devices
        least = np.minimum(held.sum(axis=2), 1 + (random.random(held.shape[:2]) < 0.2))
        wanted = plain_copies.anneal(
            place_now, problem.device_of, affinity.transitions, problem.load, problem.cost, price, floor, fresh,
            least, current, budget, 6, 19.37, 0.513, seed,
        )  # fmt: skip
        shares = shares_of(held)
        last, found = place_now.copy(), place_now.copy()
        change = anneal_copies(
            last, found, problem.device_of, held.astype(np.uint8), held.sum(axis=2), problem.cost,
            field_of(problem, shares), problem.load, np.einsum("le,led->ld", problem.load, shares),
            problem.links.start, problem.links.to, problem.links.count, price, floor, fresh, least,
            current.astype(np.uint8), budget, 6, 19.37, 0.513, np.array([seed], dtype=np.uint64),
        )  # fmt: skip
        assert (found == wanted).all()
        before, after = (
            plain_copies.objective(h, affinity.transitions, problem.load, problem.cost, price, floor, fresh)
            for h in (held, held_of(problem, found))
        )
        assert after - before == pytest.approx(change, abs=1e-6)
        if budget >= 0:
            assert copies_moved(current, held_of(problem, found)) <= budget


@pytest.mark.parametrize("top_k", [1, 3])
def test_model_of_split_equals_the_recount_and_a_simulation(top_k: int) -> None:
    tokens = tokens_of(4, tokens=150, layers=4, experts=6, top_k=top_k)
    if top_k == 3:
        tokens[np.random.default_rng(1).random(tokens.shape) < 0.2] = -1
    affinity = Affinity.from_tokens(tokens, 6)
    problem = CopyProblem.build(affinity, Topology.grid(2, 2), 2)
    random = np.random.default_rng(9)
    for _ in range(5):
        held = random_copies(problem, random)
        placement = as_placement(problem, held)
        counted = score(placement, [tokens[:50], tokens[50:]], "split")
        modelled = split_summary(affinity, problem.topology, held)
        assert counted.mean_cost == pytest.approx(modelled["mean_cost"]) == pytest.approx(crossing_cost(problem, held))
        assert counted.crossing_shares == pytest.approx(modelled["crossing_shares"])
        assert counted.imbalance == pytest.approx(modelled["imbalance"]) == pytest.approx(
            float(imbalances(problem, held).mean())
        )
        assert counted.worst_imbalance == pytest.approx(modelled["worst_imbalance"])
        costs = []
        copies = held[np.arange(4)[:, None], tokens]
        used = tokens >= 0
        both = used[:, :-1, :, None] & used[:, 1:, None, :]
        for _ in range(40):
            # The copy that draws the largest number serves.
            at = (copies * random.uniform(0.1, 1.0, copies.shape)).argmax(axis=3)
            costs.append(float(problem.cost[at[:, :-1, :, None], at[:, 1:, None, :]][both].mean()))
        spread = float(np.std(costs)) / np.sqrt(len(costs))
        assert abs(float(np.mean(costs)) - counted.mean_cost) < 5 * spread + 1e-12


def test_units_of_many_numbers_of_copies_are_beyond_floats() -> None:
    """Expert i has i + 1 copies, and the least common multiple of 1 to 720 has 313 digits; layer 1 is never visited."""
    number = 720
    copies = tuple(tuple(range(expert + 1)) for expert in range(number))
    placement = Placement.of_copies(Topology.grid(1, number), (copies, copies))
    held = np.tril(np.ones((number, number), dtype=bool))
    tokens = np.full((4, 2), -1)
    tokens[:, 0] = (0, 1, 1, 719)
    # Device 0 serves a visit of expert 0, half of those of expert 1, and a 720th of that of expert 719.
    wanted = (1 + 2 / 2 + 1 / 720) / (4 / 720)
    found = score(placement, [tokens], "split")
    assert found.layer_imbalance == (pytest.approx(wanted), 1.0)
    load = np.zeros((2, number))
    load[0, [0, 1, 719]] = 1, 2, 1
    assert split_ratios(load, np.stack([held, held])) == pytest.approx([wanted, 1.0])
    # A layer that nobody visits, alone.
    assert split_ratios(load[1:], held[None]).tolist() == [1.0]


def least_loaded_by_hand(
    tokens: np.ndarray, held: np.ndarray, cost: np.ndarray, batch: int
) -> tuple[float, np.ndarray]:
    """Return mean cost and loads: batch by batch, single copies first, then the emptiest device of each visit."""
    load = np.zeros((held.shape[0], held.shape[2]))
    total, number = 0.0, 0
    for first in range(0, len(tokens), batch):
        part = tokens[first : first + batch]
        at = np.full(part.shape, -1)
        for layer in range(part.shape[1]):
            served = np.zeros(held.shape[2])
            for single in (True, False):
                for t in range(len(part)):
                    for j, expert in enumerate(part[t, layer]):
                        if expert < 0 or (held[layer, expert].sum() == 1) != single:
                            continue
                        devices = np.flatnonzero(held[layer, expert])
                        device = devices[int(served[devices].argmin())]
                        served[device] += 1
                        at[t, layer, j] = device
            load[layer] += served
        for t in range(len(part)):
            for layer in range(part.shape[1] - 1):
                for a, b in product(at[t, layer], at[t, layer + 1]):
                    if a >= 0 and b >= 0:
                        total += cost[a, b]
                        number += 1
    return total / number, load


@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
def test_least_loaded_by_hand(batch: int) -> None:
    tokens = tokens_of(5, tokens=130, layers=3, experts=6, top_k=2)
    tokens[3, 1] = -1
    problem = CopyProblem.build(Affinity.from_tokens(tokens, 6), Topology.grid(2, 2), 1)
    held = random_copies(problem, np.random.default_rng(2))
    cost, load = least_loaded_by_hand(tokens, held, problem.cost, batch)
    found = score(as_placement(problem, held), [tokens[:33], tokens[33:90], tokens[90:]], "least-loaded", batch)
    assert found.mean_cost == pytest.approx(cost)
    assert found.imbalance == pytest.approx(float(peak_ratios(load).mean()))
    assert found.batch_imbalance is not None
    with pytest.raises(InputError, match="at least 1"):
        score(as_placement(problem, held), [tokens], "least-loaded", 0)
    with pytest.raises(InputError, match="expected one of"):
        score(as_placement(problem, held), [tokens], "magic")


def test_one_copy_each_is_the_same_under_every_routing() -> None:
    tokens = tokens_of(6, top_k=2)
    homes = np.array([[0, 1, 2, 3, 0]] * 3)
    scores = [score(Placement(Topology.grid(2, 2), homes), [tokens], rule) for rule in ("nearest", "split")]
    assert scores[0] == scores[1]
    replicas = tuple(tuple((int(device),) for device in row) for row in homes)
    for rule in ("nearest", "split", "least-loaded"):
        found = score(Placement(Topology.grid(2, 2), homes, replicas), [tokens], rule)
        assert found.mean_cost == pytest.approx(scores[0].mean_cost)
        assert found.imbalance == pytest.approx(scores[0].imbalance)


def test_fluid_loads_are_as_even_as_a_program_makes_them() -> None:
    random = np.random.default_rng(3)
    for _ in range(30):
        load = random.integers(0, 50, 6).astype(float)
        held = random.random((6, 4)) < 0.4
        held[np.arange(6), random.integers(0, 4, 6)] = True
        shares = fluid_shares(load, held)
        assert np.allclose(shares.sum(axis=1), 1)
        assert not (shares[~held] > 0).any()
        # Variables: visits of each expert on each device, and the largest load, which is minimised.
        equal = np.zeros((6, 25))
        below = np.zeros((4, 25))
        for expert, device in product(range(6), range(4)):
            equal[expert, expert * 4 + device] = 1
            below[device, expert * 4 + device] = 1
        below[:, 24] = -1
        limits = [(0, None if held[e, d] else 0) for e, d in product(range(6), range(4))]
        best = linprog(
            np.r_[np.zeros(24), 1], A_ub=below, b_ub=np.zeros(4), A_eq=equal, b_eq=load, bounds=[*limits, (0, None)]
        )
        assert (load @ shares).max() == pytest.approx(best.fun, abs=1e-6)


@pytest.mark.parametrize(
    ("experts", "grid", "replicas"), [(3, (1, 2), 1), (4, (1, 2), 1), (3, (1, 3), 1), (4, (2, 1), 0)]
)
def test_bounds_never_exceed_the_optimum(experts: int, grid: tuple[int, int], replicas: int) -> None:
    """Brute force over all placements of two and three layers, under every routing."""
    topology = Topology.grid(*grid)
    devices = topology.devices
    room = -(-experts // devices) + replicas
    ways = all_ways(experts, devices, room)
    listed = layer_ways(experts, topology, replicas)
    assert listed is not None
    assert {way.tobytes() for way in ways} == {way.tobytes() for way in listed}
    for seed in range(4):
        # The first one is bounded as well as can be; iterations cost much beside what so few experts do.
        work = 40_000_000 if seed == 0 else 100_000
        tokens = tokens_of(seed, tokens=25, layers=2, experts=experts, top_k=1 + seed % 2)
        affinity = Affinity.from_tokens(tokens, experts)
        problem = CopyProblem.build(affinity, topology, replicas)
        shares = np.stack(ways) / np.sum(ways, axis=2, keepdims=True)
        # Of every pair of ways: cost and the larger imbalance of both layers, where copies share evenly.
        pairs = np.einsum("wed,ef,dg,vfg->wv", shares, affinity.transitions[0], problem.cost, shares, optimize=True)
        costs = pairs / affinity.steps
        first, second = (peak_ratios(np.einsum("e,wed->wd", load, shares)) for load in affinity.load)
        ratio = np.maximum(first[:, None], second[None])
        random = np.random.default_rng(seed)
        for index in random.permutation(costs.size)[:20]:
            held = np.stack([ways[way] for way in divmod(index, len(ways))])
            assert crossing_cost(problem, held) == pytest.approx(costs.flat[index])
            assert imbalances(problem, held).max() == pytest.approx(ratio.flat[index])
        within = {limit: float(costs.min(initial=np.inf, where=ratio <= limit + 1e-12)) for limit in (1.15, 1.4)}
        least = {"split": float(costs.min()), "nearest": np.inf, "least-loaded": np.inf}
        # What is cheap where copies share evenly is so under other rules; most of all pairs are dear.
        for index in [*costs.argsort(axis=None)[:30], *random.permutation(costs.size)[:20]]:
            held = np.stack([ways[way] for way in divmod(index, len(ways))])
            for rule in ("nearest", "least-loaded"):
                least[rule] = min(least[rule], score(as_placement(problem, held), [tokens], rule, 8).mean_cost)
        for rule, optimum in least.items():
            bound = copies_bound(affinity, topology, replicas, rule, None, work)
            assert bound.mean_cost <= optimum + 1e-9, (rule, bound)
        for limit, optimum in within.items():
            bound = copies_bound(affinity, topology, replicas, "split", limit, work)
            assert bound.mean_cost <= optimum + 1e-9, (limit, bound)
            solved = exact_split(affinity, topology, replicas, limit)
            if np.isinf(optimum):
                assert solved is None
            else:
                assert solved is not None
                assert solved[0] == pytest.approx(optimum)
                assert imbalances(problem, solved[1]).max() <= limit + 1e-9
        exact = exact_split(affinity, topology, replicas)
        assert exact is not None
        assert exact[0] == pytest.approx(least["split"])
        assert crossing_cost(problem, exact[1]) == pytest.approx(exact[0])


def test_bounds_on_random_placements_of_larger_problems() -> None:
    for seed, capacities in ((0, None), (1, None), (2, (3, 4, 4, 3)), (3, (2, 6, 2, 4))):
        tokens = tokens_of(seed, tokens=300, layers=4, experts=12, top_k=2)
        topology = Topology.grid(2, 2, capacities=capacities)
        affinity = Affinity.from_tokens(tokens, 12)
        problem = CopyProblem.build(affinity, topology, 1)
        bounds = {
            rule: copies_bound(affinity, topology, 1, rule, None, 40_000_000).mean_cost
            for rule in ("split", "nearest", "least-loaded")
        }
        start = places_of(problem, np.zeros_like(problem.current, dtype=bool))
        for layer in range(4):
            start[layer, :12] = np.arange(12)
        held = held_of(problem, start)
        for limit in (None, 1.3):
            found = place_copies(problem, held, limit, "each", CopyOptions(proposals=60_000))
            for rule, bound in bounds.items():
                assert score(as_placement(problem, found), [tokens], rule).mean_cost >= bound - 1e-9
            if limit is not None:
                loaded = copies_bound(affinity, topology, 1, "split", limit, 40_000_000).mean_cost
                assert crossing_cost(problem, found) >= loaded - 1e-9
                assert loaded >= bounds["split"] - 1e-12


def test_copy_degree_is_the_degree_bound_without_copies() -> None:
    affinity = Affinity.from_tokens(tokens_of(1, experts=8), 8)
    topology = Topology.grid(2, 2)
    values = [copy_degree_bound(affinity, topology, replicas).mean_cost for replicas in range(4)]
    assert values == sorted(values, reverse=True)
    full = copy_degree_bound(affinity, Topology.grid(1, 2), 4).mean_cost
    assert full == 0.0


@pytest.mark.parametrize(("experts", "nodes", "per_node"), [(256, 4, 8), (20, 4, 5), (64, 16, 64)])
def test_ways_to_fill_a_layer_are_not_listed_where_devices_are_many(experts: int, nodes: int, per_node: int) -> None:
    """32 devices have 2 ** 32 sets: listing them to find that there are too many took gigabytes and minutes."""
    assert layer_ways(experts, Topology.grid(nodes, per_node), 1) is None


@pytest.mark.parametrize("replicas", [0, 1])
@pytest.mark.parametrize("limit", [None, 1.6])
def test_small_budgets_of_moves_are_used_as_well_as_can_be(replicas: int, limit: float | None) -> None:
    """Against every way to fill every layer; copies can be dropped without a move."""
    topology, random = Topology.grid(2, 1), np.random.default_rng(replicas)
    ways = all_ways(3, 2, 2 + replicas)
    solved = 0
    for seed in range(3):
        affinity = Affinity.from_tokens(tokens_of(seed, tokens=60, layers=3, experts=3), 3)
        problem = CopyProblem.build(affinity, topology, replicas)
        current = np.stack([ways[random.integers(len(ways))] for _ in range(3)])
        fits = [
            [way for way in ways if limit is None or imbalances(problem, np.stack([way] * 3))[layer] <= limit]
            for layer in range(3)
        ]
        costs = [
            (copies_moved(current, held), crossing_cost(problem, held)) for held in map(np.stack, product(*fits))
        ]
        for budget in (0, 1, 3):
            options = PlaceOptions(
                current=current, max_moves=budget, balance=limit, routing="split", replicas_per_device=replicas,
                proposals=99,
            )  # fmt: skip
            within = [cost for moved, cost in costs if moved <= budget]
            if not within:
                with pytest.raises(InfeasibleError):
                    place(affinity, topology, options)
                continue
            placed = place(affinity, topology, options)
            assert placed.metrics["mean_cost"] == pytest.approx(min(within))
            assert placed.metrics["moved"] <= budget
            assert placed.certificate["status"] == "optimal"
            solved += 1
    assert solved


@pytest.mark.parametrize("seed", range(4))
def test_the_nearest_copies_share_evenly(seed: int) -> None:
    """The kernel against arrays; an expert without a copy is infinitely far."""
    rng = np.random.default_rng(seed)
    reach = np.concatenate([Topology.tree((3, 2, 2), (4.0, 2.0, 1.0)).cost_matrix(), np.zeros((1, 12))])
    held = rng.random((9, 12)) < rng.choice([0.1, 0.3, 0.8])
    away = np.where(held[None], reach[:, None, :], np.inf)
    tied = away == away.min(axis=2, keepdims=True)
    distance, shares = nearest(reach, held)
    assert np.array_equal(distance, away.min(axis=2))
    assert np.array_equal(shares, tied / tied.sum(axis=2, keepdims=True))
