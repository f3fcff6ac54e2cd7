"""Processes of this library's own: how they are started, limited and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def package_folder() -> Path:
    """Folder that this package's modules lie in."""
    return Path(__file__).resolve().parent


def core_count() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def start_python(
    arguments: Sequence[str], *, errors: int | IO[bytes], environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start an interpreter that finds this package, with pipes for its input and its output.

    It leads a process group of its own: Ctrl-C does not reach it, and :func:`end` ends what it started as well.
    ``errors`` is where its standard error goes: a file, or ``subprocess.PIPE``. ``environment`` is set besides this
    process's variables.
    """
    paths = [str(package_folder().parent), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return subprocess.Popen(
        # -P: a stray module in the current folder must not take the place of a library's.
        [sys.executable, "-P", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env={**os.environ, **(environment or {}), "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process of :func:`start_python` at once, and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def limit_memory(limit_bytes: int | None) -> None:
    """Cap the address space of this process, libraries included; None takes the cap off.

    Does nothing where the system has no such limit (Windows).
    """
    try:
        import resource
    except ImportError:
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = hard if limit_bytes is None else limit_bytes
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard) if soft != resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
