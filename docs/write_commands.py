"""Write one page for each command: what it does, its options, and an example that has just been run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Wide enough for tables, narrow enough for a page.
COLUMNS = "100"
#: The network of the examples: two convolutions and a sum, written as a graph, so that no model file is needed.
GRAPH = "example_graph.json"
#: What is run before the examples, in this order; their outputs are on no page.
PREPARED = (
    "compile graph.json --scratchpad 12KiB --operands resident -o plan.json",
    "compile graph.json --scratchpad 12KiB --operands resident --strategy e1 -o existing.json",
)
#: Examples by command; one that takes minutes or a folder of its own has none.
EXAMPLES = {
    "compile": "compile graph.json --scratchpad 12KiB --operands resident -o plan.json",
    "check": "check plan.json graph.json",
    "inspect": "inspect graph.json",
    "presets": "presets",
    "report": "report plan.json --width 90",
    "explain": "explain plan.json",
    "curve": "curve graph.json --effort 0.1 --points 4",
    "diff": "diff existing.json plan.json",
    "export": "export plan.json --csv -",
    "pack": "pack buffers.csv --capacity 12KiB",
    "trace": "trace plan.json --bandwidth 2GB/s --clock 5e8 --macs-per-cycle 256 -o trace.json",
    "place": "place routing.npz --nodes 2 --devices-per-node 4",
    "trace-info": "trace-info routing.npz",
}
BUFFERS = "id,lower,upper,size\nconv1,0,2,8192\nconv2,1,3,4096\nsum,2,4,4096\n"


def write_pages(folder: Path) -> None:
    """Write the pages; what an earlier build left is replaced."""
    from cosma.cli.app import COMMANDS

    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.md"):
        if old.stem not in {*COMMANDS, "index"}:
            old.unlink()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        shutil.copy(ROOT / "docs" / GRAPH, work / "graph.json")
        (work / "buffers.csv").write_text(BUFFERS)
        shutil.copy(ROOT / "models" / "traces" / "gpt_8x16_top2.npz", work / "routing.npz")
        for command in PREPARED:
            _run(command, work)
        for command in COMMANDS:
            _write(folder / f"{command}.md", _page(command, work))
    names = "\n".join(COMMANDS)
    _write(folder / "index.md", f"# Commands\n\n```{{toctree}}\n:maxdepth: 1\n\n{names}\n```\n")


def _page(command: str, work: Path) -> str:
    help_text = _run(f"{command} --help", work)
    text = f"# cosma {command}\n\n```text\n{help_text}```\n"
    example = EXAMPLES.get(command)
    if example is not None:
        text += f"\n## Example\n\n```text\n$ cosma {example}\n{_run(example, work)}```\n"
    return text


def _run(command: str, work: Path) -> str:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "cosma", *command.split()],
        cwd=work, env=os.environ | {"PYTHONPATH": path, "COLUMNS": COLUMNS}, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"cosma {command}: exit code {done.returncode}\n{done.stderr}")
    lines = [line.rstrip() for line in done.stdout.rstrip().splitlines()]
    return "\n".join(lines) + "\n" if lines else ""


def _write(path: Path, text: str) -> None:
    # A page that stays as it is keeps its time, so that it is not built again.
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
