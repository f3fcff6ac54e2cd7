"""One line of a terminal that says what goes on."""

from __future__ import annotations

import sys
import threading
from typing import TextIO

from cosma.text import plain


class StatusLine:
    """A line that is overwritten, escaped and cut to the terminal: one that wraps could not be; nothing elsewhere.

    Parameters
    ----------
    stream
        Standard error as it is now, if none is given.
    wanted
        Whether there is to be a line at all.
    """

    def __init__(self, stream: TextIO | None = None, *, wanted: bool = True) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self.shown = wanted and self._stream.isatty()
        self.width = 0
        self._lock = threading.Lock()

    def write(self, text: str = "") -> None:
        """Overwrite the line; no text clears it."""
        import shutil

        with self._lock:
            if self.shown and (text or self.width):
                text = plain(text)[: max(20, shutil.get_terminal_size(fallback=(100, 24)).columns - 1)]
                self._stream.write("\r" + text.ljust(self.width) + ("" if text else "\r"))
                self._stream.flush()
                self.width = len(text)
