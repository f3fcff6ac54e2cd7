"""``cosma export``: plans for whoever executes them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.json", help="A plan file.")],
    c: Annotated[Path | None, typer.Option("--c", metavar="FILE.h", help="C header with all tables.")] = None,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="C identifier of the plan.")] = "cosma_plan_data",
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="One row an instruction.")] = None,
    stays: Annotated[
        Path | None, typer.Option("--stays", metavar="FILE", help="CSV, one row a stay in the scratchpad.")
    ] = None,
    off_chip: Annotated[
        Path | None, typer.Option("--off-chip", metavar="FILE", help="CSV, where each tensor lies off-chip.")
    ] = None,
    tflm: Annotated[
        Path | None,
        typer.Option("--tflm", metavar="FILE.bin", help="Buffer of TensorFlow Lite Micro's OfflineMemoryAllocation."),
    ] = None,
    tensors: Annotated[
        Path | None,
        typer.Option("--tensors", metavar="FILE.txt", help="For --tflm: names of the .tflite tensors, one a line."),
    ] = None,
    subgraph: Annotated[
        int, typer.Option("--subgraph", metavar="N", min=0, help="For --tflm: index of the subgraph.")
    ] = 0,
    tflite: Annotated[
        Path | None,
        typer.Option("--tflite", metavar="MODEL.tflite", help="The file that was planned, to be written anew."),
    ] = None,
    tflite_output: Annotated[
        Path | None,
        typer.Option("--tflite-output", metavar="FILE.tflite", help="For --tflite: the file with the plan in it."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write a plan even if its replay fails.")] = False,
) -> None:
    """Write a plan as a C header, CSV, or TensorFlow Lite Micro's offline memory plan.

    The plan is replayed first: what fails is not handed on.
    """
    from cosma.cli.output import BINARY, CSV, HEADER, TFLITE, claim_outputs, deliver
    from cosma.errors import InputError
    from cosma.export import c_header, instructions_csv, off_chip_csv, offline_tflite, stays_csv, tflm_metadata
    from cosma.files import read_bytes
    from cosma.plan.file import load_plan
    from cosma.validator import examine, invalid

    if (tflite is None) != (tflite_output is None):
        raise InputError("--tflite takes the file that was planned, --tflite-output the file to write: give both")
    if all(file is None for file in (c, csv, stays, off_chip, tflm, tflite)):
        raise InputError(
            "nothing to write: give --c, --csv, --stays, --off-chip, --tflm or --tflite-output with a file"
        )
    claim_outputs(
        {
            "--c": (c, HEADER), "--csv": (csv, CSV), "--stays": (stays, CSV), "--off-chip": (off_chip, CSV),
            "--tflm": (tflm, BINARY), "--tflite-output": (tflite_output, TFLITE),
        }
    )  # fmt: skip
    loaded, report = examine(load_plan(plan), str(plan))
    if report.violations and not force:
        raise invalid(f"{plan}: not exported", report)
    names = None
    if tensors is not None:
        names = read_bytes(tensors, "tensor names").decode("utf-8", "replace").splitlines()
    written: list[tuple[Path | None, str | bytes]] = []
    # Everything is made before anything is written, so that an error leaves no half of it.
    if tflm is not None:
        written.append((tflm, tflm_metadata(loaded, names, subgraph=subgraph)))
    if tflite is not None:
        written.append((tflite_output, offline_tflite(loaded, read_bytes(tflite, "model"))))
    if c is not None:
        written.append((c, c_header(loaded, name)))
    if csv is not None:
        written.append((csv, instructions_csv(loaded)))
    if stays is not None:
        written.append((stays, stays_csv(loaded)))
    if off_chip is not None:
        written.append((off_chip, off_chip_csv(loaded)))
    for path, content in written:
        assert path is not None
        deliver(path, content, "the export")
