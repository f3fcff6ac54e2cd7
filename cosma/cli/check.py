"""``cosma check``: replay anyone's plan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cosma.cli import options

#: Violations shown before the rest is only counted.
SHOWN = 20


def check(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.json", help="A plan file, ours or a foreign one.")],
    model: Annotated[
        Path | None, typer.Argument(metavar="[MODEL]", help="Also check that the plan covers this model.")
    ] = None,
    dim: options.Dim = None,
    bound: options.Bound = None,
    json: options.Json = False,
) -> None:
    """Replay a plan: is it valid, and does it cost what it says?

    Exit code 0 if it is valid, 4 if not.
    """
    from cosma.cli.output import print_json, print_text
    from cosma.errors import PlanInvalidError
    from cosma.plan.file import load_plan
    from cosma.units import format_size
    from cosma.validator import replay

    loaded = load_plan(plan)
    graph = None
    if model is not None:
        from cosma.accelerator import Fusion
        from cosma.compiler.compile import read_model
        from cosma.graph.fusion import fuse_epilogues

        graph = read_model(model, loaded.sizes(options.parse_sizes(dim, bound))).graph
        graph = graph if loaded.dtype is None else graph.with_dtype(loaded.dtype)
        graph = fuse_epilogues(graph) if loaded.accelerator.fusion == Fusion.EPILOGUE else graph
    report = replay(loaded, graph, model=model)
    if json:
        print_json(
            {
                "valid": report.valid,
                "violations": [
                    {"verdict": v.verdict, "instruction": v.instruction, "message": v.message}
                    for v in report.violations
                ],
                "traffic": {
                    "total": report.traffic.total,
                    "compulsory": report.traffic.compulsory,
                    "noncompulsory": report.traffic.noncompulsory,
                    "loaded": report.traffic.loaded,
                    "stored": report.traffic.stored,
                    "streamed": report.traffic.streamed,
                },
                "peak": report.peak_bytes,
                "transfers": report.transfers,
            }
        )
    elif report.valid:
        covers = f", covers {model}" if model is not None else ""
        traffic = report.traffic
        print_text(
            f"valid: {len(loaded.instructions)} instructions, {len(loaded.graph.operators)} operators{covers}; "
            f"non-compulsory {format_size(traffic.noncompulsory)} of {format_size(traffic.total)} traffic, "
            f"peak {format_size(report.peak_bytes)}"
        )
    if report.valid:
        return
    shown = [f"  {violation}" for violation in report.violations[:SHOWN]]
    if len(report.violations) > SHOWN:
        shown.append(f"  and {len(report.violations) - SHOWN} more; --json lists all")
    raise PlanInvalidError(f"{plan}: invalid, {len(report.violations)} violations").with_details(shown)
