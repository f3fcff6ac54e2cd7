"""Runs fuzz cases in worker processes with a memory limit and a clock, and says how each ended.

A case is a kind and a seed: the same seed makes the same input, so whatever is found can be made again with
``python -m tests.fuzz KIND --seed N``.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import monotonic

from cosma.errors import CosmaError

MEMORY_BYTES = 2 * 2**30
SECONDS = 10.0

#: Makes the input of a seed, hands it to cosma, and says in a word how it ended.
Case = Callable[[int], str]


class WrongError(Exception):
    """Something wrong was accepted."""


@dataclass(slots=True)
class Outcome:
    """What a run of many cases found.

    Attributes
    ----------
    counts
        How many cases ended in each way.
    findings
        Seed and description of every case that must not be: another exception, a hang, a wrong result.
    """

    counts: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[int, str]] = field(default_factory=list)


def handle(case: Case, seed: int) -> tuple[bool, str]:
    """Run one case here; return whether it ended well and how."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return True, case(seed)
    except CosmaError as error:
        message = str(error)
        if not message or len(message) > 20_000:
            return False, f"a message of {len(message)} characters"
        return True, f"refused: {type(error).__name__}"
    except WrongError as error:
        return False, f"WRONG: {error}"
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        where = next((f for f in reversed(frames) if f"{os.sep}cosma{os.sep}" in f.filename), frames[-1])
        return False, f"{type(error).__name__}: {str(error)[:200]} at {where.filename}:{where.lineno}"


def _data_bytes() -> int:
    """Private writable memory of this process."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmData:"):
            return 1024 * int(line.split()[1])
    return 0


def _work(case: Case, pipe: Connection) -> None:
    # What the process was forked from may hold much already: the limit is for what a case adds.
    most = _data_bytes() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)
    while True:
        seed = pipe.recv()
        if seed is None:
            return
        pipe.send(handle(case, seed))


class _Worker:
    def __init__(self, case: Case) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(case, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.seed: int | None = None
        self.since = 0.0

    def give(self, seed: int) -> None:
        self.seed, self.since = seed, monotonic()
        self.pipe.send(seed)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def run_cases(case: Case, seeds: Iterable[int], jobs: int = 1) -> Outcome:
    """Run a case for every seed; a worker that hangs or dies is ended, noted and replaced."""
    outcome = Outcome()
    waiting = list(seeds)[::-1]
    workers = [_Worker(case) for _ in range(jobs)]
    try:
        while waiting or any(worker.seed is not None for worker in workers):
            for worker in workers:
                if worker.seed is None and waiting:
                    worker.give(waiting.pop())
            wait([worker.pipe for worker in workers if worker.seed is not None], timeout=0.5)
            for i, worker in enumerate(workers):
                if worker.seed is None:
                    continue
                if worker.pipe.poll():
                    try:
                        fine, how = worker.pipe.recv()
                    except EOFError:
                        worker.process.join(1)
                        fine, how = False, f"the process died, exit code {worker.process.exitcode}"
                elif monotonic() - worker.since > SECONDS:
                    fine, how = False, f"hangs: more than {SECONDS:g} s"
                else:
                    continue
                outcome.counts[how if fine else "FOUND"] += 1
                if not fine:
                    outcome.findings.append((worker.seed, how))
                worker.seed = None
                if not fine:
                    worker.end()
                    workers[i] = _Worker(case)
    finally:
        for worker in workers:
            worker.end()
    outcome.findings.sort()
    return outcome
