"""Every Python example of the README and the documentation is strictly typed, and runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _examples() -> dict[str, str]:
    return {
        f"{page.stem.lower()}_{number}": code
        for page in PAGES
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL), 1)
    }


EXAMPLES = _examples()


def test_there_are_examples() -> None:
    assert {name.rpartition("_")[0] for name in EXAMPLES} >= {"readme", "exporting", "extending", "plan_format"}


def test_all_pass_a_strict_type_check(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    for name, code in EXAMPLES.items():
        (tmp_path / f"{name}.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"),
         "--cache-dir", str(ROOT / ".mypy_cache"), *sorted(map(str, tmp_path.glob("*.py")))],
        cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"MYPYPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_runs(name: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "docs" / "example_plan.json", tmp_path / "plan.json")
    (tmp_path / "example.py").write_text(EXAMPLES[name])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-W", "error", "example.py"], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_callers_may_write_what_the_library_takes(tmp_path: Path) -> None:
    """What the constructors convert, their types allow: text, numpy's integers, lists, presets."""
    pytest.importorskip("mypy")
    (tmp_path / "caller.py").write_text(
        "import numpy as np\n"
        "import cosma\n"
        "t = cosma.Tensor('x', '16KiB', 'input', 'int8', [np.int64(4), 4096])\n"
        "size: int = t.size_bytes\n"
        "kind: cosma.TensorKind = t.kind\n"
        "o = cosma.Operator('o', 'Relu', ['x'], ['y'], attributes={'alpha': 0.5})\n"
        "names: tuple[str, ...] = o.inputs\n"
        "a = cosma.Accelerator(scratchpad='1MiB', operands='resident', alignment=np.int32(16))\n"
        "p = cosma.compile(cosma.Graph([t, cosma.Tensor('y', 16384, 'output')], [o]), 'ethos-u65-mid', effort=0)\n"
        "cosma.compile('model.onnx', cosma.Accelerator.preset('ethos-u65-mid'), dims={'N': np.int64(1)})\n"
        "cosma.pack([cosma.Buffer('b', 0, np.int64(2), '1KiB')], '4KiB')\n"
        "cosma.Execute('o', ['x'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"),
         "--cache-dir", str(ROOT / ".mypy_cache"), "caller.py"],
        cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"MYPYPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
