"""What a cache report says: slots that suffice, and what policies are compared by."""

from __future__ import annotations

import numpy as np
import pytest

from cosma.caching import CacheOptions, plan_cache
from tests.caching.test_caching import random_requests


def test_where_all_experts_fit_none_pass_through_one_by_one():
    """Slots for all of a layer: each expert is fetched once, one by one as well as together."""
    requests = random_requests(3, tokens=40, layers=2, experts=5)
    used = len(np.unique(requests.page))
    for shared, slots in ((False, 5), (True, 10), (False, 99)):
        for together in (True, False):
            report = plan_cache(requests, CacheOptions(slots=slots, together=together, shared=shared))
            assert report.proven
            assert {result.fetches for result in report.results} == {used}
    # One slot less, and one is set aside for what has none.
    report = plan_cache(requests, CacheOptions(slots=4, together=False))
    assert min(result.fetches for result in report.results) == report.lower_bound_fetches > used


def test_with_a_host_policies_are_compared_by_seconds():
    requests = random_requests(8, tokens=30, layers=2, experts=6)
    options = CacheOptions(slots=3, host_s=0.3, fetch_s=1.0, policies=("optimum", "lru", "belady"))
    report = plan_cache(requests, options)
    above = {result.policy: result.above_optimum for result in report.results}
    assert report.mix_proven
    assert above["optimum"] == pytest.approx(0.0)
    assert min(above.values()) == above["optimum"] < max(above.values())
    lru = next(result for result in report.results if result.policy == "lru")
    assert above["lru"] == pytest.approx((lru.fetches + 0.3 * lru.hosted) / report.least_mix_s - 1)
    unknown = plan_cache(requests, CacheOptions(slots=3, host_s=0.3, fetch_s=1.0, policies=("lru",)))
    assert unknown.results[0].above_optimum is None


@pytest.mark.parametrize("together", [True, False])
def test_a_host_is_paid_for_every_visit_of_a_batch(together):
    """One request of a batch stands for several tokens; no policy takes less than the least, none of it is rounding."""
    for seed in range(4):
        requests = random_requests(seed, tokens=40, layers=2, experts=6, batch=3)
        options = CacheOptions(slots=6 if together else 4, together=together, host_s=0.28, fetch_s=0.7)
        report = plan_cache(requests, options)
        assert report.mix_proven
        above = {result.policy: result.above_optimum for result in report.results}
        assert 0.0 <= above.pop("optimum") < 1e-5
        assert min(above.values()) >= 0.0
        assert any(result.hosted for result in report.results)


@pytest.mark.parametrize("host_s", [2.5, 1e9, 1e300])
def test_a_host_that_takes_longer_than_any_fetch_is_not_used(host_s):
    requests = random_requests(2, tokens=30, layers=2, experts=6)
    with_host = plan_cache(requests, CacheOptions(slots=3, host_s=host_s, policies=("optimum",)))
    assert with_host.mix_proven
    assert with_host.results[0].hosted == 0
    assert with_host.results[0].fetches == with_host.lower_bound_fetches == round(with_host.least_mix_s)


@pytest.mark.parametrize("fetch_s", [0.0, 1e-320])
def test_links_that_take_no_time_leave_nothing_to_save(fetch_s):
    requests = random_requests(2, tokens=10, layers=2, experts=6)
    report = plan_cache(requests, CacheOptions(slots=3, host_s=0.1, fetch_s=fetch_s, policies=("optimum", "lru")))
    assert [result.above_optimum for result in report.results] == [0.0, 0.0]


def test_an_interrupt_leaves_the_policies_that_have_run() -> None:
    requests = random_requests(3, tokens=40, layers=2, experts=6)
    options = CacheOptions(slots=3, policies=("lru", "lfu", "frequency"))
    whole = plan_cache(requests, options)
    polls = iter([False, True, True])
    part = plan_cache(requests, options, interrupted=lambda: next(polls))
    assert part.results == whole.results[:1]
    assert part.lower_bound_fetches == whole.lower_bound_fetches
    with pytest.raises(KeyboardInterrupt):
        plan_cache(requests, options, interrupted=lambda: True)
