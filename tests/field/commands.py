"""Commands of the command line, run within this process."""

from __future__ import annotations

import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from cosma.cli import main


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended: exit code and what it wrote."""

    code: int
    out: str
    err: str


def cosma(*arguments: str | Path) -> Done:
    """Run a command and keep what it writes."""
    out, err, code = StringIO(), StringIO(), 0
    with patch.object(sys, "argv", ["cosma", *map(str, arguments)]), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Done(code, out.getvalue(), err.getvalue())
