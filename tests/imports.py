"""All imports of the library as they stand in its text: at the top, inside functions, and for types only."""

from __future__ import annotations

import ast
from pathlib import Path

import cosma

ROOT = Path(cosma.__file__).parent


def modules() -> dict[str, Path]:
    """Every module of the library by its dotted name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports() -> dict[str, set[str]]:
    """The modules that each module names, itself left out.

    A name that a package hands on counts as its module, where that can be told; the package's own ``__init__`` counts
    as well, since it runs.
    """
    known = modules()
    direct = {name: _named(name, path, known) for name, path in known.items()}
    return {name: found - {name} for name, found in direct.items()}


def room(module: str) -> str:
    """The room a module is in: the first folder under the library, or the module itself where it lies at the top."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def _named(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative imports are not used here"
            base = node.module or ""
            found.update(f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names)
    return found & set(known)
