"""Caches of experts: optimum against brute force, policies against plain twins, false schedules refused."""

from __future__ import annotations

from collections import OrderedDict
from fractions import Fraction
from functools import cache
from itertools import combinations, product

import numpy as np
import pytest
from ortools.graph.python import min_cost_flow

from cosma.caching import CacheOptions, Requests, best_schedule, check_schedule, hosting, plan_cache, read_requests
from cosma.caching.flow import proven_cost
from cosma.caching.hosting import best_mix
from cosma.caching.optimum import intervals_of, proven_kept
from cosma.caching.planned import schedule_events
from cosma.caching.predict import learn_affinity, learn_evidence
from cosma.caching.requests import requests_of
from cosma.caching.service import POLICIES
from cosma.errors import InputError


def random_requests(seed: int, *, tokens: int = 6, layers: int = 2, experts: int = 4, k: int = 2, batch: int = 1):
    rng = np.random.default_rng(seed)
    ids = np.stack([
        np.stack([rng.permutation(experts)[:k] for _ in range(layers)]) for _ in range(tokens)
    ])  # fmt: skip
    return requests_of(ids, experts, batch)


def groups_of(requests: Requests, shared: bool):
    layer = np.repeat(np.arange(requests.layers), requests.experts)
    return np.zeros_like(layer) if shared else layer


def least_cost(requests: Requests, group, slots: int, *, together: bool, fetch: float = 1.0, host: float | None = None):
    """Least cost over all contents of all slots at all times, by dynamic programming."""
    steps = [requests.page[requests.start[i] : requests.start[i + 1]].tolist() for i in range(requests.steps)]
    visits = [requests.visits[requests.start[i] : requests.start[i + 1]].tolist() for i in range(requests.steps)]
    groups = int(group.max()) + 1
    room = slots if together else slots - 1

    def fits(pages) -> bool:
        held = np.bincount(group[sorted(pages)], minlength=groups) if pages else np.zeros(groups)
        return bool((held <= room).all())

    @cache
    def best(step: int, content: frozenset[int]) -> float:
        if step == len(steps):
            return 0.0
        answer = float("inf")
        price = dict(zip(steps[step], visits[step], strict=True))
        for where in product((False, True), repeat=len(steps[step])) if host is not None else [(False,) * 99]:
            hosted = {p for p, on_host in zip(steps[step], where, strict=False) if on_host}
            if any(p in content for p in hosted):
                continue
            needed = set(steps[step]) - hosted
            cost = sum(fetch for p in needed if p not in content) + sum((host or 0) * price[p] for p in hosted)
            # Together, the pages of the step and those carried over it share the slots.
            others = content - needed
            for size in range(len(others) + 1):
                for carried in combinations(sorted(others), size):
                    if together and not fits(set(carried) | needed):
                        continue
                    for kept_size in range(len(needed) + 1):
                        for kept in combinations(sorted(needed), kept_size):
                            after = frozenset(carried) | frozenset(kept)
                            if fits(after):
                                answer = min(answer, cost + best(step + 1, after))
        return answer

    return best(0, frozenset())


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_optimum_is_the_best_of_all_schedules(seed, shared, together):
    requests = random_requests(seed, k=1 + seed % 2)
    group = groups_of(requests, shared)
    slots = 2 + seed % 3
    found = best_schedule(requests, group, np.full(int(group.max()) + 1, slots), together=together)
    assert found.fetches == found.lower_bound == least_cost(requests, group, slots, together=together)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("host", [0.3, 0.7, 1.5])
