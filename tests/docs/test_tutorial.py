"""The tutorial shows what the program prints: its commands are run in order, and each line shown is looked for."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
#: Takes minutes: a plan and a bound for each point.
LONG = ("curve",)
#: Needs an extra that need not be installed.
NEEDS = {"run": "onnxruntime", "--figure": "matplotlib", "report.html": "bokeh"}


def blocks() -> list[tuple[list[str], list[str]]]:
    """Commands, and the lines shown under them."""
    found: list[tuple[list[str], list[str]]] = []
    for block in re.findall(r"```\n(.*?)```", TUTORIAL, re.DOTALL):
        if block.startswith("cosma "):
            joined = block.replace("\\\n", " ")
            found.append(([line.partition("#")[0].strip() for line in joined.splitlines()], []))
        else:
            found[-1][1].extend(line for line in block.splitlines() if line.strip())
    return found


def flat(text: str) -> str:
    """Text with single spaces; tables are laid out by the width there is."""
    return re.sub(r"\s+", " ", text)


def test_the_tutorial_matches_what_the_program_prints(tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(ROOT / "models")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    seen = 0
    for commands, shown in blocks():
        output = ""
        for command in commands:
            words = shlex.split(command)
            missing = [module for word, module in NEEDS.items() if word in words and not find_spec(module)]
            if words[1] in LONG or missing:
                continue
            done = subprocess.run(
                [sys.executable, "-m", *words], cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, (command, done.stderr)
            output += flat(done.stdout + done.stderr)
        if not output:
            continue
        for line in shown:
            # An ellipsis stands for what is left out.
            for part in line.split("..."):
                assert flat(part).strip() in output, f"{commands[-1]} does not print: {part.strip()}"
                seen += 1
    assert seen >= 15


@pytest.mark.parametrize("command", [c for commands, _ in blocks() for c in commands])
def test_each_command_names_options_that_exist(command: str) -> None:
    from typer.main import get_command

    from cosma.cli.app import app

    words = shlex.split(command)
    known = get_command(app).commands[words[1]]  # type: ignore[attr-defined]  # a group
    options = {name for parameter in known.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if re.match(r"--?[a-z]", word)} <= options
