"""Write one page for each command: what it does, its options, and an example that has just been run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Wide enough for tables, narrow enough for a page.
COLUMNS = "100"
#: What `run` executes: two layers of a perceptron.
LAYERS = (("x", "w1", "hidden", 64, 256), ("hidden", "w2", "y", 256, 16))
#: What `sweep` runs.
EXPERIMENT = """\
name = "sizes"
strategies = ["e1", "e3", "auto"]
effort = 0.1
models = ["graph.json"]

[[grids]]
name = "sizes"
scratchpad = ["12KiB", "16KiB"]
operands = "resident"
"""
#: The network of the examples: two convolutions and a sum, written as a graph, so that no model file is needed.
GRAPH = "example_graph.json"
#: What is run before the examples, in this order; their outputs are on no page.
PREPARED = (
    "compile graph.json --scratchpad 12KiB --operands resident -o plan.json",
    "compile graph.json --scratchpad 12KiB --operands resident --strategy e1 -o existing.json",
    "compile model.onnx --scratchpad 32KiB -o model_plan.json",
    "sweep experiment.toml -o before",
    "sweep experiment.toml -o results",
    "plot results -o figures -f svg",
)
#: Examples by command.
EXAMPLES = {
    "compile": "compile graph.json --scratchpad 12KiB --operands resident -o plan.json",
    "check": "check plan.json graph.json",
    "inspect": "inspect graph.json",
    "presets": "presets",
    "report": "report plan.json --width 90",
    "explain": "explain plan.json",
    "curve": "curve graph.json --effort 0.1 --points 4",
    "diff": "diff existing.json plan.json",
    "export": "export plan.json -o -",
    "pack": "pack buffers.csv --capacity 12KiB",
    "trace": "trace plan.json --bandwidth 2GB/s --clock 5e8 --macs-per-cycle 256 -o trace.json",
    "run": "run model_plan.json model.onnx",
    "sweep": "sweep experiment.toml -o results",
    "table": "table results --only reduction",
    "plot": "plot results -o figures -f svg",
    "compare": "compare before results",
    "place": "place routing.npz --nodes 2 --devices-per-node 4",
    "place-front": "place-front routing.npz --nodes 2 --devices-per-node 4 --replicas-per-device 0 --balance 1.1,1.3 "
    "--work 5000",
    "place-windows": "place-windows routing.npz --nodes 2 --devices-per-node 4 --windows 3 --max-moves 8 --work 5000",
    "trace-info": "trace-info routing.npz",
    "cache": "cache routing.npz --slots 4 --evaluate eval_in --policy optimum --policy lru",
}
BUFFERS = "id,lower,upper,size\nconv1,0,2,8192\nconv2,1,3,4096\nsum,2,4,4096\n"
#: What stands before an example: files that it reads.
FILES = {
    "sweep": f"`experiment.toml`:\n\n```toml\n{EXPERIMENT}```\n\n{{doc}}`../experiments` has the format.\n\n",
    "pack": f"`buffers.csv`:\n\n```text\n{BUFFERS}```\n\n",
}
#: Figures that an example makes, shown below it: where they are, and as what they are kept.
FIGURES = {"plot": ("figures/fronts.svg", "plot_fronts.svg")}


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
        (work / "experiment.toml").write_text(EXPERIMENT)
        _write_model(work / "model.onnx")
        for command in PREPARED:
            _run(command, work)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for command, page in zip(COMMANDS, pool.map(lambda name: _page(name, work), COMMANDS), strict=True):
                _write(folder / f"{command}.md", page)
        for made, kept in FIGURES.values():
            shutil.copy(work / made, folder / kept)
    names = "\n".join(COMMANDS)
    _write(folder / "index.md", f"# Commands\n\n```{{toctree}}\n:maxdepth: 1\n\n{names}\n```\n")


def _page(command: str, work: Path) -> str:
    help_text = _run(f"{command} --help", work)
    text = f"# cosma {command}\n\n```text\n{help_text}```\n"
    example = EXAMPLES.get(command)
    if example is not None:
        text += f"\n## Example\n\n{FILES.get(command, '')}```text\n$ cosma {example}\n{_run(example, work)}```\n"
    if command in FIGURES:
        text += f"\n![]({FIGURES[command][1]})\n"
    return text


def _write_model(path: Path) -> None:
    import numpy as np
    import onnx
    from onnx import helper

    generator = np.random.default_rng(0)
    nodes, weights = [], []
    for source, weight, result, rows, columns in LAYERS:
        nodes.append(helper.make_node("MatMul", [source, weight], [result], name=f"matmul_{result}"))
        weights.append(onnx.numpy_helper.from_array(generator.normal(size=(rows, columns)).astype(np.float32), weight))
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [8, size]) for name, size in (("x", 64), ("y", 16))
    ]
    graph = helper.make_graph(nodes, "perceptron", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)


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
