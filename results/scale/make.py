"""How time, memory and gap grow with operators: `python results/scale/make.py` from the repository root.

Each cell runs in a process of its own, so that its peak memory is its own. Rows are in ``scale.csv``; those that are
there already are kept (``--again`` measures all of them anew). The picture is ``scale.svg`` and ``scale.png``.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

SIZES = (500, 1_000, 2_000, 5_000, 10_000, 20_000)
MODES = ("resident", "streamable")
COLUMNS = (
    *("family", "mode", "operators", "scratchpad", "cpu_s", "wall_s", "peak_mb"),
    *("existing", "ours", "bound", "gap"),
)
#: Capacity in `resident` mode, in multiples of the largest operator's working set, and in `streamable` mode.
CAPACITY_FACTOR = 1.1
CAPACITY_BYTES = 256 * 1024


def measure(family: str, mode: str, operators: int) -> dict[str, object]:
    """Compile one network with the default strategy and effort, in this process."""
    import resource

    from families import FAMILIES

    from cosma.accelerator import Accelerator
    from cosma.compiler import run_compile
    from cosma.problem import build_problem, smallest_feasible_capacity

    graph = FAMILIES[family](operators)
    settings = {"operands": "resident", "in_place": False} if mode == "resident" else {}
    size = CAPACITY_BYTES
    if mode == "resident":
        need = smallest_feasible_capacity(build_problem(graph, Accelerator(scratchpad=1 << 60, **settings)))
        size = int(CAPACITY_FACTOR * need)
    accelerator = Accelerator(scratchpad=size, **settings)
    existing = run_compile(graph, accelerator, strategy="existing").plan.traffic.noncompulsory
    begin, wall = time.process_time(), time.monotonic()
    plan = run_compile(graph, accelerator).plan
    return {
        "family": family,
        "mode": mode,
        "operators": operators,
        "scratchpad": size,
        "cpu_s": round(time.process_time() - begin, 1),
        "wall_s": round(time.monotonic() - wall, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "existing": existing,
        "ours": plan.traffic.noncompulsory,
        "bound": plan.certificate.lower_bound,
        "gap": round(plan.certificate.gap, 4),
    }


def draw(rows: list[dict[str, str]]) -> None:
    """Draw time, memory, traffic against existing methods, and gap over operators."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "scale"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(16.5, 3.9), constrained_layout=True)
    colours = {"cells": "#0072b2", "wired": "#d55e00", "transformer": "#009e73"}
    pictures = (
        ("CPU seconds", lambda r: float(r["cpu_s"])),
        ("peak memory, MB", lambda r: float(r["peak_mb"])),
        (
            "traffic against the best existing method, %",
            lambda r: 100 * float(r["ours"]) / max(1.0, float(r["existing"])),
        ),
        ("certified gap, %", lambda r: 100 * float(r["gap"])),
    )
    for axis, (title, value) in zip(axes, pictures, strict=True):
        for family, colour in colours.items():
            for mode, line in zip(MODES, ("--", "-"), strict=True):
                chosen = [r for r in rows if (r["family"], r["mode"]) == (family, mode)]
                points = sorted((int(r["operators"]), value(r)) for r in chosen)
                axis.plot(*zip(*points, strict=True), line, marker="o", ms=3.5, color=colour, label=f"{family}, {mode}")
        axis.set_xscale("log")
        axis.set_xticks(SIZES, [f"{size:,}" for size in SIZES], rotation=40)
        axis.minorticks_off()
        axis.set_xlabel("operators")
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
    for axis in axes[:2]:
        axis.set_yscale("log")
    for axis in axes[2:]:
        axis.set_ylim(-3, 103)
    axes[0].axhline(60, color="black", lw=0.8, ls=":")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.savefig(HERE / "scale.svg", metadata={"Date": None})
    figure.savefig(HERE / "scale.png", dpi=110)


def main() -> None:
    """Measure what is missing, write the table, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", action="store_true", help="measure every cell anew")
    parser.add_argument("--cell", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        family, mode, operators = arguments.cell
        print(json.dumps(measure(family, mode, int(operators))))
        return
    table = HERE / "scale.csv"
    rows: list[dict[str, str]] = []
    if table.exists() and not arguments.again:
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    known = {(row["family"], row["mode"], int(row["operators"])) for row in rows}
    from families import FAMILIES

    for operators in SIZES:
        for family in FAMILIES:
            for mode in MODES:
                if (family, mode, operators) in known:
                    continue
                command = [sys.executable, __file__, "--cell", family, mode, str(operators)]
                found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                rows.append({key: str(value) for key, value in json.loads(found).items()})
                print(rows[-1], file=sys.stderr, flush=True)
                with table.open("w", encoding="utf-8", newline="") as file:
                    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                    writer.writeheader()
                    writer.writerows(rows)
    draw(rows)


if __name__ == "__main__":
    main()
