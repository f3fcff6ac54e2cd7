"""``cosma plot``: what came out of a sweep, as figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cosma.cli.table import Results, Strategies


def plot(
    results: Results,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="NAME",
            help="reductions, gaps, times, performance, fronts; repeat for more. [default: all]",
        ),
    ] = None,
    strategy: Strategies = None,
    form: Annotated[
        list[str] | None,
        typer.Option("--format", "-f", metavar="png|svg|pdf", help="Repeat for more. [default: png and svg]"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="By default the folder figures beside the first results."),
    ] = None,
) -> None:
    """Draw sweeps: reduction by model, gap and time profiles, performance profiles, traffic against capacity."""
    from cosma.cli.output import print_text
    from cosma.errors import InputError
    from cosma.experiments.plots import FIGURES, make_figures
    from cosma.experiments.store import load_rows
    from cosma.figures import KINDS

    for given in name or ():
        if given not in FIGURES:
            raise InputError(f"--only {given!r} is unknown; choose from {', '.join(FIGURES)}")
    for given in form or ():
        if given not in KINDS:
            raise InputError(f"--format must be png, svg or pdf, not {given!r}")
    rows = [row for path in results for row in load_rows(path)]
    if not rows:
        raise InputError(f"{', '.join(map(str, results))}: no finished cells yet")
    first = results[0] if results[0].is_dir() else results[0].parent
    written = make_figures(
        rows, output or first / "figures", names=name or (), formats=form or ("png", "svg"), strategies=strategy or ()
    )
    for path in written:
        print_text(str(path))
