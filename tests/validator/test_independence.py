from __future__ import annotations

import ast
from pathlib import Path

import cosma.validator

PLANNERS = (
    "access",
    "rewrite",
    "tiling",
    "problem",
    "lowering",
    "heuristics",
    "compiler",
    "search",
    "bounds",
    "exact",
    "packing",
    "formulation",
    "solvers",
)


def test_the_validator_imports_nothing_that_plans() -> None:
    folder = Path(cosma.validator.__file__).parent
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [n for n in names for room in PLANNERS if n.startswith(f"cosma.{room}")], path