@pytest.mark.parametrize("seed", range(6))
def test_least_mix_of_links_and_hosts(seed, host, together):
    requests = random_requests(seed, tokens=8, layers=1, experts=4, k=2, batch=1 + seed % 2)
    group = groups_of(requests, True)
    slots = 4 if together else 3
    mix = best_mix(requests, group, np.array([slots]), 1.0, host, together=together)
    assert mix.cost == pytest.approx(least_cost(requests, group, slots, together=together, host=host))
    assert mix.proven
    plan = schedule_events(requests, group, np.array([slots]), mix.fetched, mix.hosted, 0, together=together)
    count = check_schedule(requests, group, np.array([slots]), plan.events, together=together)
    on_host = int(requests.visits[mix.hosted].sum())
    assert count.fetches + host * on_host == pytest.approx(mix.cost)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_paths_cost_what_another_solver_finds(seed, together, shared):
    requests = random_requests(seed, tokens=60, layers=3, experts=10, k=2, batch=1 + seed % 3)
    group = groups_of(requests, shared)
    slots = np.full(int(group.max()) + 1, 6 + seed % 3)
    mix = best_mix(requests, group, slots, 1.0, 0.35, together=together)
    costs = []
    for number, held in enumerate(slots.tolist()):
        members = np.flatnonzero(group[requests.page] == number)
        network = hosting._Network.build(
            requests, members, requests.step_of_request(), held, 1_000_000,
            np.rint(requests.visits * 350_000).astype(np.int64), together=together,
        )  # fmt: skip
        flow = min_cost_flow.SimpleMinCostFlow()
        flow.add_arcs_with_capacity_and_unit_cost(network.tails, network.heads, network.room, network.costs)
        flow.set_nodes_supplies(np.array([0, network.steps]), np.array([network.held, -network.held]))
        assert flow.solve() == flow.OPTIMAL
        costs.append(int(network.without.sum()) + flow.optimal_cost())
    assert mix.cost == pytest.approx(sum(costs) / 1e6)
    assert mix.proven
    assert mix.hosted.any()
    assert mix.fetched.any()


def test_a_mix_cut_short_is_a_schedule_with_a_bound_below_it():
    requests = random_requests(3, tokens=80, layers=2, experts=12, k=2)
    group = groups_of(requests, False)
    slots = np.array([6, 6])
    whole = best_mix(requests, group, slots, 1.0, 0.4, together=True)
    told = []
    short = best_mix(
        requests, group, slots, 1.0, 0.4, together=True, work=2, progress=lambda what, share: told.append(share)
    )
    assert not short.proven
    assert short.lower_bound <= whole.cost < short.cost
    plan = schedule_events(requests, group, slots, short.fetched, short.hosted, 0, together=True)
    check_schedule(requests, group, slots, plan.events, together=True)
    assert told == [0.0, 0.5]


def test_any_prices_of_nodes_are_sound():
    requests = random_requests(4, tokens=30, layers=1, experts=8, k=2)
    host = np.rint(requests.visits * 400_000).astype(np.int64)
    network = hosting._Network.build(
        requests, np.arange(len(requests.page)), requests.step_of_request(), 4, 1_000_000, host, together=True
    )
    fetched, hosted = np.zeros((2, len(requests.page)), dtype=bool)
    cost = network.solve(10**9, fetched, hosted)[0] - int(network.without.sum())
    random = np.random.default_rng(0)
    for scale in (1, 1000, 1_000_000, 10_000_000):
        price = random.integers(-scale, scale, network.steps + 1 + 2 * len(network.members))
        arcs = network.tails, network.heads, network.room, network.costs
        assert proven_cost(*arcs, (0, network.steps), network.held, price) <= cost


@pytest.mark.parametrize("depth", [0, 1, 3])
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_optimal_schedules_replay(seed, together, depth):
    requests = random_requests(seed, tokens=30, layers=3, experts=8, k=2, batch=1 + seed % 3)
    for shared in (True, False):
        group = groups_of(requests, shared)
        slots = np.full(int(group.max()) + 1, requests.widest_step(group)[0] + seed % 4 + 1)
        best = best_schedule(requests, group, slots, together=together)
        assert best.proven
        nobody = np.zeros(len(best.kept), dtype=bool)
        plan = schedule_events(requests, group, slots, ~best.kept, nobody, depth, together=together)
        count = check_schedule(requests, group, slots, plan.events, together=together)
        assert count.fetches + count.prefetches == best.fetches
        assert (count.prefetches > 0) == bool((plan.issue_step < requests.step_of_request()).any())
        assert depth or not count.prefetches


