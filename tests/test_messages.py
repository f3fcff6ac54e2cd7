"""Messages of the library name fields and values; how a command line writes them is the command line's."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import cosma

#: An option as a command line has it: two dashes and a word, behind no letter or dash.
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")

#: Modules that write command lines of other programs.
FOREIGN = frozenset({"frontend/formats.py"})


def texts(tree: ast.Module) -> list[ast.Constant]:
    """Texts of a module that are not documentation."""
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
    ]


def test_the_library_names_no_options() -> None:
    root = Path(cosma.__file__).parent
    found = [
        f"{path.relative_to(root)}:{text.lineno}: {text.value}"
        for path in sorted(root.rglob("*.py"))
        if "cli" not in path.relative_to(root).parts and str(path.relative_to(root)) not in FOREIGN
        for text in texts(ast.parse(path.read_text()))
        if OPTION.search(str(text.value))
    ]
    assert not found, "the command line may add options, the library may not:\n" + "\n".join(found)


def test_options_in_messages_are_found() -> None:
    tree = ast.parse('"""Docs: --this."""\nraise ValueError(f"{x}: use --solver cp-sat")\nword = "a--b"')
    assert [text.value for text in texts(tree) if OPTION.search(str(text.value))] == [": use --solver cp-sat"]
