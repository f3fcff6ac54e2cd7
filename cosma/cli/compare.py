"""``cosma compare``: what got worse between two sweeps."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cosma.cli import options
from cosma.text import counted

if TYPE_CHECKING:
    from cosma.experiments.compare import Difference

#: Exit code where something got worse.
WORSE = 5
#: Differences a table lists; --json lists them all.
SHOWN = 40


def compare(
    before: Annotated[Path, typer.Argument(metavar="RESULTS_A", help="The old results: a folder or a file of rows.")],
    after: Annotated[Path, typer.Argument(metavar="RESULTS_B", help="The new ones.")],
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance", metavar="X", help="Worsening of traffic or bound to let pass; 0.01 is one per cent."
        ),
    ] = 0.0,
    slowdown: Annotated[
        float | None, typer.Option("--slowdown", metavar="RATIO", help="Count a cell this many times slower as worse.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Let pass cells that the new results lack.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Find regressions between two sweeps, cell by cell; exit with 5 if there is one.

    More non-compulsory traffic, a lower bound, a plan lost, a cell missing, or a bound above a plan are
    regressions; seconds count with --slowdown alone, as clocks differ between machines.
    """
    from cosma import door
    from cosma.cli.output import make_table, print_json, print_table, print_text
    from cosma.errors import InputError
    from cosma.experiments.compare import compare as find
    from cosma.experiments.store import load_rows

    door.number(tolerance, "--tolerance")
    if slowdown is not None and door.number(slowdown, "--slowdown") <= 1:
        raise InputError(f"--slowdown must be more than 1, not {slowdown}")
    old, new = load_rows(before), load_rows(after)
    if not old:
        raise InputError(f"{before}: no finished cells to compare with")
    differences = find(old, new, tolerance=tolerance, slowdown=slowdown, allow_missing=allow_missing)
    regressions = sum(d.regression for d in differences)
    if json:
        print_json(
            {
                "before": len(old),
                "after": len(new),
                "regressions": regressions,
                "differences": [asdict(d) | {"regression": d.regression} for d in differences],
            }
        )
    else:
        columns = ("", "model", "grid", "capacity", "strategy", "before", "after", "change")
        shown = make_table(None, columns, right=(5, 6, 7))
        for d in differences[:SHOWN]:
            values = (str(x) if x is not None else "-" for x in (d.before, d.after))
            shown.add_row(d.kind, d.model, d.grid, d.capacity, d.label, *values, _change(d))
        if differences:
            print_table(shown)
        if len(differences) > SHOWN:
            print_text(f"and {len(differences) - SHOWN} more")
        same = len({row.point for row in old} & {row.point for row in new})
        others = len(differences) - regressions
        found = counted(same, "cell"), counted(regressions, "regression"), counted(others, "other difference")
        print_text(f"{found[0]} compared, {found[1]}, {found[2]}")
    if regressions:
        raise typer.Exit(WORSE)


def _change(difference: Difference) -> str:
    before, after = difference.before, difference.after
    if isinstance(before, str) or isinstance(after, str) or not before or after is None:
        return ""
    return f"{100 * (after / before - 1):+.1f} %"
