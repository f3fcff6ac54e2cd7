"""What the README shows works as shown."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_library_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "0 optimal"
    assert any(line.startswith("execute  conv, streaming x") for line in lines)


def test_the_first_command_names_a_model_that_is_here() -> None:
    (model,) = re.findall(r"cosma compile (models/\S+) --scratchpad", README)
    assert (ROOT / model).is_file()


def test_every_command_shown_exists() -> None:
    from cosma.cli.app import COMMANDS

    shown = set(re.findall(r"^cosma (\w+) .*#", README, re.MULTILINE)) | set(re.findall(r"`cosma (\w+)", README))
    assert shown <= set(COMMANDS)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
