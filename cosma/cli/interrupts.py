"""Ctrl-C and SIGTERM: a command keeps what is finished, says that it is partial, and ends as soon as that is written.

The first signal raises :class:`KeyboardInterrupt` in a command, or, where the command has results to keep, asks it to
stop (:class:`Interruption`); while it writes them, it goes on. Python runs handlers between two steps of its own, so
compiled code that takes long would put both off; a thread therefore listens as well, and ends a process that does not
answer, or that a second signal comes for. Files are renamed into place whole, so what is written stays.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, ClassVar

from cosma.errors import plain_interrupts

if TYPE_CHECKING:
    from types import FrameType

#: Seconds a search has to ask whether to stop before it is interrupted, and a search that asked has to finish: the plan
#: of the best tiling so far is still to be laid out and replayed. That took 10 to 22 s for MobileNetV2 at 64 KiB on two
#: busy cores, and networks of 20,000 tiles take longer. Who does not want to wait sends a second signal.
GRACE_S, FINISH_S = 0.7, 280.0
#: Seconds in which further signals are the first one once more: `timeout` sends its signal to the command and to the
#: command's process group, and launchers hand on a Ctrl-C that the terminal has sent to the command as well.
BURST_S = 0.5
#: Seconds until an interrupt that was ignored is raised again; not measured.
AGAIN_S = 0.02
#: Seconds a command without results to keep has to end before its process is ended, and one with such results.
PATIENCE_S, LONG_PATIENCE_S = 1.5, 300.0
#: Exit code of an interrupted command that has no result.
INTERRUPTED = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: Ends a wait of the main thread: of signals that come at once, the system may give all to another thread, and the main
#: thread, which alone runs handlers, would wait on. Where nobody handles it, it does nothing.
_WAKE = signal.SIGURG
#: Taken by whoever ends the process: the handler of a signal, or the thread that watches for one.
_LEAVING = threading.Lock()


class _State:
    """What has come so far; one a process."""

    guarded = False
    #: What may be asked to stop, and whether there has been such: then there are results to write.
    keeping: Interruption | None = None
    keeps = False
    received = 0
    previous: ClassVar[dict[signal.Signals, Any]] = {}
    previous_hook: ClassVar[Any] = None
    pipe: tuple[int, int] | None = None
    ended = threading.Event()


def listen() -> None:
    """Take over both signals; to be called first, before anything that takes time."""
    _State.guarded, _State.received, _State.ended, _State.keeps = False, 0, threading.Event(), False
    if threading.current_thread() is not threading.main_thread():
        return  # only the main thread may
    for number in _SIGNALS:
        # A shell starts what runs in the background with Ctrl-C ignored: it stays so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            _State.previous[number] = signal.signal(number, _handle)
    if _State.previous:
        _State.previous[_WAKE] = signal.signal(_WAKE, lambda number, frame: None)
        _State.previous_hook, sys.unraisablehook = sys.unraisablehook, _raise_again


def started() -> None:
    """Start to listen beside the command, which may be busy in compiled code."""
    if _State.previous:
        _State.pipe = os.pipe()
        os.set_blocking(_State.pipe[1], False)
        signal.set_wakeup_fd(_State.pipe[1], warn_on_full_buffer=False)
        threading.Thread(target=_watch, args=(_State.pipe[0], _State.ended), daemon=True).start()


def guard(guarded: bool) -> None:
    """Say whether an interrupt may be raised: whether there is someone to catch it. If not, it ends the process."""
    _State.guarded = guarded


def received() -> bool:
    """Whether a signal has come since the command began."""
    return _State.received > 0


def finished() -> None:
    """Take note that the command is over; signals do again what they did before."""
    _State.ended.set()
    for number, handler in _State.previous.items():
        signal.signal(number, handler)
    if _State.previous:
        sys.unraisablehook = _State.previous_hook
    _State.previous.clear()
    if _State.pipe is not None:
        signal.set_wakeup_fd(-1)
        os.close(_State.pipe[1])
        _State.pipe = None
    # `python -m` ends by SIGINT, whatever the exit code, if an interrupt came out of the last text that was evaluated.
    eval("None")


class Interruption:
    """Within it, the first signal sets a flag for a search to poll; a search that does not is interrupted soon after.

    A search that does poll it may finish what it has.

    The body must expect :class:`KeyboardInterrupt` and then return the best it has.

    Parameters
    ----------
    grace_s
        Seconds that the search has to stop by itself; none for a body that polls nothing.
    """

    def __init__(self, grace_s: float = GRACE_S) -> None:
        self.grace_s = grace_s
        self._event = threading.Event()
        self._heard = False
        self._previous: object = None

    def happened(self) -> bool:
        """Whether a signal has come; whoever asks has heard of it."""
        if not self._event.is_set():
            return False
        if not self._heard and _State.keeping is self:
            self._heard = True
            signal.setitimer(signal.ITIMER_REAL, FINISH_S)
        return True

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGALRM, _raise)
            _State.keeping, _State.keeps = self, True
        return self

    def __exit__(self, *raised: Any) -> None:
        if _State.keeping is self:
            _State.keeping = None
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, self._previous)  # type: ignore[arg-type]  # as it was
        plain_interrupts().__exit__(*raised)

    def request(self) -> None:
        """Ask for an end."""
        self._event.set()
        if not self.grace_s:
            raise KeyboardInterrupt
        signal.setitimer(signal.ITIMER_REAL, self.grace_s)


def _handle(number: int, frame: FrameType | None) -> None:
    _State.received += 1
    if _State.received > 1:
        return  # the thread that listens knows when it came, and ends the process
    if not _State.guarded:
        # Not by an exception: it would surface as a traceback, in the middle of some module that is imported.
        _leave()
    if _State.keeping is not None:
        _State.keeping.request()
    elif not _State.keeps:
        raise KeyboardInterrupt
    # Else the work is over and its results are about to be written.


def _raise(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _raise_again(ignored: sys.UnraisableHookArgs) -> None:
    """Raise an interrupt once more that came where Python ignores exceptions, as in callbacks of LLVM and `__del__`."""
    if not issubclass(ignored.exc_type, KeyboardInterrupt):
        _State.previous_hook(ignored)
    elif _State.guarded and not (_State.keeps and _State.keeping is None):
        signal.signal(signal.SIGALRM, _raise)
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)


def _watch(reader: int, ended: threading.Event) -> None:
    """End the process for a second signal, or where the first one is not answered."""
    if _next_signal(reader):
        signal.pthread_kill(threading.main_thread().ident or 0, _WAKE)
        threading.Thread(target=_leave_on_another, args=(reader,), daemon=True).start()
        patience = LONG_PATIENCE_S if _State.keeps else PATIENCE_S
        if not ended.wait(patience):
            _leave()


def _leave_on_another(reader: int) -> None:
    burst_ends_s = time.monotonic() + BURST_S
    while _next_signal(reader):
        if time.monotonic() > burst_ends_s:
            _leave()


def _next_signal(reader: int) -> bool:
    """Wait for a signal; False where the command has ended."""
    while True:
        received = os.read(reader, 1)
        if not received:
            os.close(reader)
            return False
        if received[0] in _SIGNALS:
            return True


def _leave() -> None:
    """End the process; where two signals come at once, one of them says so."""
    if not _LEAVING.acquire(blocking=False):
        return
    try:
        # Nothing is imported here: the signal may have come in the middle of an import.
        remove_partial = getattr(sys.modules.get("cosma.files"), "remove_partial", None)
        if remove_partial is not None:
            remove_partial()
        os.write(2, b"interrupted\n")
    finally:
        os._exit(INTERRUPTED)