def plain_policy(requests: Requests, group, slots: int, policy: str) -> int:
    """Count fetches of LRU, LFU or Belady with plain dictionaries, all pages of a step at once."""
    steps = [requests.page[requests.start[i] : requests.start[i + 1]].tolist() for i in range(requests.steps)]
    caches: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(int(group.max()) + 1)]
    uses: dict[int, int] = {}
    last: dict[int, int] = {}
    fetches = 0
    for step, needed in enumerate(steps):
        for p in needed:
            uses[p] = uses.get(p, 0) + 1
        for p in needed:
            held = caches[group[p]]
            if p not in held:
                fetches += 1
                if len(held) >= slots:
                    free = [q for q in held if q not in needed]
                    if policy == "belady":
                        ahead = {q: next((i for i in range(step, len(steps)) if q in steps[i]), 10**9) for q in free}
                        victim = max(free, key=lambda q: ahead[q])
                    elif policy == "lru":
                        victim = min(free, key=lambda q: (last[q], q))
                    else:
                        victim = min(free, key=lambda q: (uses[q], last[q], q))
                    del held[victim]
                held[p] = None
            last[p] = step
    return fetches


@pytest.mark.parametrize("seed", range(8))
def test_policies_agree_with_plain_twins(seed):
    requests = random_requests(seed, tokens=80, layers=2, experts=8, k=1)
    group = groups_of(requests, seed % 2 == 0)
    options = CacheOptions(slots=3, shared=seed % 2 == 0, policies=("belady", "lfu", "lru"))
    report = plan_cache(requests, options)
    for result in report.results:
        assert result.fetches == plain_policy(requests, group, 3, result.policy)
    assert report.results[0].fetches == report.lower_bound_fetches


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("host_s", [None, 0.2])
def test_no_policy_is_below_the_bound(together, prefetch, host_s):
    for seed in range(4):
        requests = random_requests(seed, tokens=120, layers=3, experts=8, k=2, batch=1 + seed % 2)
        options = CacheOptions(
            slots=5, together=together, prefetch=prefetch, step_s=0.5, host_s=host_s, expert_bytes=10
        )
        report = plan_cache(requests, options, learnt_from=random_requests(seed + 100, tokens=90, layers=3, experts=8))
        assert report.proven
        assert [result.policy for result in report.results] == list(POLICIES)
        best = report.results[0]
        for result in report.results:
            assert result.hits + result.fetches + result.hosted == result.requests or prefetch
            assert result.moved_bytes == 10 * (result.fetches + result.prefetches)
            if host_s is None:
                assert result.fetches + result.prefetches >= report.lower_bound_fetches
                assert best.stalled_s <= result.stalled_s + 1e-9 or result.prefetches
            assert result.total_s >= requests.steps * 0.5


def test_affinity_counts_what_follows():
    requests = random_requests(4, tokens=40, layers=3, experts=5, k=2)
    pages = [requests.page[requests.start[i] : requests.start[i + 1]] for i in range(requests.steps)]
    for distance, share in zip((1, 3), learn_affinity(requests, (1, 3)), strict=True):
        for layer, e, f in product(range(3), range(5), range(5)):
            steps = [i for i in range(layer, requests.steps - distance, 3) if layer * 5 + e in pages[i]]
            followed = sum((layer + distance) % 3 * 5 + f in pages[i + distance] for i in steps)
            assert share[layer, e, f] == pytest.approx(followed / len(steps) if steps else 0.0)


