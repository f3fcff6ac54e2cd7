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
    """Show a plan: memory map, occupancy, traffic, schedule, costliest tensors, certificate, assumptions.

    The plan is replayed first. An invalid one is drawn under a warning, with exit code 4.
    """
    from cosma.cli.output import HTML, PNG, SVG, claim_outputs, deliver, print_lines
    from cosma.plan.file import load_plan
    from cosma.validator import examine, invalid

    claim_outputs({"--output": (output, HTML), "--png": (png, PNG), "--svg": (svg, SVG)})
    loaded = load_plan(plan)
    _, replayed = examine(loaded, str(plan))
    if output is not None:
        from cosma.report.html import render_html

        deliver(output, render_html(loaded), "the page")
    for path, kind in ((png, "png"), (svg, "svg")):
        if path is not None:
            from cosma.report.figure import render_figure

            deliver(path, render_figure(loaded, kind), "the figure")  # type: ignore[arg-type]  # one of the two
    if text or (output is None and png is None and svg is None):
        from cosma.report.text import render_text

        print_lines(render_text(loaded, width).rstrip("\n"))
    if not replayed.valid:
        raise invalid(str(plan), replayed)
