"""Traffic and peak with and without copies.

``python results/zero_copy/make.py`` plans every cell and writes ``results.csv`` and ``table.md``. Cells that the file
has already are kept, so that the command goes on where it was interrupted; ``--fresh`` plans all again, ``--network``
and ``--scratchpad`` only some. ``--folder`` holds ``light_densenet121.onnx``, ``inception_v3_cf.onnx`` and
``unet_256.onnx``; by default it is that of the open models. The exit code is 5 where copying moves less.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

import cosma
from cosma.compiler import Limits, run_compile

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / ".." / "shared" / "models" / "open"
MODELS = {"DenseNet-121": "light_densenet121", "Inception-V3": "inception_v3_cf", "U-Net": "unet_256"}
CAPACITIES = ("256KiB", "512KiB", "1MiB")
WAYS: dict[str, dict[str, Any]] = {
    "copying": {}, "zero-copy": {"zero_copy": True}, "one range": {"zero_copy": True, "pieces": 1},
}  # fmt: skip
EFFORT = 1.0

Row = dict[str, str]


def main() -> int:
    """Plan the cells that are asked for, write both files, and say whether any is worse than copying."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--network", choices=MODELS, action="append")
    parser.add_argument("--scratchpad", choices=CAPACITIES, action="append")
    asked = parser.parse_args()
    rows = _read(HERE / "results.csv")
    for network in asked.network or MODELS:
        for capacity in asked.scratchpad or CAPACITIES:
            for way in WAYS:
                key = network, capacity, way
                if asked.fresh or key not in rows:
                    rows[key] = cell(asked.folder / f"{MODELS[network]}.onnx", *key)
                    print(rows[key], flush=True)
                    _write(rows)
    _write(rows)
    worse = worse_than_copying(rows)
    for line in worse:
        print(line, file=sys.stderr)
    return 5 if worse else 0


def cell(model: Path, network: str, capacity: str, way: str) -> Row:
    """Plan one network in one way, and replay the plan against the model."""
    accelerator = cosma.Accelerator(scratchpad=capacity, fusion="epilogue", **WAYS[way])
    plan = run_compile(model, accelerator, limits=Limits(effort=EFFORT), dtype="int8").plan
    report = cosma.replay(plan, cosma.load_onnx(model).graph.with_dtype("int8"), model=model)
    if not report.valid or report.traffic is None:
        raise SystemExit(f"{network}, {capacity}, {way}: {report.lines()}")
    row = {
        "network": network, "capacity": capacity, "way": way,
        "compulsory": report.traffic.compulsory, "noncompulsory": report.traffic.noncompulsory,
        "peak": report.peak_bytes, "lower_bound": plan.certificate.lower_bound,
        "copies": sum(o.type in ("Concat", "Split", "Slice") for o in plan.graph.operators),
        "joins": len(plan.graph.joins),
    }  # fmt: skip
    return {name: str(value) for name, value in row.items()}


def worse_than_copying(rows: dict[tuple[str, ...], Row]) -> list[str]:
    """Cells in which copying moves less than a plan that need not copy."""
    found = []
    for (network, capacity, way), row in rows.items():
        copying = rows.get((network, capacity, "copying"))
        if copying is not None and int(row["noncompulsory"]) > int(copying["noncompulsory"]):
            found.append(f"{network}, {capacity}, {way}: moves more than copying does")
    return found


def table(rows: dict[tuple[str, ...], Row]) -> str:
    """A line for each network and capacity: traffic and peak by way."""
    lines = ["| network | scratchpad | " + " | ".join(f"{way}: traffic, peak" for way in WAYS) + " |"]
    lines.append("|" + " --- |" * (2 + len(WAYS)))
    for network in MODELS:
        for capacity in CAPACITIES:
            cells = [rows.get((network, capacity, way)) for way in WAYS]
            values = [
                f"{int(c['noncompulsory']) / 1024:,.1f}, {int(c['peak']) / 1024:,.1f}" if c else "" for c in cells
            ]
            lines.append(f"| {network} | {capacity} | " + " | ".join(values) + " |")
    return "\n".join(lines) + "\n"


def _read(path: Path) -> dict[tuple[str, ...], Row]:
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        return {(row["network"], row["capacity"], row["way"]): row for row in csv.DictReader(stream)}


def _write(rows: dict[tuple[str, ...], Row]) -> None:
    ordered = [
        rows[key]
        for network in MODELS for capacity in CAPACITIES for way in WAYS
        if (key := (network, capacity, way)) in rows
    ]  # fmt: skip
    if not ordered:
        return
    with (HERE / "results.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(ordered[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(ordered)
    (HERE / "table.md").write_text(table(rows), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
