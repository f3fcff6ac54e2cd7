"""Runs cells as usual, except that models of certain names misbehave. Imported by worker processes under test."""

from __future__ import annotations

import os
import signal
import time

from cosma.errors import InputError
from cosma.experiments.cell import Cell
from cosma.experiments.run_cell import Outcome
from cosma.experiments.run_cell import run_cell as run_properly


def run_cell(cell: Cell) -> Outcome:
    match cell.model.partition("_")[0]:
        case "hang":
            time.sleep(60)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "aborts":
            os.abort()
        case "exits":
            os._exit(7)
        case "greedy":
            _eat(cell.memory_bytes)
        case "defect":
            raise ZeroDivisionError("planted")
        case "refused":
            raise InputError("planted")
        case "chatty":
            print("not an answer", flush=True)
            os.write(1, b"nor this\n")
        case "slow":
            time.sleep(0.05)
    _count(cell)
    return run_properly(cell)


def _eat(size: int) -> None:
    import numpy as np

    # Asked for but never touched: it is the address space that is limited.
    kept = [np.empty(size // 50, dtype=np.uint8) for _ in range(100)]
    assert not kept, "the limit did not hold"


def _count(cell: Cell) -> None:
    """Leave a trace of every run, so that tests can tell what ran and how often."""
    folder = os.environ.get("COSMA_TEST_TRACES")
    if folder:
        with open(os.path.join(folder, cell.point()), "ab") as trace:
            trace.write(b"x")
