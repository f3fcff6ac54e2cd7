"""Networks of every family cut into tiles and executed: do the numbers hold?

``python results/run/make.py`` plans each network with tiles, executes the plan with real kernels at its addresses, and
writes ``cells.csv`` and ``README.md``. Rows that the file has are kept, so that the command goes on where it was
interrupted; ``--fresh`` makes all again, ``--network`` only some. Networks that do not come with the project are read
from ``--folder``, by default that of the open models. The exit code is 5 where numbers differ.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from pathlib import Path
from typing import NamedTuple

import cosma
from cosma.execute import run_plan

HERE = Path(__file__).resolve().parent
ZOO = HERE.parents[1] / "models" / "zoo"
OPEN = HERE.parents[1] / ".." / "shared" / "models" / "open"


class Cell(NamedTuple):
    """One network, and how it is cut."""

    family: str
    scratchpad: str
    tiling: str
    dtype: str | None = None


#: What a plan needs is kept small by scratchpads in which most networks do not fit untiled.
CELLS = {
    "zoo_squeezenet": Cell("CNN", "128KiB", "rows=4", "int8"),
    "zoo_resnet50": Cell("CNN", "512KiB", "rows=7", "int8"),
    "hrnet_w32_small_256": Cell("CNN", "512KiB", "rows=8", "int8"),
    "mobilenet_v2_cl": Cell("separable", "128KiB", "rows=4", "int8"),
    "efficientnet_b0_cl": Cell("separable", "512KiB", "rows=8", "int8"),
    "unet_256": Cell("U-Net", "512KiB", "rows=8", "int8"),
    "retinanet_r50_fpn_512": Cell("detection", "2MiB", "rows=16", "int8"),
    "distilbert_s128": Cell("transformer", "512KiB", "rows=16", "int8"),
    "vit_6l_224_fp16": Cell("transformer", "1MiB", "rows=8"),
    "gpt2_s128": Cell("transformer", "1MiB", "rows=32", "int8"),
    "llama_4l_512_s128": Cell("transformer", "256KiB", "rows=16", "int8"),
    "mobilevit_s_256": Cell("transformer", "256KiB", "rows=8", "int8"),
    "darts_v2_imagenet": Cell("NAS", "256KiB", "rows=8", "int8"),
    "enas_micro_cifar": Cell("NAS", "64KiB", "rows=8", "int8"),
    "nasnet_a_imagenet": Cell("NAS", "256KiB", "rows=8", "int8"),
    "randwire_small_ws_1": Cell("NAS", "256KiB", "rows=8", "int8"),
    "mobilenet_v2_int8_qdq": Cell("quantised", "256KiB", "rows=4"),
    "bert_small_s128_int8_dynamic": Cell("quantised", "2MiB", "rows=32"),
    "lstm_bi2_s64": Cell("recurrent", "128KiB", "rows=16", "int8"),
    "wav2vec2_base_1s": Cell("audio", "512KiB", "rows=8", "int8"),
}

FIELDS = (
    "network", "operators", "tiles", "whole_operators", "moved_mb", "verdict", "same_bits_as_tiles",
    "largest_difference", "allowed", "tensors", "elements", "model_as_a_whole", "distinct_values", "cpu_s",
)  # fmt: skip

#: Elements of an output of which a run counts the distinct values.
LOOKED_AT = 65_536

Row = dict[str, str]


def main() -> int:
    """Make the rows that are asked for, write both files, and say whether any number differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=OPEN)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--network", choices=CELLS, action="append")
    asked = parser.parse_args()
    rows = _read(HERE / "cells.csv")
    for network in asked.network or CELLS:
        path = ZOO / f"{network}.onnx"
        path = path if path.exists() else asked.folder / path.name
        if (asked.fresh or network not in rows) and path.exists():
            rows[network] = execute(network, path, CELLS[network])
            print(rows[network], flush=True)
            _write(rows)
    different = [name for name, row in rows.items() if row["verdict"] != "equal"]
    for name in different:
        print(f"{name}: the numbers differ", file=sys.stderr)
    return 5 if different else 0


