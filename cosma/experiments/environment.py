"""Where a result was computed: versions, source code and kind of machine."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cosma.process import core_count, package_folder


@cache
def environment() -> dict[str, str]:
    """Versions and machine as columns of a row; nothing in it names a user, a host or a path."""
    from cosma.version import __version__

    return {
        "cosma": __version__,
        "code": code_digest(),
        "python": platform.python_version(),
        "ortools": _version("ortools"),
        "numpy": _version("numpy"),
        "machine": f"{platform.system()} {_processor()} x{core_count()}",
    }


@cache
def code_digest() -> str:
    """Digest of cosma's own source files: two results with the same one were computed by the same code."""
    root = package_folder()
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
