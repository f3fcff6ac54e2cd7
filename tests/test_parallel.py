"""Work on several threads: what it gives does not depend on how many, and failures are not lost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from cosma import parallel
from cosma.parallel import beside, run_all

if TYPE_CHECKING:
    from threading import Event


@pytest.mark.parametrize("cores", [1, 2, 8])
def test_all_jobs_run_once(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "core_count", lambda: cores)
    done: list[int] = []
    run_all([lambda i=i: done.append(i) for i in range(10)])  # type: ignore[misc]
    assert sorted(done) == list(range(10))


def test_a_job_that_fails_is_not_lost() -> None:
    def fail() -> None:
        raise ValueError("job")

    with pytest.raises(ValueError, match="job"):
        run_all([fail, lambda: None])
    body_ran = False
    with pytest.raises(ValueError, match="job"), beside(lambda _: fail()):
        body_ran = True
    assert body_ran


def test_the_body_waits_for_the_job_beside_it() -> None:
    done: list[str] = []

    def job(pointless: Event) -> None:
        while not pointless.is_set():
            time.sleep(0.001)
        done.append("job")

    with beside(job) as pointless:
        done.append("body")
        pointless.set()
    assert done == ["body", "job"]


def test_a_body_that_fails_ends_the_job() -> None:
    ended: list[bool] = []

    def job(pointless: Event) -> None:
        ended.append(pointless.wait(10))

    with pytest.raises(KeyboardInterrupt), beside(job):
        raise KeyboardInterrupt
    assert ended == [True]
