"""``cosma report``: a plan as a page, a figure or text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.json", help="A plan file.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="REPORT.html", help="Write a self-contained page.")
    ] = None,
    png: Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Write a figure for papers.")] = None,
    svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Write a figure for papers.")] = None,
    text: Annotated[bool, typer.Option("--text", help="Print for a terminal; also what happens by default.")] = False,
    width: Annotated[int, typer.Option("--width", min=40, help="Columns of the text.")] = 100,
) -> None:
    """Show a plan: memory map, occupancy, traffic, schedule, costliest tensors, certificate, assumptions."""
    from cosma.cli.output import note, print_text
    from cosma.files import write_atomic
    from cosma.plan.file import load_plan

    loaded = load_plan(plan)
    if output is not None:
        from cosma.report.html import render_html

        write_atomic(output, render_html(loaded))
        note(f"wrote {output}")
    for path, kind in ((png, "png"), (svg, "svg")):
        if path is not None:
            from cosma.report.figure import render_figure

            write_atomic(path, render_figure(loaded, kind))  # type: ignore[arg-type]  # one of the two
            note(f"wrote {path}")
    if text or (output is None and png is None and svg is None):
        from cosma.report.text import render_text

        print_text(render_text(loaded, width).rstrip("\n"))
