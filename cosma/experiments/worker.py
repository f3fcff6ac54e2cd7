"""The process that runs cells: reads one a line, answers one a line, and ends when nobody is left to ask.

Started as ``python -m cosma.experiments.worker MODULE:FUNCTION`` by :class:`~cosma.experiments.isolated.Isolated`.
"""

from __future__ import annotations

import faulthandler
import os
import queue
import sys
import threading
from importlib import import_module
from typing import TYPE_CHECKING

import msgspec

from cosma.experiments.cell import Cell
from cosma.experiments.run_cell import Outcome, failure
from cosma.process import limit_memory

if TYPE_CHECKING:
    from collections.abc import Callable

#: What a worker says once it is ready for cells.
READY = b"ready\n"


def main(runner: str) -> None:
    """Serve cells until standard input ends.

    Parameters
    ----------
    runner
        ``MODULE:FUNCTION``, a function of a :class:`Cell` that returns an :class:`Outcome`.
    """
    faulthandler.enable()
    answers = os.dup(1)
    # Solvers print; what they print must not end up among the answers.
    os.dup2(2, 1)
    module, _, name = runner.partition(":")
    function: Callable[[Cell], Outcome] = getattr(import_module(module), name)
    cells: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_cells, args=(cells,), daemon=True).start()
    _write(answers, READY)
    while True:
        cell = msgspec.json.decode(cells.get(), type=Cell)
        outcome, sound = _answer(function, cell)
        _write(answers, msgspec.json.encode(outcome) + b"\n")
        if not sound:
            # Memory ran out somewhere: a fresh process is safer than this one.
            return


def _read_cells(cells: queue.SimpleQueue[bytes]) -> None:
    for line in sys.stdin.buffer:
        cells.put(line)
    # Whoever started this process is gone, and with it the use of the cell in hand.
    os._exit(0)


def _answer(function: Callable[[Cell], Outcome], cell: Cell) -> tuple[Outcome, bool]:
    limit_memory(cell.memory_bytes)
    try:
        return function(cell), True
    except MemoryError:
        limit_memory(None)
        limit = cell.memory_bytes / 2**20
        return Outcome(failure(cell, "memory", f"more than the limit of {limit:.0f} MiB of address space")), False
    except Exception as error:
        # A defect must not end a sweep of thousands of cells: it is this cell's result, and the log has the rest.
        import traceback

        traceback.print_exc()
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(place.filename)}:{place.lineno}"
        return Outcome(failure(cell, "error", f"defect: {type(error).__name__}: {error} ({where})")), True


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


if __name__ == "__main__":
    main(sys.argv[1])
