"""A file is read in one sitting, a function at a glance: sizes and branching, with what is beyond by name.

No name may be added to these lists; one that has come within the bounds must leave them.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Lines of a file, and lines of code of a function, without its documentation and empty lines.
MOST_LINES, MOST_CODE = 400, 80

#: A second judge, written as one pass over a plan as anyone would write it.
LONG_FUNCTIONS = {"tests/fuzz/judge.py: _judge"}


@cache
def sources() -> dict[str, str]:
    paths = [path for folder in ("cosma", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def functions(text: str) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))


def is_kernel(function: ast.FunctionDef) -> bool:
    return any(isinstance(d, ast.Name) and d.id in ("kernel", "helper") for d in function.decorator_list)


def code_lines(text: str, function: ast.FunctionDef) -> int:
    lines = text.splitlines()
    documented: set[int] = set()
    for node in ast.walk(function):
        first = node.body[0] if isinstance(node, ast.FunctionDef | ast.ClassDef) else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            documented |= set(range(first.lineno, (first.end_lineno or 0) + 1))
    span = range(function.lineno, (function.end_lineno or 0) + 1)
    return sum(1 for i in span if i not in documented and lines[i - 1].strip())


def test_files_are_short() -> None:
    assert {name for name, text in sources().items() if len(text.splitlines()) > MOST_LINES} == set()


def test_functions_are_short_unless_they_are_kernels() -> None:
    long = {
        f"{name}: {function.name}"
        for name, text in sources().items()
        for function in functions(text)
        if not is_kernel(function) and code_lines(text, function) > MOST_CODE
    }
    assert long == LONG_FUNCTIONS


def test_only_kernels_branch_more_than_ruff_allows() -> None:
    """A step of a kernel is one function, because numba compiles every call that takes arrays again into its caller."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select", "C901", "--output-format",
               "json", "--config", "lint.mccabe.max-complexity=15", "cosma"]  # fmt: skip
    found = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout)
    branching = {(Path(one["filename"]).relative_to(ROOT).as_posix(), one["location"]["row"]) for one in found}
    assert branching, "ruff finds nothing: is it the command that is wrong?"
    kernels = {
        (name, function.lineno) for name in {name for name, _ in branching}
        for function in functions(sources()[name]) if is_kernel(function)
    }  # fmt: skip
    assert branching <= kernels
