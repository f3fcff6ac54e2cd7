"""Cells on a Dask cluster: scheduler and workers are Dask's, each cell still runs in a process of its own."""

from __future__ import annotations

import atexit
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec

from cosma.errors import InputError, SolverUnavailableError
from cosma.experiments.cell import Cell
from cosma.experiments.isolated import RUNNER, Isolated
from cosma.experiments.run_cell import Outcome, failure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Seconds within which a scheduler must answer.
CONNECT_LIMIT_S = 30.0
_held = threading.local()


#: Where everything of a cluster on this machine listens: on the loopback interface alone.
LOOPBACK = "127.0.0.1"


def local_cluster(jobs: int) -> Any:
    """Start a scheduler and ``jobs`` workers on this machine, none of which can be reached from another."""
    distributed: Any = import_module("distributed")
    # Workers have HTTP servers of their own, which by default listen on every interface.
    return distributed.LocalCluster(
        n_workers=jobs,
        threads_per_worker=1,
        processes=True,
        host=LOOPBACK,
        dashboard_address=f"{LOOPBACK}:0",
        worker_dashboard_address=f"{LOOPBACK}:0",
    )


def run_dask(
    cells: Sequence[Cell], address: str, jobs: int, runner: str = RUNNER
) -> Iterator[tuple[Cell, Outcome]]:
    """Run cells on a Dask cluster and yield each as it finishes.

    ``address`` is a scheduler's (``tcp://host:port``), or ``local`` for a cluster of ``jobs`` processes on this
    machine; ``runner`` is the ``MODULE:FUNCTION`` that runs a cell. A worker that is lost is Dask's business: its cells
    go to others, and results that had arrived stay. cosma and the model files (same paths) must be there for every
    worker. Raises SolverUnavailableError if Dask is not installed. Raises InputError if the scheduler does not answer.
    """
    try:
        distributed: Any = import_module("distributed")
    except ImportError as error:
        raise SolverUnavailableError("running on a cluster needs Dask: pip install 'cosma[batch]'") from error
    cluster: Any = None
    if address == "local":
        cluster = local_cluster(jobs)
    try:
        client = distributed.Client(cluster or address, timeout=CONNECT_LIMIT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(f"Dask scheduler {address!r}: no scheduler answers there: {error}") from error
    try:
        futures = {
            client.submit(_run_remote, msgspec.json.encode(cell), runner, key=f"cell-{cell.point()}", pure=False): cell
            for cell in cells
        }
        for future in distributed.as_completed(list(futures), loop=client.loop):
            cell = futures.pop(future)
            defect = future.exception()
            if defect is None:
                yield cell, msgspec.json.decode(future.result(), type=Outcome)
            else:
                reason = f"its Dask worker failed: {type(defect).__name__}: {defect}"
                yield cell, Outcome(failure(cell, "crashed", reason))
            # Results kept nowhere but here would fill the cluster's memory.
            future.release()
    finally:
        client.close()
        if cluster is not None:
            cluster.close()


def _run_remote(cell: bytes, runner: str) -> bytes:
    """Run a cell in this thread's own process, which is kept for the next one."""
    worker = getattr(_held, "worker", None)
    if worker is None or worker.runner != runner:
        if worker is not None:
            worker.close()
        worker = _held.worker = Isolated(runner)
        atexit.register(worker.close)
    return msgspec.json.encode(worker.run(msgspec.json.decode(cell, type=Cell)))
