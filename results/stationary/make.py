"""How much of the traffic under ``operands = streamable`` was only on paper: the same cells under ``stationary``.

``python results/stationary/make.py`` plans every cell and writes ``cells.csv`` and ``README.md`` beside it; cells that
are in ``cells.csv`` are not planned again.
"""

from __future__ import annotations

import csv
import sys
import warnings
from pathlib import Path

from cosma import Accelerator, InfeasibleError, compile, replay
from cosma.frontend import load_onnx
from cosma.units import format_size, parse_size

HERE = Path(__file__).resolve().parent
ZOO = HERE.parents[1] / "models" / "zoo"
#: Networks of each kind in the zoo.
MODELS = (
    "mobilenet_v2_224",
    "zoo_squeezenet",
    "zoo_resnet50",
    "unet_256",
    "darts_v2_imagenet",
    "randwire_small_ws_1",
    "distilbert_s128",
    "gpt2_s128",
)
CAPACITIES = ("256KiB", "512KiB", "1MiB", "2MiB", "4MiB", "8MiB")
#: Nominal seconds for each plan.
EFFORT = 0.5
FIELDS = ("model", "weights", "capacity", "operands", "noncompulsory", "lower_bound", "compulsory", "needed")


def plan_cell(model: str, weights: str, capacity: str, operands: str) -> dict[str, object]:
    """Plan one cell; ``needed`` is what an operator needs that does not fit."""
    loaded = load_onnx(ZOO / f"{model}.onnx")
    cell: dict[str, object] = {"model": model, "weights": weights, "capacity": capacity, "operands": operands}
    accelerator = Accelerator(scratchpad=capacity, operands=operands, weights=weights)
    try:
        plan = compile(loaded, accelerator, dtype="int8", effort=EFFORT)
    except InfeasibleError as error:
        return cell | {"needed": error.needed_bytes}
    assert replay(plan).valid
    return cell | {
        "noncompulsory": plan.traffic.noncompulsory,
        "lower_bound": plan.certificate.lower_bound,
        "compulsory": plan.traffic.compulsory,
    }


def main() -> None:
    """Plan what is missing, then write the table."""
    path = HERE / "cells.csv"
    known: list[dict[str, str]] = []
    if path.exists():
        with path.open(newline="") as stream:
            known = list(csv.DictReader(stream))
    done = {tuple(row[k] for k in FIELDS[:4]) for row in known}
    warnings.simplefilter("ignore")
    for model in MODELS:
        for weights in ("scratchpad", "stream"):
            for capacity in CAPACITIES:
                for operands in ("streamable", "stationary"):
                    if (model, weights, capacity, operands) in done:
                        continue
                    row = plan_cell(model, weights, capacity, operands)
                    known.append({key: str(row.get(key, "")) for key in FIELDS})
                    with path.open("w", newline="") as stream:
                        writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
                        writer.writeheader()
                        writer.writerows(known)
                    print(*known[-1].values(), file=sys.stderr)
    (HERE / "README.md").write_text(report(known), encoding="utf-8")


def report(rows: list[dict[str, str]]) -> str:
    """The page: one table for each way that weights reach operators."""
    cells = {tuple(row[k] for k in FIELDS[:4]): row for row in rows}
    lines = [
        "# Whole-tensor plans that a machine can carry out",
        "",
        "Made by `python results/stationary/make.py`. Grid S with whole tensors: int8, in place, strategy `auto`,",
        f"effort {EFFORT}. Each cell: non-compulsory MB under `operands = streamable` -> under `stationary`. A star:",
        "proven optimal. *N KiB*: no plan, an operator needs so much in the mode that needs least.",
    ]
    for weights in ("scratchpad", "stream"):
        pairs = [
            [cells.get((m, weights, c, o), {}).get("noncompulsory") for o in ("streamable", "stationary")]
            for m in MODELS for c in CAPACITIES
        ]  # fmt: skip
        both = [(int(a), int(b)) for a, b in pairs if a and b]
        unfit = sum(bool(row["needed"]) for key, row in cells.items() if key[1] == weights and key[3] == "stationary")
        paper, real = (sum(column) for column in zip(*both, strict=True)) if both else (0, 0)
        lines += [
            "",
            f"## `weights = {weights}`",
            "",
            f"{len(both)} cells have both plans: {paper / 1e6:.1f} MB under `streamable`, {real / 1e6:.1f} MB under "
            f"`stationary`, {sum(a == b for a, b in both)} of them equal. {unfit} cells have no plan under "
            "`stationary`.",
            "",
            "| network | " + " | ".join(format_size(parse_size(c)) for c in CAPACITIES) + " |",
            "| --- |" + " --- |" * len(CAPACITIES),
        ]
        for model in MODELS:
            found = [
                " -> ".join(_shown(cells.get((model, weights, c, o))) for o in ("streamable", "stationary"))
                for c in CAPACITIES
            ]
            lines.append(f"| {model} | " + " | ".join(found) + " |")
    return "\n".join(lines) + "\n"


def _shown(row: dict[str, str] | None) -> str:
    if row is None:
        return "?"
    if row["needed"]:
        return f"*{-(-int(row['needed']) // 1024)} KiB*"
    proven = row["noncompulsory"] == row["lower_bound"]
    return f"{int(row['noncompulsory']) / 1e6:.2f}{'*' if proven else ''}"


if __name__ == "__main__":
    main()