def execute(network: str, path: Path, cell: Cell) -> Row:
    """Plan a network with tiles and execute the plan."""
    accelerator = cosma.Accelerator(
        scratchpad=cell.scratchpad, operands="stationary", weights="scratchpad", fusion="epilogue"
    )
    began = time.process_time()
    # The quickest plan: what is looked at are the tiles, which are the same in every plan.
    plan = cosma.compile(path, accelerator, tiling=cell.tiling, dtype=cell.dtype, strategy="e2", effort=0.0)
    report = run_plan(plan, path)
    elements = {output.name: min(output.elements, LOOKED_AT) for output in report.untiled}
    poorest = min(report.outputs, key=lambda check: check.distinct / max(1, elements[check.name]))
    worst = max(report.untiled, key=lambda one: one.largest / (one.allowed or 1.0))
    row = {
        "network": network,
        "operators": len({operator.tile.root for operator in plan.graph.operators if operator.tile is not None}),
        "tiles": sum(operator.tile is not None for operator in plan.graph.operators),
        "whole_operators": sum(operator.tile is None for operator in plan.graph.operators),
        "moved_mb": round(report.traffic.total / 1e6, 2),
        "verdict": "equal" if report.passed else "DIFFERENT",
        "same_bits_as_tiles": "yes" if report.equal else "NO",
        "largest_difference": f"{worst.largest:.3g}",
        "allowed": f"{worst.allowed:.3g}",
        "tensors": len(report.untiled),
        "elements": sum(one.elements for one in report.untiled),
        "model_as_a_whole": report.whole.verdict,
        "distinct_values": f"{poorest.distinct} of {elements[poorest.name]}",
        "cpu_s": round(time.process_time() - began, 1),
    }
    return {name: str(value) for name, value in row.items()}


def _page(rows: dict[str, Row]) -> str:
    lines = [
        "# Networks executed tile by tile",
        "",
        "Made by `python results/run/make.py`: `operands = stationary`, `weights = scratchpad`, `fusion = epilogue`.",
        "Each plan is executed with ONNX Runtime's kernels on slices, at the plan's addresses in a poisoned",
        "scratchpad. Weights that a file does not hold are random. int8 plans count one byte an element and are",
        "executed in the model's own types, all sizes scaled. Rows that the file has are kept: some are older.",
        "",
        "- **same bits**: every result of every tile and all outputs are bit for bit those of the same tiles run",
        "  without a plan, and as many bytes were copied as the plan says.",
        "- **tensors**, **elements**: every tensor that an operator yields is put together from its parts and compared",
        "  with that of the operator uncut. Blank: made when outputs alone were.",
        "- **difference**: the largest in terms of what is allowed, which is half of the type's digits relative to the",
        "  largest value of the tensor, and nothing for integers but one step of eight bits.",
        "- **model as a whole**: the untouched file run by ONNX Runtime at once, its outputs compared in the same way.",
        "- **values**: the output with the fewest distinct values, of so many elements looked at. An output of few",
        "  proves little, as random weights in quantised or deep networks may saturate; those before it prove more.",
        "",
        "| family | network | scratchpad | tiling | operators cut | tiles | whole | moved MB | same bits | tensors "
        "| elements | difference | allowed | model as a whole | values |",
        "|" + " --- |" * 15,
    ]
    for name, row in rows.items():
        cell = CELLS[name]
        known = [row[key] for key in ("operators", "tiles", "whole_operators", "moved_mb", "same_bits_as_tiles",
                                      "tensors", "elements", "largest_difference", "allowed", "model_as_a_whole",
                                      "distinct_values")]  # fmt: skip
        kind = name if cell.dtype is None else f"{name}, {cell.dtype}"
        lines.append("| " + " | ".join([cell.family, kind, cell.scratchpad, f"`{cell.tiling}`", *known]) + " |")
    equal = sum(row["verdict"] == "equal" for row in rows.values())
    missing = [name for name in CELLS if name not in rows]
    lines += ["", f"{equal} of {len(rows)} networks give the numbers of the operators uncut."]
    lines += [f"Not executed yet: {', '.join(missing)}."] if missing else []
    return "\n".join([*lines, ""])


def _read(path: Path) -> dict[str, Row]:
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        return {row["network"]: dict.fromkeys(FIELDS, "") | row for row in csv.DictReader(stream)}


def _write(rows: dict[str, Row]) -> None:
    ordered = {name: rows[name] for name in CELLS if name in rows}
    with (HERE / "cells.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(ordered.values())
    (HERE / "README.md").write_text(_page(ordered), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
