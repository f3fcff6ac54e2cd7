"""Experts that do not all fit: which ones a device holds, when it fetches others, and what that costs.

Names are imported on first use, so that ``import cosma.caching`` pulls in neither numba nor a solver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.lazy import NamesFrom

if TYPE_CHECKING:
    from cosma.caching.check import ScheduleCount, check_schedule
    from cosma.caching.optimum import Optimum, best_schedule
    from cosma.caching.requests import Requests, read_requests
    from cosma.caching.results import CacheReport, PolicyResult
    from cosma.caching.service import CacheOptions, plan_cache

__all__ = [
    "CacheOptions",
    "CacheReport",
    "Optimum",
    "PolicyResult",
    "Requests",
    "ScheduleCount",
    "best_schedule",
    "check_schedule",
    "plan_cache",
    "read_requests",
]

__getattr__ = NamesFrom(__name__, {
    "results": "CacheReport PolicyResult",
    "service": "CacheOptions plan_cache",
    "optimum": "Optimum best_schedule",
    "requests": "Requests read_requests",
    "check": "ScheduleCount check_schedule",
})  # fmt: skip
