"""Tiled plans beside Vela's, a prototype's, whole tensors' and existing methods': `python results/tiles/make.py`.

Writes ``cells.csv`` (a row a plan), ``README.md`` and ``figures/`` beside this file. An interrupted run goes on with
the same command; ``--only TEXT`` plans the cells whose name holds the text, ``--fresh`` plans all again.
"""

from __future__ import annotations

import argparse
import csv
import sys
from fnmatch import fnmatchcase
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from cells import METHODS, Cell, read_rows, run_cells, write_rows  # noqa: E402
from page import figures, page  # noqa: E402
from published import published_cells  # noqa: E402

#: Inputs that lie beside the project.
SHARED = HERE.parents[1] / ".." / "shared"
#: Nominal seconds for each plan, the command line's own default.
EFFORT = 10.0
GRIDS = ("reference", "reference_open", "published", "open")
OPEN_KIB = (128, 256, 512, 1024)


def cells_of(grid: str) -> list[Cell]:
    """All cells of a table; ``open`` is grid T over every model of public exporters, hours of work."""
    if grid == "published":
        return published_cells(HERE / "models", SHARED)
    if grid == "open":
        folder = SHARED / "models" / "open"
        wanted = [(path.stem, kib, path) for path in sorted(folder.glob("*.onnx")) for kib in OPEN_KIB]
        methods = ["tiles", "tiles, resident", "whole"]
    else:
        folder = SHARED / ("tiles/models" if grid == "reference" else "models/open")
        wanted = [(row["model"], int(row["sram_kib"]), folder / f"{row['model']}.onnx") for row in reference(grid)]
        methods = ["tiles", "tiles, resident", "whole", "e1", "e2", "e3"]
    return [Cell(grid, model, path, kib * 1024, method) for model, kib, path in wanted for method in methods]


def reference(grid: str) -> list[dict[str, str]]:
    """What is known from elsewhere, a row a network and size."""
    with (SHARED / "tiles" / f"{grid}.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def main() -> None:
    """Plan what is missing, then write page and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grids", nargs="*", default=list(GRIDS[:3]), help=f"of {', '.join(GRIDS)}; all but the last")
    parser.add_argument("--only", default="*", metavar="TEXT", help="cells 'GRID MODEL KIB METHOD' that hold this text")
    parser.add_argument("--jobs", type=int, default=1, help="cells planned at a time; each may use two cores")
    parser.add_argument("--fresh", action="store_true", help="forget the rows of these cells first")
    given = parser.parse_args()
    for grid in given.grids:
        if grid not in GRIDS:
            parser.error(f"no table {grid!r}; there are {', '.join(GRIDS)}")
    path = HERE / "cells.csv"
    cells = [cell for grid in given.grids for cell in cells_of(grid)]
    cells = [cell for cell in cells if fnmatchcase(" ".join(cell.key), f"*{given.only}*")]
    if given.fresh:
        gone = {cell.key for cell in cells}
        write_rows(path, [row for key, row in read_rows(path).items() if key not in gone])
    assert all(cell.method in METHODS for cell in cells)
    rows = run_cells(
        cells, path, effort=EFFORT, jobs=given.jobs, say=lambda text: print(text, file=sys.stderr, flush=True)
    )
    known = {grid: reference(grid) for grid in ("reference", "reference_open")}
    (HERE / "README.md").write_text(page(rows, known, EFFORT), encoding="utf-8")
    figures(rows, known["reference"], HERE / "figures")


if __name__ == "__main__":
    main()
