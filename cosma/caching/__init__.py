"""Experts that do not all fit: which ones a device holds, when it fetches others, and what that costs.

Names are imported on first use, so that ``import cosma.caching`` pulls in neither numba nor a solver.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cosma.caching.check import ScheduleCount, check_schedule
    from cosma.caching.optimum import Optimum, best_schedule
    from cosma.caching.requests import Requests, read_requests
    from cosma.caching.service import CacheOptions, CacheReport, PolicyResult, plan_cache

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

_HOME = {
    "CacheOptions": "service",
    "CacheReport": "service",
    "Optimum": "optimum",
    "PolicyResult": "service",
    "Requests": "requests",
    "ScheduleCount": "check",
    "best_schedule": "optimum",
    "check_schedule": "check",
    "plan_cache": "service",
    "read_requests": "requests",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
