"""What is imported when: numba and tilings only by what needs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cosma.lazy import not_once_imported, once_imported, tell_import

NAME = "cosma.no_such_module"


def test_an_import_is_told_once_to_who_still_waits() -> None:
    told: list[str] = []

    def stays() -> None:
        told.append("stays")

    def goes() -> None:
        told.append("goes")

    once_imported(NAME, stays)
    once_imported(NAME, goes)
    not_once_imported(NAME, goes)
    not_once_imported(NAME, goes)
    assert told == []
    tell_import(NAME)
    tell_import(NAME)
    assert told == ["stays"]
    once_imported("cosma.lazy", goes)
    assert told == ["stays", "goes"]


@pytest.mark.parametrize(("tiling", "needed"), [("none", False), ("auto", True)])
def test_whole_operators_are_planned_without_numba_and_tilings(tmp_path: Path, tiling: str, needed: bool) -> None:
    model = Path(__file__).parents[1] / "models" / "zoo" / "lstm_bi2_s64.onnx"
    code = (
        "import sys, cosma\n"
        f"cosma.compile({str(model)!r}, cosma.Accelerator(scratchpad='64MiB'), tiling={tiling!r}, effort=0.1)\n"
        "print('cosma.tiling' in sys.modules, 'numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout.split()[-2] == str(needed)
    assert needed or done.stdout.split()[-1] == "False"
