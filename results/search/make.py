"""How good the search is: against the existing methods, against itself with more work, and against divide and conquer.

Usage: ``python results/search/make.py [MODEL_FOLDER] [EFFORT] [LONG_EFFORT] [CELL,CELL...]`` writes ``cells.csv`` and
``README.md`` beside this file. A cell is a grid and a capacity, such as ``R1.0`` or ``S256KiB``. Traffic is
non-compulsory bytes of decisions, without addresses. One process; seconds are CPU seconds of that run, the other
columns are the same on every machine.
"""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path

from cosma.accelerator import Accelerator
from cosma.frontend import load_onnx
from cosma.graph import Graph
from cosma.heuristics import EXISTING, ORDERS, run_method
from cosma.problem import Problem, build_problem, noncompulsory_bytes, smallest_feasible_capacity
from cosma.search import divide, search
from cosma.units import parse_size

HERE = Path(__file__).resolve().parent
PREFIXES = ("amoebanet", "darts", "enas", "nasnet", "pnasnet", "randwire", "train_resnet20")
CELLS = "R1.0,R1.25,W1.0,S256KiB,S512KiB"
FIELDS = (
    "model", "operators", "cell", "e1", "e2", "e3", "divide", "exact_parts", "parts", "search", "long_search",
    "search_cpu_s", "divide_cpu_s",
)  # fmt: skip


def instance(graph: Graph, cell: str) -> Problem:
    """Build the instance of a cell: ``R`` or ``W`` and a factor, or ``S`` and a size."""
    grid, capacity = cell[0], cell[1:]
    if grid == "S":
        return build_problem(graph.with_dtype("int8"), Accelerator(scratchpad=parse_size(capacity, "capacity")))
    weights = {"R": "stream", "W": "scratchpad"}[grid]
    base = Accelerator(scratchpad=1 << 50, operands="resident", in_place=False, weights=weights)
    smallest = smallest_feasible_capacity(build_problem(graph, base))
    return build_problem(graph, base.replace(scratchpad=max(1, int(float(capacity) * smallest))))


def measure(problem: Problem, effort: float, long_effort: float) -> dict[str, object]:
    """Everything about one cell."""
    row: dict[str, object] = {}
    for name, method in EXISTING.items():
        row[name] = noncompulsory_bytes(problem, run_method(problem, method).decisions)
    starts = [order(problem) for order in ORDERS.values()]
    began = time.process_time()
    row["search"] = search(problem, starts, effort=effort).noncompulsory_bytes
    row["search_cpu_s"] = round(time.process_time() - began, 1)
    floor = problem.constant_noncompulsory_bytes
    row["long_search"] = (
        search(problem, starts, effort=long_effort, seed=1).noncompulsory_bytes if row["search"] != floor else floor
    )
    began = time.process_time()
    parts = divide(problem, effort=effort)
    row["divide"] = parts.noncompulsory_bytes
    row["exact_parts"] = sum(part.exact for part in parts.parts)
    row["parts"] = len(parts.parts)
    row["divide_cpu_s"] = round(time.process_time() - began, 1)
    return row


def main() -> None:
    """Measure every cell; the summary is written anew after each model."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parents[1].parent / "shared" / "models" / "open"
    effort = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    long_effort = float(sys.argv[3]) if len(sys.argv) > 3 else 10.0
    cells = (sys.argv[4] if len(sys.argv) > 4 else CELLS).split(",")
    rows: list[dict[str, object]] = []
    with (HERE / "cells.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        for path in sorted(folder.glob("*.onnx")):
            if not path.stem.startswith(PREFIXES) or path.stem.endswith(("_legacy", "_noopt")):
                continue
            graph = load_onnx(path).graph
            for cell in cells:
                problem = instance(graph, cell)
                row = {"model": path.stem, "operators": problem.operator_count, "cell": cell}
                row.update(measure(problem, effort, long_effort))
                rows.append(row)
                writer.writerow(row)
                file.flush()
                print(*(row[field] for field in FIELDS), file=sys.stderr, flush=True)
            (HERE / "README.md").write_text(summary(rows, effort, long_effort), encoding="utf-8")


def summary(rows: list[dict[str, object]], effort: float, long_effort: float) -> str:
    """Mean reductions by grid, and what longer search still finds."""
    lines = [
        "# Search against existing methods, divide and conquer, and longer search",
        "",
        f"Made by `python results/search/make.py` (effort {effort:g}, long effort {long_effort:g} from another seed).",
        "Reduction = 1 - ours / theirs over the cells where theirs is above zero. Traffic is that of decisions without",
        "addresses. `left` = mean of 1 - long / short over the cells where search leaves traffic.",
        "",
        f"Models ({len({row['model'] for row in rows})}): {', '.join(sorted({str(row['model']) for row in rows}))}.",
        "",
        "| grid | cells | search vs E1 | vs E2 | vs E3 | divide vs E1 | worse than an existing method | left | CPU s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for grid in ("R", "W", "S"):
        chosen = [row for row in rows if str(row["cell"]).startswith(grid)]
        if not chosen:
            continue
        worse = sum(int(str(row["search"])) > min(int(str(row[e])) for e in EXISTING) for row in chosen)
        left = [1 - value(row, "long_search") / value(row, "search") for row in chosen if value(row, "search")]
        seconds = sum(value(row, "search_cpu_s") for row in chosen) / len(chosen)
        lines.append(
            f"| {grid} | {len(chosen)} | {reduction(chosen, 'search', 'e1')} | {reduction(chosen, 'search', 'e2')} "
            f"| {reduction(chosen, 'search', 'e3')} | {reduction(chosen, 'divide', 'e1')} | {worse} "
            f"| {sum(left) / max(1, len(left)):.2%} | {seconds:.1f} |"
        )
    return "\n".join(lines) + "\n"


def value(row: dict[str, object], field: str) -> float:
    """A number of a row."""
    return float(str(row[field]))


def reduction(rows: list[dict[str, object]], ours: str, theirs: str) -> str:
    """Mean reduction, as a percentage."""
    found = [1 - value(row, ours) / value(row, theirs) for row in rows if value(row, theirs) > 0]
    return f"{sum(found) / max(1, len(found)):.1%}"


if __name__ == "__main__":
    main()
