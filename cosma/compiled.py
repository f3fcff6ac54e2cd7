"""How loops are compiled (numba): with a cache on disk, and cheaply.

Most of the time to compile a kernel goes into its entry from Python, so functions that only kernels call have none.
numba's cache notices a change of the file a function is in, not of what it calls in other files: after changing one
that others call, delete the compiled copies (``__pycache__/*.nb?``, or the folder that ``NUMBA_CACHE_DIR`` names).
Division is numpy's: by zero it gives infinity, never an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

from cosma.lazy import tell_import

_Function = TypeVar("_Function", bound=Callable[..., Any])

_OPTIONS: dict[str, Any] = {"cache": True, "error_model": "numpy", "no_cfunc_wrapper": True}
_KERNEL: dict[str, Any] = {**_OPTIONS, "nogil": True}
_HELPER: dict[str, Any] = {**_OPTIONS, "no_cpython_wrapper": True}


def kernel(function: _Function) -> _Function:
    """Compile a function that Python calls; it runs without the interpreter's lock."""
    compiled: _Function = numba.njit(**_KERNEL)(function)
    return compiled


def helper(function: _Function) -> _Function:
    """Compile a function that only kernels call."""
    compiled: _Function = numba.njit(**_HELPER)(function)
    return compiled


tell_import(__name__)
