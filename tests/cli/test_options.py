"""One name for one meaning, over all commands; and every command line that the documents show is taken."""

from __future__ import annotations

import re
import runpy
import shlex
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import typer

from cosma.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "models/**/*.md", "results/**/*.md")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"
)
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
#: Options whose value has another form in another command, and why.
FORMS = {
    "--output": "what a command makes: one file, several, or a folder",
    "--off-chip": "put into a plan, or written as a table",
    "--replicas-per-device": "one number, or those to compare",
    "--balance": "one limit, or those to compare",
    "--format": "the forms of figures, tables and placements",
    "--tiling": "the same words; written out where there is room",
}


def options() -> dict[str, dict[str, Any]]:
    """Options by their name, then by the command that has them."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, command in COMMANDS.items():
        for parameter in command.params:
            if parameter.param_type_name == "option":
                for spelled in parameter.opts:
                    found[spelled][name] = parameter
    return found


def test_an_option_has_the_same_form_in_every_command() -> None:
    differing = {
        name: sorted({str(one.metavar) for one in uses.values()})
        for name, uses in options().items()
        if name.startswith("--") and len({(one.metavar, one.is_flag) for one in uses.values()}) > 1
    }
    assert sorted(set(differing) - set(FORMS)) == [], differing


@pytest.mark.parametrize("meaning", ["Draw to", "Work limit", "Write a table", "Clock limit", "Lower bound"])
def test_a_meaning_has_one_name(meaning: str) -> None:
    names = {
        tuple(one.opts) for uses in options().values() for one in uses.values() if str(one.help).startswith(meaning)
    }
    assert len(names) <= 1


def shown() -> list[tuple[str, str]]:
    """Command lines in blocks and between backticks, by the page they stand on."""
    pages = runpy.run_path(str(ROOT / "docs" / "write_commands.py"))
    found = [("write_commands.py", f"cosma {line}") for line in (*pages["PREPARED"], *pages["EXAMPLES"].values())]
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in re.findall(r"```(?:\w*)\n(.*?)```", text, re.DOTALL):
            joined = re.sub(r"\\\n\s*", " ", block)
            found += [(page.name, line) for line in joined.splitlines() if line.startswith("cosma ")]
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        found += [(page.name, line) for line in re.findall(r"`(cosma [a-z-]+ [^`]*)`", prose)]
    return found


def test_there_are_command_lines_to_look_at() -> None:
    assert len(shown()) > 60


@pytest.mark.parametrize(("page", "line"), sorted(set(shown())))
def test_every_command_line_shown_is_taken(page: str, line: str) -> None:
    """Parse what is shown; between backticks a line may leave arguments out, but names no unknown option."""
    words = shlex.split(line.partition(" > ")[0], comments=True)
    if len(words) < 2 or words[1].startswith("-"):
        return
    command = COMMANDS[words[1]]
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}
    given = {word.partition("=")[0] for word in words[2:] if re.match(r"-{1,2}[a-zA-Z]", word)}
    assert given <= known, f"{page}: {line}"
