"""Measure the zoo: rewrite the numbers of ``models/manifest.toml``, keeping what it says about each file's origin.

``python models/make/manifest.py`` adds files that are new to the zoo with an empty ``source``, to be filled in by
hand; ``--check`` writes nothing and fails if the manifest and the zoo disagree.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path

import onnx

from cosma.frontend import load_onnx
from cosma.graph import TensorKind

MODELS = Path(__file__).resolve().parents[1]
MANIFEST = MODELS / "manifest.toml"
HEADER = """# What is in the zoo. `source`, `exporter` and `made_by` are written by hand, the rest by make/manifest.py.
# nodes: as in the file; operators: what is left to run; sizes in bytes; working set: operands and results of one
# operator, the largest of the model.
"""


def measure(path: Path) -> dict[str, object]:
    """Numbers of one model."""
    model = onnx.load(path, load_external_data=False)
    loaded = load_onnx(path)
    graph = loaded.graph
    return {
        "sha256": loaded.sha256,
        "file_bytes": path.stat().st_size,
        "opset": next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        "nodes": len(model.graph.node),
        "operators": len(graph.operators),
        "tensors": len(graph.tensors),
        "weight_bytes": sum(tensor.size_bytes for tensor in graph.of_kind(TensorKind.WEIGHT)),
        "largest_working_set_bytes": max(graph.working_set_bytes(o.name, weights=False) for o in graph.operators),
        "largest_working_set_with_weights_bytes": max(
            graph.working_set_bytes(o.name, weights=True) for o in graph.operators
        ),
        "macs": sum(operator.macs or 0 for operator in graph.operators),
    }


def render() -> str:
    """Text of the manifest for the zoo as it is."""
    known = {}
    if MANIFEST.exists():
        known = {entry["file"]: entry for entry in tomllib.loads(MANIFEST.read_text())["model"]}
    parts = [HEADER]
    for path in sorted((MODELS / "zoo").glob("*.onnx")):
        old = known.get(path.name, {})
        words = {"file": path.name, **{key: old.get(key, "") for key in ("source", "exporter", "made_by")}}
        lines = [f"{key} = {_quoted(str(value))}" for key, value in words.items() if value or key == "source"]
        for key, value in measure(path).items():
            lines.append(f"{key} = {_quoted(value) if isinstance(value, str) else value}")
        parts.append("[[model]]\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def main() -> None:
    """Rewrite or check the manifest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the manifest is not up to date")
    text = render()
    if parser.parse_args().check:
        if text != MANIFEST.read_text():
            sys.exit(f"{MANIFEST} does not describe the zoo as it is; run models/make/manifest.py")
        return
    MANIFEST.write_text(text)
    print(f"{MANIFEST}: {text.count('[[model]]')} models")


if __name__ == "__main__":
    main()
