"""Options that several commands share, and what they mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cosma.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cosma.accelerator import Accelerator


#: A scratchpad of fewer bytes, written without a unit, is taken for a slip: the smallest preset has 128 KiB.
FEW_BYTES = 2048


def _preset_names() -> list[str]:
    from cosma.accelerator.files import preset_names

    return list(preset_names())


def strategy_names() -> list[str]:
    """Names of strategies, for a shell that completes them."""
    from cosma.compiler.strategies import STRATEGIES

    return list(STRATEGIES)


def tiling_names() -> list[str]:
    """What ``--tiling`` may be but a file, for a shell that completes it."""
    return ["none", "auto", "rows=", "stripes=", "channels=", "weights="]


def solver_names() -> list[str]:
    """Names of back ends and shipped profiles, for a shell that completes them."""
    from cosma.solvers import list_profiles

    return list(list_profiles())


def _element_types() -> list[str]:
    from cosma.graph.dtypes import WIDTH_BITS

    return list(WIDTH_BITS)


Model = Annotated[Path, typer.Argument(metavar="MODEL", help="An .onnx file, or a graph in .json.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Dim = Annotated[
    list[str] | None, typer.Option("--dim", metavar="NAME=N", help="Bind a symbolic dimension; repeat for more.")
]
Bound = Annotated[
    list[str] | None,
    typer.Option(
        "--bound", metavar="TENSOR=N", help="Most that a result can hold whose size is known only at run time."
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="TYPE",
        help="Count every floating-point tensor as this type: int8, float16 ...",
        show_default="as in the model",
        autocompletion=_element_types,
    ),
]
Scratchpad = Annotated[str | None, typer.Option("--scratchpad", metavar="SIZE", help="Capacity, e.g. 512KiB.")]
AcceleratorName = Annotated[
    str | None,
    typer.Option(
        "--accelerator",
        metavar="NAME|FILE.toml",
        help="A preset (`cosma presets` lists them) or a file.",
        autocompletion=_preset_names,
    ),
]
Alignment = Annotated[
    str | None,
    typer.Option(
        "--alignment", metavar="SIZE", help="Alignment of addresses.", show_default="64, or the preset's"
    ),
]
OperandsMode = Annotated[
    str | None,
    typer.Option(
        "--operands",
        metavar="resident|streamable|stationary",
        help="Whether operators may also read and write off-chip: never, at will, or in ways a machine can.",
        show_default="streamable, or the preset's",
        autocompletion=lambda: ["resident", "streamable", "stationary"],
    ),
]
WeightsMode = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="stream|scratchpad",
        help="Whether weights stream past the scratchpad, or lie in it while they are used.",
        show_default="stream, or the preset's",
        autocompletion=lambda: ["stream", "scratchpad"],
    ),
]
Reserved = Annotated[
    str | None,
    typer.Option(
        "--reserved",
        metavar="SIZE|RANGES",
        help="Bytes that are not ours: so many at the top, or ranges such as 0:4KiB,60KiB:64KiB.",
        show_default="0, or the preset's",
    ),
]
InPlace = Annotated[
    bool | None,
    typer.Option(
        "--in-place/--no-in-place",
        help="Whether results may overwrite dying operands.",
        show_default="in-place, or the preset's",
    ),
]
FusionMode = Annotated[
    str | None,
    typer.Option(
        "--fusion",
        metavar="none|epilogue",
        help="Whether elementwise operators may be fused into the operator before them.",
        show_default="none, or the preset's",
        autocompletion=lambda: ["none", "epilogue"],
    ),
]
ConstraintsFile = Annotated[
    Path | None,
    typer.Option(
        "--constraints",
        metavar="FILE.toml",
        help="What a plan must keep to: fixed addresses, what stays or never comes in, order, workspaces ...",
    ),
]
ZeroCopy = Annotated[
    bool | None,
    typer.Option(
        "--zero-copy/--no-zero-copy",
        help="Whether Concat, Split and Slice may leave their operands where they lie.",
        show_default="Concat alone, where the planner chooses tiles; or the preset's",
    ),
]
Pieces = Annotated[
    int | None,
    typer.Option(
        "--pieces",
        metavar="N",
        help="Most address ranges that an operand may consist of.",
        show_default="any number, or the preset's",
    ),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the result here.")]
Table = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE.csv", help="Write a table.")]
Figures = Annotated[
    list[Path] | None,
    typer.Option("--figure", metavar="FILE", help="Draw to FILE.png, .svg or .pdf; repeat for more."),
]
TimeLimit = Annotated[
    float | None, typer.Option("--time-limit", metavar="S", help="Clock limit in seconds; makes runs unrepeatable.")
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Same input, options and seed give the same bytes.")]


def only_with(needed: str, given: Mapping[str, object]) -> None:
    """Refuse options that would do nothing without another one; raises InputError that names them."""
    if idle := [option for option, value in given.items() if value not in (None, False, [])]:
        raise InputError(f"{' and '.join(idle)}: of no use without {needed}")


def parse_sizes(dims: list[str] | None, bounds: list[str] | None) -> dict[str, int]:
    """Sizes from ``--dim`` and ``--bound``.

    Raises InputError if an entry is malformed, or a name is given two sizes.
    """
    sizes = parse_dims(dims)
    for name, size in parse_dims(bounds, "--bound").items():
        if sizes.setdefault(name, size) != size:
            raise InputError(f"--bound {name}={size} contradicts --dim {name}={sizes[name]}")
    return sizes


def parse_states(entries: list[str] | None) -> dict[str, str]:
    """Pairs of a graph output and the input that it continues, from ``--state``.

    Raises InputError if an entry is malformed, or an output is given twice.
    """
    states: dict[str, str] = {}
    for entry in entries or []:
        output, separator, given = entry.partition("=")
        if not (output and separator and given):
            raise InputError(f"--state {entry!r}: write OUTPUT=INPUT, such as present=past")
        if states.setdefault(output, given) != given:
            raise InputError(f"--state {output} is given twice, as {states[output]} and {given}")
    return states


def parse_dims(entries: list[str] | None, option: str = "--dim") -> dict[str, int]:
    """Read ``NAME=N`` pairs; the last ``=`` separates, so names may contain one.

    Raises InputError if an entry is not of that form, N is no whole number, or a name is bound twice.
    """
    dims: dict[str, int] = {}
    for entry in entries or []:
        name, separator, value = entry.rpartition("=")
        if not separator or not name or not (value.isascii() and value.isdigit() and len(value) <= 19):
            raise InputError(f"{option} {entry!r}: write NAME=N with a whole number, such as batch=1")
        if name in dims and dims[name] != int(value):
            raise InputError(f"{option} {name} is given twice, as {dims[name]} and {value}")
        dims[name] = int(value)
    return dims


def _parse_reserved(text: str) -> int | list[list[int]]:
    """Read ``--reserved``: a size at the top, or ranges ``START:STOP`` with commas between."""
    from cosma.units import parse_size

    if ":" not in text:
        return parse_size(text, "--reserved")
    found = []
    for entry in text.split(","):
        ends = entry.split(":")
        if len(ends) != 2:
            raise InputError(f"--reserved {entry!r}: write START:STOP, such as 0:4KiB")
        found.append([parse_size(end.strip(), "--reserved") for end in ends])
    return found


def make_accelerator(
    name: str | None,
    *,
    scratchpad: str | None,
    alignment: str | None,
    operands: str | None,
    weights: str | None,
    reserved: str | None,
    in_place: bool | None,
    fusion: str | None,
    zero_copy: bool | None = None,
    pieces: int | None = None,
) -> Accelerator:
    """Build the accelerator from ``--accelerator`` and whatever options override it.

    Raises InputError if neither a preset nor a capacity is given, or a value is wrong.
    """
    from cosma.accelerator import Accelerator
    from cosma.cli.output import note
    from cosma.units import parse_size

    given: dict[str, Any] = {
        "scratchpad": None if scratchpad is None else parse_size(scratchpad, "--scratchpad"),
        "alignment": None if alignment is None else parse_size(alignment, "--alignment"),
        "reserved": None if reserved is None else _parse_reserved(reserved),
        "operands": operands,
        "weights": weights,
        "in_place": in_place,
        "fusion": fusion,
        "zero_copy": zero_copy,
        "pieces": pieces,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    if scratchpad is not None and scratchpad.isdigit() and given["scratchpad"] < FEW_BYTES:
        note(f"--scratchpad {scratchpad} is {scratchpad} bytes; write {scratchpad}KiB for kibibytes")
    if name is not None:
        from cosma.accelerator.files import find_accelerator

        return find_accelerator(name).accelerator.replace(**changes)
    if "scratchpad" not in changes:
        raise InputError(
            "no accelerator: give --scratchpad SIZE (such as 1MiB) or --accelerator NAME|FILE.toml; "
            "`cosma presets` lists the names"
        )
    return Accelerator(**changes)