@pytest.mark.parametrize(("followed", "of"), [(426, 439), (165, 169), (3974, 3993)])
def test_evidence_is_of_shares_in_double_precision(followed: int, of: int):
    """Shares near 1, of which single precision leaves an evidence that is one off."""
    ids = np.zeros((of, 2), dtype=np.int64)
    ids[followed:, 1] = 1
    found = learn_evidence(requests_of(ids, 2), 1)[0, 0, 0]
    for expert, share in enumerate((Fraction(followed, of), Fraction(of - followed, of))):
        # Rounded without logarithms: 2 ** (bits / 1024) is within half a step of 1 / (1 - share).
        bits, absent = int(found[expert]), 1 - share
        assert 2.0 ** ((bits - 0.5) / 1024) < 1 / absent < 2.0 ** ((bits + 0.5) / 1024)


def test_affinity_learns_what_follows():
    """Experts come in a fixed cycle of six: with five slots LRU never meets one, who knows the cycle nearly always."""
    ids = np.tile(np.arange(6), 60)[:, None]
    requests = requests_of(ids, 6)
    report = plan_cache(requests, CacheOptions(slots=5, policies=("optimum", "affinity", "lru")))
    by_name = {result.policy: result for result in report.results}
    assert by_name["lru"].hits == 0
    assert by_name["affinity"].hits > 0.7 * by_name["optimum"].hits


def test_prefetch_hides_a_cycle_that_is_known():
    ids = np.tile(np.arange(4), 50)[:, None]
    requests = requests_of(ids, 4)
    on_demand = plan_cache(requests, CacheOptions(slots=2, policies=("lru",), step_s=1.0)).results[0]
    ahead = plan_cache(requests, CacheOptions(slots=2, policies=("lru",), step_s=1.0, prefetch=1)).results[0]
    assert on_demand.stalled_s == pytest.approx(200.0)
    assert ahead.stalled_s < 10.0


@pytest.mark.parametrize("devices", [1, 2, 3])
def test_devices_have_slots_of_their_own(devices):
    requests = random_requests(5, tokens=60, layers=2, experts=6, k=1)
    home = np.arange(12).reshape(2, 6) % devices
    report = plan_cache(requests, CacheOptions(slots=2, policies=("optimum", "lru")), device=home)
    assert report.groups == 2 * devices
    alone = 0
    for layer, device in product(range(2), range(devices)):
        group = np.where((np.arange(12) // 6 == layer) & (home.reshape(-1) == device), 0, 1)
        members = np.flatnonzero(group[requests.page] == 0)
        if len(members):
            found = intervals_of(requests, requests.step_of_request(), members, 2, together=True)
            alone += len(members) - proven_kept(found, np.zeros(len(found.capacity), dtype=np.int64))
    assert report.lower_bound_fetches >= alone


def test_any_prices_are_sound():
    rng = np.random.default_rng(0)
    for seed in range(30):
        requests = random_requests(seed, tokens=12, layers=1, experts=5, k=1)
        members = np.arange(len(requests.page))
        found = intervals_of(requests, requests.step_of_request(), members, 2, together=True)
        best = best_schedule(requests, np.zeros(5, dtype=np.int64), np.array([2]), together=True)
        for _ in range(20):
            price = rng.integers(0, 3, len(found.capacity))
            assert proven_kept(found, price) >= int(best.kept.sum())


def test_requests_count_batches_visits_and_absent_experts():
    ids = np.array([[[0, 1], [2, -1]], [[1, 2], [-1, -1]], [[3, 0], [1, 1]]])
    requests = requests_of(ids, 4, batch=2)
    assert requests.steps == 4
    assert requests.start.tolist() == [0, 3, 4, 6, 7]
    assert requests.page.tolist() == [0, 1, 2, 4 + 2, 0, 3, 4 + 1]
    assert requests.visits.tolist() == [1, 2, 1, 1, 1, 1, 2]
    assert read_requests([ids[:1], ids[1:]], batch=2).page.tolist() == requests.page.tolist()
    assert requests.batches(1, 2).page.tolist() == [0, 3, 5]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"slots": 1}, "needs 2 experts at once; give 2 slots or more"),
        ({"slots": 0}, "at least 1"),
        ({"slots": 4, "policies": ("mru",)}, "choose from optimum"),
        ({"slots": 4, "policies": ()}, "no policy; choose from optimum"),
        ({"slots": 4, "prefetch": -1}, "prefetch: -1 is negative"),
        ({"slots": 4, "prefetch": 10**9}, "at most one batch ahead"),
        ({"slots": 4, "fetch_s": float("nan")}, "fetch_s"),
        ({"slots": 4, "host_s": -1.0}, "host_s must be at least 0"),
        ({"slots": 10**30}, "larger than is counted"),
        ({"slots": 4, "prefetch": 10**30}, "larger than is counted"),
        ({"slots": 4, "expert_bytes": 10**30}, "larger than is counted"),
    ],
)
def test_bad_options_are_refused(options, says):
    with pytest.raises(InputError, match=says):
        plan_cache(random_requests(0), CacheOptions(**options))


