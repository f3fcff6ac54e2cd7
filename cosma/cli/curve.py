"""``cosma curve``: traffic against capacity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cosma.cli import options

if TYPE_CHECKING:
    from cosma.cli.safe_table import SafeTable
    from cosma.studies.points import Curve


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
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy", metavar="NAME", help="How each point is planned.", autocompletion=options.strategy_names
        ),
    ] = "auto",
    effort: Annotated[
        float, typer.Option("--effort", metavar="N", help="Work on each point, as for compile.")
    ] = 1.0,
    points: Annotated[int, typer.Option("--points", metavar="N", help="How many capacities.")] = 16,
    lowest: Annotated[str | None, typer.Option("--from", metavar="SIZE", help="Smallest capacity.")] = None,
    highest: Annotated[str | None, typer.Option("--to", metavar="SIZE", help="Largest capacity.")] = None,
    output: options.Table = None,
    figure: options.Figures = None,
    tiling: Annotated[
        str, typer.Option(
            "--tiling", metavar="none|auto|RULE|FILE.toml",
            help="Cut operators into tiles; whole ones stand beside them.", autocompletion=options.tiling_names,
        ),
    ] = "none",
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Show how much traffic each capacity costs, with lower bounds, and where more capacity stops paying.

    From the smallest feasible capacity to one at which nothing is spilled. Knees are marked. With --tiling, plans of
    tiles and of whole operators are in one table, one file and one figure. Ctrl-C ends the work and keeps the points
    that are finished, the first one with the best plan so far; before there is a plan, the exit code is 130.
    """
    from cosma.cli.interrupts import GRACE_S, Interruption
    from cosma.cli.output import CSV, FIGURE, claim_outputs, deliver, deliver_figures, note, print_json
    from cosma.compiler.request import read_model
    from cosma.studies.curve import make_curve
    from cosma.studies.curve_views import curve_csv, render_curve
    from cosma.terminal import StatusLine
    from cosma.units import parse_size

    claim_outputs({"--output": (output, CSV), "--figure": (figure, FIGURE)}, [model], json=json)
    # Any capacity does: the curve replaces it.
    stand_in = None if accelerator is not None else str(2**40)
    chosen = options.make_accelerator(
        accelerator, scratchpad=stand_in, alignment=alignment, operands=operands, weights=weights,
        reserved=reserved, in_place=in_place, fusion=fusion,
    )  # fmt: skip
    source = read_model(model, options.parse_sizes(dim, bound))
    line = StatusLine()
    with Interruption() as interruption:

        def progress(done: int, of: int) -> None:
            # The first point may finish what it has; with a point at hand, no other one is waited for.
            interruption.grace_s = GRACE_S if done == 0 else 0.0
            line.write(f"point {done + 1} of {of}")

        found = make_curve(
            source, chosen, strategy=strategy, effort=effort, points=points, seed=seed, dtype=dtype, tiling=tiling,
            lowest=None if lowest is None else parse_size(lowest, "--from"),
            highest=None if highest is None else parse_size(highest, "--to"),
            progress=progress, interrupted=interruption.happened, on_interrupt="best",
        )  # fmt: skip
    line.write()
    if found.partial:
        note(f"interrupted: this curve is partial, {len(found.points)} of {points} points")
    if output is not None:
        deliver(output, curve_csv(found), "the curve")
    deliver_figures(figure, lambda kind: render_curve(found, kind))
    if json:
        print_json(_record(found))
    else:
        _print(found)


def _record(found: Curve) -> dict[str, Any]:
    from dataclasses import asdict

    record = {
        "model": found.model,
        "accelerator": found.accelerator.describe(),
        "compulsory": found.compulsory_bytes,
        "smallest_feasible": found.smallest_bytes,
        "nothing_spilled": found.enough_bytes,
        "partial": found.partial,
        "points": [asdict(point) for point in found.points],
    }
    if found.tiling != "none":
        record["tiling"] = found.tiling
        record["nothing_twice"] = {
            "tiles": found.once_bytes,
            "whole": found.once_whole_bytes,
            "proven_impossible_up_to": found.never_once_bytes,
        }
    return record


def _print(found: Curve) -> None:
    from cosma.cli.output import print_lines, print_table, print_text
    from cosma.studies.curve_views import curve_text
    from cosma.units import format_size

    print_table(_plain_table(found) if found.tiling == "none" else _tiled_table(found))
    print_lines(curve_text(found).rstrip("\n"))
    print_text()
    if found.tiling != "none":
        for line in _once(found):
            print_text(line)
    print_text(
        f"smallest feasible {'' if found.tiling == 'none' else 'for whole operators '}"
        f"{format_size(found.smallest_bytes)}; nothing spilled in a known order from "
        f"{format_size(found.enough_bytes)}; assumed: {found.accelerator.describe().split(', ', 1)[1]}"
    )


def _plain_table(found: Curve) -> SafeTable:
    from cosma.cli.output import make_table, share
    from cosma.studies.curve_views import knee_text
    from cosma.units import format_size

    columns = ("scratchpad", "bytes", "non-compulsory", "lower bound", "gap", "")
    table = make_table(_title(found), columns, right=(0, 1, 2, 3, 4))
    for p in found.points:
        table.add_row(
            format_size(p.capacity_bytes), str(p.capacity_bytes), format_size(p.noncompulsory_bytes),
            format_size(p.bound_bytes), share(p.noncompulsory_bytes - p.bound_bytes, p.noncompulsory_bytes),
            knee_text(p),
        )  # fmt: skip
    return table


def _tiled_table(found: Curve) -> SafeTable:
    """What tiles and whole operators cost, non-compulsory, with the bounds of each."""
    from cosma.cli.output import make_table
    from cosma.studies.curve_views import knee_text
    from cosma.units import format_size

    columns = ("scratchpad", "bytes", "whole", "bound", "tiles", "of these", "of any", "count", "transfers", "")
    table = make_table(_title(found), columns, right=tuple(range(9)))
    for p in found.points:
        whole, tiles = p.whole, p.tiles
        cells = ["no plan", ""]
        if whole is not None and whole.noncompulsory_bytes is not None:
            cells = [format_size(whole.noncompulsory_bytes), format_size(whole.bound_bytes)]
        of_these, count, transfers = "", "", ""
        if tiles is not None:
            of_these, count, transfers = format_size(tiles.bound_bytes), str(tiles.count), str(tiles.transfers)
        cells += [format_size(p.noncompulsory_bytes), of_these, format_size(p.bound_bytes), count, transfers]
        table.add_row(format_size(p.capacity_bytes), str(p.capacity_bytes), *cells, knee_text(p))
    return table


def _title(found: Curve) -> str:
    from cosma.units import format_size

    what = "traffic" if found.tiling == "none" else "non-compulsory traffic of whole operators and of tiles"
    return f"{found.model}: {what} against capacity; compulsory {format_size(found.compulsory_bytes)}"


def _once(found: Curve) -> list[str]:
    """From which scratchpad nothing moves twice."""
    from cosma.units import format_exact, format_size

    lines = []
    if found.once_bytes is None:
        lines.append("no plan that moves nothing twice was found in this range")
    else:
        line = f"nothing moves twice: with tiles from {format_exact(found.once_bytes)}"
        if found.once_whole_bytes is not None:
            line += f", with whole operators from {format_size(found.once_whole_bytes)}"
        lines.append(line)
    if found.never_once_bytes is not None:
        lines.append(
            f"proven: up to {format_size(found.never_once_bytes)} every tiling moves something twice"
        )
    return lines
