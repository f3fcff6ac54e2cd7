"""Traffic and peak with and without copies.

``python results/zero_copy/make.py [FOLDER]`` writes ``results.csv`` and ``table.md``. FOLDER holds
``light_densenet121.onnx``, ``inception_v3_cf.onnx`` and ``unet_256.onnx``; by default that of the open models.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import cosma
from cosma.compiler import Limits, run_compile

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / ".." / "shared" / "models" / "open"
MODELS = {"DenseNet-121": "light_densenet121", "Inception-V3": "inception_v3_cf", "U-Net": "unet_256"}
CAPACITIES = ("256KiB", "512KiB", "1MiB")
WAYS = {"copying": {}, "zero-copy": {"zero_copy": True}, "one range": {"zero_copy": True, "pieces": 1}}
EFFORT = 1.0


def main(folder: Path) -> None:
    """Plan every cell, replay it against the model, and write both files."""
    rows = []
    for network, file in MODELS.items():
        model = folder / f"{file}.onnx"
        graph = cosma.load_onnx(model).graph.with_dtype("int8")
        for capacity in CAPACITIES:
            for way, changes in WAYS.items():
                accelerator = cosma.Accelerator(scratchpad=capacity, fusion="epilogue", **changes)
                plan = run_compile(model, accelerator, limits=Limits(effort=EFFORT), dtype="int8").plan
                report = cosma.replay(plan, graph, model=model)
                assert report.valid, report.lines()
                rows.append(
                    {
                        "network": network, "capacity": capacity, "way": way,
                        "compulsory": report.traffic.compulsory, "noncompulsory": report.traffic.noncompulsory,
                        "peak": report.peak_bytes, "lower_bound": plan.certificate.lower_bound,
                        "copies": sum(o.type in ("Concat", "Split", "Slice") for o in plan.graph.operators),
                        "joins": len(plan.graph.joins),
                    }
                )  # fmt: skip
                print(rows[-1], flush=True)
    with (HERE / "results.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (HERE / "table.md").write_text(table(rows), encoding="utf-8")


def table(rows: list[dict[str, object]]) -> str:
    """A line for each network and capacity: traffic and peak by way."""
    lines = ["| network | scratchpad | " + " | ".join(f"{way}: traffic, peak" for way in WAYS) + " |"]
    lines.append("|" + " --- |" * (2 + len(WAYS)))
    for start in range(0, len(rows), len(WAYS)):
        cells = rows[start : start + len(WAYS)]
        values = [f"{int(str(c['noncompulsory'])) / 1024:,.1f}, {int(str(c['peak'])) / 1024:,.1f}" for c in cells]
        lines.append(f"| {cells[0]['network']} | {cells[0]['capacity']} | " + " | ".join(values) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