@pytest.mark.parametrize("ids", [np.zeros((0, 3), int), np.zeros((3, 2)), np.zeros(4, int), np.full((2, 2), 9)])
def test_bad_traces_are_refused(ids):
    with pytest.raises(InputError):
        requests_of(ids, 4)


def test_batches_and_experts_beyond_all_numbers_are_refused():
    ids = np.array([[0, 1], [1, 0]])
    with pytest.raises(InputError, match="batch is an integer of"):
        requests_of(ids, 2, 10**30)
    with pytest.raises(InputError, match="experts is an integer of"):
        requests_of(ids, 10**30)
    assert requests_of(ids, 2, 10**9).batch_count == 1


@pytest.mark.parametrize(
    ("device", "says"),
    [
        (np.full((2, 3), -1), "names device -1"),
        (np.full((2, 3), 0.5), "whole numbers"),
        (np.zeros((3, 3), int), r"is for \(3, 3\)"),
    ],
)
def test_devices_that_are_none_are_refused(device, says):
    requests = requests_of(np.array([[0, 1], [1, 2]]), 3)
    with pytest.raises(InputError, match=says):
        plan_cache(requests, CacheOptions(slots=2), device=device)
    numbered = plan_cache(requests, CacheOptions(slots=2), device=np.array([[0, 10**12, 7]] * 2))
    assert numbered.groups == 6


def test_tables_of_affinity_that_cannot_be_held_are_refused():
    with pytest.raises(InputError, match="possible"):
        plan_cache(requests_of(np.array([[0, 1], [1, 0]]), 10**9), CacheOptions(slots=2))
    with pytest.raises(InputError, match="requests"):
        plan_cache(None, CacheOptions(slots=2))


def test_one_slot_suffices_one_by_one():
    requests = random_requests(1)
    report = plan_cache(requests, CacheOptions(slots=1, together=False))
    assert {result.hits for result in report.results} == {0}
    assert report.lower_bound_fetches == len(requests.page)


def test_a_host_does_not_compute_forever_what_a_fetch_would_end():
    """Rent or buy: an expert goes on on the host until that would have taken as long as a fetch."""
    ids = np.zeros((60, 1, 1), dtype=np.int64)
    ids[30:, 0, 0] = np.arange(30) % 3 + 1
    requests = requests_of(ids, 4, 1)
    options = CacheOptions(slots=2, host_s=0.3, fetch_s=1.0, policies=("lru", "belady"))
    for result in plan_cache(requests, options).results:
        # Three visits of 0.3 s on the host, then a fetch and hits; the others take turns in the slots.
        assert result.hosted <= 3 + 3 * 30 / 4 + 3
        assert result.fetches >= 4
        assert result.hits >= 26
        assert result.total_s < 0.3 * 60
    assert plan_cache(requests_of(ids[:3], 4, 1), options).results[0].fetches == 0
