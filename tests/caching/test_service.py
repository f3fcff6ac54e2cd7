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
