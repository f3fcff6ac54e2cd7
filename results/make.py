"""Make a folder of results again: `python results/make.py NAME` runs NAME.toml and writes its tables and figures.

What is written to `results/NAME/`: the rows (`rows.csv`), the tables (`tables.md`) and the figures
(`figures/*.svg`), which are kept, and the log of cells, which is not: it lets an interrupted run go on.
With `--check`, nothing there is touched: the experiment runs in a folder of its own and is compared with the rows
that are kept, cell by cell; where traffic or a bound got worse the exit code is 5.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from cosma.errors import CosmaError
from cosma.experiments import load_experiment, load_rows, sweep
from cosma.experiments.compare import compare
from cosma.experiments.plots import make_figures
from cosma.experiments.tables import SUMMARY, make_tables, provenance
from cosma.files import write_atomic

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Run what the command line asks for and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(path.stem for path in HERE.glob("*.toml")))
    parser.add_argument("--jobs", type=int, help="processes; by default one a processor")
    parser.add_argument("--dask", metavar="local|tcp://HOST:PORT", help="run on a Dask cluster instead")
    parser.add_argument("--fresh", action="store_true", help="run every cell again")
    parser.add_argument("--check", action="store_true", help="compare with the rows kept instead of writing them")
    parser.add_argument("--tolerance", type=float, default=0.0, help="worsening that --check lets pass; 0.01 is 1 %%")
    given = parser.parse_args()
    try:
        if given.check:
            return check(given.name, given.jobs, given.tolerance)
        return make(given.name, jobs=given.jobs, dask=given.dask, fresh=given.fresh)
    except CosmaError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code


def make(name: str, *, jobs: int | None = None, dask: str | None = None, fresh: bool = False) -> int:
    """Run an experiment, or what is left of it, and write its tables and figures."""
    experiment, folder = load_experiment(HERE / f"{name}.toml"), HERE / name
    rows = sweep(experiment, folder, jobs=jobs, dask=dask, fresh=fresh, note=_note).rows
    head = f"# {experiment.name}\n\n{experiment.description}.\n\nMade by `python results/make.py {name}`. {{}}.\n"
    tables = [table.to_markdown(2) for table in make_tables(rows, SUMMARY)]
    write_atomic(folder / "tables.md", "\n".join([head.format(provenance(rows)), *tables]))
    make_figures(rows, folder / "figures", formats=("svg",))
    _note(f"tables in {folder / 'tables.md'}, figures in {folder / 'figures'}")
    return 0


def check(name: str, jobs: int | None, tolerance: float) -> int:
    """Run an experiment anew and compare it with the rows kept; 5 where something got worse."""
    kept = load_rows(HERE / name / "rows.csv")
    with tempfile.TemporaryDirectory() as folder:
        rows = sweep(load_experiment(HERE / f"{name}.toml"), folder, jobs=jobs, note=_note).rows
    differences = compare(kept, rows, tolerance=tolerance)
    for d in differences:
        sys.stdout.write(f"{d.kind}: {d.model} {d.grid} {d.capacity} {d.label}: {d.before} -> {d.after}\n")
    worse = sum(d.regression for d in differences)
    sys.stdout.write(f"{len(rows)} cells against {len(kept)} kept: {worse} regressions\n")
    return 5 if worse else 0


def _note(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
