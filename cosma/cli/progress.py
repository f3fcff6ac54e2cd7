"""What a terminal shows while a command works: one line that is overwritten, and a note on kernels."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

from cosma.cli import interrupts
from cosma.lazy import not_once_imported, once_imported
from cosma.terminal import StatusLine

if TYPE_CHECKING:
    from types import TracebackType

    from cosma.compiler import Progress

#: Seconds between two ticks of the line.
TICK_S = 0.5
#: What is said once when the first kernel is compiled.
COMPILING = "compiling kernels, which later runs keep; up to a minute"
#: What is said between Ctrl-C and the end.
STOPPING = "interrupted, finishing the best plan so far (Ctrl-C gives up)"


class ProgressLine:
    """One line on a terminal's stderr that is overwritten as a compile goes on; nothing elsewhere.

    Parameters
    ----------
    quiet
        Whether to show nothing at all, not even the note on kernels.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        #: How long it is likely to take where no proof ends it sooner; 0 where nobody knows.
        self.expected_s = 0.0
        self._line = StatusLine(wanted=not quiet)
        self._last: Progress | None = None
        self._began_s = 0.0
        self._compiling = self._told = False
        self._over = threading.Event()
        self._ticker: threading.Thread | None = None
        self._listener: Any = None

    def __enter__(self) -> ProgressLine:
        if not self._quiet:
            # numba takes long to import, and not every compile needs it.
            once_imported("cosma.compiled", self._listen)
        if self._line.shown:
            import time

            self._began_s = time.monotonic()
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._ticker is not None:
            self._ticker.join()
        not_once_imported("cosma.compiled", self._listen)
        if self._listener is not None:
            _events().unregister("numba:compile", self._listener)
        self._line.write()

    def __call__(self, progress: Progress) -> None:
        """Take note of where the compile stands."""
        if self._line.shown:
            self._last = progress
            self._draw()

    def _listen(self) -> None:
        """Hear of kernels that are compiled, not of those read from the cache."""

        def starts(_: Any, event: Any) -> None:
            self._compile(True)

        def ends(_: Any, event: Any) -> None:
            self._compile(False)

        events = _events()
        self._listener = type("Listener", (events.Listener,), {"on_start": starts, "on_end": ends})()
        events.register("numba:compile", self._listener)

    def _compile(self, begins: bool) -> None:
        self._compiling = begins
        if begins and not self._told:
            self._told = True
            if not self._line.shown:
                sys.stderr.write(COMPILING + "\n")
        if self._line.shown:
            self._draw()

    def _tick(self) -> None:
        while not self._over.wait(TICK_S):
            self._draw()

    def _draw(self) -> None:
        import time

        seconds = time.monotonic() - self._began_s
        if self._last is None:
            # The first tiling of a large network may take ten seconds, and a reader wants a sign of life.
            text = f"{seconds:5.1f} s, {COMPILING if self._compiling else 'reading and preparing'}"
        else:
            text = progress_text(self._last, seconds, self.expected_s, compiling=self._compiling)
        if interrupts.received():
            text = f"{STOPPING}: {text.lstrip()}"
        self._line.write(text)


def _events() -> Any:
    from importlib import import_module

    return import_module("numba.core.event")


def progress_text(progress: Progress, seconds: float, expected_s: float = 0.0, *, compiling: bool = False) -> str:
    """Where a compile stands, in one line.

    Parameters
    ----------
    seconds
        Since the compile began.
    expected_s
        How long it is likely to take.
    compiling
        Whether kernels are being compiled just now.
    """
    from cosma.cli.output import share
    from cosma.units import format_size

    achieved, bound = progress.noncompulsory_bytes, progress.bound_bytes
    doing = f"{progress.phase}, compiling kernels once" if compiling else progress.phase
    gap = share(achieved - bound, achieved) if achieved else "0.0 %"
    likely = f" of about {expected_s:.0f}" if expected_s >= 1 else ""
    return (
        f"{seconds:5.1f} s{likely}, effort {progress.spent:.1f} of {progress.effort:g}, {doing}: "
        f"non-compulsory {format_size(achieved)}, bound {format_size(bound)}, gap {gap}"
    )
