"""``cosma curve``: traffic against capacity."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cosma.cli import options

if TYPE_CHECKING:
    from cosma.studies.curve import Curve


def curve(
    model: options.Model,
    accelerator: options.AcceleratorName = None,
    alignment: options.Alignment = None,
    operands: options.OperandsMode = None,
    weights: options.WeightsMode = None,
    reserved: options.Reserved = None,
    in_place: options.InPlace = None,
    fusion: options.FusionMode = None,
    dtype: options.Dtype = None,
    dim: options.Dim = None,
    bound: options.Bound = None,
    strategy: Annotated[str, typer.Option("--strategy", help="How each point is planned.")] = "auto",
    effort: Annotated[float, typer.Option("--effort", metavar="S", help="Work on each point, nominal seconds.")] = 1.0,
    points: Annotated[int, typer.Option("--points", help="How many capacities.")] = 16,
    lowest: Annotated[str | None, typer.Option("--from", metavar="SIZE", help="Smallest capacity.")] = None,
    highest: Annotated[str | None, typer.Option("--to", metavar="SIZE", help="Largest capacity.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write the points here.")] = None,
    png: Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Write a figure.")] = None,
    svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Write a figure.")] = None,
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Show how much traffic each capacity costs, with lower bounds, and where more capacity stops paying.

    From the smallest feasible capacity to one at which nothing is spilled. Knees are marked. Ctrl-C ends the work and
    keeps the points that are finished; without one, the exit code is 130.
    """
    from cosma.cli.interrupts import Interruption
    from cosma.cli.output import CSV, PNG, SVG, claim_outputs, deliver, note, print_json
    from cosma.compiler.compile import read_model
    from cosma.studies.curve import make_curve
    from cosma.studies.curve_views import curve_csv, curve_figure
    from cosma.units import parse_size

    claim_outputs({"--csv": (csv, CSV), "--png": (png, PNG), "--svg": (svg, SVG)}, json=json)
    # Any capacity does: the curve replaces it.
    stand_in = None if accelerator is not None else str(2**40)
    chosen = options.make_accelerator(
        accelerator, scratchpad=stand_in, alignment=alignment, operands=operands, weights=weights,
        reserved=reserved, in_place=in_place, fusion=fusion,
    )  # fmt: skip
    source = read_model(model, options.parse_sizes(dim, bound))
    graph = source.graph
    graph = graph if dtype is None else graph.with_dtype(dtype)
    if chosen.operands == "stationary":
        from cosma.access.modes import with_modes

        graph = with_modes(graph, source.sites, keep_weights=chosen.weights == "scratchpad")
    with Interruption(grace_s=0.0):
        found = make_curve(
            graph,
            chosen,
            strategy=strategy,
            effort=effort,
            points=points,
            lowest=None if lowest is None else parse_size(lowest, "--from"),
            highest=None if highest is None else parse_size(highest, "--to"),
            seed=seed,
            progress=_progress,
            on_interrupt="best",
        )
    if sys.stderr.isatty():
        sys.stderr.write("\r" + " " * 40 + "\r")
    if found.partial:
        note(f"interrupted: this curve is partial, {len(found.points)} of {points} points")
    if csv is not None:
        deliver(csv, curve_csv(found), "the curve")
    if png is not None:
        deliver(png, curve_figure(found, "png"), "the figure")
    if svg is not None:
        deliver(svg, curve_figure(found, "svg"), "the figure")
    if json:
        print_json(_record(found))
    else:
        _print(found)


def _progress(done: int, of: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\rpoint {done + 1} of {of}")
        sys.stderr.flush()


def _record(found: Curve) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "model": found.model,
        "accelerator": found.accelerator.describe(),
        "compulsory": found.compulsory_bytes,
        "smallest_feasible": found.smallest_bytes,
        "nothing_spilled": found.enough_bytes,
        "partial": found.partial,
        "points": [asdict(point) for point in found.points],
    }


def _print(found: Curve) -> None:
    from cosma.cli.output import make_table, print_lines, print_table, print_text, share
    from cosma.studies.curve_views import curve_text
    from cosma.units import format_size

    columns = ("scratchpad", "bytes", "non-compulsory", "lower bound", "gap", "")
    table = make_table(
        f"{found.model}: traffic against capacity; compulsory {format_size(found.compulsory_bytes)}",
        columns,
        right=(0, 1, 2, 3, 4),
    )
    for p in found.points:
        table.add_row(
            format_size(p.capacity_bytes), str(p.capacity_bytes), format_size(p.noncompulsory_bytes),
            format_size(p.bound_bytes), share(p.noncompulsory_bytes - p.bound_bytes, p.noncompulsory_bytes),
            "knee" if p.knee else "",
        )  # fmt: skip
    print_table(table)
    print_lines(curve_text(found).rstrip("\n"))
    print_text()
    print_text(
        f"smallest feasible {format_size(found.smallest_bytes)}; nothing spilled in a known order from "
        f"{format_size(found.enough_bytes)}; assumed: {found.accelerator.describe().split(', ', 1)[1]}"
    )
