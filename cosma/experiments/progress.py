"""How far a sweep is and how long it may still take."""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, TextIO

from cosma.terminal import StatusLine
from cosma.text import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cosma.experiments.cell import Cell
    from cosma.experiments.row import Row

#: Seconds between two lines where there is no terminal.
LINE_EVERY_S = 10.0
#: Cells after which the number that run at once is measured rather than assumed.
MEASURED_CELLS = 10


class Estimate:
    """Predicts the time left from the cells done: mean seconds of each label, the overall mean for labels unseen.

    How many cells run at once is measured as soon as enough of them have finished, so that a cluster's size, or
    a machine shared with others, shows.

    Parameters
    ----------
    jobs
        Cells that run at once, until measured.
    """

    def __init__(self, waiting: Sequence[Cell], jobs: int) -> None:
        self._waiting = Counter((cell.label, cell.grid) for cell in waiting)
        self._jobs = max(1, jobs)
        self._busy_s, self._finished = 0.0, 0
        self._started_s = time.monotonic()
        self._seconds: defaultdict[tuple[str, str], list[float]] = defaultdict(list)

    def learn(self, rows: Iterable[Row]) -> None:
        """Take earlier rows as experience."""
        for row in rows:
            self._note(row)

    def finish(self, row: Row) -> None:
        """Take note of a cell that has run."""
        self._busy_s += self._note(row)
        self._finished += 1
        self._waiting[row.label, row.grid] -= 1

    def seconds_left(self) -> float | None:
        """Predict wall-clock seconds; None before anything is known."""
        known = {what: sum(values) / len(values) for what, values in self._seconds.items()}
        if not known:
            return None
        overall = sum(known.values()) / len(known)
        at_once = float(self._jobs)
        elapsed_s = time.monotonic() - self._started_s
        if self._finished >= MEASURED_CELLS and self._busy_s > 0 and elapsed_s > 0:
            at_once = self._busy_s / elapsed_s
        return sum(count * known.get(what, overall) for what, count in self._waiting.items()) / at_once

    def _note(self, row: Row) -> float:
        seconds = (row.seconds or 0.0) + (row.load_seconds or 0.0)
        self._seconds[row.label, row.grid].append(seconds)
        return seconds


class ProgressView:
    """Shows progress on standard error: a line that is overwritten on a terminal, a line now and then elsewhere."""

    def __init__(self, total: int, estimate: Estimate, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._total, self._estimate, self._quiet = total, estimate, quiet
        self._line = StatusLine(self._stream)
        self._done = self._failed = 0
        self._started_s = time.monotonic()
        self._shown_s = float("-inf")

    def update(self, row: Row) -> None:
        """Count a finished cell and show where the sweep stands."""
        self._done += 1
        self._failed += not row.planned
        self._estimate.finish(row)
        now = time.monotonic()
        every_s = 0.1 if self._line.shown else LINE_EVERY_S
        if not self._quiet and (now - self._shown_s >= every_s or self._done == self._total):
            self._shown_s = now
            self._show(self.line(row))

    def line(self, row: Row) -> str:
        """Say in one line how far the sweep is."""
        left = self._estimate.seconds_left()
        parts = [
            f"{self._done}/{self._total} cells",
            f"{self._failed} failed",
            f"{clock(time.monotonic() - self._started_s)} gone",
            "" if left is None else f"about {clock(left)} left",
            f"last {row.model} {row.grid} {row.capacity} {row.label}: {row.status}",
        ]
        return ", ".join(part for part in parts if part)

    def close(self) -> None:
        """Leave the terminal on a fresh line."""
        if self._line.width:
            self._stream.write("\n")

    def _show(self, text: str) -> None:
        if self._line.shown:
            self._line.write(text)
        else:
            self._stream.write(plain(text) + "\n")
            self._stream.flush()


def clock(seconds: float) -> str:
    """Write seconds as ``h:mm:ss``."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02d}:{second:02d}"
