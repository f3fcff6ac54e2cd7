"""Cells on this machine: as many processes as asked for, each kept on one model while it has cells of it."""

from __future__ import annotations

import queue
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence

from cosma.experiments.cell import Cell
from cosma.experiments.isolated import RUNNER, Isolated
from cosma.experiments.run_cell import Outcome

#: Longest wait between two looks for signals, in seconds.
LISTENING_S = 0.5


class Agenda:
    """Cells still to run, handed out so that a model is read by as few processes as possible. Thread-safe."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, deque[Cell]] = OrderedDict()
        self._taken: dict[str, int] = {}
        for cell in cells:
            self._waiting.setdefault(cell.path, deque()).append(cell)

    def next(self, model: str | None) -> Cell | None:
        """Hand out a cell, of the model last worked on where there is one left; None when all are out.

        Failing that, of a model nobody works on; failing that, of the model with most cells left.
        """
        with self._lock:
            path = model if model in self._waiting else self._pick(model)
            if path is None:
                return None
            if path != model:
                self._release(model)
                self._taken[path] = self._taken.get(path, 0) + 1
            cells = self._waiting[path]
            cell = cells.popleft()
            if not cells:
                del self._waiting[path]
            return cell

    def clear(self) -> None:
        """Hand out nothing more."""
        with self._lock:
            self._waiting.clear()

    def _pick(self, model: str | None) -> str | None:
        free = next((path for path in self._waiting if not self._taken.get(path)), None)
        return free or max(self._waiting, key=lambda path: len(self._waiting[path]), default=None)

    def _release(self, model: str | None) -> None:
        if model is not None and model in self._taken:
            self._taken[model] -= 1


def run_local(cells: Sequence[Cell], jobs: int, runner: str = RUNNER) -> Iterator[tuple[Cell, Outcome]]:
    """Run cells in ``jobs`` processes and yield each as it finishes; closing the iterator kills what still runs.

    Raises CosmaError if no process can be started.
    """
    agenda = Agenda(cells)
    finished: queue.SimpleQueue[tuple[Cell, Outcome] | BaseException | None] = queue.SimpleQueue()
    workers = [Isolated(runner) for _ in range(max(1, min(jobs, len(cells))))]

    def serve(worker: Isolated) -> None:
        model: str | None = None
        try:
            while (cell := agenda.next(model)) is not None:
                model = cell.path
                finished.put((cell, worker.run(cell)))
        except BaseException as error:
            # Carried over to the thread that waits.
            finished.put(error)
        finally:
            worker.close()
            finished.put(None)

    threads = [threading.Thread(target=serve, args=(worker,), daemon=True) for worker in workers]
    try:
        for thread in threads:
            thread.start()
        running = len(threads)
        while running:
            try:
                # A signal between the interpreter's last look for one and the wait itself does not end the wait, so
                # it must end by itself for Ctrl-C to be heard.
                item = finished.get(timeout=LISTENING_S)
            except queue.Empty:
                continue
            if item is None:
                running -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        agenda.clear()
        for worker, thread in zip(workers, threads, strict=True):
            # Again and again, in case a worker was about to start another process.
            while thread.is_alive():
                worker.kill()
                thread.join(0.2)
