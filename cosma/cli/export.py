"""``cosma export``: plans for whoever executes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cosma.plan import Plan


def export(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.json", help="A plan file.")],
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="By its ending: .h a C header, .csv (or - alone) the instructions, .bin a buffer of TensorFlow Lite "
            "Micro, .tflite the file of --tflite with the plan in it; repeat for more.",
        ),
    ] = None,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="C identifier of the plan.")] = "cosma_plan_data",
    stays: Annotated[
        Path | None, typer.Option("--stays", metavar="FILE.csv", help="One row a stay in the scratchpad.")
    ] = None,
    off_chip: Annotated[
        Path | None, typer.Option("--off-chip", metavar="FILE.csv", help="Where each tensor lies off-chip.")
    ] = None,
    tensors: Annotated[
        Path | None,
        typer.Option("--tensors", metavar="FILE.txt", help="For .bin: names of the .tflite tensors, one a line."),
    ] = None,
    subgraph: Annotated[
        int, typer.Option("--subgraph", metavar="N", min=0, help="For .bin: index of the subgraph.")
    ] = 0,
    tflite: Annotated[
        Path | None,
        typer.Option("--tflite", metavar="MODEL.tflite", help="For .tflite: the file that was planned."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write a plan even if its replay fails.")] = False,
) -> None:
    """Write a plan as a C header, CSV, or TensorFlow Lite Micro's offline memory plan.

    The plan is replayed first: what fails is not handed on.
    """
    from cosma.cli.output import CSV, EXPORT, claim_outputs, deliver
    from cosma.errors import InputError
    from cosma.export import off_chip_csv, stays_csv
    from cosma.files import read_bytes
    from cosma.plan.file import load_plan
    from cosma.validator import examine, invalid

    if (tflite is None) == any(path.suffix.lower() == ".tflite" for path in output or ()):
        raise InputError("--tflite takes the file that was planned, --output FILE.tflite the file to write: give both")
    if not output and stays is None and off_chip is None:
        raise InputError("nothing to write: give --output, --stays or --off-chip with a file")
    outputs = {"--output": (output, EXPORT), "--stays": (stays, CSV), "--off-chip": (off_chip, CSV)}
    claim_outputs(outputs, [plan, tensors, tflite])
    loaded, report = examine(load_plan(plan), str(plan))
    if report.violations and not force:
        raise invalid(f"{plan}: not exported", report)
    names = None
    if tensors is not None:
        names = read_bytes(tensors, "tensor names").decode("utf-8", "replace").splitlines()
    given = None if tflite is None else read_bytes(tflite, "model")
    # Everything is made before anything is written, so that an error leaves no half of it.
    written = [(path, _made(loaded, path.suffix.lower(), name, names, subgraph, given)) for path in output or ()]
    if stays is not None:
        written.append((stays, stays_csv(loaded)))
    if off_chip is not None:
        written.append((off_chip, off_chip_csv(loaded)))
    for path, content in written:
        deliver(path, content, "the export")


def _made(
    plan: Plan, ending: str, name: str, tensors: list[str] | None, subgraph: int, tflite: bytes | None
) -> str | bytes:
    """Write a plan in the form that an ending says."""
    from cosma.export import c_header, instructions_csv, offline_tflite, tflm_metadata

    if ending in (".csv", ""):
        return instructions_csv(plan)
    if ending == ".bin":
        return tflm_metadata(plan, tensors, subgraph=subgraph)
    if ending == ".tflite" and tflite is not None:
        return offline_tflite(plan, tflite)
    return c_header(plan, name)
