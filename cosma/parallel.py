"""Independent work on the cores there are; results do not depend on how many."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING

from cosma.process import core_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: Threads used at most; kernels and solvers release the interpreter lock.
MOST_THREADS = 4


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


@contextmanager
def beside(job: Callable[[Event], object]) -> Iterator[Event]:
    """Run a job on a thread of its own while the body runs, and wait for it; each must touch nothing of the other's.

    The job gets, and the body is given, an event that asks the job to end early; to be polled often. It is set, too,
    when the body raises. What the job raises is raised after the body.
    """
    pointless = Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(job, pointless)
        try:
            yield pointless
        except BaseException:
            pointless.set()
            raise
        future.result()
