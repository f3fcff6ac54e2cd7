"""``cosma report``: a plan as a page, a figure or text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cosma.cli import options
from cosma.errors import InputError

if TYPE_CHECKING:
    from cosma.plan import Plan
    from cosma.plan.costs import Estimate
    from cosma.report.facts import ExistingPlan


def report(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.json", help="A plan file.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="REPORT.html", help="Write a self-contained page.")
    ] = None,
    figure: options.Figures = None,
    text: Annotated[bool, typer.Option("--text", help="Print for a terminal; also what happens by default.")] = False,
    width: Annotated[int, typer.Option("--width", metavar="N", min=40, help="Columns of the text.")] = 100,
    compare: Annotated[
        Path | None, typer.Option("--compare", metavar="OTHER.json", help="Show this plan beside it on the page.")
    ] = None,
    existing: Annotated[
        bool, typer.Option("--existing/--no-existing", help="Plan with existing methods too, for the page's table.")
    ] = True,
    accelerator: Annotated[
        str | None,
        typer.Option("--accelerator", metavar="NAME|FILE.toml", help="Its figures give the page a time axis."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="MODEL", help="Take multiply-accumulates from this model.")
    ] = None,
    dim: options.Dim = None,
    bound: options.Bound = None,
) -> None:
    """Show a plan: memory map, occupancy, traffic, schedule, costliest tensors, certificate, assumptions.

    The plan is replayed first. An invalid one is drawn under a warning, with exit code 4.
    """
    from cosma.cli.output import FIGURE, HTML, claim_outputs, deliver, deliver_figures, print_lines
    from cosma.plan.file import load_plan
    from cosma.validator import examine, invalid

    if output is not None and output.suffix.lower() in FIGURE:
        raise InputError(f"--output writes a page; --figure {output} draws a figure")
    claim_outputs({"--output": (output, HTML), "--figure": (figure, FIGURE)}, [plan, compare, model])
    if output is None:
        options.only_with("a page: give -o REPORT.html", {"--compare": compare, "--accelerator": accelerator})
    if accelerator is None:
        options.only_with("--accelerator", {"--model": model})
    if model is None:
        options.only_with("--model", {"--dim": dim, "--bound": bound})
    loaded = load_plan(plan)
    _, replayed = examine(loaded, str(plan))
    if output is not None:
        from cosma.cli.plans import load_valid_plan
        from cosma.report.html import render_html

        other = None if compare is None else load_valid_plan(compare)
        beside: tuple[ExistingPlan, ...] = ()
        if existing and replayed.valid:
            from cosma.studies.existing import existing_plans

            beside = existing_plans(loaded)
        estimate = _estimate(loaded, accelerator, model, dim, bound) if replayed.valid else None
        page = render_html(
            loaded,
            compare=other,
            existing=beside,
            estimate=estimate,
            compare_estimate=None if other is None else _estimate(other, accelerator, model, dim, bound),
        )
        deliver(output, page, "the page")
    if figure:
        from cosma.report.figure import render_figure

        deliver_figures(figure, lambda kind: render_figure(loaded, kind))
    if text or not (output or figure):
        from cosma.report.text import render_text

        print_lines(render_text(loaded, width).rstrip("\n"))
    if not replayed.valid:
        raise invalid(str(plan), replayed)


def _estimate(
    plan: Plan, accelerator: str | None, model: Path | None, dim: list[str] | None, bound: list[str] | None
) -> Estimate | None:
    from cosma.cli.trace import estimated_by, macs_of
    from cosma.plan.costs import estimate

    if accelerator is None:
        return None
    macs = None if model is None else macs_of(plan, model, options.parse_sizes(dim, bound))
    return estimate(plan, estimated_by(plan, accelerator), macs=macs)
