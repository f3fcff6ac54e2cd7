"""Running independent kernels on the cores there are; results do not depend on how many."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Threads used at most; kernels release the interpreter lock.
MOST_THREADS = 4


def core_count() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_all(jobs: Sequence[Callable[[], None]]) -> None:
    """Run all jobs and wait for them; each must touch nothing that another one does."""
    threads = min(MOST_THREADS, core_count(), len(jobs))
    if threads <= 1:
        for job in jobs:
            job()
        return
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(job) for job in jobs]:
            future.result()
