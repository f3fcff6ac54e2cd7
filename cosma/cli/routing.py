"""Options of commands that read routing traces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cosma.errors import InputError

if TYPE_CHECKING:
    from cosma.placement.traces import Trace

TracePath = Annotated[
    Path, typer.Argument(metavar="TRACE", help="Routing trace or counts: .npy, .npz, .json, .jsonl, .csv.")
]
ArrayOption = Annotated[
    str | None, typer.Option("--array", metavar="ARRAY", help="Array of an archive; default profile.")
]
ExpertsOption = Annotated[
    int | None, typer.Option("--experts", metavar="N", help="Experts per layer, if the trace may miss some.")
]
KindOption = Annotated[
    str | None,
    typer.Option("--kind", metavar="NAME", help="trace, load or transitions, where the file can be several things."),
]
DenseOption = Annotated[
    str | None, typer.Option("--dense-layers", metavar="N,N,...", help="Layers of the model without experts.")
]
ShapeOption = Annotated[
    str | None,
    typer.Option("--routing-shape", metavar="L,K", help="Layers and experts per token of base64 texts without shape."),
]


def open_given(
    path: Path, array: str | None, kind: str | None, dense: str | None, shape: str | None
) -> Trace:  # fmt: skip
    """Open the trace that the options describe."""
    from cosma.placement import open_trace

    return open_trace(path, array, kind=kind, dense=parse_layers(dense), shape=_parse_shape(shape))


def parse_layers(text: str | None) -> tuple[int, ...]:
    """Read layer numbers and ranges such as ``0,1,2`` or ``0-2,5``; raises InputError if the text is no such list."""
    found: list[int] = []
    for part in (text or "").split(",") if text is not None else []:
        first, dash, last = part.strip().partition("-")
        is_range = first.isdecimal() and (last.isdecimal() if dash else True) and max(len(first), len(last)) <= 6
        if not is_range or int(first) > int(last or first):
            raise InputError(f"--dense-layers {text!r}: write layer numbers from 0, such as 0,1,2 or 0-2")
        found.extend(range(int(first), int(last or first) + 1))
    return tuple(sorted(set(found)))


def _parse_shape(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.replace("x", ",").split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() and 0 < int(part) < 10**6 for part in parts):
        raise InputError(f"--routing-shape {text!r}: write layers and experts per token, such as 61,8")
    return int(parts[0]), int(parts[1])
