"""One thread for numpy's linear algebra while many small matrices are worked on.

OpenBLAS shares even small matrices out among all cores. On a busy machine its threads then wait for each other for
most of the time, and the last digits of results depend on the number of cores. Other libraries are left as they are.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

#: Names of OpenBLAS's functions as numpy's packages spell them.
_SPELLINGS = tuple((prefix, suffix) for prefix in ("scipy_openblas", "openblas") for suffix in ("64_", ""))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let OpenBLAS use one thread inside the ``with`` block, and as many as before after it.

    The number is that of the whole process, so other threads' linear algebra is slowed down meanwhile, never wrong.
    """
    found = _functions()
    if found is None:
        yield
        return
    ask, tell = found
    before = int(ask())
    tell(1)
    try:
        yield
    finally:
        tell(before)


@cache
def _functions() -> tuple[Any, Any] | None:
    """Find the functions that ask for and set the number of threads, or None where numpy does not use OpenBLAS."""
    # Symbols are looked up in a library and in those it was linked with, OpenBLAS among them.
    path = getattr(getattr(np.linalg, "_umath_linalg", None), "__file__", None)
    if path is None:
        return None
    try:
        library = ctypes.CDLL(path)
    except OSError:
        return None
    for prefix, suffix in _SPELLINGS:
        ask = getattr(library, f"{prefix}_get_num_threads{suffix}", None)
        tell = getattr(library, f"{prefix}_set_num_threads{suffix}", None)
        if ask is not None and tell is not None:
            return ask, tell
    return None
