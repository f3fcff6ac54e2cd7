"""A process of its own for cells: reused while it lives, killed when its time is up, replaced when it dies."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
import time
from typing import IO

import msgspec

from cosma.errors import CosmaError
from cosma.experiments.cell import Cell
from cosma.experiments.run_cell import Outcome, failure
from cosma.experiments.worker import READY
from cosma.process import end, start_python

#: The function that runs a cell unless told otherwise.
RUNNER = "cosma.experiments.run_cell:run_cell"
#: Seconds within which an interpreter must have started.
START_LIMIT_S = 120.0
#: One thread each: as many cells run at once as there are processors.
_SINGLE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


class Isolated:
    """Runs cells one at a time in a child process; usable as a context manager.

    Not safe for use by two threads at once.

    Parameters
    ----------
    runner
        ``MODULE:FUNCTION`` that the child calls with each cell.
    """

    def __init__(self, runner: str = RUNNER) -> None:
        self.runner = runner
        self._child: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._unread = b""
        self._stopped = False

    @property
    def pid(self) -> int | None:
        """Process id of the child, if there is one."""
        return None if self._child is None else self._child.pid

    def run(self, cell: Cell) -> Outcome:
        """Run a cell; a child that dies or overruns becomes a row with the reason, never an exception.

        Raises CosmaError if no child can be started at all.
        """
        if self._child is None:
            self._start()
        started = time.monotonic()
        answer: bytes | None = None
        try:
            self._send(msgspec.json.encode(cell) + b"\n")
            answer = self._line(cell.limit_s)
        except TimeoutError:
            self.close()
            reason = f"more than the limit of {cell.limit_s:g} seconds"
            return Outcome(failure(cell, "timeout", reason, seconds=round(time.monotonic() - started, 4)))
        except BrokenPipeError:
            # The child died between two cells; what it left behind says why.
            answer = b""
        if not answer:
            seconds = round(time.monotonic() - started, 4)
            status, reason = self._post_mortem(cell)
            return Outcome(failure(cell, status, reason, seconds=seconds))
        outcome = msgspec.json.decode(answer, type=Outcome)
        if outcome.row.status == "memory":
            self.close()
        return outcome

    def kill(self) -> None:
        """End the child, now and for good, from any thread; the cell in hand becomes a row that says so."""
        self._stopped = True
        child = self._child
        if child is not None:
            end(child)

    def close(self) -> None:
        """End the child at once; the next cell starts another."""
        if self._child is not None:
            end(self._child)
            self._child.wait()
            for stream in (self._child.stdin, self._child.stdout):
                if stream is not None:
                    stream.close()
            self._child = None
        if self._log is not None:
            self._log.close()
            self._log = None
        self._unread = b""

    def __enter__(self) -> Isolated:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        # Without a name, so that nothing is left of it however this process ends.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the child
        self._child = start_python(
            ["-m", "cosma.experiments.worker", self.runner], errors=self._log, environment=_SINGLE
        )
        if self._stopped:
            end(self._child)
        try:
            ready = self._line(START_LIMIT_S)
        except TimeoutError:
            ready = b""
        if ready != READY:
            log = self._tail()
            self.close()
            raise CosmaError(f"cannot start a process for cells: {log or 'it ended without a word'}")

    def _send(self, data: bytes) -> None:
        assert self._child is not None
        assert self._child.stdin is not None
        self._child.stdin.write(data)
        self._child.stdin.flush()

    def _line(self, limit_s: float) -> bytes:
        """Read up to and including a newline; empty where the child ended first. Raises TimeoutError."""
        assert self._child is not None
        assert self._child.stdout is not None
        handle = self._child.stdout.fileno()
        parts = [self._unread]
        deadline = time.monotonic() + limit_s
        with selectors.DefaultSelector() as selector:
            selector.register(handle, selectors.EVENT_READ)
            while b"\n" not in parts[-1]:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                part = os.read(handle, 1 << 16)
                if not part:
                    self._unread = b""
                    return b""
                parts.append(part)
        line, newline, self._unread = b"".join(parts).partition(b"\n")
        return line + newline

    def _post_mortem(self, cell: Cell) -> tuple[str, str]:
        """Say how the child died, and put it away."""
        assert self._child is not None
        code = self._child.wait()
        log = self._tail()
        self.close()
        if code >= 0:
            how = f"its process ended with exit code {code}"
        else:
            how = f"its process was killed by {_signal_name(-code)}"
        starved = "bad_alloc" in log or "MemoryError" in log or "Cannot allocate memory" in log
        if starved:
            how += f", out of memory under a limit of {cell.memory_bytes / 2**20:.0f} MiB"
        elif code == -signal.SIGKILL:
            how += ", as the system does when memory runs out"
        return ("memory" if starved else "crashed"), how + (f": {log}" if log else "")

    def _tail(self) -> str:
        """Last telling line of what the child wrote on its standard error."""
        if self._log is None:
            return ""
        handle = self._log.fileno()
        written = os.pread(handle, 4096, max(0, os.fstat(handle).st_size - 4096))
        lines = written.decode("utf-8", errors="replace").strip().splitlines()
        telling = [line for line in lines if "bad_alloc" in line or "Error" in line or "Fatal" in line]
        return (telling or lines or [""])[-1].strip()[:300]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
