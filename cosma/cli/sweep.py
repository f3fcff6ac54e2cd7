"""``cosma sweep``: run an experiment, or what is left of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cosma.cli import options
from cosma.text import counted

if TYPE_CHECKING:
    from cosma.experiments.sweep import Outline, SweepResult


def sweep(
    experiment: Annotated[
        Path, typer.Argument(metavar="EXPERIMENT.toml", help="What to run; the documentation has the format.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Results folder; by default the experiment's, less .toml."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", metavar="N", help="Processes; by default one a processor.")
    ] = None,
    dask: Annotated[
        str | None, typer.Option("--dask", metavar="local|tcp://HOST:PORT", help="Run on a Dask cluster instead.")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Run cells that failed again.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run every cell again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and run nothing.")] = False,
    json: options.Json = False,
) -> None:
    """Run every cell of an experiment that has no result yet.

    A cell is one model on one accelerator by one strategy. Cells run in processes of their own, under limits of
    time and memory; one that fails is a row with its reason. Interrupted or killed at any moment, a sweep loses
    no finished cell: the same command goes on.
    """
    from cosma.cli.interrupts import INTERRUPTED, Interruption
    from cosma.cli.output import note
    from cosma.errors import InputError
    from cosma.experiments import load_experiment
    from cosma.experiments import sweep as run
    from cosma.experiments.sweep import outline_folder
    from cosma.process import core_count

    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs must be at least 1, not {jobs}")
    loaded = load_experiment(experiment)
    folder = output if output is not None else experiment.with_suffix("")
    if dry_run:
        outline = outline_folder(loaded, folder, retry=retry, fresh=fresh, jobs=jobs or core_count())
        _print_outline(outline, loaded.name, folder, json=json)
        return
    try:
        # Ending the processes of cells takes a moment, and must not be cut short.
        with Interruption(grace_s=0.0):
            result = run(loaded, folder, jobs=jobs, dask=dask, retry=retry, fresh=fresh, quiet=json, note=note)
    except KeyboardInterrupt:
        note(f"interrupted; every finished cell is kept in {folder}, and the same command goes on from there")
        sys.exit(INTERRUPTED)
    _print_result(result, folder, json=json)


def _print_outline(outline: Outline, name: str, folder: Path, *, json: bool) -> None:
    from cosma.cli.output import make_table, note, print_json, print_table
    from cosma.experiments.progress import clock

    groups: dict[tuple[str, str], list[int]] = {}
    waiting = {id(cell) for cell in outline.waiting}
    for cell in outline.cells.values():
        counts = groups.setdefault((cell.grid, cell.label), [0, 0])
        counts[0] += 1
        counts[1] += id(cell) in waiting
    models = len({cell.model for cell in outline.cells.values()})
    left = outline.seconds_left
    if json:
        print_json(
            {
                "experiment": name,
                "folder": str(folder),
                "models": models,
                "cells": len(outline.cells),
                "to_run": len(outline.waiting),
                "seconds_left": None if left is None else round(left, 1),
                "groups": [
                    {"grid": grid, "strategy": label, "cells": total, "to_run": count}
                    for (grid, label), (total, count) in groups.items()
                ],
                "keys": [key for key, cell in outline.cells.items() if id(cell) in waiting],
            }
        )
        return
    table = make_table(f"{name}: {models} models", ("grid", "strategy", "cells", "done", "to run"), right=(2, 3, 4))
    for (grid, label), (total, count) in groups.items():
        table.add_row(grid, label, str(total), str(total - count), str(count))
    table.add_row("", "all", str(len(outline.cells)), str(len(outline.cells) - len(waiting)), str(len(waiting)))
    print_table(table)
    note(f"nothing was run; results would go to {folder}" + ("" if left is None else f", in about {clock(left)}"))


def _print_result(result: SweepResult, folder: Path, *, json: bool) -> None:
    from cosma.cli.output import note, print_json, print_rows

    failures = [row for row in result.rows if not row.planned]
    if json:
        print_json(
            {
                "folder": str(folder),
                "cells": result.cells,
                "ran": result.ran,
                "statuses": result.statuses,
                "failures": [
                    {"model": row.model, "grid": row.grid, "capacity": row.capacity, "strategy": row.label,
                     "status": row.status, "reason": row.reason}
                    for row in failures
                ],
                "files": [str(path) for path in result.files],
            }
        )  # fmt: skip
        return
    print_rows(None, ("status", "cells"), [(s, str(count)) for s, count in result.statuses.items()], right=(1,))
    for row in failures[:5]:
        reason = (row.reason or "").splitlines()[0] if row.reason else ""
        note(f"{row.status}: {row.model} {row.grid} {row.capacity} {row.label}: {reason}")
    if len(failures) > 5:
        note(f"and {len(failures) - 5} more without a plan; `cosma table {folder}` lists them")
    note(f"{counted(result.ran, 'cell')} run, {result.cells} in all; rows in {result.files[0]}")
