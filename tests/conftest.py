"""What all tests share."""

from __future__ import annotations

import hashlib
import os
import signal
import tempfile
from pathlib import Path

import pytest

# numba's cache notices a change of the file a kernel is in, not of the kernels it calls in other files: tests keep
# a cache of their own for every state of the sources, so that they never run what was compiled from older ones.
_SOURCES = hashlib.sha256()
for _path in sorted((Path(__file__).parents[1] / "cosma").rglob("*.py")):
    _text = _path.read_bytes()
    if b"cosma.compiled" in _text or b"njit" in _text:
        _SOURCES.update(_text)
os.environ.setdefault(
    "NUMBA_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"cosma-tests-{_SOURCES.hexdigest()[:16]}")
)

# A shell starts what runs in the background with Ctrl-C ignored, and what tests start would ignore it too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of this project's tests."""
    parser.addoption("--update-oracle", action="store_true", help="pin the plans that are made now")
