"""What ``cosma --version`` says: all that a report of a defect needs, without importing any of it."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from cosma.version import __version__

#: What planning needs.
CORE: Final = ("numpy", "numba", "llvmlite", "onnx", "networkx", "msgspec", "typer", "rich")
#: What solves programs; OR-Tools brings CP-SAT, HiGHS and SCIP, PuLP (an extra) brings CBC.
SOLVERS: Final = ("ortools", "pulp")
#: What commands need that can do without.
OPTIONAL: Final = ("scipy", "onnxruntime", "bokeh", "matplotlib", "dask", "distributed", "pyarrow", "optuna")


def version_lines() -> list[str]:
    """Versions of cosma, of Python and of what they stand on; what is not installed is said to be so."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return [
        f"cosma {__version__}",
        f"python: {python} on {platform.system()} {platform.machine()}",
        f"core: {_versions(CORE)}",
        f"solvers: {_versions(SOLVERS)}",
        f"optional: {_versions(OPTIONAL)}",
    ]


def _versions(names: tuple[str, ...]) -> str:
    return ", ".join(f"{name} {_version(name)}" for name in names)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
