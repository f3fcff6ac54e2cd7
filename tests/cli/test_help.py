"""Help, completion, versions, and tables as wide as asked for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cosma.version import __version__

ROOT = Path(__file__).resolve().parents[2]


def cosma(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cosma", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_the_versions_that_a_report_of_a_defect_needs() -> None:
    done = cosma("--version")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"cosma {__version__}"
    for name in ("python: ", "numba ", "onnx ", "ortools ", "pulp ", "onnxruntime "):
        assert name in done.stdout


def test_help_says_defaults_and_choices() -> None:
    text = re.sub(r"\s+", " ", cosma("compile", "--help", COLUMNS="80").stdout)
    for words in (
        "--operands resident|streamable", "default: (streamable, or the preset's)",
        "--weights stream|scratchpad", "--fusion none|epilogue", "default: (64, or the preset's)",
        "default: 10.0", "default: auto", "auto, exact, divide, ilp, existing",
    ):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize("columns", [40, 60])
def test_help_fits_a_narrow_terminal(columns: int) -> None:
    done = cosma("compile", "--help", COLUMNS=str(columns))
    # A name that is longer than the line is not broken.
    wide = [line for line in done.stdout.splitlines() if len(line) > columns and " " in line.strip()]
    assert all(line.strip().startswith("-") for line in wide), wide


@pytest.mark.parametrize("columns", [60, 100])
def test_every_command_is_listed_once_with_its_whole_sentence(columns: int) -> None:
    from cosma.cli.app import COMMANDS

    text = cosma("--help", COLUMNS=str(columns)).stdout
    assert "..." not in text.partition("\n")[2]
    listed = re.findall(r"^  ([a-z][a-z-]+)  ", text, flags=re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)
    assert "existing methods" in re.sub(r"\s+", " ", text)


def test_a_pipe_is_as_wide_as_columns_says() -> None:
    narrow, wide = (cosma("presets", COLUMNS=str(n)).stdout.splitlines() for n in (100, 400))
    assert max(map(len, narrow)) <= 100
    assert 100 < max(map(len, wide)) <= 400
    unset = cosma("presets", COLUMNS="wide").stdout.splitlines()
    assert 100 < max(map(len, unset)) <= 160


def test_completion_is_installed_for_the_shell_that_is_named(tmp_path: Path) -> None:
    scripts = {shell: cosma("--show-completion", shell).stdout for shell in ("bash", "zsh", "fish", "pwsh")}
    assert len(set(scripts.values())) == 4
    for shell, mark in (("bash", "complete -o"), ("zsh", "#compdef cosma"), ("fish", "complete --command cosma")):
        assert mark in scripts[shell]
    done = cosma("--install-completion", "zsh", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".zfunc" / "_cosma").read_text() == scripts["zsh"].strip()
    refused = cosma("--show-completion", "tcsh")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        "error: --show-completion: 'tcsh' is no shell; known are bash, zsh, fish, powershell, pwsh\n"
    )
    (tmp_path / "file").write_text("")
    full = cosma("--install-completion", "zsh", HOME=str(tmp_path / "file"))
    assert full.returncode == 2
    assert "cannot write" in full.stderr


def test_a_shell_completes_commands_options_and_values() -> None:
    def completed(words: str, at: int) -> set[str]:
        done = cosma(_COSMA_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(at))
        assert done.returncode == 0, done.stderr
        return set(done.stdout.split())

    assert completed("cosma comp", 1) == {"compile", "compare"}
    assert "--scratchpad" in completed("cosma compile --s", 2)
    assert completed("cosma compile x.onnx --operands ", 4) == {"resident", "stationary", "streamable"}
    assert "ethos-u65-mid" in completed("cosma compile x.onnx --accelerator ethos", 4)


def test_help_names_no_types_of_python() -> None:
    """What to give is named: N, a file, choices."""
    from cosma.cli.app import COMMANDS

    for command in COMMANDS:
        said = cosma(command, "--help").stdout
        assert not re.search(r"list\[|<(str|int|float|path)", said), said


@pytest.mark.parametrize("width", [40, 60, 80])
def test_narrow_terminals_break_no_words(width: int) -> None:
    """Where columns would be cut to pieces, rows stand one below the other."""
    graph = str(ROOT / "docs" / "example_graph.json")
    for arguments in (["presets"], ["inspect", graph], ["curve", graph, "--effort", "0.1", "--points", "3"]):
        done = cosma(*arguments, COLUMNS=str(width))
        assert done.returncode == 0, done.stderr
        if arguments[0] == "presets":
            # A sentence is left to the terminal, a table is not.
            assert max(len(line) for line in done.stdout.splitlines() if not line.startswith("A dash")) <= width
        for word in ("scratchpad", "source-code") if arguments[0] == "presets" else ("scratchpad",):
            assert word in done.stdout
        if arguments[0] == "curve":
            assert "non-compulsory" in done.stdout
