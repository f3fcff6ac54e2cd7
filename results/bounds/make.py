"""How tight the lower bounds are: grids R, W and S over a folder of models.

Usage: ``python results/bounds/make.py [MODEL_FOLDER] [EFFORT] [NAME_PREFIX ...]`` writes ``cells.csv`` and
``README.md`` beside this file. Each cell gets the bound, the least traffic known (decisions without addresses:
existing orders with their best replacement, the orders that the bounds propose, annealing where a gap is left) and
what closed or left the gap. One process. Seconds are CPU seconds of that run; the other columns are the same on
every machine.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from cosma.accelerator import Accelerator
from cosma.bounds import BoundEngine
from cosma.exact import optimal_replacement
from cosma.frontend import load_onnx
from cosma.graph import Graph
from cosma.heuristics import ORDERS
from cosma.problem import Problem, build_problem, noncompulsory_bytes, smallest_feasible_capacity
from cosma.search import search

HERE = Path(__file__).resolve().parent
FACTORS = (1.0, 1.1, 1.25, 1.5)
GRIDS = {"R": "stream", "W": "scratchpad"}
SIZES = {"256KiB": 1 << 18, "512KiB": 1 << 19, "1MiB": 1 << 20, "2MiB": 1 << 21, "4MiB": 1 << 22, "8MiB": 1 << 23}
EFFORT = 3.0
FIELDS = (
    "model", "operators", "grid", "capacity", "bound_bytes", "known_bytes", "gap", "method", "bound_cpu_s",
    "known_cpu_s",
)  # fmt: skip


def cells(graph: Graph) -> Iterator[tuple[str, str, Problem]]:
    """All cells of a model: (grid, capacity as the grid names it, instance)."""
    for grid, weights in GRIDS.items():
        base = Accelerator(scratchpad=1 << 50, operands="resident", in_place=False, weights=weights)
        smallest = smallest_feasible_capacity(build_problem(graph, base))
        for factor in FACTORS:
            yield grid, str(factor), build_problem(graph, base.replace(scratchpad=max(1, int(factor * smallest))))
    narrow = graph.with_dtype("int8")
    for name, size in SIZES.items():
        yield "S", name, build_problem(narrow, Accelerator(scratchpad=size))


def solve_cell(problem: Problem, effort: float) -> dict[str, object]:
    """Bound a cell, and find the least traffic that can be found quickly."""
    began = time.process_time()
    engine = BoundEngine(problem)
    bound = engine.run(effort / 3)
    bound_s = time.process_time() - began
    began = time.process_time()
    known: int | None = None
    tried: list[tuple[int, ...]] = []

    def try_order(order: tuple[int, ...]) -> None:
        nonlocal known
        if order in tried or known == bound.value_bytes:
            return
        tried.append(order)
        value = noncompulsory_bytes(problem, optimal_replacement(problem, order, work_limit=effort)[0])
        known = value if known is None else min(known, value)

    if engine.order is not None:
        try_order(engine.order)
    for name in ("given", "depth-first", "peak-minimising"):
        if known != bound.value_bytes:
            try_order(tuple(ORDERS[name](problem)))
    assert known is not None
    if known > bound.value_bytes:
        found = search(problem, tried, effort=effort, lower_bound=bound.value_bytes)
        known = min(known, found.noncompulsory_bytes)
        if known > bound.value_bytes:
            known_s = time.process_time() - began
            began = time.process_time()
            engine.update_upper(known)
            bound = engine.run(effort)
            bound_s += time.process_time() - began
            began = time.process_time() - known_s
            if engine.order is not None:
                try_order(engine.order)
    known_s = time.process_time() - began
    if bound.value_bytes > known:
        raise AssertionError(f"bound {bound.value_bytes} ({bound.method}) above known {known}")
    return {
        "bound_bytes": bound.value_bytes,
        "known_bytes": known,
        "gap": round((known - bound.value_bytes) / known, 5) if known else 0.0,
        "method": bound.method,
        "bound_cpu_s": round(bound_s, 2),
        "known_cpu_s": round(known_s, 2),
    }


def main() -> None:
    """Measure every cell, then write the table and its summary."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parents[1].parent / "shared" / "models" / "open"
    effort = float(sys.argv[2]) if len(sys.argv) > 2 else EFFORT
    prefixes = tuple(sys.argv[3:]) or ("",)
    rows: list[dict[str, object]] = []
    with (HERE / "cells.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        for path in sorted(folder.glob("*.onnx")):
            if not path.stem.startswith(prefixes):
                continue
            graph = load_onnx(path).graph
            for grid, capacity, problem in cells(graph):
                row = {"model": path.stem, "operators": problem.operator_count, "grid": grid, "capacity": capacity}
                row.update(solve_cell(problem, effort))
                rows.append(row)
                writer.writerow(row)
                file.flush()
                print(*row.values(), file=sys.stderr, flush=True)
            (HERE / "README.md").write_text(summary(rows, effort), encoding="utf-8")


def summary(rows: list[dict[str, object]], effort: float) -> str:
    """Write the summary by grid, and the cells with a gap."""
    lines = [
        "# Bounds against the least traffic known",
        "",
        f"Made by `python results/bounds/make.py` (effort {effort:g}). Gap = (known - bound) / known, 0 where nothing",
        "is moved.",
        "",
        f"Models ({len({row['model'] for row in rows})}): {', '.join(sorted({str(row['model']) for row in rows}))}.",
        "",
        "Traffic is that of decisions without addresses, which is what the bounds are about.",
        "",
        "| grid | cells | bound = known | mean gap | bound 0, known > 0 | mean bound CPU s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for grid in ("R", "W", "S", "all"):
        chosen = [row for row in rows if grid in ("all", row["grid"])]
        if not chosen:
            continue
        met = sum(row["gap"] == 0 for row in chosen)
        zero = sum(row["bound_bytes"] == 0 and row["known_bytes"] != 0 for row in chosen)
        mean = sum(float(str(row["gap"])) for row in chosen) / len(chosen)
        seconds = sum(float(str(row["bound_cpu_s"])) for row in chosen) / len(chosen)
        lines.append(
            f"| {grid} | {len(chosen)} | {met} ({met / len(chosen):.1%}) | {mean:.2%} | {zero} | {seconds:.2f} |"
        )
    lines += ["", "## Cells with a gap", "", "| model | grid | capacity | bound | known | gap | method |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        if row["gap"]:
            lines.append(
                f"| {row['model']} | {row['grid']} | {row['capacity']} | {row['bound_bytes']} | {row['known_bytes']} "
                f"| {float(str(row['gap'])):.2%} | {row['method']} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
